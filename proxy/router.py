"""Model name -> route -> pools of upstreams."""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from proxy.attempts import Attempts, Retries
from proxy.core.output import Shown
from proxy.core.patterns import is_pattern, pattern
from proxy.errors import ProxyError, Refused, RequestError
from proxy.metrics import Metrics, UpstreamState
from proxy.pools import Pool, State
from proxy.trace import Trace
from proxy.upstream import Upstream

log = logging.getLogger(__name__)


class Route(Struct):
    """Which models go where, and how.

    names: exact names, or patterns with * and ?; the first one is the route's own. pools: asked in this order.
    upstream_model: what they call the model; None for the name that the client used.
    reasoning: how thought is shown, None to go by the request. See config.Route for the others.

    What follows of these: name: the route's own. balances: there is a choice between upstreams. alone: there is one.
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

    name: str = ""
    balances: bool = False
    alone: bool = False

    def __post_init__(self) -> None:
        self.name = self.names[0]
        self.balances = any(len(pool.members) > 1 for pool in _pools(self))
        self.alone = len(self.pools) == 1 and not self.balances


class Router:
    """The routes, in the order of the configuration; exact names go before patterns.

    listing: seconds for which an upstream's list of models is kept.
    """

    def __init__(self, routes: Sequence[Route], retries: Retries, metrics: Metrics, listing: float) -> None:
        self.routes = list(routes)
        self._metrics = metrics
        self._retries = retries
        self._known = {name: route for route in reversed(self.routes) for name in route.names if not is_pattern(name)}
        self._patterns = [(pattern([name]), route) for route in self.routes for name in route.names if is_pattern(name)]
        self._listing = listing
        self._listed: dict[str, tuple[float, Sequence[str]]] = {}  # by upstream: until when, and what

    def route(self, model: str) -> Route:
        """Raises RequestError for a model that nothing leads to."""
        route = self._known.get(model)
        if route is None:
            route = next((route for names, route in self._patterns if names.match(model)), None)
            if route is not None and len(model) < _LONG and len(self._known) < _MANY:
                self._known[model] = route
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

    @property
    def states(self) -> list[State]:
        """Of all upstreams, in the order of the routes."""
        states = [member.state for pool in self.pools for member in pool.members]
        return list(dict.fromkeys(states))

    def watched(self) -> list[UpstreamState]:
        """Of all upstreams, for the metrics."""
        now = time.monotonic()
        return [UpstreamState(each.name, each.available(now), each.load, each.waiting) for each in self.states]

    @property
    def pools(self) -> list[Pool]:
        return list(dict.fromkeys(pool for route in self.routes for pool in _pools(route)))

    async def models(self) -> list[str]:
        """Every model that can be asked for: the exact names, and for patterns what their upstreams offer."""
        names = dict.fromkeys(name for route in self.routes for name in route.names if not is_pattern(name))
        for takes, route in self._patterns:
            for offered in await asyncio.gather(*map(self._offered, _upstreams(route.pools))):
                names |= dict.fromkeys(name for name in offered if takes.match(name))
        return list(names)

    async def ready(self) -> bool:
        """Whether any upstream answers."""
        return any(await asyncio.gather(*map(_answers, _upstreams(self.pools))))

    async def _offered(self, upstream: Upstream) -> Sequence[str]:
        """The models of an upstream, from the last time if that is not long ago."""
        until, names = self._listed.get(upstream.name, (0.0, ()))
        if time.monotonic() >= until:
            try:
                names = await upstream.models()
            except ProxyError as error:
                log.warning("upstream %s: %s", upstream.name, error)
                return names
            self._listed[upstream.name] = time.monotonic() + self._listing, names
        return names


_SHOWN = 50
"""Names in a message."""

_LONG, _MANY = 200, 100_000
"""Characters, and names, up to which it is remembered where a pattern has led: to try a thousand takes 0.3 ms."""


def _pools(route: Route) -> list[Pool]:
    return [*route.pools, *([route.long_context] if route.long_context else [])]


def _upstreams(pools: Iterable[Pool]) -> list[Upstream]:
    """Each once: several pools may have the same one, with another profile."""
    return list({member.name: member.upstream for pool in pools for member in pool.members}.values())


async def _answers(upstream: Upstream) -> bool:
    """An upstream that answers anything but 5xx is there: some have no list of models."""
    try:
        await upstream.models()
    except ProxyError as error:
        return isinstance(error, Refused | RequestError)
    return True
