"""Numbering and encoding: every event of a response gets its number here."""

from collections.abc import Callable
from typing import Any

import msgspec

from proxy.wire.events import Event, lead

encode = msgspec.json.Encoder().encode

_TABLE = 4096
_TAILS = [b',"sequence_number":%d}\n\n' % number for number in range(_TABLE)]  # of deltas, the usual ones ready made


class Sequence:
    """The numbers of one response's events, from 0 and without gaps.

    pad: makes the `obfuscation` of a delta event of so many bytes of text, or None to send none.
    """

    __slots__ = ("next", "pad")

    def __init__(self, pad: Callable[[int], str] | None = None) -> None:
        self.next = 0
        self.pad = pad

    def event(self, type: str, **fields: Any) -> Event:
        """Any event but a delta: rare, so by the ordinary encoder."""
        seq = self.next
        self.next = seq + 1
        name = type.encode()
        data = encode({"type": type, "sequence_number": seq, **fields})
        return Event(name, seq, lead(name) + data + b"\n\n")

    def delta(self, type: bytes, head: bytes, text: str) -> Event:
        """A delta event. head: its frame up to the text."""
        seq = self.next
        self.next = seq + 1
        literal = encode(text)
        if self.pad is not None:
            literal += b',"obfuscation":' + encode(self.pad(len(literal)))
        return Event(type, seq, head + literal + (_TAILS[seq] if seq < _TABLE else _tail(seq)))


def head(type: str, **fields: Any) -> bytes:
    """The constant beginning of a part's delta events, up to the text."""
    return lead(type.encode()) + encode({"type": type, **fields})[:-1] + b',"delta":'


def _tail(number: int) -> bytes:
    return b',"sequence_number":%d}\n\n' % number


def joined(pieces: list[str]) -> str:
    """The text of the pieces, which are joined once and stay so: no quadratic copying (pitfall 68)."""
    pieces[:] = ["".join(pieces)]
    return pieces[0]


def raw(value: Any) -> msgspec.Raw:
    """Encoded now, to be put into more than one event."""
    return msgspec.Raw(encode(value))
