"""Puts a changed configuration in force while everything runs."""

import asyncio
import logging

from proxy.assemble import assemble
from proxy.config import Config
from proxy.listener import Listener
from proxy.logs import set_up
from proxy.server import Server
from proxy.source import Source
from proxy.tasks import spawn
from proxy.watch import LOOK

log = logging.getLogger(__name__)


class Reload:
    """Reads the configuration again when it is asked to, and when files have changed.

    What runs keeps what it began with, which is closed when the last request of that time has ended.
    config: what is in force. asked: set by whoever wants a reload. supervised: the supervisor watches the files, asks,
    and says what is wrong with them.
    """

    def __init__(
        self,
        source: Source,
        config: Config,
        server: Server,
        listener: Listener,
        asked: asyncio.Event,
        *,
        supervised: bool = False,
    ) -> None:
        self._source = source
        self.config = self._begun = config
        self._server = server
        self._listener = listener
        self._asked = asked
        self._supervised = supervised
        self._retiring: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Never returns."""
        while True:
            try:
                watching = self.config.watch and not self._supervised
                async with asyncio.timeout(LOOK if watching else None):
                    await self._asked.wait()
            except TimeoutError:
                if not self._source.changed():
                    continue
            self._asked.clear()
            try:
                done = await self._reload()
            except Exception:
                log.exception("not reloaded, the configuration from before goes on")
                done = False
            self._server.serving.instruments.metrics.reloaded(ok=done)

    async def _reload(self) -> bool:
        config = await asyncio.to_thread(self._source.reload, self._begun, quiet=self._supervised)
        if config is None:
            return False
        self._listener.update(config)
        old = self._server.serving
        self._server.serving = await assemble(config, old.instruments, old)
        self.config = config
        set_up(config.log.format, config.log.level, bodies=config.log.bodies)
        task = spawn(old.retire(), "retire")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        log.info("reloaded %s", self._source.path)
        return True

    async def close(self, patience: float = 1) -> None:
        """Wait for what is still being retired, when requests have ended; for so many seconds."""
        if self._retiring:
            await asyncio.wait(self._retiring, timeout=patience)
