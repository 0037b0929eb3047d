"""One answer of an upstream while it is read: its time limits, and the short way to the client."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Self

import aiohttp
from msgspec import Struct

from proxy.blocks import BlockReader
from proxy.core.deltas import Delta
from proxy.dialects import Decoder
from proxy.errors import Broken
from proxy.timers import Timer, after
from proxy.trace import Express, Trace

TAIL = 0.1  # seconds for the end of the body behind the end of the stream, so that the connection can be used again


class Timeouts(Struct, frozen=True):
    """Seconds, None for no limit.

    connect: of the connection. accept: until the answer's status. idle: without a byte. total: of it all.
    """

    connect: float | None = 10
    accept: float | None = 600
    idle: float | None = 300
    total: float | None = None


class Lane:
    """The short way of a stream in full flow: from the socket's callback to the client's socket, past all tasks.

    Waking the reader, and the generators after it, costs about a fifth of what a token costs. So, once the upstream has
    spoken and while the sink can write at once, what arrives is decoded and handed to the sink in the callback.
    Anything else - the end, a failure, a client that is slow - wakes the reader, and goes the ordinary way, where a
    slow client stops the reading.
    """

    def __init__(self, content: aiohttp.StreamReader, decoder: Decoder, watch: "Watch", trace: Trace) -> None:
        self._content = content if isinstance(content, BlockReader) else None
        self._decoder = decoder
        self._watch = watch
        self._trace = trace
        self._kept: list[Delta] = []
        self._error: Exception | None = None

    def enter(self) -> None:
        content, express = self._content, self._trace.express
        if content is not None and express is not None:
            content.listen(partial(self._arrived, content, express))

    def leave(self) -> list[Delta]:
        """Back to the ordinary way; gives what was decoded here and has not been sent."""
        if self._content is not None:
            self._content.listen(None)
        if self._error is not None:
            raise self._error
        kept, self._kept = self._kept, []
        return kept

    def close(self) -> None:
        """The answer has ended, in whatever way."""
        if self._content is not None:
            self._content.listen(None)
        self._error, self._kept = None, []

    def _arrived(self, content: BlockReader, express: Express) -> None:
        if not content.waits():
            return
        try:
            if express.can_take():
                deltas = self._decoder.feed(content.take())
                if not self._decoder.done and self._decoder.failure is None:
                    self._watch.moved = True
                    if deltas:
                        express.take(deltas)
                    return
                self._kept = deltas
        except Exception as error:  # noqa: BLE001 - a bug: raised again where the reader waits, who is in a task
            self._error = error
        content.wake()


class Watch:
    """The time limits of one answer, by one timer that looks at the clock and is not set anew for each read.

    since: when the read that is under way began, None when none is: a slow client is not the upstream's fault.
    moved: something has come since the timer looked, without an end of that read.
    """

    def __init__(
        self, content: aiohttp.StreamReader, timeouts: Timeouts, name: str, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.since: float | None = None
        self.moved = False
        self._content = content
        self._idle = timeouts.idle
        self._name = name
        self.now: Callable[[], float] = loop.time
        self._at = loop.call_at
        self._timers: list[Timer | asyncio.TimerHandle] = []
        if timeouts.idle is not None:
            self._timers.append(after(timeouts.idle, self._look, loop))
        if timeouts.total is not None:
            late = partial(self._end, f"was not done after {timeouts.total:g} s")
            self._timers.append(after(timeouts.total, late, loop))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for timer in self._timers:
            timer.cancel()

    def _look(self) -> None:
        assert self._idle is not None
        now = self.now()
        if self.moved and self.since is not None:
            self.since, self.moved = now, False
        if self.since is not None and now >= self.since + self._idle:
            self._end(f"sent nothing for {self._idle:g} s")
        else:
            self._timers[0] = self._at((self.since or now) + self._idle, self._look)

    def _end(self, why: str) -> None:
        late = Broken(f"The upstream {self._name!r} {why}.", status=504, code="server_error")
        late.here = False
        self._content.set_exception(late)

    async def tail(self) -> None:
        """Read on to the end of the body, which stands right behind the end of the stream."""
        self._timers.append(self._at(self.now() + TAIL, self._end, "did not end its body"))
        with suppress(aiohttp.ClientError, OSError, RuntimeError, Broken):
            while await self._content.readany():
                pass
