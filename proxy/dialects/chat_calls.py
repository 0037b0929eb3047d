"""Which call a piece of a call belongs to. Servers number calls in every way there is (pitfalls 17-20)."""

from typing import Any

import msgspec

from proxy.core.deltas import Call
from proxy.dialects.chat_chunk import ToolCall


class Known:
    """A call that has been seen. pieces: of its arguments so far."""

    __slots__ = ("id", "name", "number", "pieces")

    def __init__(self, number: int) -> None:
        self.number = number
        self.id = ""
        self.name = ""
        self.pieces: list[str] = []

    def is_whole(self) -> bool:
        """Whether the arguments so far are a JSON object. Asks the parser only when they may be."""
        if not next((visible for piece in reversed(self.pieces) if (visible := piece.rstrip())), "").endswith("}"):
            return False
        try:
            return isinstance(msgspec.json.decode("".join(self.pieces)), dict)
        except (msgspec.DecodeError, RecursionError):
            return False


class Calls:
    """Numbers the calls of one turn: one number for one call, whatever the server says."""

    __slots__ = ("_all", "_by_index", "_last")

    def __init__(self) -> None:
        self._all: list[Known] = []
        self._by_index: dict[int, Known] = {}
        self._last: Known | None = None

    def __bool__(self) -> bool:
        return bool(self._all)

    def delta(self, piece: ToolCall) -> Call:
        """The piece under its call's number."""
        given = str(piece.id) if piece.id is not None else ""
        name = (piece.function and piece.function.name) or ""
        arguments = _text(piece.function.arguments) if piece.function else ""
        call = self._find(piece.index, given, name, arguments)
        call.id = call.id or given
        call.name = call.name or name
        call.pieces.append(arguments)
        self._last = call
        return Call(call.number, given, name, arguments)

    def _find(self, index: int | None, given: str, name: str, arguments: str) -> Known:
        call = self._last if index is None else self._by_index.get(index)
        if call is not None and not _is_another(call, given, name, arguments):
            return call
        if call is not None and given and given != call.id:  # one index for all: the id tells them apart
            call = next((known for known in self._all if known.id == given), None)
        else:
            call = None
        if call is None:
            call = Known(len(self._all))
            self._all.append(call)
        if index is not None:
            self._by_index[index] = call
        return call


def _is_another(call: Known, given: str, name: str, arguments: str) -> bool:
    """Whether a piece under the number of a known call begins another one.

    A different id does. Else a name does when it is another one without an id, or when the known call is whole and
    arguments begin anew (OpenRouter); the same name over and over is a repeat.
    """
    if given and call.id and given != call.id:
        return True
    if not name or not call.name:
        return False
    if name != call.name and not given:
        return True
    return arguments.lstrip().startswith("{") and call.is_whole()


def _text(arguments: Any) -> str:
    """Arguments are JSON text; an object is written down once, compactly."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
