"""Which call a piece of a call belongs to. Servers number calls in every way there is (pitfalls 17-20)."""

from typing import Any

import msgspec

from proxy.core.deltas import Call
from proxy.dialects.chat_chunk import ToolCall


class Known:
    """A call that has been seen. ends: the last visible character of its arguments so far."""

    __slots__ = ("ends", "id", "name", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.id = ""
        self.name = ""
        self.ends = ""


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
        function = piece.function
        given = str(piece.id) if piece.id is not None else ""
        name = (function and function.name) or ""
        arguments = _text(function.arguments) if function else ""
        call = self._find(piece.index, given, name, arguments)
        call.id = call.id or given
        call.name = call.name or name
        call.ends = arguments.rstrip()[-1:] or call.ends
        self._last = call
        return Call(call.number, given, name, arguments)

    def _find(self, index: int | None, id: str, name: str, arguments: str) -> Known:
        call = self._last if index is None else self._by_index.get(index)
        if call is not None and not _is_another(call, id, name, arguments):
            return call
        call = next((known for known in self._all if id and known.id == id), None) or self._new()
        if index is not None:
            self._by_index[index] = call
        return call

    def _new(self) -> Known:
        call = Known(len(self._all))
        self._all.append(call)
        return call


def _is_another(call: Known, id: str, name: str, arguments: str) -> bool:
    """Whether a piece under the number of a known call begins another one.

    A different id does. Without ids, a name does when it is another one, or when the known call is whole and arguments
    begin anew; the same name over and over is a repeat.
    """
    if id and call.id:
        return id != call.id
    if not name or not call.name:
        return False
    return name != call.name or (not id and call.ends == "}" and arguments.lstrip().startswith("{"))


def _text(arguments: Any) -> str:
    """Arguments are JSON text; an object is written down once, compactly."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
