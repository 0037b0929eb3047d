"""The endpoints over HTTP: statuses, headers, and a line in the log for each request."""

import asyncio
import logging
import os
import string
import time
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError

from proxy.access import Line, printable, write
from proxy.blocks import read_small
from proxy.errors import ProxyError, RequestError, internal
from proxy.forward import Forward
from proxy.keys import Grant
from proxy.limits import Admission, RateLimited
from proxy.metrics import Done
from proxy.service import Running
from proxy.serving import Serving
from proxy.sinks import EventStream, Stopping, collect
from proxy.trace import Trace

log = logging.getLogger(__name__)
log_bodies = logging.getLogger("proxy.bodies")

Respond = Callable[[web.Request, Grant | None], Awaitable[web.StreamResponse]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ENCODINGS = ("identity", "gzip", "deflate", "br", "zstd")
CLIENT_CLOSED = 499  # nginx's status for a client that left before it got one
_SAFE = set(string.ascii_letters + string.digits + "_.-")


LINE = web.RequestKey("line", Line)
BEGAN = web.RequestKey("began", float)
SERVING = web.RequestKey("serving", Serving)
TRACE = web.RequestKey("trace", Trace)
ADMISSION: web.RequestKey[Admission] = web.RequestKey("admission", Admission)


class Server:
    """The HTTP endpoints. serving: what new requests are served with; may be replaced at any time."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.stopping = Stopping()
        self.open: set[asyncio.Task[object]] = set()  # the tasks of responses under way
        self.app = web.Application(middlewares=[self._guard])
        self.app.add_routes(
            [
                web.post("/v1/responses", self._create),
                web.get("/v1/responses", self._upgrade, allow_head=False),
                web.post("/v1/responses/compact", self._later),
                web.post("/v1/responses/input_tokens", self._later),
                web.get("/v1/models", self._models),
                web.get("/v1/models/{id:.+}", self._model),
                web.get("/metrics", self._metrics),
                web.get("/admin/upstreams", self._upstreams),
                web.get("/health", self._health),
                web.get("/ready", self._ready),
            ]
        )

    async def stop(self, patience: float) -> None:
        """Let the open responses finish for `patience` seconds, then end them with `response.failed`."""
        self.stopping.begun = True
        end = time.monotonic() + patience
        if self.open:
            log.info("waiting up to %g s for %d open responses", patience, len(self.open))
        while self.open and (left := end - time.monotonic()) > 0:  # some may still begin, on connections that are kept
            await asyncio.wait(set(self.open), timeout=left)
        self.stopping.now = True
        for task in self.open:
            task.cancel()
        if self.open:
            await asyncio.wait(self.open, timeout=5)

    # -- around every request

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Ids, errors as envelopes, the line in the log."""
        began = time.perf_counter()
        read_small(request.transport)
        serving = self.serving
        serving.enter()
        line = Line(request.method, printable(request.path, 200), _request_id(request.headers.get("X-Request-Id")))
        line.client_id = printable(request.headers.get("X-Client-Request-Id", ""), 512) or None
        request[LINE], request[BEGAN], request[SERVING] = line, began, serving
        if request.path in serving.endpoints:
            handler = self._forward
        try:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = self._refuse(request, _envelope_of(request, error))
                if "Allow" in error.headers:
                    response.headers["Allow"] = error.headers["Allow"]
            except ProxyError as error:
                response = self._refuse(request, error)
            except (asyncio.CancelledError, ConnectionError):
                line.ended = line.ended or "client_closed"
                raise asyncio.CancelledError from None  # of which aiohttp makes no error in the log
            except Exception:
                log.exception("%s %s (%s) failed by a bug", request.method, request.path, line.id)
                response = self._refuse(request, internal())
            line.status = response.status
            return response
        finally:
            serving.leave()
            line.duration = time.perf_counter() - began
            if line.ended == "client_closed" and not line.status:
                line.status = CLIENT_CLOSED
            write(line)
            serving.metrics.request(_done(request, line))

    def _refuse(self, request: web.Request, error: ProxyError) -> web.Response:
        line = request[LINE]
        line.ended, line.error = line.ended or "error", error.message
        headers = self._headers(request)
        if isinstance(error, RateLimited):
            headers |= error.headers
        if error.retry_after is not None:
            headers["Retry-After"] = str(max(1, round(error.retry_after)))
            headers["retry-after-ms"] = str(round(error.retry_after * 1000))
        if error.should_retry is not None:
            headers["x-should-retry"] = str(error.should_retry).lower()
        if error.original is not None and request.path in request[SERVING].endpoints:
            status, kind, body = error.original
            return web.Response(status=status, body=body, headers=headers | {"Content-Type": kind})
        body = msgspec.json.encode({"error": error.detail()})
        return web.Response(status=error.status, body=body, headers=headers, content_type="application/json")

    def _headers(self, request: web.Request) -> dict[str, str]:
        milliseconds = round((time.perf_counter() - request[BEGAN]) * 1000)
        headers = {
            "x-request-id": request[LINE].id,
            "openai-processing-ms": str(milliseconds),
            "openai-version": "2020-10-01",
        }
        trace = request.get(TRACE)
        if trace is not None:
            headers |= _warnings(trace)
            headers |= trace.limits
        admission = request.get(ADMISSION)
        if admission is not None:
            headers |= admission.headers()
        return headers

    # -- the endpoints

    async def _create(self, request: web.Request) -> web.StreamResponse:
        return await self._admitted(request, self._respond)

    async def _admitted(self, request: web.Request, respond: Respond) -> web.StreamResponse:
        """What only holders of a key get, and within its limits."""
        serving, line = request[SERVING], request[LINE]
        grant = serving.service.keyring.find(request.headers)
        admission = None
        if grant is not None:
            line.key = grant.name
            admission = request[ADMISSION] = await serving.limits.admit(grant)
        task = asyncio.current_task()
        assert task is not None
        self.open.add(task)
        try:
            return await respond(request, grant)
        finally:
            self.open.discard(task)
            if admission is not None:
                await admission.done((line.input or 0) + (line.output or 0))

    async def _respond(self, request: web.Request, grant: Grant | None) -> web.StreamResponse:
        serving, line = request[SERVING], request[LINE]
        body = await _json_body(request, serving.body_limit)
        if log_bodies.isEnabledFor(logging.INFO):
            log_bodies.info("%s from the client: %s", line.id, body.decode("utf-8", "replace"))
        trace = request[TRACE] = _trace(request, grant)
        running = serving.service.create(body, trace, grant)
        serving.metrics.opened(trace.route)
        try:
            if running.stream:
                return await self._stream(request, running, trace)
            final = await collect(running, self.stopping)
            line.bytes = len(final)
            return web.Response(body=final, headers=self._headers(request), content_type="application/json")
        finally:
            serving.metrics.closed(trace.route)
            _note(line, running, trace)

    async def _stream(self, request: web.Request, running: Running, trace: Trace) -> web.StreamResponse:
        line: Line = request[LINE]
        stream = EventStream(running, request[SERVING].pace, lambda: self._headers(request))
        try:
            await stream.run(request, self.stopping)
        finally:
            line.bytes = stream.written
            line.first = stream.first_after
            line.status = stream.status
            if stream.stalled:
                line.ended = "client_stalled"
            elif stream.prepared and not stream.complete:
                line.ended = "client_closed"
        return stream

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        """An endpoint that passes through."""
        if request.method != "POST":
            raise web.HTTPMethodNotAllowed(request.method, ["POST"])
        return await self._admitted(request, self._pass)

    async def _pass(self, request: web.Request, grant: Grant | None) -> web.StreamResponse:
        serving, line = request[SERVING], request[LINE]
        body = await _json_body(request, serving.body_limit)
        trace = request[TRACE] = _trace(request, grant)
        forward = Forward(serving.service, request.rel_url.raw_path_qs, body, trace, grant)
        serving.metrics.opened(trace.route)
        try:
            await forward.run(request, lambda: self._headers(request), serving.pace.send_timeout)
        except ProxyError as error:
            if forward.response is None:
                raise
            line.ended, line.error = "failed", error.message
        finally:
            serving.metrics.closed(trace.route)
            _note_route(line, trace)
            line.input, line.output = forward.tokens
            line.bytes = forward.written
            if forward.stalled:
                line.ended = "client_stalled"
            elif forward.complete:
                line.ended = "completed"
        assert forward.response is not None
        return forward.response

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        """A WebSocket is refused by 426, which Codex takes as "use HTTP"; anything else costs it time (pitfall 56)."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise web.HTTPMethodNotAllowed("GET", ["POST"])
        raise RequestError("WebSocket is not supported here: use HTTP.", status=426, code="websocket_not_supported")

    async def _later(self, request: web.Request) -> web.StreamResponse:
        what = request.path.rpartition("/")[2]
        raise RequestError(f"Unsupported: this server does not offer {what!r}.", code="unsupported_parameter")

    async def _models(self, request: web.Request) -> web.Response:
        models = [_model(name) for name in await self._offered(request)]
        return web.json_response({"object": "list", "data": models}, headers=self._headers(request))

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        if name not in await self._offered(request):
            raise RequestError(f"The model {name!r} does not exist.", status=404, code="model_not_found", param="model")
        return web.json_response(_model(name), headers=self._headers(request))

    async def _offered(self, request: web.Request) -> list[str]:
        """The models that the client may ask for."""
        service = request[SERVING].service
        grant = service.keyring.find(request.headers)
        return [name for name in await service.router.models() if grant is None or service.keyring.takes(grant, name)]

    async def _upstreams(self, request: web.Request) -> web.Response:
        """Load and health of all upstreams, for who has an admin key."""
        service = request[SERVING].service
        service.keyring.admin(request.headers)
        now = asyncio.get_running_loop().time()
        return web.json_response(
            {"upstreams": [state.show(now) for state in service.router.states]}, headers=self._headers(request)
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        serving = request[SERVING]
        if not serving.metrics_open:
            serving.service.keyring.admin(request.headers)
        kind, body = await serving.metrics.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": kind})

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"}, headers=self._headers(request))

    async def _ready(self, request: web.Request) -> web.Response:
        if self.stopping.begun or not await request[SERVING].service.router.ready():
            raise ProxyError("No upstream is available.", status=503, code="server_is_overloaded", retry_after=1)
        return web.json_response({"status": "ready"}, headers=self._headers(request))


async def _json_body(request: web.Request, limit: int) -> bytes:
    kind = request.content_type
    if kind != "application/json" and not kind.endswith("+json"):
        raise RequestError(
            f"Unsupported content type: {kind!r}. Send the request body as 'application/json'.",
            status=415,
            code="unsupported_content_type",
        )
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ENCODINGS:
        allowed = ", ".join(repr(each) for each in ENCODINGS)
        raise RequestError(
            f"Unsupported content encoding: {encoding[:40]!r}. Supported are {allowed}.",
            status=415,
            code="unsupported_content_encoding",
        )
    try:
        return await _read(request, limit)
    except (web.RequestPayloadError, ContentEncodingError) as error:
        raise RequestError(f"The request body could not be read as {encoding!r}.") from error


async def _read(request: web.Request, limit: int) -> bytes:
    """The whole body, decompressed."""
    too_large = RequestError(
        f"The request body is larger than the {limit} bytes allowed.", status=413, code="request_too_large"
    )
    if (request.content_length or 0) > limit:
        raise too_large
    content = request.content
    body = await content.readany()
    if not content.at_eof():
        blocks, size = [body], len(body)
        while block := await content.readany():
            blocks.append(block)
            size += len(block)
            if size > limit:
                raise too_large
        body = b"".join(blocks)
    if len(body) > limit:
        raise too_large
    return body


def _trace(request: web.Request, grant: Grant | None) -> Trace:
    headers = request.headers
    return Trace(request[LINE].id, headers, headers.get("Authorization", ""), key=grant.name if grant else "")


def _request_id(given: str | None) -> str:
    """The client's own id if it is a plain one, else a new one."""
    if given and len(given) <= 128 and _SAFE.issuperset(given):
        return given
    return "req_" + os.urandom(16).hex()


def _warnings(trace: Trace) -> dict[str, str]:
    """Headers that name what was left out: nothing is dropped silently."""
    headers = {}
    if dropped := trace.unknown + trace.dropped:
        names = ("".join(c if c in _SAFE or c in "[]" else "_" for c in name[:64]) for name in dropped[:32])
        headers["x-dropped-parameters"] = ", ".join(names)
    if trace.ignored:
        headers["x-ignored-items"] = str(len(trace.ignored))
    return headers


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "proxy"}


