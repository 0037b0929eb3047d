"""Ask one upstream: connection, credentials, timeouts, and its failures by name."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from proxy.answer import Lane, Timeouts, Watch
from proxy.blocks import by_blocks
from proxy.connections import Connections, Tls
from proxy.core.deltas import Accepted, Delta
from proxy.core.profile import Profile
from proxy.core.turn import Turn
from proxy.dialects import Decoder, Dialect
from proxy.errors import Broken, ProxyError, RequestError, Unreachable
from proxy.exchange import Answer, Exchange
from proxy.trace import Trace

log = logging.getLogger(__name__)
log_bodies = logging.getLogger("proxy.bodies")  # prompts: silent unless the configuration says otherwise

LONGEST_REFUSAL = 256 * 1024  # bytes of an error body that are looked at
SHORTEST_SECRET = 6  # characters; shorter ones would take common words out of messages
_SECRET = re.compile("auth|cookie|key|secret|token", re.IGNORECASE)
LISTING = 5.0  # seconds for a list of models
LIMITS = [f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")]

Deltas = AsyncGenerator[list[Delta], None]


class Endpoint(Struct, frozen=True):
    """Where an upstream is, and how it is asked.

    url: its base, without the dialect's path. product: the name of its profile.
    pass_key: the client's own Authorization is sent instead of `key`.
    body: fields that go into every request. forward: the client's headers that go on.
    event_limit: bytes. strict: what can't be said to this upstream is refused, and not dropped.
    socket: the path of a Unix socket to connect to instead of the URL's host, without TLS. proxy: the URL of an HTTP
    proxy on the way. Both "" for none.
    """

    name: str
    url: str
    dialect: Dialect
    profile: Profile
    product: str = "generic"
    key: str = ""
    pass_key: bool = False
    headers: dict[str, str] = {}
    body: dict[str, Any] = {}
    forward: list[str] = []
    timeouts: Timeouts = Timeouts()
    event_limit: int = 16 * 1024 * 1024
    strict: bool = False
    tls: Tls = Tls()
    socket: str = ""
    proxy: str = ""


class Upstream:
    """One endpoint, over connections that all share. Raises OSError when a file of its TLS settings can't be used."""

    def __init__(self, endpoint: Endpoint, connections: Connections) -> None:
        self.name = endpoint.name
        self.endpoint = endpoint
        self.dialect = endpoint.dialect
        self.profile = endpoint.profile
        self.timeouts = endpoint.timeouts
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "responses-proxy",
        }
        if endpoint.key:
            headers["Authorization"] = f"Bearer {endpoint.key}"
        limits = (limit for limit in (self.timeouts.accept, self.timeouts.total) if limit is not None)
        reach = partial(
            Exchange,
            endpoint.name,
            session=connections.session(endpoint.tls, endpoint.socket),
            headers=headers | endpoint.headers,
            connect=self.timeouts.connect,
            accept=min(limits, default=None),
            proxy=endpoint.proxy,
        )
        self.exchange = reach(endpoint.url)
        self._host = reach(str(URL(endpoint.url).origin()))

    async def ask(self, turn: Turn, trace: Trace) -> Deltas:
        """The deltas of one turn, in batches as they are read; first comes Accepted.

        Raises RequestError for what can't be asked, UpstreamError for what went wrong. Leaving early closes the
        connection.
        """
        answer = await self._accepted(turn, trace)
        decoder = self.dialect.decoder(turn, self.profile, self.endpoint.event_limit)
        content = by_blocks(answer.content)
        deltas: list[Delta] = [Accepted(self.name)]
        lane: Lane | None = None
        try:
            with Watch(content, self.timeouts, self.name, trace.loop) as watch:
                if not content.total_bytes:  # else the first bytes are here too, and leave together with the headers
                    yield deltas
                    deltas = []
                lane = Lane(content, decoder, watch, trace)
                ended = spoke = False
                while not decoder.done:
                    watch.since = watch.now()
                    try:
                        data = await content.readany()
                    except (aiohttp.ClientError, OSError, RuntimeError) as error:
                        raise Broken(
                            f"The upstream {self.name!r} broke off its answer.", code="server_error"
                        ) from error
                    watch.since = None
                    deltas += lane.leave()
                    if data:
                        deltas += decoder.feed(data)
                    elif ended := content.at_eof():
                        deltas += decoder.close()
                    if deltas:
                        data = b""  # a slow client may keep us here for long
                        spoke = spoke or len(deltas) > 1 or not isinstance(deltas[0], Accepted)
                        yield deltas
                        deltas = []
                        if spoke and not decoder.done:  # and not before: until then another upstream may be asked
                            lane.enter()
                    if decoder.failure is not None:
                        raise self._without_secrets(decoder.failure, trace)
                    if ended:
                        return
                if not content.at_eof():
                    await watch.tail()
        finally:
            self._end(answer, decoder, lane)

    def _end(self, answer: Answer, decoder: Decoder, lane: Lane | None) -> None:
        if lane is not None:
            lane.close()
        answer.close()  # a connection whose answer has been read to its end is back in the pool already
        for note in decoder.notes:
            log.info("upstream %s: %s", self.name, note)

    async def _accepted(self, turn: Turn, trace: Trace) -> Answer:
        """The answer, once it has a good status."""
        if extra := self.endpoint.body:
            options = msgspec.structs.replace(turn.options, extra=turn.options.extra | extra)
            turn = msgspec.structs.replace(turn, options=options)
        body = self.dialect.encode(turn, self.profile)
        trace.dropped, trace.ignored = turn.dropped, turn.ignored
        if self.endpoint.strict and turn.dropped:
            name = turn.dropped[0]
            message = f"Unsupported parameter: {name!r} is not supported with this model."
            raise RequestError(message, code="unsupported_parameter", param=name)
        if log_bodies.isEnabledFor(logging.INFO):
            log_bodies.info("%s to upstream %s: %s", trace.id, self.name, body.decode("utf-8", "replace"))
        answer = await self.exchange.request("POST", self.dialect.PATH, self._headers(trace), body)
        trace.limits = {name: answer.headers[name] for name in LIMITS if name in answer.headers}
        if 200 <= answer.status < 300:
            return answer
        refusal = self._without_secrets(await self._refusal(answer), trace)
        if self.profile.stream_usage and answer.status in (400, 422) and "stream_options" in refusal.message:
            log.warning("upstream %s does not take stream_options: usage will be missing", self.name)  # pitfall 84
            self.profile = msgspec.structs.replace(self.profile, stream_usage=False)
            return await self._accepted(turn, trace)
        try:
            raise refusal
        finally:
            del refusal  # else it refers to itself, and keeps the request until the collector comes

    async def forward(self, path: str, body: bytes, headers: Mapping[str, str], trace: Trace) -> Answer:
        """The answer of an endpoint that passes through; to be closed.

        Raises ProxyError for one that is no success; its `original` is what the upstream said, if a client may hear it.
        """
        answer = await self.exchange.request("POST", path, self._headers(trace) | dict(headers), body)
        trace.limits = {name: answer.headers[name] for name in LIMITS if name in answer.headers}
        if 200 <= answer.status < 300:
            return answer
        raise self._without_secrets(await self._refusal(answer), trace)

    def masked(self, block: bytes) -> bytes:
        """A part of an answer without this upstream's credentials, and as long as before.

        Those that are cut over two parts stay. What the client itself has sent is no secret to it.
        """
        for secret in _credentials(self.endpoint):
            if (given := secret.encode()) in block:
                block = block.replace(given, b"*" * len(given))
        return block

    def _headers(self, trace: Trace) -> dict[str, str]:
        """Of one request."""
        headers = {"X-Request-Id": trace.id, **trace.context}
        for name in self.endpoint.forward:
            if name in trace.headers:
                headers[name] = trace.headers[name]
        if self.endpoint.pass_key and trace.authorization:
            headers["Authorization"] = trace.authorization
        return headers

    def _without_secrets(self, error: ProxyError, trace: Trace) -> ProxyError:
        """Some servers quote the key that they refuse, or all headers."""
        forwarded = [trace.headers[name] for name in self.endpoint.forward if name in trace.headers]
        client = trace.authorization.removeprefix("Bearer ").strip()
        credentials = _credentials(self.endpoint)
        for secret in (client, *self.endpoint.headers.values(), *credentials, *forwarded):
            if len(secret) >= SHORTEST_SECRET:
                error.message = error.message.replace(secret, "***")
                if secret in f"{error.code} {error.param}":
                    error.code = error.param = None
                if error.original is not None and secret.encode() in error.original[2]:
                    error.original = None
        error.args = (error.message,)  # what str() gives, and so a log
        return error

    async def _refusal(self, answer: Answer) -> ProxyError:
        """An answer that is no 2xx, as an error; its connection is given back."""
        body = b""
        try:
            async with asyncio.timeout(self.timeouts.idle):
                while len(body) < LONGEST_REFUSAL and (block := await answer.content.readany()):
                    body += block
        except (aiohttp.ClientError, TimeoutError):
            log.debug("upstream %s cut its error short", self.name)
        finally:
            answer.close()
        if self.endpoint.pass_key and answer.status in (401, 403):
            return RequestError("The upstream refused your key.", status=answer.status, code="invalid_api_key")
        kind, retry_after = answer.headers.get("Content-Type", ""), answer.headers.get("Retry-After")
        refusal = self.dialect.refusal(answer.status, body, kind, retry_after)
        # 401 and 403 are between the upstream and the proxy, and so is where it redirects to.
        if answer.status >= 400 and answer.status not in (401, 403) and answer.content.at_eof():
            refusal.original = answer.status, kind, body
        return refusal

    async def probe(self, path: str) -> int:
        """The status of a GET of this path on the upstream's host. Raises Unreachable."""
        answer = await self._host.request("GET", path, {"Accept": "*/*"})
        answer.close()
        return answer.status

    async def models(self) -> Sequence[str]:
        """The ids of the models that it offers. Raises Unreachable, what it answers, or Broken for what is no list."""
        try:
            async with asyncio.timeout(LISTING):
                answer = await self.exchange.request("GET", self.dialect.MODELS, {"Accept": "application/json"})
                if not 200 <= answer.status < 300:
                    raise await self._refusal(answer)
                try:
                    names = self.dialect.models(await answer.content.read())
                finally:
                    answer.close()
        except (aiohttp.ClientError, TimeoutError) as error:
            why = f"it lists no models ({type(error).__name__})"
            raise Unreachable(f"The upstream {self.name!r} can't be reached: {why}.") from error
        if names is None:
            raise Broken(f"The upstream {self.name!r} answers {self.dialect.MODELS} with no list of models.")
        return names


def _credentials(endpoint: Endpoint) -> list[str]:
    """The key, and what stands in headers whose names tell of one; a scheme before it is none of it."""
    words = [value.rpartition(" ")[2] for name, value in endpoint.headers.items() if _SECRET.search(name)]
    return [each for each in (endpoint.key, *words) if len(each) >= SHORTEST_SECRET]
