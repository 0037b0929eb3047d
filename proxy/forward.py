"""Endpoints that pass through: request and answer go on byte for byte, the answer as fast as the client reads it."""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Raw

from proxy.answer import Watch
from proxy.attempts import Attempt
from proxy.core.balance import affinity_key
from proxy.errors import Broken, ProxyError, RequestError
from proxy.exchange import Answer
from proxy.keys import Grant
from proxy.router import Route
from proxy.service import HEAD, Service, check_size
from proxy.timers import after
from proxy.trace import Trace
from proxy.wire.invalid import missing, unreadable

log = logging.getLogger(__name__)

TAIL = 4096
"""Bytes at the end of an answer in which its usage is looked for."""

BUFFER = 24 * 1024  # bytes that wait for a slow client before nothing more is read

_NOT_PASSED = {"connection", "content-encoding", "date", "keep-alive", "proxy-authenticate", "server", "set-cookie"}
_NOT_PASSED |= {"te", "trailer", "transfer-encoding", "upgrade", "x-request-id"}

_fields = msgspec.json.Decoder(dict[str, Raw]).decode


class Forward:
    """One request that passes through. Raises RequestError when it can't.

    path: the client's, with the query.

    response: what the client gets, None before it has begun. written: bytes of the answer's body. stalled: the client
    was dropped. complete: everything has been sent. tokens: of input and output; 0 where the answer does not tell.
    """

    def __init__(self, service: Service, path: str, body: bytes, trace: Trace, grant: Grant | None) -> None:
        fields = _decoded(body)
        model = _model(fields)
        self.route = service.route(model, trace, grant)
        if path.partition("?")[0] not in self.route.endpoints:
            raise RequestError(f"This is not offered for the model {model!r}.", status=404, code="unknown_url")
        check_size(body, self.route)
        self.response: web.StreamResponse | None = None
        self.written = 0
        self.stalled = False
        self.complete = False
        self._router = service.router
        self._trace = trace
        self._path = path.removeprefix("/v1")
        self._body = _renamed(body, fields, self.route)
        self._key = _conversation(fields) if self.route.balances else None
        self._tail = b""
        self._events = 0

    async def run(
        self, request: web.Request, headers: Callable[[], Mapping[str, str]], send_timeout: float
    ) -> web.StreamResponse:
        """Ask, and send the answer. Raises what the last upstream raised when none has answered.

        headers: of ours, asked for when the answer begins.
        send_timeout: seconds after which a client that takes nothing is dropped.
        """
        self._request, self._headers, self._send_timeout = request, headers, send_timeout
        given = {name: request.headers[name] for name in ("Content-Type", "Accept") if name in request.headers}
        async for attempt in self._router.attempts(self.route, self._trace, self._key):
            with attempt:
                upstream = attempt.upstream
                answer = await upstream.forward(self._path, self._body, given, self._trace)
                try:
                    with Watch(answer.content, upstream.timeouts, upstream.name) as watch:
                        response = await self._copy(answer, watch, attempt)
                finally:
                    answer.close()
                self.complete = True
                return response
        raise AssertionError("there is always a next try, or an error")

    async def _copy(self, answer: Answer, watch: Watch, attempt: Attempt) -> web.StreamResponse:
        try:
            while block := await _read(answer, watch, attempt):
                response = self.response or await self._begin(answer, attempt)
                self._look(block)
                limit = after(self._send_timeout, self._drop)
                await response.write(block)
                limit.cancel()
        except Broken as error:
            if self.response is not None:
                await self._break(self.response, error)
            raise
        response = self.response or await self._begin(answer, attempt)
        await response.write_eof()
        return response

    async def _begin(self, answer: Answer, attempt: Attempt) -> web.StreamResponse:
        attempt.spoke = True
        passed = {name: value for name, value in answer.headers.items() if name.lower() not in _NOT_PASSED}
        if "Content-Encoding" in answer.headers:  # it has been decoded on the way
            passed.pop("Content-Length", None)
        response = self.response = web.StreamResponse(status=answer.status, headers=passed | dict(self._headers()))
        if self._request.transport is None:
            raise ConnectionResetError
        self._request.transport.set_write_buffer_limits(high=BUFFER)
        await response.prepare(self._request)
        return response

    async def _break(self, response: web.StreamResponse, error: ProxyError) -> None:
        """Tell the client that the answer ends too early: by an event if it is a stream of them, else by a cut."""
        if response.content_type == "text/event-stream":
            await response.write(b"data: %b\n\n" % msgspec.json.encode({"error": error.detail()}))
            await response.write_eof()
        elif self._request.transport is not None:
            self._request.transport.abort()

    def _drop(self) -> None:
        self.stalled = True
        if self._request.transport is not None:
            self._request.transport.abort()

    def _look(self, block: bytes) -> None:
        self.written += len(block)
        self._events += block.count(b"data:")
        self._tail = (self._tail + block)[-TAIL:]

    @property
    def tokens(self) -> tuple[int, int]:
        """Of input and output, as the answer says; where it does not, its events stand for the output."""
        usage = _usage(self._tail)
        if usage is None:
            return 0, self._events
        asked = _count(usage, "prompt_tokens", "input_tokens")
        total = _count(usage, "total_tokens")
        return asked, max(_count(usage, "completion_tokens", "output_tokens"), total - asked)


async def _read(answer: Answer, watch: Watch, attempt: Attempt) -> bytes:
    watch.since = watch.now()
    try:
        return await answer.content.readany()
    except (aiohttp.ClientError, OSError, RuntimeError) as error:
        raise Broken(f"The upstream {attempt.upstream.name!r} broke off its answer.", code="server_error") from error
    finally:
        watch.since = None


def _decoded(body: bytes) -> dict[str, Raw]:
    try:
        return _fields(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable(str(error)) from None


def _model(fields: dict[str, Raw]) -> str:
    model = _value(fields, "model")
    if not isinstance(model, str):
        raise missing("model")
    return model


def _value(fields: dict[str, Raw], name: str) -> Any:
    return msgspec.json.decode(fields[name]) if name in fields else None


def _renamed(body: bytes, fields: dict[str, Raw], route: Route) -> bytes:
    """The body with the upstream's own name for the model; everything else as it was."""
    if route.upstream_model is None:
        return body
    return msgspec.json.encode(fields | {"model": route.upstream_model})


def _conversation(fields: dict[str, Raw]) -> int:
    """What the requests of one conversation have in common: see service."""
    own = _value(fields, "prompt_cache_key")
    if isinstance(own, str) and own:
        return affinity_key(own)
    head = fields.get("messages") or fields.get("prompt") or fields.get("input") or Raw()
    return affinity_key(bytes(head)[:HEAD])


def _usage(tail: bytes) -> dict[str, Any] | None:
    """The last usage object in it."""
    text = tail.decode("utf-8", "replace")
    at = len(text)
    while (at := text.rfind('"usage"', 0, at)) >= 0:
        start = text.find("{", at, at + 12)
        if start >= 0:
            try:
                usage, _ = json.JSONDecoder().raw_decode(text, start)
            except (ValueError, RecursionError):
                continue
            return usage if isinstance(usage, dict) else None
    return None


def _count(usage: dict[str, Any], *names: str) -> int:
    return max(0, next((value for name in names if isinstance(value := usage.get(name), int)), 0))
