"""What drains an event stream: into SSE, or into one JSON body."""

import asyncio
import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from email.utils import formatdate
from functools import lru_cache

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import SERVER_SOFTWARE
from aiohttp_sse import EventSourceResponse
from msgspec import Struct

from proxy import tasks
from proxy.core.deltas import Delta
from proxy.core.translator import Translator
from proxy.errors import ProxyError, Shutdown
from proxy.metrics import GAPS
from proxy.run import Events
from proxy.service import Running
from proxy.timers import Timer, after
from proxy.wire.events import Event
from proxy.wire.sse import COMMENT, DONE, frames

log = logging.getLogger(__name__)

BUFFER = 24 * 1024  # bytes that wait for a slow client before nothing more is pulled


class Pace(Struct, frozen=True):
    """Times of a stream, in seconds. See config.Stream."""

    accept_wait: float = 10
    keep_alive: float = 15
    progress: float = 120
    send_timeout: float = 120
    done: bool = True

    @property
    def shortest(self) -> float:
        return min(self.keep_alive, self.progress, self.send_timeout)


def show(events: list[Event]) -> None:
    """In the log at level debug, without what they say."""
    if log.isEnabledFor(logging.DEBUG):
        log.debug("events %s", ", ".join(f"{event.seq} {event.type.decode()}" for event in events))


class Stopping:
    """The proxy is going to end: `begun`, and `now` open streams have to end too."""

    begun = False
    now = False


async def collect(running: Running, stopping: Stopping) -> bytes:
    """The final response as JSON. Raises ProxyError when it failed: without a stream, a failure is a status."""
    translator = running.translator
    try:
        async with aclosing(running.events) as events:
            async for batch in events:
                show(batch)
    except asyncio.CancelledError:
        if stopping.now and tasks.uncancel():
            raise Shutdown from None
        raise
    if translator.error is not None:
        raise translator.error
    return translator.response


