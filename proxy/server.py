"""The endpoints over HTTP."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from proxy.blocks import read_small
from proxy.body import json_body
from proxy.errors import ProxyError, RequestError, Shutdown, internal
from proxy.forward import Forward
from proxy.service import Running
from proxy.serving import Serving
from proxy.sinks import EventStream, Stopping, collect
from proxy.tasks import uncancel
from proxy.visit import VISIT, Visit, begin, envelope_of

log = logging.getLogger(__name__)
log_bodies = logging.getLogger("proxy.bodies")

BEGINNING = 4
"""Events of a message before its first delta."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


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
        """Errors become envelopes; whatever happens, the visit ends."""
        read_small(request.transport)
        visit = begin(request, self.serving)
        line = visit.line
        passes = request.path in visit.serving.endpoints
        if passes:
            handler = self._forward
        try:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = visit.refuse(envelope_of(request, error), original=False)
                if "Allow" in error.headers:
                    response.headers["Allow"] = error.headers["Allow"]
            except ProxyError as error:
                response = visit.refuse(error, original=passes)
            except (asyncio.CancelledError, ConnectionError):
                line.ended = line.ended or "client_closed"
                raise asyncio.CancelledError from None  # of which aiohttp makes no error in the log
            except Exception:
                log.exception("%s %s (%s) failed by a bug", request.method, request.path, line.id)
                response = visit.refuse(internal(), original=False)
            line.status = response.status
            return response
        finally:
            visit.end()

    async def _admitted(self, request: web.Request, respond: Handler) -> web.StreamResponse:
        """What only holders of a key get, and within its limits."""
        visit = request[VISIT]
        serving, line = visit.serving, visit.line
        grant = visit.grant = serving.service.keyring.find(request.headers)
        if grant is not None:
            line.key = grant.name
            visit.admission = await serving.limits.admit(grant)
        task = request.task
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
        running = serving.service.create(await _body(request, visit), visit.follow(request), visit.grant)
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
            _note(visit, running)

    async def _stream(self, request: web.Request, running: Running, visit: Visit) -> web.StreamResponse:
        line, done = visit.line, visit.done
        stream = EventStream(running, visit.serving.pace, visit.headers)
        try:
            await stream.run(request, self.stopping)
        finally:
            line.bytes, line.first = stream.written, stream.first_after
            line.status = stream.status if stream.prepared else 0
            done.stream, done.gaps, done.streamed = True, stream.gaps, stream.streamed
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

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        visit = request[VISIT]
        serving = visit.serving
        path, service = request.rel_url.raw_path_qs, serving.service
        forward = Forward(service, path, await _body(request, visit), visit.follow(request), visit.grant)
        route = forward.route.name
        serving.instruments.metrics.opened(route)
        try:
            return await forward.run(request, visit.headers, serving.pace.send_timeout)
        except ProxyError as error:
            return await _failed(forward, error, visit)
        except asyncio.CancelledError:
            if not self.stopping.now or not uncancel():
                raise
            return await _failed(forward, Shutdown(), visit)
        finally:
            serving.instruments.metrics.closed(route)
            _note_forwarded(visit, forward)

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
            raise RequestError(f"The model {name!r} does not exist.", status=404, code="model_not_found", param="model")
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


async def _body(request: web.Request, visit: Visit) -> bytes:
    body = await json_body(request, visit.serving.body_limit)
    if log_bodies.isEnabledFor(logging.INFO):
        log_bodies.info("%s from the client: %s", visit.line.id, body.decode("utf-8", "replace"))
    return body


async def _offered(request: web.Request) -> list[str]:
    """The models that the client may ask for."""
    service = request[VISIT].serving.service
    grant = service.keyring.find(request.headers)
    return [name for name in await service.router.models() if grant is None or service.keyring.takes(grant, name)]


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "proxy"}


def _note(visit: Visit, running: Running) -> None:
    """What became of a response."""
    line, done, translator = visit.line, visit.done, running.translator
    spent = translator.spent
    line.response, line.input, line.output = translator.id, spent.input, spent.output
    done.cached, done.reasoning = spent.cached, spent.reasoning
    if translator.ended:
        line.ended = line.ended or translator.status
        line.error = translator.error.message if translator.error else None
    elif not spent.output:  # the client left before the upstream has told: a delta is about a token
        line.output = max(0, translator.numbers.next - BEGINNING)
    for note in translator.notes:
        log.info("%s: %s", line.id, note)
    if log_bodies.isEnabledFor(logging.INFO):
        log_bodies.info("%s to the client: %s", line.id, translator.response.decode())


async def _failed(forward: Forward, error: ProxyError, visit: Visit) -> web.StreamResponse:
    """Raises the error when nothing has been sent yet."""
    response = await forward.fail(error)
    visit.line.ended, visit.line.error = "failed", error.message
    return response


def _note_forwarded(visit: Visit, forward: Forward) -> None:
    """What became of a request that passes through."""
    line, done, response = visit.line, visit.done, forward.response
    line.input, line.output = forward.tokens
    line.bytes, line.first = forward.written, forward.first_after
    if forward.stream:
        done.stream, done.gaps, done.streamed = True, forward.gaps, forward.streamed
    if response is not None:
        line.status = response.status
        if response.stalled:
            line.ended = "client_stalled"
        elif forward.complete:
            line.ended = "completed"
