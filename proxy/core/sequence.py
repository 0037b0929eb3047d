"""Numbering and encoding: every event of a response gets its number here."""

from collections.abc import Callable
from typing import Any

import msgspec

from proxy.wire.events import Event

encode = msgspec.json.Encoder().encode

_TABLE = 4096
_TAILS = [b',"sequence_number":%d}' % number for number in range(_TABLE)]


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
        return Event(type.encode(), seq, encode({"type": type, "sequence_number": seq, **fields}))

    def delta(self, type: bytes, head: bytes, literal: bytes) -> Event:
        """A delta event. head: its bytes up to the text; literal: the text as JSON."""
        seq = self.next
        self.next = seq + 1
        data = head + literal
        if self.pad is not None:
            data += b',"obfuscation":' + encode(self.pad(len(literal)))
        return Event(type, seq, data + (_TAILS[seq] if seq < _TABLE else b',"sequence_number":%d}' % seq))


def head(type: str, **fields: Any) -> bytes:
    """The constant beginning of a part's delta events, up to the text."""
    return encode({"type": type, **fields})[:-1] + b',"delta":'


class Literal:
    """A JSON string that grows: pieces are encoded once, as they come, and joined once, at the end."""

    __slots__ = ("pieces",)

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def add(self, text: str) -> bytes:
        """Append the text; gives its own literal."""
        literal = encode(text)
        self.pieces.append(literal[1:-1])
        return literal

    def __bool__(self) -> bool:
        return bool(self.pieces)

    def raw(self) -> msgspec.Raw:
        """The whole string as JSON."""
        joined = b"".join(self.pieces)
        self.pieces = [joined] if joined else []
        return msgspec.Raw(b'"' + joined + b'"')

    def text(self) -> str:
        return msgspec.json.decode(self.raw(), type=str)
