"""Model name -> route -> pools of upstreams."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from math import inf
from typing import Any, Generic, TypeVar

from msgspec import Struct

from proxy.attempts import Attempts, Retries
from proxy.core.output import Shown
from proxy.core.patterns import is_pattern, pattern
from proxy.errors import Broken, ProxyError, Refused, RequestError
from proxy.metrics import Metrics, UpstreamState
from proxy.pools import Pool, State
from proxy.tasks import spawn
from proxy.trace import Trace
from proxy.upstream import Upstream
from proxy.wire.invalid import short

log = logging.getLogger(__name__)
T = TypeVar("T")

FAILED = 5.0
"""Seconds for which an upstream that has failed to list its models is not asked for them again."""

READY = 1.0
"""Seconds for which it is known whether any upstream answers."""


class Shared(Generic[T]):
    """Something to be found out: once for all who want it at the same time, or while it is fresh.

    find: gives it, and the seconds for which it is fresh. An asker who leaves does not end it for the others.
    """

    def __init__(self, find: Callable[[], Coroutine[Any, Any, tuple[T, float]]], name: str) -> None:
        self._find = find
        self._name = name
        self._until = -inf
        self._found: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """Raises what `find` raises."""
        if self._found is None or (self._found.done() and time.monotonic() >= self._until):
            self._found = spawn(self._look(), self._name)
        return await asyncio.shield(self._found)

    async def _look(self) -> T:
        found, fresh = await self._find()
        self._until = time.monotonic() + fresh
        return found


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
        self._upstreams = _upstreams(self.pools)
        self._names: dict[str, Sequence[str]] = {}  # by upstream: its last list of models
        self._lists = {each.name: Shared(partial(self._list, each), f"list {each.name}") for each in self._upstreams}
        self._ready = Shared(self._answer, "look for upstreams that answer")

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
                f"The requested model {short(model)!r} does not exist. Routed are: {shown}.",
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
        asked = _upstreams(pool for _, route in self._patterns for pool in route.pools)
        lists = await asyncio.gather(*(self._lists[upstream.name].get() for upstream in asked))
        offered = {upstream.name: listed for upstream, listed in zip(asked, lists, strict=True)}
        for takes, route in self._patterns:
            for upstream in _upstreams(route.pools):
                names |= dict.fromkeys(name for name in offered[upstream.name] if takes.match(name))
        return list(names)

    async def ready(self) -> bool:
        """Whether any upstream answers."""
        return await self._ready.get()

    async def _answer(self) -> tuple[bool, float]:
        """Whether any upstream answers: the first that does is enough, and nobody waits for one that hangs."""
        asked = [spawn(_answers(upstream), f"ask {upstream.name}") for upstream in self._upstreams]
        try:
            for each in asyncio.as_completed(asked):
                if await each:
                    return True, READY
        finally:
            for task in asked:
                task.cancel()
        return False, READY

    async def _list(self, upstream: Upstream) -> tuple[Sequence[str], float]:
        """The models of an upstream; those of the last time when it does not say."""
        try:
            names = self._names[upstream.name] = await upstream.models()
        except ProxyError as error:
            log.warning("upstream %s: %s", upstream.name, error)
            return self._names.get(upstream.name, ()), min(self._listing, FAILED)
        return names, self._listing


_SHOWN = 50
"""Names in a message."""

_LONG, _MANY = 200, 100_000
"""Characters, and names, up to which it is remembered where a pattern has led: to try a thousand takes 0.1 ms."""


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
        return isinstance(error, Refused | RequestError | Broken)
    return True
