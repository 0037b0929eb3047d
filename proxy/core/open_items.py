"""Items that are being written: each knows its own events and its own JSON.

At most one is open at a time (RESPONSES 5.1.10). Their JSON is written by hand, as bytes: the encoder sees only what
somebody else has written, and what stands in several events is encoded once. It costs a third of dicts.
"""

from typing import Any

from proxy.core.kinds import OUTPUT_TEXT, SUMMARY_TEXT, CallKind, TextKind
from proxy.core.numbers import Numbers, encode, head
from proxy.core.object_text import ObjectText
from proxy.wire.events import Event

_ITEM = b'"output_index":%d,"item":%b'
_MANY = 500


class Part:
    """A content part that is being written. Its text is joined at its end: no quadratic copying (pitfall 68).

    place: the members that say where it is. type, head: what Numbers.deltas needs for a plain delta.
    fresh: the newest pieces of the text. Many small strings weigh more than their text: settle() joins them.
    """

    __slots__ = ("_old", "annotations", "fresh", "head", "kind", "logprobs", "place", "type")

    def __init__(self, kind: TextKind, place: bytes) -> None:
        self.kind = kind
        self.place = place
        self.type = kind.delta
        # pitfall 70: logprobs is always there, if empty
        self.head = head(kind.delta, place + b',"logprobs":[]' if kind is OUTPUT_TEXT else place)
        self.fresh: list[str] = []
        self._old: list[str] = []
        self.logprobs: list[Any] = []
        self.annotations: list[Any] = []

    def settle(self) -> None:
        """To be called now and then."""
        if len(self.fresh) > _MANY:
            self._old.append("".join(self.fresh))
            self.fresh.clear()

    def text(self) -> str:
        whole = "".join((*self._old, *self.fresh))
        self._old, self.fresh = [whole], []
        return whole

    def json(self, text: bytes) -> bytes:
        """The part with this text. text: as JSON."""
        kind, rest = self.kind, b""
        if kind is OUTPUT_TEXT:
            rest = b',"annotations":%b,"logprobs":%b' % (encode(self.annotations), encode(self.logprobs))
        return b'{"type":"%b","%b":%b%b}' % (kind.part, kind.field, text, rest)


