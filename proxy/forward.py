"""Endpoints that pass through: request and answer go on byte for byte, the answer as fast as the client reads it."""

import logging
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Mapping

import aiohttp
import msgspec
from aiohttp import HttpVersion11, web
from aiohttp.http import StreamWriter
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.answer import Watch
from proxy.attempts import Attempt
from proxy.blocks import by_blocks
from proxy.core.balance import affinity_key
from proxy.errors import Broken, ProxyError, RequestError
from proxy.exchange import Answer
from proxy.keys import Grant
from proxy.metrics import GAPS
from proxy.router import Route
from proxy.service import HEAD, Service, check_size
from proxy.timers import after
from proxy.trace import Trace
from proxy.upstream import LIMITS
from proxy.wire import forwarded
from proxy.wire.invalid import short

log_bodies = logging.getLogger("proxy.bodies")

EDGE = 4096
"""Bytes at the end, and at the beginning, of an answer in which its usage is looked for."""

BUFFER = 24 * 1024  # bytes that wait for a slow client before nothing more is read

_OURS = {"date", "server", "x-request-id", *LIMITS}
_HOP = {"connection", "keep-alive", "proxy-authenticate", "proxy-connection", "te", "trailer", "transfer-encoding"}
_NOT_PASSED = _OURS | _HOP | {"set-cookie", "upgrade"}
_DECODED = {"br", "deflate", "gzip", "zstd"}  # content encodings that aiohttp takes off

_BLANK_LINE = b"\n\n", b"\r\r", b"\r\n\r\n"


class ForwardResponse(web.StreamResponse):
    """An answer on its way to the client, who is dropped when it takes nothing for so long.

    patience: seconds. stalled: the client was dropped.
    """

    _send_headers_immediately = False  # aiohttp's: they leave with the first block, in one packet
    stalled = False

    def __init__(self, status: int, headers: CIMultiDict[str], patience: float) -> None:
        super().__init__(status=status, headers=headers)
        self._patience = patience

    async def begin(self, request: web.Request) -> None:
        if (transport := request.transport) is None:
            raise ConnectionResetError
        if transport.get_write_buffer_limits()[1] != BUFFER:  # of this connection's first answer
            transport.set_write_buffer_limits(high=BUFFER)
        if request.version < HttpVersion11 and self.content_length is None:
            self.headers["Connection"] = "close"  # only the end of the connection tells the end of the answer
            self.force_close()
        self._transport, self._protocol = transport, request.protocol
        writer = await self.prepare(request)
        assert isinstance(writer, StreamWriter)
        self._writer = writer

    async def send(self, block: bytes) -> None:
        """Returns when there is room for more."""
        await self._writer.write(block, drain=False)
        if self._protocol.writing_paused:
            await self._patiently(self._writer.drain())

    async def end(self) -> None:
        await self._patiently(self.write_eof())

    async def _patiently(self, work: Awaitable[None]) -> None:
        self._left = self._transport.get_write_buffer_size()
        self._timer = after(self._patience, self._look)
        try:
            await work
        finally:
            self._timer.cancel()

    def _look(self) -> None:
        left = self._transport.get_write_buffer_size()
        if left < self._left:  # it takes something, if slowly
            self._left = left
            self._timer = after(self._patience, self._look)
        else:
            self.stalled = True
            self.abort()

    def abort(self) -> None:
        """Cut the connection, so that nobody takes what was sent for the whole."""
        self._transport.abort()


