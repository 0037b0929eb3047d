"""Everything that can go wrong, by whose fault it is.

A RequestError is the client's, an UpstreamError the endpoint's behind us, Shutdown is ours and foreseen. Whatever else
is raised is a bug. Foreign exceptions are translated into these where they come in. Messages say what was wrong,
where, and what is allowed; they never hold keys.
"""

from collections.abc import Mapping
from math import ceil
from types import MappingProxyType
from typing import Any, Literal

KeyLimit = Literal["requests", "tokens", "streams"]

SOON = 2  # seconds until one who found no place may try again


class ProxyError(Exception):
    """A failure that a client may be told about.

    status: the HTTP status, when it can still be sent.
    type, code, param: as in the API's error object; code and param may be None.
    retry_after: seconds until trying again makes sense, or None.
    should_retry: what the x-should-retry header says, or None to leave it to the client.
    original: the upstream's own words, for endpoints that pass through: status, content type, body; or None.
    """

    status = 500
    type = "server_error"
    original: tuple[int, str, bytes] | None = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        status: int | None = None,
        type: str | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        if status is not None:
            self.status = status
        if type is not None:
            self.type = type
        self.retry_after = retry_after
        self.should_retry = should_retry

    def detail(self) -> dict[str, Any]:
        """The error object of an HTTP error body and of the `error` event: all four keys, always."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}


class RequestError(ProxyError):
    """The request can't be served as it is: 4xx, mostly 400."""

    status = 400
    type = "invalid_request_error"


class RateLimited(RequestError):
    """A client has used what it may for now.

    limit: which. wait: seconds until it may come again. headers: its limits, for the answer.
    """

    def __init__(
        self,
        message: str,
        limit: KeyLimit,
        wait: float,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        wait = ceil(round(wait * 100, 4)) / 100  # up: who comes back too early is refused again
        super().__init__(
            f"{message} Please try again in {wait:.12g}s.",  # Codex reads these words
            status=429,
            type="tokens" if limit == "tokens" else "requests",
            code="rate_limit_exceeded",
            retry_after=wait,
        )
        self.limit = limit
        self.headers = headers


class UpstreamError(ProxyError):
    """The upstream failed. Another one may be asked, as long as no delta came; see `here` for this one."""

    status = 502
    here = True
    """Whether the same upstream may be asked again, soon. What took too long there once is not begun anew."""


class Refused(UpstreamError):
    """The upstream answered with an error status, or an error object, that it will answer again.

    Another one may not: what is refused is mostly the proxy's own key, or its quota there.
    """

    here = False


class Unreachable(UpstreamError):
    """No answer: connection refused, no such host, connection lost or timed out before the answer began.

    Status 503: the request has not even been sent.
    """

    status = 503
    ours = False
    """The proxy could not even try: this says nothing of the upstream's health."""


class Overloaded(UpstreamError):
    """The upstream answered 429, 503 or the like: another one, or this one later, may do it.

    asked: seconds for which it wants to be left alone, by its own Retry-After; None when it does not say.
    """

    status = 503
    asked: float | None = None


class Failed(UpstreamError):
    """The upstream answered that it failed: 5xx."""


class Broken(UpstreamError):
    """The answer began and then broke: cut, silent for too long, or not what it should be."""


class Busy(ProxyError):
    """No upstream has a place for this request.

    status: 429 when the waiting line is full too, 503 when the wait has been too long.
    """

    def __init__(self, message: str, status: Literal[429, 503]) -> None:
        full = status == 429
        super().__init__(
            f"{message} Please try again in {SOON}s.",  # Codex reads these words
            status=status,
            type="requests" if full else "server_error",
            code="rate_limit_exceeded" if full else "server_is_overloaded",
            retry_after=SOON,
        )


class Shutdown(ProxyError):
    """The proxy is stopping and its time for open streams is over."""

    status = 503

    def __init__(self) -> None:
        super().__init__("The proxy is shutting down and ended this response.", code="server_error", retry_after=1)


def forget(error: BaseException) -> None:
    """Let go of the frames that an error has passed, once it is told.

    They hold the request, and the error where it is kept: a circle, which would stay until the cyclic collector comes.
    """
    met: BaseException | None = error
    while met is not None:
        met.__traceback__ = None
        met = met.__context__


def internal() -> ProxyError:
    """What a client is told about a bug: nothing of its details, which are in the log."""
    return ProxyError("The proxy had an internal error while serving this request.", code="server_error")
