"""Model name -> route; its upstreams are tried in order until one speaks."""

import asyncio
import logging
import re
from collections.abc import Sequence
from contextlib import aclosing

from msgspec import Struct

from proxy.core.deltas import Accepted
from proxy.core.output import Shown
from proxy.core.turn import Turn
from proxy.errors import ProxyError, RequestError, UpstreamError
from proxy.trace import Trace
from proxy.upstream import Deltas, Upstream

log = logging.getLogger(__name__)


class Route(Struct, frozen=True):
    """Which models go where.

    model: an exact name, or a pattern with * and ?. upstreams: in the order in which they are tried.
    upstream_model: what they call the model; None for the name that the client used.
    reasoning: how thought is shown, None to go by the request.
    """

    model: str
    upstreams: list[Upstream]
    upstream_model: str | None = None
    reasoning: Shown | None = None

    @property
    def exact(self) -> bool:
        return not any(sign in self.model for sign in "*?")

    def takes(self, model: str) -> bool:
        pattern = re.escape(self.model).replace(r"\*", ".*").replace(r"\?", ".")
        return re.fullmatch(pattern, model, re.DOTALL) is not None


class Router:
    """The routes, in the order of the configuration; exact names go before patterns."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = list(routes)
        self._exact = {route.model: route for route in reversed(self.routes) if route.exact}
        self._patterns = [route for route in self.routes if not route.exact]

    def route(self, model: str) -> Route:
        """Raises RequestError for a model that nothing leads to."""
        route = self._exact.get(model) or next((r for r in self._patterns if r.takes(model)), None)
        if route is None:
            routed = ", ".join(repr(route.model) for route in self.routes)
            raise RequestError(
                f"The requested model {model!r} does not exist. Routed are: {routed}.",
                code="model_not_found",
                param="model",
            )
        return route

    def ask(self, route: Route, turn: Turn, trace: Trace) -> Deltas:
        """The deltas of one turn, from the first upstream that speaks: one that fails before that is passed over."""
        if len(route.upstreams) == 1:  # one generator less for each token to pass
            trace.upstream, trace.attempts = route.upstreams[0].name, trace.attempts + 1
            return route.upstreams[0].ask(turn, trace)
        return self._ask_in_order(route, turn, trace)

    async def _ask_in_order(self, route: Route, turn: Turn, trace: Trace) -> Deltas:
        for upstream in route.upstreams:
            trace.upstream, trace.attempts = upstream.name, trace.attempts + 1
            spoke = False
            try:
                async with aclosing(upstream.ask(turn, trace)) as answer:
                    async for deltas in answer:
                        spoke = spoke or not isinstance(deltas[-1], Accepted)
                        yield deltas
                return
            except UpstreamError as error:
                if spoke or not error.retriable or upstream is route.upstreams[-1]:
                    raise
                log.warning("upstream %s failed (%s); trying the next one", upstream.name, error)

    async def models(self) -> list[str]:
        """Every model that can be asked for: the exact routes, and for patterns what their upstreams offer."""
        names = dict.fromkeys(route.model for route in self.routes if route.exact)
        for route in self._patterns:
            for offered in await asyncio.gather(*(self._offered(upstream) for upstream in route.upstreams)):
                names |= dict.fromkeys(name for name in offered if route.takes(name))
        return list(names)

    async def ready(self) -> bool:
        """Whether any upstream answers."""
        upstreams = {upstream.endpoint.url: upstream for route in self.routes for upstream in route.upstreams}
        return any(await asyncio.gather(*(self._answers(upstream) for upstream in upstreams.values())))

    async def _offered(self, upstream: Upstream) -> Sequence[str]:
        try:
            return await upstream.models()
        except ProxyError as error:
            log.warning("upstream %s: %s", upstream.name, error)
            return []

    async def _answers(self, upstream: Upstream) -> bool:
        """An upstream that answers anything but 5xx is there: some have no list of models."""
        try:
            await upstream.models()
        except ProxyError as error:
            return not (isinstance(error, UpstreamError) and error.retriable)
        return True
