"""What is known of one request of a client while it is served: for its answer's headers, its line, its figures."""

import string
import time
from math import ceil

import msgspec
from aiohttp import web
from msgspec import Struct

from proxy.access import Line, printable, write
from proxy.errors import ProxyError, RateLimited, RequestError
from proxy.keys import Grant, Keyring
from proxy.limits import Admission
from proxy.metrics import Done
from proxy.randomness import random_hex
from proxy.serving import Serving
from proxy.spans import RequestSpan, context_of
from proxy.trace import Trace

CLIENT_CLOSED = 499  # nginx's status for a client that left before it got one
_LONGEST_ERROR = 500  # characters in the log
_SAFE = set(string.ascii_letters + string.digits + "_.-")


class Visit(Struct):
    """One request.

    serving: what it is served with, to its end. done: its figures, as far as they are known. began: by perf_counter.
    grant: None without keys. trace: None before an upstream is wanted. admission: under the limits of its key, if any.
    passes: it passes through: failures are told in the upstream's own words, where there are some.
    """

    line: Line
    serving: Serving
    span: RequestSpan
    done: Done
    began: float
    grant: Grant | None = None
    trace: Trace | None = None
    admission: Admission | None = None
    passes: bool = False

    def headers(self) -> dict[str, str]:
        """Of the answer (RESPONSES.md 7.5), as of now."""
        headers = {
            "x-request-id": self.line.id,
            "openai-processing-ms": str(round((time.perf_counter() - self.began) * 1000)),
            "openai-version": "2020-10-01",
        }
        if self.trace is not None:
            headers |= _warnings(self.trace)
        own = self.admission.headers() if self.admission is not None else None
        if own:
            headers |= own
        elif self.trace is not None and self.trace.alone:
            headers |= self.trace.limits
        return headers

    def refuse(self, error: ProxyError) -> web.Response:
        """The answer for a failure."""
        line = self.line
        line.ended, line.error = line.ended or "error", error.message
        headers = self.headers()
        if isinstance(error, RateLimited):
            headers |= error.headers
            self.serving.instruments.metrics.limited(error.limit)
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if error.retry_after is not None:  # rounded up: who comes back too early is refused again
            headers["Retry-After"] = str(max(1, ceil(error.retry_after)))
            headers["retry-after-ms"] = str(ceil(error.retry_after * 1000))
        if error.should_retry is not None:
            headers["x-should-retry"] = str(error.should_retry).lower()
        if self.passes and error.original is not None:
            status, kind, body = error.original
            return web.Response(status=status, body=body, headers=headers | ({"Content-Type": kind} if kind else {}))
        body = msgspec.json.encode({"error": error.detail()})
        return web.Response(status=error.status, body=body, headers=headers, content_type="application/json")

    def follow(self, request: web.Request) -> Trace:
        """An upstream is wanted: what is written down on the way."""
        headers, grant = self.serving.service.keyring.without_keys(request.headers), self.grant
        self.trace = Trace(
            self.line.id,
            headers,
            request.task.get_loop(),
            headers.get("Authorization", ""),
            key=grant.name if grant else "",
            span=self.span,
        )
        return self.trace

    def end(self) -> None:
        """The request has ended."""
        line, trace, done = self.line, self.trace, self.done
        line.duration = time.perf_counter() - self.began
        if line.ended == "client_closed" and not line.status:
            line.status = CLIENT_CLOSED
        if trace is not None:
            line.model, line.route, line.pool = printable(trace.model, 200), trace.route, trace.pool
            line.upstream, line.attempts = trace.upstream, trace.attempts
            if trace.unknown or trace.dropped:
                line.dropped = [printable(name, 64) for name in (trace.unknown + trace.dropped)[:32]]
            line.ignored = trace.ignored[:32]
            done.route = trace.route
        if line.error is not None:
            line.error = line.error[:_LONGEST_ERROR]
        write(line)
        done.status, done.ended, done.key, done.duration = line.status, line.ended, line.key or "", line.duration
        done.input, done.output, done.first = line.input or 0, line.output or 0, line.first
        self.serving.instruments.metrics.request(done)
        self.span.end(done, trace.model if trace is not None else "", line.response or "")
        self.serving.leave()


VISIT = web.RequestKey("visit", Visit)


def begin(request: web.Request, serving: Serving, endpoint: str) -> Visit:
    """The request's visit, which has to end. endpoint: as in Done."""
    serving.enter()
    headers, path = request.headers, request.path
    keyring = serving.service.keyring
    line = Line(request.method, printable(path, 200), _request_id(headers.get("X-Request-Id"), keyring))
    line.client_id = printable(headers.get("X-Client-Request-Id", ""), 512) or None
    context = context_of(headers)
    if context and any(map(keyring.holds, context.values())):
        context = {}
    span = serving.instruments.tracer.begin(context, request.method, endpoint)
    visit = request[VISIT] = Visit(line, serving, span, Done(endpoint=endpoint, status=0), time.perf_counter())
    return visit


def _request_id(given: str | None, keyring: Keyring) -> str:
    """The client's own id if it is a plain one, and no key, else a new one."""
    if given and len(given) <= 128 and _SAFE.issuperset(given) and not keyring.holds(given):
        return given
    return "req_" + random_hex(16)


def _warnings(trace: Trace) -> dict[str, str]:
    """Headers that name what was left out: nothing is dropped silently."""
    headers = {}
    if dropped := trace.unknown + trace.dropped:
        names = ("".join(c if c in _SAFE or c in "[]" else "_" for c in name[:64]) for name in dropped[:32])
        headers["x-dropped-parameters"] = ", ".join(names)
    if trace.ignored:
        headers["x-ignored-items"] = str(len(trace.ignored))
    return headers


def envelope_of(request: web.Request, error: web.HTTPException) -> ProxyError:
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
