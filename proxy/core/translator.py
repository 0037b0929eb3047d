"""The translator: deltas of an upstream -> events of one response. Pure; ids and time are given to it.

It owns ids, indexes, numbers and the end: whatever comes in, the stream that goes out is well formed (RESPONSES 5.1).
Deltas go to the one item that is open. A call can't close before its arguments are whole; what arrives for other items
until then waits, in order of first appearance, so that items never overlap (5.3).
"""

import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from proxy.core.deltas import (
    Accepted,
    Annotation,
    Call,
    Delta,
    End,
    Finish,
    Reasoning,
    Refusal,
    Summary,
    Text,
    Tier,
    Usage,
)
from proxy.core.kinds import FUNCTION_CALL, OUTPUT_TEXT, PREFIXES, REASONING_TEXT, REFUSAL, SUMMARY_TEXT, TextKind
from proxy.core.numbers import Numbers
from proxy.core.open_items import OpenCall, OpenText, Part
from proxy.core.snapshot import Snapshot, usage_json
from proxy.errors import ProxyError
from proxy.wire.events import Event

_CALL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

Shown = Literal["content", "summary", "both", "hidden"]


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


class Translator:
    """One response.

    echo: the constant part of every snapshot, from wire.create.echo.
    ids: makes an id from a prefix. clock: seconds since 1970.
    reasoning: how the model's thought is shown (RESPONSES 4.3.2).
    taken: call ids that the conversation has already; a new call never gets one of them.

    id: of the response. started, ended: whether the first and the terminal event have been made.
    error: why the response failed, or None. notes: oddities worth a line in the log.
    """

    def __init__(
        self,
        echo: bytes,
        ids: Callable[[str], str],
        clock: Callable[[], int],
        *,
        reasoning: Shown = "content",
        taken: set[str] | None = None,
        tier: str = "auto",
        pad: Callable[[int], str] | None = None,
    ) -> None:
        self.ids = ids
        self.clock = clock
        self.reasoning = reasoning
        self.numbers = Numbers(pad)
        self.id = ids("resp_")
        self.snapshot = Snapshot(self.id, clock(), echo, tier)
        self.error: ProxyError | None = None
        self.notes: list[str] = []
        self.started = False
        self.ended = False
        self._taken = set(taken or ())
        self._output: list[msgspec.Raw] = []
        self._live: Part | None = None  # where the next plain delta of class _live_class goes, the hot path
        self._live_class: type[Delta] | None = None
        self._text: OpenText | None = None
        self._call: OpenCall | None = None
        self._call_index: int | None = None
        self._usage = Usage()
        self._spent: list[Usage] = []
        self._begin_turn()

    @property
    def response(self) -> bytes:
        """The snapshot that the newest lifecycle event carried."""
        return self.snapshot.last

    @property
    def status(self) -> str:
        return self.snapshot.status

    @property
    def tokens(self) -> tuple[int, int]:
        """Of input and output, as far as the upstream has said."""
        turns = (*self._spent, self._usage)
        return sum(turn.input for turn in turns), sum(turn.output for turn in turns)

    def start(self) -> list[Event]:
        """The two events that begin the stream; [] when it has begun."""
        if self.started:
            return []
        self.started = True
        now = self.snapshot.json()
        event = self.numbers.event
        return [event("response.created", response=now), event("response.in_progress", response=now)]

    def progress(self) -> list[Event]:
        """A sign of life for clients that count events only."""
        if not self.started or self.ended:
            return []
        self.snapshot.output = self._items("in_progress")
        return [self._lifecycle("response.in_progress")]

    def feed(self, deltas: list[Delta]) -> list[Event]:
        """The events of these deltas, in order."""
        events: list[Event] = []
        texts: list[str] = []  # of a run of plain deltas, which all go to one part
        for delta in deltas:
            if delta.__class__ is self._live_class and getattr(delta, "logprobs", None) is None:
                texts.append(delta.text)  # type: ignore[union-attr]
            else:
                if texts:
                    events += self._run(texts)
                    texts = []
                self._step(delta, events)
        return events + self._run(texts) if texts else events

    def _run(self, texts: list[str]) -> list[Event]:
        part = self._live
        assert part is not None
        part.pieces.fresh += texts
        part.pieces.settle()
        return self.numbers.deltas(part.type, part.head, texts)

    def finish(self) -> list[Event]:
        """The end of a response whose last turn has ended."""
        if self.ended:
            return []
        events = self.start()
        events += self._end_turn() if not self.turn_over else []
        if not self._output and self._finish == "stop":
            self._open_text(OUTPUT_TEXT, events).open_part(OUTPUT_TEXT, events)
            self._close_open("completed", events)
        status = "completed" if self._finish == "stop" else "incomplete"
        details = {"length": "max_output_tokens", "content_filter": "content_filter"}
        reason = {"reason": details[self._finish]} if status == "incomplete" else None
        done = self.clock() if status == "completed" else None
        return [*events, self._end(status, completed_at=done, incomplete_details=reason)]

    def fail(self, error: ProxyError) -> list[Event]:
        """The end of a response that can't go on: `error`, then `response.failed`.

        Open items get no done events (5.4.9).
        """
        if self.ended:
            return []
        self.error = error
        events = self.start()
        detail = error.detail() | {"code": error.code or ("server_error" if error.status >= 500 else "invalid_prompt")}
        flat = {key: detail[key] for key in ("code", "message", "param")}
        events.append(self.numbers.event("error", error=detail, **flat))
        usage = self._usage_json() if self._spent or self._usage != Usage() else None
        events.append(self._end("failed", error=detail, usage=usage))
        return events

    def cancel(self) -> list[Event]:
        """The end of a response that somebody asked to stop (RESPONSES 0.2, D25)."""
        if self.ended:
            return []
        events = self.start()
        self._close_open("incomplete", events)
        return [*events, self._end("cancelled")]

    # -- the steps of one turn

    def _begin_turn(self) -> None:
        self.turn_over = False
        self._finish = "stop"
        self._calls: dict[int, CallState] = {}
        self._waiting: list[Waiting] = []
        self._logprobs: list[Any] = []  # came without text: they go with the next one
        self._annotations: list[Any] = []  # came before the text that they belong to

    def _step(self, delta: Delta, events: list[Event]) -> None:
        match delta:
            case Text() | Reasoning() | Summary() | Refusal() | Annotation():
                self._arrive(None, delta, events)
            case Call():
                self._hear(delta, events)
            case Usage():
                self._usage = delta
            case Finish():
                self._finish = delta.reason
            case Tier():
                self.snapshot.tier = delta.name
            case Accepted():
                events += self.start()
                if self.turn_over:
                    self._begin_turn()
            case End():
                events += self._end_turn()

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
        elif not self._waiting and call.complete():
            self._close_open("completed", events)
            self._apply(delta, events)
        else:
            self._wait(index, delta)
        while self._waiting and (self._call is None or self._call.complete()):
            self._flush_next(events)

    def _wait(self, index: int | None, delta: Delta) -> None:
        places = [place for place in self._waiting if place.index == index] if index is not None else self._waiting[-1:]
        if not places or places[-1].index != index:
            places = [Waiting(index)]
            self._waiting += places
        places[-1].deltas.append(delta)

    def _flush_next(self, events: list[Event]) -> None:
        self._close_open("completed", events)
        for delta in self._waiting.pop(0).deltas:
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
            self._logprobs = logprobs or []
            self._live_class = None  # the next delta takes them with it
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
        self._live_class = Text if kind is OUTPUT_TEXT else None

    def _think(self, delta: Reasoning | Summary, events: list[Event]) -> None:
        if self.reasoning == "hidden":
            if self._text is None or self._text.type != "reasoning":
                self._open_text(REASONING_TEXT, events)
            return
        summary = self.reasoning == "summary" or delta.__class__ is Summary
        self._write(SUMMARY_TEXT if summary else REASONING_TEXT, delta.text, None, events)
        self._live_class = delta.__class__ if delta.text else None

    def _open_text(self, kind: TextKind, events: list[Event]) -> OpenText:
        self._close_open("completed", events)
        item_id, shows_content = self.ids(PREFIXES[kind.item]), self.reasoning != "summary"
        item = OpenText(self.numbers, kind.item, item_id, len(self._output), shows_content=shows_content)
        item.open(events)
        self._text = item
        return item

    def _write_call(self, delta: Call, events: list[Event]) -> None:
        call = self._call
        if call is None or delta.index != self._call_index:
            self._close_open("completed", events)
            item_id, call_id = self.ids(FUNCTION_CALL.prefix), self._call_id(delta.id)
            call = OpenCall(self.numbers, FUNCTION_CALL, item_id, len(self._output), call_id, delta.name)
            call.open(events)
            self._call, self._call_index = call, delta.index
        if delta.arguments:
            call.write(delta.arguments, events)

    def _call_id(self, said: str) -> str:
        """The upstream's id if it can serve as ours, else a new one: some say `call_0` in each turn (RESPONSES 4.1)."""
        call_id = said if _CALL_ID.fullmatch(said) and said not in self._taken else self.ids("call_")
        self._taken.add(call_id)
        return call_id

    def _close_open(self, status: str, events: list[Event]) -> None:
        """Close whatever is open. A call that is not whole JSON is incomplete in any case (pitfall 47)."""
        self._live = self._live_class = None
        if (call := self._call) is not None:
            if status == "completed" and not call.input:
                call.write("{}", events)  # pitfall 46
            status = "completed" if call.complete() else "incomplete"
            self._output.append(call.close(status, events))
            self._calls[self._call_index].closed = True  # type: ignore[index]
            self._call = self._call_index = None
        elif (text := self._text) is not None:
            if self.reasoning == "both" and text.type == "reasoning":
                self._repeat_as_summary(text, status, events)
            elif self._logprobs and text.part is not None and text.part.kind is OUTPUT_TEXT:
                text.write(OUTPUT_TEXT, "", self._logprobs, events)  # of an end-of-text token, which has no text
                self._logprobs = []
            self._output.append(text.close(status, events))
            self._text = None

    def _repeat_as_summary(self, item: OpenText, status: str, events: list[Event]) -> None:
        if item.part is not None and item.part.kind is REASONING_TEXT:
            text = item.part.pieces.text()
            item.close_part(status, events)
            item.write(SUMMARY_TEXT, text, None, events)

    def _end_turn(self) -> list[Event]:
        """Close everything that the turn has opened.

        What was cut off by a limit is incomplete; what came before it is not.
        """
        events: list[Event] = []
        self._name_orphans(events)
        while self._waiting:
            self._flush_next(events)
        self._close_open("completed" if self._finish == "stop" else "incomplete", events)
        self.notes += [f"a call without a name was dropped ({i})" for i, call in self._calls.items() if not call.name]
        self._spent.append(self._usage)
        self._usage = Usage()
        self.turn_over = True
        return events

    def _name_orphans(self, events: list[Event]) -> None:
        """Arguments that came under a number of their own belong to the one call that has none (pitfall 19)."""
        orphans = [call for call in self._calls.values() if not call.name and any(call.held)]
        named = [call for call in self._calls.values() if call.name]
        if len(orphans) == len(named) == 1 and self._call is not None and not self._call.input:
            self._call.write("".join(orphans[0].held), events)
            orphans[0].name = named[0].name

    # -- the lifecycle

    def _lifecycle(self, type: str) -> Event:
        return self.numbers.event(type, response=self.snapshot.json())

    def _end(self, status: str, **fields: Any) -> Event:
        self.ended = True
        self._live = self._live_class = None
        self.snapshot.output = self._items("incomplete")
        self.snapshot.end(status, usage=fields.pop("usage", self._usage_json()), **fields)
        return self._lifecycle("response.incomplete" if status == "cancelled" else f"response.{status}")

    def _items(self, status: str) -> list[msgspec.Raw]:
        """The output so far, the open item with this status."""
        item = self._call or self._text
        return [*self._output, item.json(status)] if item is not None else self._output

    def _usage_json(self) -> dict[str, Any]:
        return usage_json([*self._spent, self._usage])
