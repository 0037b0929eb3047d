"""The endpoints over HTTP."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import web

from proxy.blocks import read_small
from proxy.body import PATIENCE, json_body
from proxy.errors import ProxyError, RequestError, Shutdown, forget, internal
from proxy.forward import Forward
from proxy.notes import note, note_forwarded
from proxy.paths import ANY, MODEL, allowed, proceed
from proxy.service import Running
from proxy.serving import Serving
from proxy.sinks import EventStream, Stopping, collect
from proxy.tasks import uncancel
from proxy.visit import VISIT, Visit, begin, envelope_of
from proxy.wire.invalid import short

log = logging.getLogger(__name__)
log_bodies = logging.getLogger("proxy.bodies")

TIMEOUT = 408  # behind it nobody knows where on the connection the next request would begin

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """The HTTP endpoints.

    serving: what new requests are served with; may be replaced at any time. patience: seconds for the next bytes of a
    request's body.
    """

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.patience = PATIENCE
        self.stopping = Stopping()
        self.open: set[asyncio.Task[object]] = set()  # the tasks of responses under way
        self.app = web.Application()
        self._add("POST", "/v1/responses", self._create)
        self._add("GET", "/v1/responses", self._upgrade)
        self._add("POST", "/v1/responses/compact", self._later)
        self._add("POST", "/v1/responses/input_tokens", self._later)
        for path, handler in (
            ("/v1/models", self._models),
            (MODEL, self._model),
            ("/metrics", self._metrics),
            ("/admin/upstreams", self._upstreams),
            ("/health", self._health),
            ("/ready", self._ready),
        ):
            self._add("GET", path, handler)
            self._add("HEAD", path, handler)
        self._add("*", ANY, self._other)

    def _add(self, method: str, path: str, handler: Handler) -> None:
        """Guarded one by one: a middleware takes 1.4 % more instructions a request (callgrind)."""
        resource = self.app.router.add_resource(path)
        endpoint = "other" if method == "*" else resource.canonical
        expect = partial(self._expect, endpoint)
        resource.add_route(method, partial(self._guard, endpoint, handler), expect_handler=expect)

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

    async def _guard(self, endpoint: str, handler: Handler, request: web.Request) -> web.StreamResponse:
        """Errors become envelopes; whatever happens, the visit ends."""
        read_small(request.transport)
        visit = begin(request, self.serving, endpoint)
        line = visit.line
        try:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = visit.refuse(envelope_of(request, error))
                if "Allow" in error.headers:
                    response.headers["Allow"] = error.headers["Allow"]
            except ProxyError as error:
                response = visit.refuse(error)
                forget(error)
            except (asyncio.CancelledError, ConnectionError) as error:
                line.ended = line.ended or "client_closed"
                forget(error)
                raise asyncio.CancelledError from None  # of which aiohttp makes no error in the log
            except Exception:
                log.exception("%s %s (%s) failed by a bug", request.method, request.path, line.id)
                response = visit.refuse(internal())
            line.status = response.status
            if line.status == TIMEOUT or self.stopping.begun:
                response.force_close()
            return response
        finally:
            visit.end()

    async def _expect(self, endpoint: str, request: web.Request) -> web.StreamResponse | None:
        """The client is told to go on, or this is the answer."""
        try:
            await proceed(request)
        except RequestError as error:
            return await self._guard(endpoint, partial(_refuse, error), request)
        return None

    async def _admitted(self, request: web.Request, respond: Handler) -> web.StreamResponse:
        """What only holders of a key get, and within its limits."""
        visit = request[VISIT]
        serving, line = visit.serving, visit.line
        grant = visit.grant = serving.service.keyring.find(request.headers)
        if grant is not None:
            line.key = grant.name
            visit.admission = await serving.limits.admit(grant)
        task = asyncio.current_task()  # not request.task: that is the connection's, and goes on when this has ended
        assert task is not None
        self.open.add(task)
        try:
            return await respond(request)
        finally:
            self.open.discard(task)
            if visit.admission is not None:
                await visit.admission.done((line.input or 0) + (line.output or 0))

    # -- the endpoints

    async def _create(self, request: web.Request) -> web.StreamResponse:
        return await self._admitted(request, self._respond)

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        visit = request[VISIT]
        serving, line = visit.serving, visit.line
        running = serving.service.create(await self._body(request, visit), visit.follow(request), visit.grant)
        route = running.trace.route
        serving.instruments.metrics.opened(route)
        try:
            if running.stream:
                return await self._stream(request, running, visit)
            final = await collect(running, self.stopping)
            line.bytes = len(final)
            return web.Response(body=final, headers=visit.headers(), content_type="application/json")
        finally:
            serving.instruments.metrics.closed(route)
            note(visit, running)

    async def _stream(self, request: web.Request, running: Running, visit: Visit) -> web.StreamResponse:
        line, done = visit.line, visit.done
        stream = EventStream(running, visit.serving.pace, visit.headers)
        if self.stopping.begun:
            stream.headers["Connection"] = "close"  # in place of what the library says
        try:
            await stream.run(request, self.stopping)
        finally:
            running.trace.express = None  # the request lives as long as its connection
            line.bytes, line.first = stream.written, stream.first_after
            line.status = stream.status if stream.prepared else 0
            done.stream, done.gaps, done.streamed = True, stream.gaps, stream.streamed
            if stream.stalled:
                line.ended = "client_stalled"
            elif stream.prepared and not stream.complete:
                line.ended = "client_closed"
        return stream

    async def _other(self, request: web.Request) -> web.StreamResponse:
        """An endpoint that passes through, or nothing that there is."""
        visit = request[VISIT]
        if request.path not in visit.serving.endpoints:
            methods = allowed(self.app, request)
            raise web.HTTPMethodNotAllowed(request.method, methods) if methods else web.HTTPNotFound
        visit.done.endpoint, visit.passes = request.path, True
        if request.method != "POST":
            raise web.HTTPMethodNotAllowed(request.method, ["POST"])
        return await self._admitted(request, self._pass)

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        visit = request[VISIT]
        serving = visit.serving
        path, service = request.rel_url.raw_path_qs, serving.service
        forward = Forward(service, path, await self._body(request, visit), visit.follow(request), visit.grant)
        route = forward.route.name
        serving.instruments.metrics.opened(route)
        try:
            return await forward.run(request, self._headers(visit), serving.pace.send_timeout)
        except ProxyError as error:
            return await _failed(forward, error, visit)
        except asyncio.CancelledError:
            if not self.stopping.now or not uncancel():
                raise
            return await _failed(forward, Shutdown(), visit)
        finally:
            serving.instruments.metrics.closed(route)
            note_forwarded(visit, forward)

    async def _body(self, request: web.Request, visit: Visit) -> bytes:
        body = await json_body(request, visit.serving.body_limit, self.patience)
        if log_bodies.isEnabledFor(logging.INFO):
            log_bodies.info("%s from the client: %s", visit.line.id, body.decode("utf-8", "replace"))
        return body

    def _headers(self, visit: Visit) -> Callable[[], dict[str, str]]:
        """Of an answer that asks for them when it begins."""
        return (lambda: visit.headers() | {"Connection": "close"}) if self.stopping.begun else visit.headers

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        """A WebSocket is refused by 426, which Codex takes as "use HTTP"; anything else costs it time (pitfall 56)."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise web.HTTPMethodNotAllowed("GET", ["POST"])
        raise RequestError("WebSocket is not supported here: use HTTP.", status=426, code="websocket_not_supported")

    async def _later(self, request: web.Request) -> web.StreamResponse:
        what = request.path.rpartition("/")[2]
        raise RequestError(f"Unsupported: this server does not offer {what!r}.", code="unsupported_parameter")

    async def _models(self, request: web.Request) -> web.Response:
        models = [_model(name) for name in await _offered(request)]
        return web.json_response({"object": "list", "data": models}, headers=request[VISIT].headers())

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        if name not in await _offered(request):
            raise RequestError(
                f"The model {short(name)!r} does not exist.", status=404, code="model_not_found", param="model"
            )
        return web.json_response(_model(name), headers=request[VISIT].headers())

    async def _upstreams(self, request: web.Request) -> web.Response:
        """Load and health of all upstreams, for who has an admin key."""
        visit = request[VISIT]
        service = visit.serving.service
        service.keyring.admin(request.headers)
        now = time.monotonic()
        shown = [state.show(now) for state in service.router.states]
        return web.json_response({"upstreams": shown}, headers=visit.headers())

    async def _metrics(self, request: web.Request) -> web.Response:
        visit = request[VISIT]
        serving = visit.serving
        if not serving.metrics_open:
            serving.service.keyring.admin(request.headers)
        kind, body = await serving.instruments.metrics.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers=visit.headers() | {"Content-Type": kind})

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"}, headers=request[VISIT].headers())

    async def _ready(self, request: web.Request) -> web.Response:
        visit = request[VISIT]
        if self.stopping.begun or not await visit.serving.service.router.ready():
            raise ProxyError("No upstream is available.", status=503, code="server_is_overloaded", retry_after=1)
        return web.json_response({"status": "ready"}, headers=visit.headers())


async def _refuse(error: RequestError, _request: web.Request) -> web.StreamResponse:
    raise error


async def _offered(request: web.Request) -> list[str]:
    """The models that the client may ask for."""
    service = request[VISIT].serving.service
    grant = service.keyring.find(request.headers)
    return [name for name in await service.router.models() if grant is None or service.keyring.takes(grant, name)]


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "proxy"}


async def _failed(forward: Forward, error: ProxyError, visit: Visit) -> web.StreamResponse:
    """Raises the error when nothing has been sent yet."""
    response = await forward.fail(error)
    visit.line.ended, visit.line.error = "failed", error.message
    return response
