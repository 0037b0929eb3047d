"""The response object as the lifecycle events carry it (RESPONSES 3.1)."""

from typing import Any

from proxy.core.deltas import Usage
from proxy.core.numbers import encode

_USAGE = (
    b'{"input_tokens":%d,"input_tokens_details":{"cached_tokens":%d,"cache_write_tokens":%d},'
    b'"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d}'
)


def usage_json(used: Usage) -> bytes:
    """Always whole, always integers (pitfalls 83, 85)."""
    asked, answered = used.input, used.output
    return _USAGE % (asked, used.cached, used.cache_write, answered, used.reasoning, asked + answered)


class Snapshot:
    """The changing part of a response, in front of its constant echo.

    tier: as asked for. used: as the upstream says, or None. output: the items, as JSON.
    """

    __slots__ = ("_echo", "_end", "_head", "output", "status", "tier", "used")

    def __init__(self, id: str, created_at: int, echo: bytes, tier: str) -> None:
        self._head = b'{"id":%b,"object":"response","created_at":%d' % (encode(id), created_at)
        self._echo = echo
        self.status = "in_progress"
        self._end = (b"null", b"null", b"null", b"null")
        self.output: list[bytes] = []
        self.tier = tier
        self.used: str | None = None

    def end(
        self,
        status: str,
        *,
        usage: bytes,
        completed_at: int | None = None,
        error: dict[str, Any] | None = None,
        reason: str | None = None,
    ) -> None:
        """The terminal values. usage: as JSON. reason: why it is incomplete."""
        self.status = status
        details = None if reason is None else {"reason": reason}
        self._end = (encode(completed_at), encode(error), encode(details), usage)
        self.tier = self.used or "default"

    def json(self) -> bytes:
        completed_at, error, details, usage = self._end
        """The response as it is now; not kept, since it would be most of what an idle stream weighs."""
        return (
            b'%b,"completed_at":%b,"status":"%b","error":%b,"incomplete_details":%b,"usage":%b,'
            b'"output":[%b],"service_tier":%b,%b}'
        ) % (
            self._head,
            completed_at,
            self.status.encode(),
            error,
            details,
            usage,
            b",".join(self.output),
            encode(self.tier),
            self._echo,
        )
