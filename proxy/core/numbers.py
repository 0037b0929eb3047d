"""Numbering and encoding: every event of a response gets its number here."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgspec

from proxy.wire.events import Event, lead

encode = msgspec.json.Encoder().encode

_TABLE = 4096
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
        """Any event, by the ordinary encoder."""
        return self.written(type.encode(), encode(fields)[1:-1])

    def written(self, type: bytes, members: bytes) -> Event:
        """An event whose JSON is there already, but for its type and number. members: without the braces."""
        number = self.next
        self.next = number + 1
        return Event(type, number, b'%b,"sequence_number":%d,%b}\n\n' % (_begin(type), number, members))

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
def _begin(type: bytes) -> bytes:
    """The frame of such an event up to its first comma."""
    return b'%b{"type":"%b"' % (lead(type), type)


def head(type: bytes, members: bytes) -> bytes:
    """The constant beginning of a part's delta events, up to the text. members: those that stand before it."""
    return b'%b,%b,"delta":' % (_begin(type), members)


def _tail(number: int) -> bytes:
    return b',"sequence_number":%d}\n\n' % number
