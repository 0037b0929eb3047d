"""Says when the event loop is late: what holds it up holds up every stream."""

import asyncio
import logging
import time

log = logging.getLogger(__name__)

PERIOD = 0.5
"""Seconds between two looks at the clock."""


class Lag:
    """Watches the running loop until it is closed. much: seconds that are worth a line in the log."""

    def __init__(self, much: float = 1) -> None:
        self._much = much
        self._wait()

    def close(self) -> None:
        self._timer.cancel()

    def _wait(self) -> None:
        self._due = time.monotonic() + PERIOD
        self._timer = asyncio.get_running_loop().call_later(PERIOD, self._look)

    def _look(self) -> None:
        late = time.monotonic() - self._due
        if late > self._much:
            log.warning("the event loop was held up for %.1f s: the machine is short of time, or this is a bug", late)
        self._wait()
