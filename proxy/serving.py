"""All that one configuration amounts to, as the endpoints use it; a reload puts another one in its place."""

import asyncio
from contextlib import AsyncExitStack
from typing import NamedTuple

from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.probes import Probes
from proxy.service import Service
from proxy.sinks import Pace
from proxy.spans import Tracer


class Instruments(NamedTuple):
    """What shows how the process does; they go on over reloads."""

    metrics: Metrics
    tracer: Tracer


class Serving:
    """What requests are served with. A request keeps the one that it began with.

    body_limit: bytes. metrics_open: everybody may read them. endpoints: those that pass through.
    resources: closed with it.
    """

    def __init__(
        self,
        service: Service,
        pace: Pace,
        limits: Limits,
        instruments: Instruments,
        probes: Probes,
        *,
        body_limit: int,
        metrics_open: bool,
        resources: AsyncExitStack,
    ) -> None:
        self.service = service
        self.pace = pace
        self.limits = limits
        self.instruments = instruments
        self.endpoints = {endpoint for route in service.router.routes for endpoint in route.endpoints}
        self.body_limit = body_limit
        self.metrics_open = metrics_open
        self._probes = probes
        self._resources = resources
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    def enter(self) -> None:
        self._users += 1
        if self._users == 1:
            self._unused.clear()

    def leave(self) -> None:
        self._users -= 1
        if not self._users:
            self._unused.set()

    async def close(self) -> None:
        """Close what it holds, at once."""
        await self._resources.aclose()

    async def retire(self) -> None:
        """Close it when its last request has ended. No request may begin with it any more."""
        self._probes.close()  # the next one has its own
        await self._unused.wait()
        await self.close()
