"""Model name -> route -> pools of upstreams."""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from msgspec import Struct

from proxy.attempts import Attempts, Retries
from proxy.core.deltas import Accepted
from proxy.core.output import Shown
from proxy.core.patterns import is_pattern, pattern
from proxy.core.turn import Turn
from proxy.errors import ProxyError, Refused, RequestError
from proxy.metrics import Metrics, UpstreamState
from proxy.pools import Pool, State
from proxy.trace import Trace
from proxy.upstream import Deltas, Upstream

log = logging.getLogger(__name__)


class Route(Struct, frozen=True):
    """Which models go where, and how.

    names: exact names, or patterns with * and ?; the first one is the route's own. pools: asked in this order.
    upstream_model: what they call the model; None for the name that the client used.
    reasoning: how thought is shown, None to go by the request. See config.Route for the others.
    """

    names: list[str]
    pools: list[Pool]
    upstream_model: str | None = None
    reasoning: Shown | None = None
    defaults: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    body: dict[str, Any] = {}
    pass_fields: list[str] = []
    max_output_tokens: int | None = None
    max_input: int | None = None
    long_context: Pool | None = None
    endpoints: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def alone(self) -> bool:
        """Whether there is a single upstream."""
        return len(self.pools) == 1 and not self.balances

    @property
    def balances(self) -> bool:
        """Whether there is any choice between upstreams."""
        return any(len(pool.members) > 1 for pool in self.pools)


class Router:
    """The routes, in the order of the configuration; exact names go before patterns.

    listing: seconds for which an upstream's list of models is kept.
    """

    def __init__(self, routes: Sequence[Route], retries: Retries, metrics: Metrics, listing: float) -> None:
        self.routes = list(routes)
        self._metrics = metrics
        self._retries = retries
        self._exact = {name: route for route in reversed(self.routes) for name in route.names if not is_pattern(name)}
        self._patterns = [(pattern([name]), route) for route in self.routes for name in route.names if is_pattern(name)]
        self._listing = listing
        self._listed: dict[str, tuple[float, Sequence[str]]] = {}  # by URL: until when, and what

    def route(self, model: str) -> Route:
        """Raises RequestError for a model that nothing leads to."""
        route = self._exact.get(model)
        if route is None:
            route = next((route for names, route in self._patterns if names.match(model)), None)
        if route is None:
            names = [name for route in self.routes for name in route.names]
            shown = ", ".join(map(repr, names[:_SHOWN])) + (" ..." if len(names) > _SHOWN else "")
            raise RequestError(
                f"The requested model {model!r} does not exist. Routed are: {shown}.",
                code="model_not_found",
                param="model",
            )
        return route

    def attempts(self, route: Route, trace: Trace, key: int | None) -> Attempts:
        """The tries for one request. key: of core.balance.affinity_key, None when nothing marks the conversation."""
        trace.upstream_model, trace.alone = route.upstream_model or trace.model, route.alone
        return Attempts(route.pools, trace, self._retries, self._metrics, key, route.long_context)

    async def ask(self, route: Route, turn: Turn, trace: Trace, key: int | None) -> Deltas:
        """The deltas of one turn, from the first upstream that speaks: one that fails before that is passed over."""
        async for attempt in self.attempts(route, trace, key):
            with attempt:
                async with aclosing(attempt.upstream.ask(turn, trace)) as answer:
                    async for deltas in answer:
                        attempt.spoke = attempt.spoke or not isinstance(deltas[-1], Accepted)
                        yield deltas
                return

    @property
    def states(self) -> list[State]:
        """Of all upstreams, in the order of the routes."""
        states = [member.state for pool in self.pools for member in pool.members]
        return list(dict.fromkeys(states))

    def watched(self) -> list[UpstreamState]:
        """Of all upstreams, for the metrics."""
        now = asyncio.get_running_loop().time()
        return [UpstreamState(each.name, each.available(now), each.load, each.waiting) for each in self.states]

    @property
    def pools(self) -> list[Pool]:
        return list(dict.fromkeys(pool for route in self.routes for pool in _pools(route)))

    async def models(self) -> list[str]:
        """Every model that can be asked for: the exact names, and for patterns what their upstreams offer."""
        names = dict.fromkeys(name for route in self.routes for name in route.names if not is_pattern(name))
        for takes, route in self._patterns:
            asked = {each.endpoint.url: each for pool in route.pools for each in _upstreams(pool)}
            for offered in await asyncio.gather(*map(self._offered, asked.values())):
                names |= dict.fromkeys(name for name in offered if takes.match(name))
        return list(names)

    async def ready(self) -> bool:
        """Whether any upstream answers."""
        upstreams = {each.endpoint.url: each for pool in self.pools for each in _upstreams(pool)}
        return any(await asyncio.gather(*map(_answers, upstreams.values())))

    async def _offered(self, upstream: Upstream) -> Sequence[str]:
        """The models of an upstream, from the last time if that is not long ago."""
        until, names = self._listed.get(upstream.endpoint.url, (0.0, ()))
        if time.monotonic() >= until:
            try:
                names = await upstream.models()
            except ProxyError as error:
                log.warning("upstream %s: %s", upstream.name, error)
                return names
            self._listed[upstream.endpoint.url] = time.monotonic() + self._listing, names
        return names


_SHOWN = 50
"""Names in a message."""


def _pools(route: Route) -> list[Pool]:
    return [*route.pools, *([route.long_context] if route.long_context else [])]


def _upstreams(pool: Pool) -> list[Upstream]:
    return [member.upstream for member in pool.members]


async def _answers(upstream: Upstream) -> bool:
    """An upstream that answers anything but 5xx is there: some have no list of models."""
    try:
        await upstream.models()
    except ProxyError as error:
        return isinstance(error, Refused | RequestError)
    return True
