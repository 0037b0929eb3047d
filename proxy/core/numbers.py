"""Numbering and encoding: every event of a response gets its number here."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgspec

from proxy.wire.events import Event, lead

encode = msgspec.json.Encoder().encode

_TABLE = 4096
_MANY = 500
_TAILS = [b',"sequence_number":%d}\n\n' % number for number in range(_TABLE)]  # of deltas, the usual ones ready made


class Numbers:
    """The numbers of one response's events, from 0 and without gaps.

    pad: makes the `obfuscation` of a delta event of so many bytes of text, or None to send none.
    """

    __slots__ = ("next", "pad")

    def __init__(self, pad: Callable[[int], str] | None = None) -> None:
        self.next = 0
        self.pad = pad

    def event(self, type: str, **fields: Any) -> Event:
        """Any event but a delta: rare, so by the ordinary encoder."""
        number = self.next
        self.next = number + 1
        name, start = _begin(type)
        return Event(name, number, start + b"%d," % number + encode(fields)[1:] + b"\n\n")

    def deltas(self, type: bytes, head: bytes, texts: Sequence[str]) -> list[Event]:
        """The delta events of these texts: the hot path. head: their frames up to the text."""
        first = self.next
        if len(texts) == 1 and self.pad is None and first < _TABLE:  # one a read: what an engine's own pace gives
            self.next = first + 1
            return [Event(type, first, head + encode(texts[0]) + _TAILS[first])]
        last = self.next = first + len(texts)
        tails = _TAILS[first:last] if last <= _TABLE else [_tail(number) for number in range(first, last)]
        literals = [encode(text) for text in texts]
        if self.pad is not None:
            literals = [each + b',"obfuscation":' + encode(self.pad(len(each))) for each in literals]
        numbered = zip(range(first, last), literals, tails, strict=True)
        return [Event(type, number, head + literal + tail) for number, literal, tail in numbered]


@cache
def _begin(type: str) -> tuple[bytes, bytes]:
    """An event type as bytes, and the frame of such an event up to its number."""
    name = type.encode()
    return name, lead(name) + b'{"type":"' + name + b'","sequence_number":'


def head(type: str, **fields: Any) -> bytes:
    """The constant beginning of a part's delta events, up to the text."""
    return lead(type.encode()) + encode({"type": type, **fields})[:-1] + b',"delta":'


def _tail(number: int) -> bytes:
    return b',"sequence_number":%d}\n\n' % number


class Pieces:
    """A text that grows piece by piece and is joined at its end: no quadratic copying (pitfall 68).

    fresh: the newest ones. Many small strings weigh more than their text, so they are joined by the hundred.
    """

    __slots__ = ("_old", "fresh")

    def __init__(self) -> None:
        self.fresh: list[str] = []
        self._old: list[str] = []

    def __bool__(self) -> bool:
        return any(self._old) or any(self.fresh)

    def settle(self) -> None:
        """To be called now and then."""
        if len(self.fresh) > _MANY:
            self._old.append("".join(self.fresh))
            self.fresh.clear()

    def text(self) -> str:
        whole = "".join((*self._old, *self.fresh))
        self._old, self.fresh = [whole], []
        return whole

    def ends_with(self, sign: str) -> bool:
        """Whether this is the last visible character."""
        pieces = (*self._old, *self.fresh)
        return next((visible.endswith(sign) for piece in reversed(pieces) if (visible := piece.rstrip())), False)


def raw(value: Any) -> msgspec.Raw:
    """Encoded now, to be put into more than one event."""
    return msgspec.Raw(encode(value))
