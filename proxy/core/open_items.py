"""Items that are being written: each knows its own events and its own JSON.

At most one is open at a time (RESPONSES 5.1.10).
"""

from typing import Any

import msgspec

from proxy.core.kinds import OUTPUT_TEXT, CallKind, TextKind
from proxy.core.numbers import Numbers, Pieces, head, raw
from proxy.wire.events import Event


class Part:
    """A content part that is being written.

    index: its number within the item's group. type, head: what Sequence.delta needs for a plain delta.
    """

    __slots__ = ("annotations", "head", "index", "kind", "logprobs", "pieces", "position", "type")

    def __init__(self, kind: TextKind, index: int, item_id: str, output_index: int) -> None:
        self.kind = kind
        self.index = index
        self.position = {"item_id": item_id, "output_index": output_index, kind.index: index}
        self.type = kind.delta.encode()
        # pitfall 70: logprobs is always there, if empty
        self.head = head(kind.delta, **self.position, **({"logprobs": []} if kind is OUTPUT_TEXT else {}))
        self.pieces = Pieces()
        self.logprobs: list[Any] = []
        self.annotations: list[Any] = []

    def json(self, text: msgspec.Raw) -> dict[str, Any]:
        part: dict[str, Any] = {"type": self.kind.part, self.kind.field: text}
        if self.kind is OUTPUT_TEXT:
            part |= {"annotations": self.annotations, "logprobs": self.logprobs}
        return part


class OpenText:
    """A message or a reasoning item.

    shows_content: a reasoning item has a `content` list, and does not only show a summary.
    part: the part that is being written, None before the first and between two.
    """

    __slots__ = ("done", "id", "numbers", "output_index", "part", "shows_content", "type")

    def __init__(self, numbers: Numbers, type: str, id: str, output_index: int, *, shows_content: bool) -> None:
        self.numbers = numbers
        self.type = type
        self.id = id
        self.output_index = output_index
        self.shows_content = shows_content
        self.part: Part | None = None
        self.done: dict[str, list[msgspec.Raw]] = {"summary": [], "content": []}

    def open(self, events: list[Event]) -> None:
        item = self.json("in_progress")
        events.append(self.numbers.event("response.output_item.added", output_index=self.output_index, item=item))

    def open_part(self, kind: TextKind, events: list[Event]) -> Part:
        """A new part of this kind, closing the one before it."""
        self.close_part("completed", events)
        part = self.part = Part(kind, len(self.done[kind.group]), self.id, self.output_index)
        empty = part.json(msgspec.Raw(b'""'))
        events.append(self.numbers.event(kind.added, **part.position, part=empty))
        return part

    def write(self, kind: TextKind, text: str, logprobs: list[Any] | None, events: list[Event]) -> None:
        """One delta, in the open part if it is of this kind, else in a new one."""
        part = self.part
        if part is None or part.kind is not kind:
            part = self.open_part(kind, events)
        start = part.head
        if logprobs:
            part.logprobs += logprobs
            start = head(kind.delta, **part.position, logprobs=logprobs)
        part.pieces.fresh.append(text)
        events += self.numbers.deltas(part.type, start, (text,))

    def annotate(self, annotation: Any, events: list[Event]) -> bool:
        """Attach an annotation to the open text; False if there is none."""
        part = self.part
        if part is None or part.kind is not OUTPUT_TEXT:
            return False
        fields = {"annotation_index": len(part.annotations), "annotation": annotation}
        part.annotations.append(annotation)
        events.append(self.numbers.event("response.output_text.annotation.added", **part.position, **fields))
        return True

    def close_part(self, status: str, events: list[Event]) -> None:
        part = self.part
        if part is None:
            return
        kind, text = part.kind, raw(part.pieces.text())
        fields: dict[str, Any] = {kind.field: text}
        if kind is OUTPUT_TEXT:
            fields["logprobs"] = part.logprobs
        closed = part.json(text)
        cut = {"status": "incomplete"} if kind.group == "summary" and status == "incomplete" else {}
        events.append(self.numbers.event(kind.done, **part.position, **fields))
        events.append(self.numbers.event(kind.closed, **part.position, part=closed | cut))
        self.done[kind.group].append(raw(closed))
        self.part = None

    def close(self, status: str, events: list[Event]) -> msgspec.Raw:
        """End the item; gives its JSON, the very bytes of the done event."""
        self.close_part(status, events)
        item = self.json(status)
        events.append(self.numbers.event("response.output_item.done", output_index=self.output_index, item=item))
        return item

    def json(self, status: str) -> msgspec.Raw:
        """The item as it stands, with what is open."""
        groups = self.done
        if (part := self.part) is not None:
            now = raw(part.json(raw(part.pieces.text())))
            groups = groups | {part.kind.group: [*groups[part.kind.group], now]}
        item: dict[str, Any] = {"id": self.id, "type": self.type, "status": status}
        if self.type == "message":
            item |= {"role": "assistant", "content": groups["content"]}
        else:
            item["summary"] = groups["summary"]
            if self.shows_content:
                item |= {"content": groups["content"], "encrypted_content": None}
        return raw(item)


class OpenCall:
    """A call; its input is JSON text for a function."""

    __slots__ = ("call_id", "head", "id", "input", "kind", "name", "numbers", "output_index", "type", "whole")

    def __init__(self, numbers: Numbers, kind: CallKind, id: str, output_index: int, call_id: str, name: str) -> None:
        self.numbers = numbers
        self.kind = kind
        self.id = id
        self.output_index = output_index
        self.call_id = call_id
        self.name = name
        self.input = Pieces()
        self.type = kind.delta.encode()
        self.head = head(kind.delta, item_id=id, output_index=output_index)
        self.whole: bool | None = None

    def open(self, events: list[Event]) -> None:
        item = self.json("in_progress")
        events.append(self.numbers.event("response.output_item.added", output_index=self.output_index, item=item))

    def write(self, text: str, events: list[Event]) -> None:
        self.whole = None
        self.input.fresh.append(text)
        events += self.numbers.deltas(self.type, self.head, (text,))

    def complete(self) -> bool:
        """Whether the input so far is a whole JSON object."""
        if self.whole is None:
            self.whole = self.input.ends_with("}") and _is_object(self.input.text())
        return self.whole

    def close(self, status: str, events: list[Event]) -> msgspec.Raw:
        """End the item; gives its JSON, the very bytes of the done event."""
        fields = {self.kind.field: raw(self.input.text()), "name": self.name}
        events.append(self.numbers.event(self.kind.done, item_id=self.id, output_index=self.output_index, **fields))
        item = self.json(status)
        events.append(self.numbers.event("response.output_item.done", output_index=self.output_index, item=item))
        return item

    def json(self, status: str) -> msgspec.Raw:
        """The item as it stands."""
        item = {"id": self.id, "type": self.kind.item, "status": status, "call_id": self.call_id, "name": self.name}
        return raw(item | {self.kind.field: self.input.text()})


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.DecodeError, RecursionError):
        return False
