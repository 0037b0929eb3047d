"""What is counted, and where to count it. `Metrics` counts nothing; `proxy.prometheus` does.

Nothing that is given to it may hold a client's text: names of routes, pools, upstreams and keys stand in the
configuration, paths in the router, all other words here.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from msgspec import Struct

GAPS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.25, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds, in seconds, of the buckets in which the gaps between the writes of a stream are counted.

A stream counts by itself: `counts[bisect_left(GAPS, gap)] += 1`, 0.2 us, in a list that is longer than GAPS by one.
"""

Outcome = Literal["ok", "refused", "unreachable", "overloaded", "failed", "broken", "cancelled"]
"""How an attempt ended: the error's class, or that it was left early."""

Limit = Literal["requests", "tokens", "streams", "waiting"]
"""What the proxy itself answered 429 for: the limits of a key, and the line for an upstream, full or too slow."""


class Done(Struct, kw_only=True, gc=False):
    """One request, when it has ended.

    endpoint: the template of its path, "other" for a path that there is not. status: HTTP. ended: the terminal status,
    or why there is none: error, client_closed, client_stalled; "" where there can't be one. route, key: names, "" for
    none. input, cached, output, reasoning: tokens; cached are part of input, reasoning of output. first: seconds to the
    first event of an item. gaps: counts by GAPS. streamed: seconds from the first write of a stream to its last.
    """

    endpoint: str
    status: int
    ended: str = ""
    route: str = ""
    key: str = ""
    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0
    duration: float = 0
    first: float | None = None
    gaps: Sequence[int] | None = None
    streamed: float = 0
    stream: bool = False


class UpstreamState(Struct, frozen=True, gc=False):
    """load: requests under way. waiting: those in its line."""

    name: str
    available: bool
    load: int = 0
    waiting: int = 0


class Metrics:
    """Counts nothing, for where metrics are off. Every method may be called at any time and returns at once."""

    def start(self) -> None:
        """Look at the running loop's lag from now on."""

    def close(self) -> None:
        """Nothing more will be counted."""

    def opened(self, route: str) -> None:
        """A request has got its route; `closed` has to follow."""

    def closed(self, route: str) -> None:
        """It has ended."""

    def request(self, done: Done) -> None:
        """Once for each request, at its end."""

    def attempt(self, route: str, pool: str, upstream: str, outcome: Outcome) -> None:
        """Once for each request to an upstream, at its end."""

    def retry(self, pool: str) -> None:
        """Another attempt within the pool."""

    def fallback(self, route: str) -> None:
        """The route's next pool is asked."""

    def limited(self, limit: Limit) -> None:
        """A request was refused by a limit of the proxy's own."""

    def lag(self, seconds: float) -> None:
        """The event loop called so late what was due."""

    def reloaded(self, *, ok: bool) -> None:
        """The configuration was read again, and taken or refused."""

    def watch(self, states: Callable[[], Iterable[UpstreamState]]) -> None:
        """Ask this for the upstreams whenever metrics are read; it replaces what was watched before."""

    async def render(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and body for a scrape. accept: the header, which may ask for OpenMetrics."""
        return "text/plain; charset=utf-8", b""