class OpenText:
    """A message or a reasoning item.

    shows_content: a reasoning item has a `content` list, and does not only show a summary.
    part: the part that is being written, None before the first and between two.
    done: the parts that have been written, by the name of their index.
    """

    __slots__ = ("done", "id", "numbers", "output_index", "part", "shows_content", "type")

    def __init__(self, numbers: Numbers, type: bytes, id: str, output_index: int, *, shows_content: bool) -> None:
        self.numbers = numbers
        self.type = type
        self.id = encode(id)
        self.output_index = output_index
        self.shows_content = shows_content
        self.part: Part | None = None
        self.done: dict[bytes, list[bytes]] = {b"content_index": [], b"summary_index": []}

    def open(self, events: list[Event]) -> None:
        item = (self.output_index, self.json(b"in_progress"))
        events.append(self.numbers.written(b"response.output_item.added", _ITEM % item))

    def open_part(self, kind: TextKind, events: list[Event]) -> Part:
        """A new part of this kind, closing the one before it."""
        self.close_part(b"completed", events)
        place = (self.id, self.output_index, kind.index, len(self.done[kind.index]))
        part = self.part = Part(kind, b'"item_id":%b,"output_index":%d,"%b":%d' % place)
        events.append(self.numbers.written(kind.added, b'%b,"part":%b' % (part.place, part.json(b'""'))))
        return part

    def write(self, kind: TextKind, text: str, logprobs: list[Any] | None, events: list[Event]) -> None:
        """One delta, in the open part if it is of this kind, else in a new one."""
        part = self.part
        if part is None or part.kind is not kind:
            part = self.open_part(kind, events)
        start = part.head
        if logprobs:
            part.logprobs += logprobs
            start = head(kind.delta, b'%b,"logprobs":%b' % (part.place, encode(logprobs)))
        part.fresh.append(text)
        events += self.numbers.deltas(part.type, start, (text,))

    def annotate(self, annotation: Any, events: list[Event]) -> bool:
        """Attach an annotation to the open text; False if there is none."""
        part = self.part
        if part is None or part.kind is not OUTPUT_TEXT:
            return False
        members = (part.place, len(part.annotations), encode(annotation))
        part.annotations.append(annotation)
        told = b'%b,"annotation_index":%d,"annotation":%b' % members
        events.append(self.numbers.written(b"response.output_text.annotation.added", told))
        return True

    def close_part(self, status: bytes, events: list[Event]) -> None:
        part = self.part
        if part is None:
            return
        kind, text = part.kind, encode(part.text())
        logprobs = b',"logprobs":' + encode(part.logprobs) if kind is OUTPUT_TEXT else b""
        closed = shown = part.json(text)
        if kind is SUMMARY_TEXT and status == b"incomplete":
            shown = closed[:-1] + b',"status":"incomplete"}'
        written = self.numbers.written
        events.append(written(kind.done, b'%b,"%b":%b%b' % (part.place, kind.field, text, logprobs)))
        events.append(written(kind.closed, b'%b,"part":%b' % (part.place, shown)))
        self.done[kind.index].append(closed)
        self.part = None

    def close(self, status: bytes, events: list[Event]) -> bytes:
        """End the item; gives its JSON, the very bytes of the done event."""
        self.close_part(status, events)
        item = self.json(status)
        events.append(self.numbers.written(b"response.output_item.done", _ITEM % (self.output_index, item)))
        return item

    def json(self, status: bytes) -> bytes:
        """The item as it stands, with what is open."""
        done = self.done
        if (part := self.part) is not None:
            now = part.json(encode(part.text()))
            done = done | {part.kind.index: [*done[part.kind.index], now]}
        content = b",".join(done[b"content_index"])
        if self.type == b"message":
            rest = b'"role":"assistant","content":[%b]' % content
        else:
            rest = b'"summary":[%b]' % b",".join(done[b"summary_index"])
            if self.shows_content:
                rest += b',"content":[%b],"encrypted_content":null' % content
        return b'{"id":%b,"type":"%b","status":"%b",%b}' % (self.id, self.type, status, rest)


class OpenCall:
    """A call. input: JSON text, for a function."""

    __slots__ = ("call_id", "head", "id", "input", "kind", "name", "numbers", "output_index", "place")

    def __init__(self, numbers: Numbers, kind: CallKind, id: str, output_index: int, call_id: str, name: str) -> None:
        self.numbers = numbers
        self.kind = kind
        self.id = encode(id)
        self.output_index = output_index
        self.call_id = encode(call_id)
        self.name = encode(name)
        self.input = ObjectText()
        self.place = b'"item_id":%b,"output_index":%d' % (self.id, output_index)
        self.head = head(kind.delta, self.place)

    def open(self, events: list[Event]) -> None:
        item = (self.output_index, self.json(b"in_progress"))
        events.append(self.numbers.written(b"response.output_item.added", _ITEM % item))

    def write(self, text: str, events: list[Event]) -> None:
        self.input.pieces.append(text)
        events += self.numbers.deltas(self.kind.delta, self.head, (text,))

    def close(self, status: bytes, events: list[Event]) -> bytes:
        """End the item; gives its JSON, the very bytes of the done event."""
        done = (self.place, self.kind.field, encode(self.input.text()), self.name)
        events.append(self.numbers.written(self.kind.done, b'%b,"%b":%b,"name":%b' % done))
        item = self.json(status)
        events.append(self.numbers.written(b"response.output_item.done", _ITEM % (self.output_index, item)))
        return item

    def json(self, status: bytes) -> bytes:
        """The item as it stands."""
        members = (self.id, self.kind.item, status, self.call_id, self.name, self.kind.field)
        start = b'{"id":%b,"type":"%b","status":"%b","call_id":%b,"name":%b,"%b":' % members
        return start + encode(self.input.text()) + b"}"