def _envelope_of(request: web.Request, error: web.HTTPException) -> ProxyError:
    """aiohttp's own refusals in the API's shape (RESPONSES 1.2, 7.2)."""
    where = f"{request.method} {request.path}"
    match error.status:
        case 404:
            return RequestError(f"Unknown request URL: {where}.", status=404, code="unknown_url")
        case 405:
            allowed = error.headers.get("Allow", "")
            return RequestError(
                f"Not allowed: {where}. Allowed methods: {allowed}.", status=405, code="method_not_supported"
            )
    return RequestError(error.reason or "bad request", status=error.status)


def _done(request: web.Request, line: Line) -> Done:
    resource = request.match_info.route.resource
    known = request.path if request.path in request[SERVING].endpoints else "other"
    return Done(
        endpoint=resource.canonical if resource is not None else known,
        status=line.status,
        ended=line.ended,
        route=line.route or "",
        key=line.key or "",
        input=line.input or 0,
        output=line.output or 0,
        duration=line.duration,
        first=line.first,
    )


def _note_route(line: Line, trace: Trace) -> None:
    line.model, line.route, line.pool = printable(trace.model, 200), trace.route, trace.pool
    line.upstream, line.attempts = trace.upstream, trace.attempts


def _note(line: Line, running: Running, trace: Trace) -> None:
    translator = running.translator
    _note_route(line, trace)
    line.dropped = [printable(name, 64) for name in (trace.unknown + trace.dropped)[:32]]
    line.ignored = trace.ignored[:32]
    line.input, line.output = translator.tokens
    if translator.ended:
        line.ended = line.ended or translator.status
        line.error = translator.error.message if translator.error else None
    for note in translator.notes:
        log.info("%s: %s", line.id, note)
    if log_bodies.isEnabledFor(logging.INFO):
        log_bodies.info("%s to the client: %s", line.id, translator.response.decode())