class EventStream(EventSourceResponse):
    """The response of one stream: begins it in time, breathes while nothing happens, drops a client that takes
    nothing.

    headers: asked for when the stream begins, since they tell what the upstream could not be told.

    written: bytes of frames. first_after: seconds until the first event of an item left, or None. stalled: the client
    was dropped. complete: everything has been sent. gaps: between writes, counted by metrics.GAPS,
    None when there was one write.
    """

    _send_headers_immediately = False  # aiohttp's: they leave with the first events, in one packet
    _protocol: BaseProtocol
    _request: web.Request
    _timer: Timer | asyncio.TimerHandle
    _opening: asyncio.Task[None] | None = None
    _writing_since: float | None = None
    _waited = 0  # what waited for the client when it was last looked at
    written = 0
    first_after: float | None = None
    stalled = False
    done = False
    complete = False
    gaps: list[int] | None = None

    def __init__(self, running: Running, pace: Pace, headers: Callable[[], Mapping[str, str]]) -> None:
        # sep: LF, as OpenAI sends it. The library's own frames are never used, only its connection care.
        super().__init__(
            sep="\n", allow_all_methods=True, send_timeout=pace.send_timeout, ping_interval=pace.keep_alive
        )
        self.headers["Content-Type"] = "text/event-stream; charset=utf-8"
        self._more_headers = headers
        self.translator: Translator = running.translator
        self.pace = pace
        self._shown = log.isEnabledFor(logging.DEBUG)
        self._events: Events = running.events
        self._trace = running.trace
        self._loop = self._trace.loop
        self._began = self._wrote_at = self._event_at = self._loop.time()

    async def run(self, request: web.Request, stopping: Stopping) -> None:
        """Send the whole stream.

        Raises ProxyError if it fails before the 200, ConnectionError if the client has gone.
        """
        self._request = request
        self._timer = after(min(self.pace.accept_wait, self.pace.shortest), self._look, self._loop)
        try:
            async with aclosing(self._events) as events:
                async for batch in events:
                    if self._opening is not None:
                        await self._opening
                        if not self.prepared:
                            raise ConnectionResetError
                    elif not self.prepared:
                        await self._open(request)
                    await self._send(batch)
        except asyncio.CancelledError:
            if not stopping.now or self.stalled or not tasks.uncancel():
                raise
            await self._end(Shutdown())
        finally:
            if self._opening is not None:
                self._opening.cancel()
            self.done = True
            self._timer.cancel()
        self.complete = True

    @property
    def streamed(self) -> float:
        """Seconds from the beginning to the last write."""
        return self._wrote_at - self._began - (self.first_after or 0)

    async def _end(self, error: ProxyError) -> None:
        if not self.prepared:
            raise error
        if events := self.translator.fail(error):
            await self._send(events)

    async def _open_early(self) -> None:
        with suppress(ConnectionError):  # the client may have gone, which its own task is told
            await self._open(self._request)
            if events := self.translator.start():
                await self._send(events)

    async def _open(self, request: web.Request) -> None:
        if (transport := request.transport) is None:
            raise ConnectionResetError
        if transport.get_write_buffer_limits()[1] != BUFFER:  # of this connection's first stream
            transport.set_write_buffer_limits(high=BUFFER)
        self.headers.extend(self._more_headers())
        if request.version < HttpVersion11:  # only the end of the connection tells the end of the stream
            self.headers["Connection"] = "close"
            self.force_close()
        self._protocol = request.protocol
        await self.prepare(request)
        if request.version >= HttpVersion11:  # which has HTTP chunks
            self._trace.express = self

    async def _send(self, events: list[Event]) -> None:
        """All events of one batch in one write."""
        last = self.translator.ended
        data = self._frames(events)
        self._writing_since = self._wrote_at
        await (self.write_eof(data) if last else self.write(data))
        self._writing_since = None

    def _frames(self, events: list[Event]) -> bytes:
        now = self._loop.time()
        if self.first_after is None and events[-1].seq > 1:
            self.first_after = now - self._began
        if self.written:
            self.gaps = self.gaps or [0] * (len(GAPS) + 1)
            self.gaps[bisect_left(GAPS, now - self._wrote_at)] += 1
        self._wrote_at = self._event_at = now
        if self._shown:
            show(events)
        data = frames(events)
        if self.translator.ended and self.pace.done:
            data += DONE
        events.clear()  # a slow client may keep us here for long
        self.written += len(data)
        return data

    def can_take(self) -> bool:
        """Whether a write would leave at once: see proxy.answer.Lane."""
        protocol = self._protocol
        return self._writing_since is None and protocol.transport is not None and not protocol.writing_paused

    def take(self, deltas: list[Delta]) -> None:
        """To be called only when can_take(): nothing is awaited, so it goes to the transport, as one HTTP chunk."""
        if events := self.translator.feed(deltas):
            data = self._frames(events)
            assert self._protocol.transport is not None
            self._protocol.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """As the library's, without its task for pings, whose place the timer takes.

        Without all that other responses may need, too: 8 us instead of 26.
        """
        if self.prepared or request.version < HttpVersion11 or request.method == "HEAD":
            return await web.StreamResponse.prepare(self, request)
        self._req, self._keep_alive = request, request.keep_alive
        writer = self._payload_writer = request._payload_writer
        headers = self._headers
        headers["Transfer-Encoding"] = "chunked"
        headers["Date"] = _date(int(time.time()))
        headers["Server"] = SERVER_SOFTWARE
        if not self._keep_alive:
            headers["Connection"] = "close"
        await request._prepare_hook(self)
        writer.enable_chunking()
        await writer.write_headers("HTTP/1.1 200 OK", headers)
        return writer

    def _look(self) -> None:
        """What the one timer of a stream is for; sets it again."""
        if self.done:
            return
        now = self._loop.time()
        if not self.prepared:
            due = self._look_for_the_beginning(now)
        elif self._writing_since is not None:
            due = self._look_at_the_client(now, self._writing_since)
        else:
            due = self._look_for_silence(now)
        if not self.stalled:
            self._timer = self._loop.call_at(max(due, now + 0.001), self._look)

    def _look_for_the_beginning(self, now: float) -> float:
        """The stream begins when the upstream has not answered for so long that the client must hear something.

        See pitfall 80.
        """
        due = self._began + self.pace.accept_wait
        if now < due:
            return due
        if self._opening is None:
            self._opening = tasks.spawn(self._open_early(), "open a stream early")
        return now + self.pace.shortest

    def _look_at_the_client(self, now: float, since: float) -> float:
        """The end of a client that has not taken a write within `send_timeout`."""
        if (waiting := self._waiting()) < self._waited:  # it takes something, if slowly
            self._writing_since = since = now
        self._waited = waiting
        due = since + self.pace.send_timeout
        if now >= due:
            self._drop()
        return due

    def _look_for_silence(self, now: float) -> float:
        """A comment after `keep_alive` without a write, `response.in_progress` after `progress` without an event."""
        pace = self.pace
        if now - self._event_at >= pace.progress:
            self._event_at = self._wrote_at = now
            tasks.spawn(self._breathe(lambda: frames(self.translator.progress())), "show progress")
        elif now - self._wrote_at >= pace.keep_alive:
            self._wrote_at = now
            tasks.spawn(self._breathe(lambda: COMMENT), "keep a stream alive")
        self._waited = 0
        return min(self._wrote_at + pace.keep_alive, self._event_at + pace.progress, now + pace.send_timeout)

    def _waiting(self) -> int:
        """Bytes that the client has not taken yet."""
        transport = self._protocol.transport
        return transport.get_write_buffer_size() if transport is not None else 0

    async def _breathe(self, make: Callable[[], bytes]) -> None:
        """make: called only now, when nothing can come between an event's number and its place in the stream."""
        if self.done or self.translator.ended or self._writing_since is not None:
            return
        self._writing_since = since = self._loop.time()
        with suppress(ConnectionError):
            await self.write(make())
        if self._writing_since == since:
            self._writing_since = None

    def _drop(self) -> None:
        self.stalled = True
        if self._req is not None and self._req.transport is not None:
            self._req.transport.abort()


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
