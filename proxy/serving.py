"""All that one configuration amounts to, as the endpoints use it; a reload puts another one in its place."""

import asyncio
from contextlib import AsyncExitStack

from proxy.service import Service
from proxy.sinks import Pace


class Serving:
    """What requests are served with. A request keeps the one that it began with.

    strict: unknown fields of a request are refused. body_limit: bytes. resources: closed with it.
    """

    def __init__(
        self,
        service: Service,
        pace: Pace,
        *,
        strict: bool = False,
        body_limit: int = 64 * 1024 * 1024,
        resources: AsyncExitStack | None = None,
    ) -> None:
        self.service = service
        self.pace = pace
        self.strict = strict
        self.body_limit = body_limit
        self._resources = resources or AsyncExitStack()
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
        await self._unused.wait()
        await self.close()
