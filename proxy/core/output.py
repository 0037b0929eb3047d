"""The output items of a response while they are written (RESPONSES 5.3).

Deltas go to the one item that is open. A call can't close before its arguments are whole; what arrives for other items
until then waits, in order of first appearance, so that items never overlap.
"""

import re
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from proxy.core.deltas import Annotation, Call, Delta, Reasoning, Refusal, Summary, Text
from proxy.core.kinds import FUNCTION_CALL, OUTPUT_TEXT, PREFIXES, REASONING_TEXT, REFUSAL, SUMMARY_TEXT, TextKind
from proxy.core.numbers import Numbers
from proxy.core.open_items import OpenCall, OpenText, Part
from proxy.wire.events import Event

Shown = Literal["content", "summary", "both", "hidden"]
"""How the model's thought is shown (RESPONSES 4.3.2)."""

_CALL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class CallState:
    """What is known of one call of this turn. held: arguments that came before its name."""

    __slots__ = ("closed", "held", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.held: list[str] = []
        self.closed = False


class Waiting:
    """Deltas of one item that wait until the open call is whole. index: of a call, None for text of any kind."""

    __slots__ = ("deltas", "index")

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.deltas: list[Delta] = []


class Output:
    """Makes items of deltas, one open at a time, and the events that tell of them.

    taken: call ids that the conversation has already; a new call never gets one of them.

    live_class: a delta of this class without log probabilities is plain: it may go to write_plain(), the hot path.
    notes: oddities worth a line in the log.
    """

    def __init__(self, numbers: Numbers, ids: Callable[[str], str], reasoning: Shown, taken: set[str]) -> None:
        self.live_class: type[Delta] | None = None
        self.notes: list[str] = []
        self._numbers = numbers
        self._ids = ids
        self._reasoning = reasoning
        self._taken = taken
        self._done: list[bytes] = []
        self._live: Part | None = None  # where a plain delta goes
        self._text: OpenText | None = None
        self._call: OpenCall | None = None
        self._call_index: int | None = None
        self.begin_turn()

    def begin_turn(self) -> None:
        self._calls: dict[int, CallState] = {}
        self._waiting: deque[Waiting] | None = None  # made when it is needed: it weighs 0.6 KB
        self._places: dict[int | None, Waiting] = {}  # where more of the same may go
        self._logprobs: list[Any] = []  # came without text: they go with the next one
        self._annotations: list[Any] = []  # came before the text that they belong to

    def items(self, status: bytes) -> list[bytes]:
        """What there is, the open item with this status."""
        item = self._call or self._text
        return [*self._done, item.json(status)] if item is not None else self._done

    @property
    def is_empty(self) -> bool:
        """Whether no item has been finished."""
        return not self._done

    def write_plain(self, texts: list[str]) -> list[Event]:
        """The texts of a run of plain deltas."""
        part = self._live
        assert part is not None
        part.fresh += texts
        part.settle()
        return self._numbers.deltas(part.type, part.head, texts)

    def write(self, delta: Delta, events: list[Event]) -> None:
        """Any delta that is a part of an item."""
        if isinstance(delta, Call):
            self._hear(delta, events)
        else:
            self._arrive(None, delta, events)

    def end_turn(self, *, cut: bool, events: list[Event]) -> None:
        """Close everything that the turn has opened.

        cut: by a limit. What is being written is incomplete then, what came before it is not.
        """
        if self._calls:
            self._name_orphans(events)
        while self._waiting:
            self._flush_next(events)
        self.close(cut=cut, events=events)
        for index, call in self._calls.items():
            if not call.name:
                self.notes.append(f"a call without a name was dropped ({index})")
        for annotation in self._annotations:
            self.notes.append(f"an annotation without a text was dropped: {annotation}")

    def add_empty_message(self, events: list[Event]) -> None:
        """For a model that has said nothing: clients expect some output."""
        self._open_text(OUTPUT_TEXT, events).open_part(OUTPUT_TEXT, events)
        self.close(cut=False, events=events)

    def close(self, *, cut: bool, events: list[Event]) -> None:
        """Close whatever is open. A call that is not whole JSON is incomplete in any case (pitfall 47)."""
        self._live = self.live_class = None
        status = b"incomplete" if cut else b"completed"
        if (call := self._call) is not None:
            if not cut and not call.input.pieces:
                call.write("{}", events)  # pitfall 46
            self._done.append(call.close(b"completed" if call.input.is_whole() else b"incomplete", events))
            self._calls[self._call_index].closed = True  # type: ignore[index]
            self._call = self._call_index = None
        elif (text := self._text) is not None:
            if self._reasoning == "both" and text.type == b"reasoning":
                self._repeat_as_summary(text, status, events)
            elif self._logprobs and text.part is not None and text.part.kind is OUTPUT_TEXT:
                text.write(OUTPUT_TEXT, "", self._logprobs, events)  # of an end-of-text token, which has no text
                self._logprobs = []
            self._done.append(text.close(status, events))
            self._text = None

    def _hear(self, delta: Call, events: list[Event]) -> None:
        """A piece of a call: it appears in the stream once its name is known."""
        call = self._calls.setdefault(delta.index, CallState())
        call.id = call.id or delta.id
        if not call.name and not delta.name:
            call.held.append(delta.arguments)
            return
        if call.closed:
            if delta.arguments.strip():
                self.notes.append(f"arguments after the end of call {call.name} were dropped")
            return
        if not call.name:  # pitfall 20: the first name counts, later ones are repeats
            call.name = delta.name
        arguments = "".join((*call.held, delta.arguments))
        call.held.clear()
        self._arrive(delta.index, Call(delta.index, call.id, call.name, arguments), events)

    def _arrive(self, index: int | None, delta: Delta, events: list[Event]) -> None:
        """Hand a delta to its item, or let it wait. index: of its call, None for text of any kind."""
        call = self._call
        if call is None or index == self._call_index:
            self._apply(delta, events)
        elif not self._waiting and call.input.is_whole():
            self.close(cut=False, events=events)
            self._apply(delta, events)
        else:
            self._wait(index, delta)
        while self._waiting and (self._call is None or self._call.input.is_whole()):
            self._flush_next(events)

    def _wait(self, index: int | None, delta: Delta) -> None:
        place = self._places.get(index)
        if place is None:
            self._places.pop(None, None)  # text that comes later comes behind this
            place = self._places[index] = Waiting(index)
            self._waiting = self._waiting or deque()
            self._waiting.append(place)
        place.deltas.append(delta)

    def _flush_next(self, events: list[Event]) -> None:
        self.close(cut=False, events=events)
        assert self._waiting is not None
        place = self._waiting.popleft()
        if self._places.get(place.index) is place:
            del self._places[place.index]
        for delta in place.deltas:
            self._apply(delta, events)

    def _apply(self, delta: Delta, events: list[Event]) -> None:
        """Write a delta whose turn it is. Everything that is open but the delta's own item closes first."""
        match delta:
            case Text():
                self._write(OUTPUT_TEXT, delta.text, delta.logprobs, events)
            case Refusal():
                self._write(REFUSAL, delta.text, None, events)
            case Reasoning() | Summary():
                self._think(delta, events)
            case Annotation():
                if self._text is None or not self._text.annotate(delta.annotation, events):
                    self._annotations.append(delta.annotation)
            case Call():
                self._write_call(delta, events)

    def _write(self, kind: TextKind, text: str, logprobs: list[Any] | None, events: list[Event]) -> None:
        if kind is OUTPUT_TEXT and (logprobs or self._logprobs):
            logprobs = self._logprobs + (logprobs or [])
            self._logprobs = []
        if not text:
            if logprobs:
                self._logprobs = logprobs
                self.live_class = None  # the next delta takes them with it
            return
        item = self._text
        if item is None or item.type != kind.item:
            item = self._open_text(kind, events)
        item.write(kind, text, logprobs, events)
        for annotation in self._annotations if kind is OUTPUT_TEXT else ():
            item.annotate(annotation, events)
        if kind is OUTPUT_TEXT:
            self._annotations = []
        self._live = item.part
        self.live_class = Text if kind is OUTPUT_TEXT else None

    def _think(self, delta: Reasoning | Summary, events: list[Event]) -> None:
        if self._reasoning == "hidden":
            if self._text is None or self._text.type != b"reasoning":
                self._open_text(REASONING_TEXT, events)
            return
        summary = self._reasoning == "summary" or delta.__class__ is Summary
        self._write(SUMMARY_TEXT if summary else REASONING_TEXT, delta.text, None, events)
        self.live_class = delta.__class__ if delta.text else None

    def _open_text(self, kind: TextKind, events: list[Event]) -> OpenText:
        self.close(cut=False, events=events)
        item_id, shows_content = self._ids(PREFIXES[kind.item]), self._reasoning != "summary"
        item = OpenText(self._numbers, kind.item, item_id, len(self._done), shows_content=shows_content)
        item.open(events)
        self._text = item
        return item

    def _write_call(self, delta: Call, events: list[Event]) -> None:
        call = self._call
        if call is None or delta.index != self._call_index:
            self.close(cut=False, events=events)
            item_id, call_id = self._ids(FUNCTION_CALL.prefix), self._call_id(delta.id)
            call = OpenCall(self._numbers, FUNCTION_CALL, item_id, len(self._done), call_id, delta.name)
            call.open(events)
            self._call, self._call_index = call, delta.index
        if delta.arguments:
            call.write(delta.arguments, events)

    def _call_id(self, said: str) -> str:
        """The upstream's id if it can serve as ours, else a new one: some say `call_0` in each turn (RESPONSES 4.1)."""
        call_id = said if _CALL_ID.fullmatch(said) and said not in self._taken else self._ids("call_")
        self._taken.add(call_id)
        return call_id

    def _repeat_as_summary(self, item: OpenText, status: bytes, events: list[Event]) -> None:
        if item.part is not None and item.part.kind is REASONING_TEXT:
            text = item.part.text()
            item.close_part(status, events)
            item.write(SUMMARY_TEXT, text, None, events)

    def _name_orphans(self, events: list[Event]) -> None:
        """Arguments that came under a number of their own belong to the one call that has none (pitfall 19)."""
        orphans = [call for call in self._calls.values() if not call.name and any(call.held)]
        named = [call for call in self._calls.values() if call.name]
        if len(orphans) == len(named) == 1 and self._call is not None and not self._call.input.pieces:
            self._call.write("".join(orphans[0].held), events)
            orphans[0].name = named[0].name
