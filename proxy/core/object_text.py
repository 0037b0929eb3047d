"""The text of one JSON object that comes in pieces, such as the arguments of a call."""

import re

import msgspec

_OUTSIDE = re.compile(r'["{}]')
_INSIDE = re.compile(r'["\\]')  # a string
_SPACE = " \t\r\n"


class ObjectText:
    """Knows whether the object is whole, and looks at each character once for it, however often it is asked.

    Braces outside of strings are counted. When the first one is closed the parser has the last word, once.
    """

    __slots__ = ("_closed", "_depth", "_escaped", "_looked", "_quoted", "_valid", "pieces")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._looked = 0  # how many pieces have been looked at
        self._depth = 0
        self._quoted = False
        self._escaped = False  # by a backslash that ended a piece
        self._closed = False
        self._valid: bool | None = None  # None before the parser was asked

    def text(self) -> str:
        return "".join(self.pieces)

    def is_whole(self) -> bool:
        """Whether the pieces so far are a JSON object."""
        for piece in self.pieces[self._looked :]:
            rest = piece if self._closed else piece[self._close(piece) :]
            if rest.strip(_SPACE):
                self._valid = False
        self._looked = len(self.pieces)
        if self._closed and self._valid is None:
            self._valid = is_object(self.text())
        return self._closed and self._valid is True

    def _close(self, piece: str) -> int:
        """Where behind its last brace the object ends in this piece; its length when it goes on."""
        place = int(self._escaped and piece != "")
        self._escaped = self._escaped and piece == ""
        while found := (_INSIDE if self._quoted else _OUTSIDE).search(piece, place):
            place = found.end()
            match found[0]:
                case '"':
                    self._quoted = not self._quoted
                case "\\":
                    self._escaped = place == len(piece)
                    place += 1
                case "{":
                    self._depth += 1
                case "}":
                    self._depth -= 1
                    if self._depth <= 0:
                        self._closed = True
                        return place
        return len(piece)


def is_object(text: str) -> bool:
    """Whether this is a whole JSON object."""
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.DecodeError, RecursionError):
        return False
