"""Which call a piece of a call belongs to. Servers number calls in every way there is (pitfalls 17-20)."""

from typing import Any

import msgspec

from proxy.core.deltas import Call
from proxy.core.object_text import ObjectText
from proxy.dialects.chat_chunk import ToolCall


class Known:
    """A call that has been seen. arguments: so far."""

    __slots__ = ("arguments", "id", "name", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.id = ""
        self.name = ""
        self.arguments = ObjectText()


class Calls:
    """Numbers the calls of one turn: one number for one call, whatever the server says."""

    __slots__ = ("_by_id", "_by_index", "_count", "_last")

    def __init__(self) -> None:
        self._count = 0
        self._by_id: dict[str, Known] = {}
        self._by_index: dict[int, Known] = {}
        self._last: Known | None = None

    def __bool__(self) -> bool:
        return self._count > 0

    def delta(self, piece: ToolCall) -> Call:
        """The piece under its call's number."""
        given = str(piece.id) if piece.id is not None else ""
        name = (piece.function and piece.function.name) or ""
        arguments = _text(piece.function.arguments) if piece.function else ""
        call = self._find(piece.index, given, name, arguments)
        if given and not call.id:
            call.id = given
            self._by_id.setdefault(given, call)
        call.name = call.name or name
        call.arguments.pieces.append(arguments)
        self._last = call
        return Call(call.number, given, name, arguments)

    def _find(self, index: int | None, given: str, name: str, arguments: str) -> Known:
        call = self._last if index is None else self._by_index.get(index)
        if call is not None and not _is_another(call, given, name, arguments):
            return call
        # One index for all: the id tells them apart.
        call = self._by_id.get(given) if call is not None and given != call.id else None
        if call is None:
            call = Known(self._count)
            self._count += 1
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
    return arguments.lstrip().startswith("{") and call.arguments.is_whole()


def _text(arguments: Any) -> str:
    """Arguments are JSON text; an object is written down once, compactly."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
