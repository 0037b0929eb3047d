"""Spans of a request and of its attempts at upstreams, and what goes on of the client's trace.

What stands here makes no spans and only passes the client's trace context on; `proxy.otel` makes them.
"""

from collections.abc import Mapping

from multidict import MultiMapping

from proxy.metrics import Done, Outcome

_LONGEST = 512
"""Characters of a tracestate: a longer one need not go on (W3C Trace Context, 3.3.1.5)."""


def context_of(headers: MultiMapping[str]) -> dict[str, str]:
    """The client's trace by W3C Trace Context: its headers in lower case, empty when there is none.

    headers: the client's, names in any case. A tracestate may come in several, which are one list.
    """
    parent = headers.get("traceparent", "")
    if not parent or len(parent) > _LONGEST:
        return {}
    state = ",".join(headers.getall("tracestate", ()))
    return {"traceparent": parent} | ({"tracestate": state} if 0 < len(state) <= _LONGEST else {})


class AttemptSpan:
    """One request to an upstream. headers: what it is sent of the trace."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers

    def end(self, outcome: Outcome) -> None:
        """The attempt has ended."""


class RequestSpan:
    """One request of a client."""

    def __init__(self, context: Mapping[str, str]) -> None:
        self._context = context

    def attempt(self, upstream: str, url: str, provider: str, model: str) -> AttemptSpan:
        """An upstream is asked. upstream: its name. url: its base. provider: the name of its profile.

        model: as the upstream calls it.
        """
        return AttemptSpan(self._context)

    def end(self, done: Done, model: str = "", response: str = "") -> None:
        """The request has ended. model: as the client calls it. response: the id. What is unknown stays empty."""


class Tracer:
    """Begins spans. A method never waits, and never raises for what stands in headers."""

    def begin(self, context: Mapping[str, str], method: str, endpoint: str) -> RequestSpan:
        """A request has come. context: of `context_of`. endpoint: as in `Done`."""
        return RequestSpan(context) if context else OUTSIDE

    async def close(self) -> None:
        """Send what has not been sent yet."""


OUTSIDE = RequestSpan({})
"""Of a request without a trace."""
