"""The endpoints over HTTP."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

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
        self.app = web.Application()
        self._add("POST", "/v1/responses", self._create)
        self._add("GET", "/v1/responses", self._upgrade)
        self._add("POST", "/v1/responses/compact", self._later)
        self._add("POST", "/v1/responses/input_tokens", self._later)
        for path, handler in (
            ("/v1/models", self._models),
            ("/v1/models/{id:.+}", self._model),
            ("/metrics", self._metrics),
            ("/admin/upstreams", self._upstreams),
            ("/health", self._health),
            ("/ready", self._ready),
        ):
            self._add("GET", path, handler)
            self._add("HEAD", path, handler)
        self._add("*", "/{path:.*}", self._other)

    def _add(self, method: str, path: str, handler: Handler) -> None:
        """Guarded one by one: a middleware takes 10 us a request."""
        endpoint = "other" if method == "*" else path
        self.app.router.add_route(method, path, partial(self._guard, endpoint, handler))

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
            except (asyncio.CancelledError, ConnectionError):
                line.ended = line.ended or "client_closed"
                raise asyncio.CancelledError from None  # of which aiohttp makes no error in the log
            except Exception:
                log.exception("%s %s (%s) failed by a bug", request.method, request.path, line.id)
                response = visit.refuse(internal())
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

    async def _other(self, request: web.Request) -> web.StreamResponse:
        """An endpoint that passes through, or nothing that there is."""
        visit = request[VISIT]
        if request.path not in visit.serving.endpoints:
            allowed = _allowed(self.app, request)
            raise web.HTTPMethodNotAllowed(request.method, allowed) if allowed else web.HTTPNotFound
        visit.done.endpoint, visit.passes = request.path, True
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


def _allowed(app: web.Application, request: web.Request) -> list[str]:
    """The methods of the other routes to this path."""
    routes = [route for route in app.router.routes() if route.method != "*"]
    return sorted({route.method for route in routes if _leads(route.get_info(), request.rel_url.raw_path)})


def _leads(info: Mapping[str, Any], path: str) -> bool:
    """Whether a route is the path's. info: aiohttp's description of it."""
    return bool(info["pattern"].fullmatch(path)) if "pattern" in info else info.get("path") == path


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
