"""The response object as the lifecycle events carry it (RESPONSES 3.1)."""

from typing import Any

import msgspec

from proxy.core.deltas import Usage
from proxy.core.numbers import encode


def usage_json(turns: list[Usage]) -> dict[str, Any]:
    """The usage of all turns together; always whole, always integers (pitfalls 83, 85)."""
    asked = answered = cached = written = reasoning = 0
    for turn in turns:
        asked += turn.input
        answered += turn.output
        cached += turn.cached
        written += turn.cache_write
        reasoning += turn.reasoning
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "output_tokens": answered,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": asked + answered,
    }


class Snapshot:
    """The changing part of a response, in front of its constant echo.

    tier: as asked for. used: as the upstream says, or None. last: the newest JSON.
    """

    __slots__ = ("_echo", "_fields", "_head", "last", "output", "tier", "used")

    def __init__(self, id: str, created_at: int, echo: bytes, tier: str) -> None:
        self._head = encode({"id": id, "object": "response", "created_at": created_at})[:-1] + b","
        self._echo = b"," + echo + b"}"
        self._fields: dict[str, Any] = {
            "completed_at": None,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "usage": None,
        }
        self.output: list[msgspec.Raw] = []
        self.tier = tier
        self.used: str | None = None
        self.last = b""

    @property
    def status(self) -> str:
        return str(self._fields["status"])

    def end(self, status: str, **fields: Any) -> None:
        """The terminal values."""
        self._fields |= {"status": status, **fields}
        self.tier = self.used or "default"

    def json(self) -> msgspec.Raw:
        fields = self._fields | {"output": self.output, "service_tier": self.tier}
        self.last = self._head + encode(fields)[1:-1] + self._echo
        return msgspec.Raw(self.last)
