"""Spans of a request and of its attempts at upstreams, and what goes on of the client's trace.

What stands here makes no spans and only passes the client's trace context on; `proxy.otel` makes them.
"""

from collections.abc import Mapping

from proxy.metrics import Done, Outcome

CONTEXT = ("traceparent", "tracestate")
"""The headers of W3C Trace Context."""


class AttemptSpan:
    """One request to an upstream. headers: what it is sent of the trace."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers

    def end(self, outcome: Outcome) -> None:
        """The attempt has ended."""


class RequestSpan:
    """One request of a client."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def attempt(self, upstream: str, url: str, provider: str, model: str) -> AttemptSpan:
        """An upstream is asked. upstream: its name. url: its base. provider: the name of its profile.

        model: as the upstream calls it.
        """
        return AttemptSpan(self._headers)

    def end(self, done: Done, model: str = "", response: str = "") -> None:
        """The request has ended. model: as the client calls it. response: the id. What is unknown stays empty."""


class Tracer:
    """Begins spans. A method never waits, and never raises for what stands in headers."""

    def begin(self, headers: Mapping[str, str], method: str, endpoint: str) -> RequestSpan:
        """A request has come. headers: the client's, in which case does not matter. endpoint: as in `Done`."""
        if CONTEXT[0] not in headers:
            return OUTSIDE
        return RequestSpan({name: headers[name] for name in CONTEXT if name in headers})

    async def close(self) -> None:
        """Send what has not been sent yet."""


OUTSIDE = RequestSpan({})
"""Of a request without a trace."""