class Forward:
    """One request that passes through. Raises RequestError when it can't.

    path: the client's, with the query. body: JSON.

    response: what the client gets, None before it has begun. stream: it is one of events. written: bytes of its body.
    first_after: seconds until the first of them was here. gaps: between the writes, counted by metrics.GAPS.
    complete: everything has been sent.
    """

    def __init__(self, service: Service, path: str, body: bytes, trace: Trace, grant: Grant | None) -> None:
        fields = forwarded.decode(body)
        model = forwarded.model(fields)
        self.route = _route(service, model, trace, grant)
        if path.partition("?")[0] not in self.route.endpoints:
            offered = ", ".join(self.route.endpoints) or "none"
            message = f"This is not offered for the model {short(model)!r}. Offered are: {offered}."
            raise RequestError(message, status=404, code="unknown_url")
        check_size(body, self.route)
        self.response: ForwardResponse | None = None
        self.stream = False
        self.written = 0
        self.first_after: float | None = None
        self.gaps = [0] * (len(GAPS) + 1)
        self.complete = False
        self._router = service.router
        self._trace = trace
        self._path = path.removeprefix("/v1")
        self._body = forwarded.rename(body, fields, self.route.upstream_model)
        self._key = None
        if self.route.balances:
            own = forwarded.cache_key(fields) or trace.headers.get("session_id")
            self._key = affinity_key(own or forwarded.head(fields, HEAD))
        self._loop = trace.loop
        self._began = self._wrote_at = self._loop.time()
        self._head = self._tail = b""
        self._events = 0

    async def run(
        self, request: web.Request, headers: Callable[[], Mapping[str, str]], send_timeout: float
    ) -> web.StreamResponse:
        """Ask, and send the answer. Raises what the last upstream raised; see `fail`.

        headers: of ours, asked for when the answer begins.
        send_timeout: seconds after which a client that takes nothing is dropped.
        """
        self._request, self._headers, self._send_timeout = request, headers, send_timeout
        sent = self._trace.headers
        given = {name: value for name in ("Content-Type", "Accept") if (value := sent.get(name)) is not None}
        async for attempt in self._router.attempts(self.route, self._trace, self._key):
            with attempt:
                upstream = attempt.upstream
                answer = await upstream.forward(self._path, self._body, given, self._trace)
                try:
                    with Watch(by_blocks(answer.content), upstream.timeouts, upstream.name, self._loop) as watch:
                        await self._copy(answer, watch, attempt)
                finally:
                    answer.close()
            if self.response is not None:
                await self.response.end()
                self.complete = True
                return self.response
        raise AssertionError("there is always a next try, or an error")

    async def fail(self, error: ProxyError) -> web.StreamResponse:
        """Tell the client that the answer ends too early: by an event between two of a stream, else by a cut.

        Raises the error when nothing has been sent yet.
        """
        response = self.response
        if response is None:
            raise error
        if self.stream and self._tail.endswith(_BLANK_LINE) and response.content_length is None:
            await response.send(b"data: %b\n\n" % msgspec.json.encode({"error": error.detail()}))
            await response.end()
        else:
            response.abort()
        return response

    @property
    def tokens(self) -> tuple[int, int]:
        """Of input and output, as the answer says; where it does not, its events stand for the output."""
        usage = forwarded.usage(self._tail) or forwarded.usage(self._head)
        return usage or (0, self._events)

    @property
    def streamed(self) -> float:
        """Seconds from the first write to the last."""
        return self._wrote_at - self._began - (self.first_after or 0)

    async def _copy(self, answer: Answer, watch: Watch, attempt: Attempt) -> None:
        content = answer.content
        while True:
            watch.since = watch.now()
            try:
                block = await content.readany()
            except (aiohttp.ClientError, OSError, RuntimeError) as error:
                message = f"The upstream {attempt.upstream.name!r} broke off its answer."
                raise Broken(message, code="server_error") from error
            watch.since = None
            response = self.response or await self._begin(answer, attempt)
            if not block:
                return
            if b"error" in block:
                block = attempt.upstream.masked(block)  # some servers quote the key that they were sent
            self._look(block)
            await response.send(block)

    async def _begin(self, answer: Answer, attempt: Attempt) -> ForwardResponse:
        attempt.spoke = True
        self._body = b""  # it may be large, and the answer long
        headers = _passed(answer.headers)
        headers.update(self._headers())
        response = ForwardResponse(answer.status, headers, self._send_timeout)
        await response.begin(self._request)
        self.response, self.stream = response, response.content_type == "text/event-stream"
        return response

    def _look(self, block: bytes) -> None:
        now = self._loop.time()
        if self.first_after is None:
            self.first_after = now - self._began
        else:
            self.gaps[bisect_left(GAPS, now - self._wrote_at)] += 1
        self._wrote_at = now
        if self.written < EDGE:
            self._head += block[: EDGE - self.written]
        self.written += len(block)
        self._tail = (self._tail + block[-EDGE:])[-EDGE:]
        if self.stream:
            self._events += block.count(b"data:")
        if log_bodies.isEnabledFor(logging.INFO):
            log_bodies.info("%s to the client: %s", self._trace.id, block.decode("utf-8", "replace"))


def _passed(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """The headers of an answer that go on: not those of its connection, nor what is ours to say, as are rate limits."""
    left_out = _NOT_PASSED | {name.strip().lower() for name in ",".join(headers.getall("Connection", ())).split(",")}
    if headers.get("Content-Encoding", "").strip().lower() in _DECODED:
        left_out |= {"content-encoding", "content-length"}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in left_out)


def _route(service: Service, model: str, trace: Trace, grant: Grant | None) -> Route:
    try:
        return service.route(model, trace, grant)
    except RequestError as error:
        if error.status == 400:  # Chat Completions answers so (RESPONSES 7.2)
            error.status = 404
        raise
