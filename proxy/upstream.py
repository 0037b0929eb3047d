"""Ask one upstream: connection, credentials, timeouts, and its failures by name."""

import asyncio
import io
import logging
from collections.abc import AsyncGenerator, Sequence
from contextvars import ContextVar
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from proxy.answer import Lane, Timeouts, Watch
from proxy.blocks import by_blocks, read_small, small_socket
from proxy.core.deltas import Accepted, Delta
from proxy.core.profile import Profile
from proxy.core.turn import Turn
from proxy.dialects import Dialect
from proxy.errors import Broken, ProxyError, RequestError, Unreachable
from proxy.trace import Trace

log = logging.getLogger(__name__)
log_bodies = logging.getLogger("proxy.bodies")  # prompts: silent unless the configuration says otherwise

READ = 16 * 1024  # bytes: twice as much is buffered for a stream; more costs memory with stalled clients and no time
KEEP_IDLE = 4.0  # seconds: uvicorn and llama.cpp close idle connections after 5
LONGEST_REFUSAL = 256 * 1024  # bytes of an error body that are looked at
LARGE = 1024 * 1024  # bytes
SHORTEST_SECRET = 6  # characters; shorter ones would take common words out of messages
LISTING = 5.0  # seconds for a list of models

Deltas = AsyncGenerator[list[Delta], None]


class _Attempt:
    """One try at a connection. reused: it was an old one, which may have died unnoticed."""

    reused = False


_attempt: ContextVar[_Attempt] = ContextVar("attempt")


class Connector(aiohttp.TCPConnector):
    """Remembers whether a connection has been used before."""

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        connection = await super().connect(*args, **kwargs)
        protocol: Any = connection.protocol
        attempt = _attempt.get(None)
        if attempt is not None:
            attempt.reused = hasattr(protocol, "used_before")
        protocol.used_before = True
        read_small(protocol.transport)
        return connection


def open_session() -> aiohttp.ClientSession:
    """The one session for all upstreams. Without limits: a limit would queue streams silently."""
    return aiohttp.ClientSession(
        connector=Connector(limit=0, limit_per_host=0, keepalive_timeout=KEEP_IDLE, socket_factory=small_socket),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        read_bufsize=READ,
        requote_redirect_url=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
    )


class Endpoint(Struct, frozen=True):
    """Where an upstream is, and how it is asked.

    url: its base, without the dialect's path. pass_key: the client's own Authorization is sent instead of `key`.
    body: fields that go into every request. forward: the client's headers that go on.
    event_limit: bytes. strict: what can't be said to this upstream is refused, and not dropped.
    """

    name: str
    url: str
    dialect: Dialect
    profile: Profile
    key: str = ""
    pass_key: bool = False
    headers: dict[str, str] = {}
    body: dict[str, Any] = {}
    forward: list[str] = []
    timeouts: Timeouts = Timeouts()
    event_limit: int = 16 * 1024 * 1024
    strict: bool = False


class Upstream:
    """One endpoint, over the session that all share."""

    def __init__(self, endpoint: Endpoint, session: aiohttp.ClientSession) -> None:
        self.name = endpoint.name
        self.endpoint = endpoint
        self.dialect = endpoint.dialect
        self.profile = endpoint.profile
        self.timeouts = endpoint.timeouts
        self._session = session
        base = endpoint.url.rstrip("/")
        self._target, self._listing = URL(base + self.dialect.PATH), URL(base + self.dialect.MODELS)
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "responses-proxy",
        }
        if endpoint.key:
            self._headers["Authorization"] = f"Bearer {endpoint.key}"
        self._headers |= endpoint.headers
        self._connecting = aiohttp.ClientTimeout(total=None, sock_connect=self.timeouts.connect)

    async def ask(self, turn: Turn, trace: Trace) -> Deltas:
        """The deltas of one turn, in batches as they are read; first comes Accepted.

        Raises RequestError for what can't be asked, UpstreamError for what went wrong. Leaving early closes the
        connection.
        """
        answer = await self._accepted(turn, trace)
        decoder = self.dialect.decoder(turn, self.profile, self.endpoint.event_limit)
        content = by_blocks(answer.content)
        deltas: list[Delta] = [Accepted(self.name)]
        try:
            with Watch(content, self.timeouts, self.name) as watch:
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
                        if spoke:  # and not before: until then another upstream may be asked
                            lane.enter()
                    if decoder.failure is not None:
                        raise self._without_secrets(decoder.failure, trace)
                    if ended:
                        return
                if not content.at_eof():
                    await watch.tail()
        finally:
            answer.close()  # a connection whose answer has been read to its end is back in the pool already
            for note in decoder.notes:
                log.info("upstream %s: %s", self.name, note)

    async def _accepted(self, turn: Turn, trace: Trace) -> aiohttp.ClientResponse:
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
        answer = await self._post(body, trace)
        if answer.status < 300:
            return answer
        refusal = self._without_secrets(await self._refusal(answer), trace)
        if self.profile.stream_usage and answer.status in (400, 422) and "stream_options" in refusal.message:
            log.warning("upstream %s does not take stream_options: usage will be missing", self.name)  # pitfall 84
            self.profile = msgspec.structs.replace(self.profile, stream_usage=False)
            return await self._accepted(turn, trace)
        raise refusal

    async def _post(self, body: bytes, trace: Trace) -> aiohttp.ClientResponse:
        headers = self._headers | {"X-Request-Id": trace.id}
        headers |= {name: trace.headers[name] for name in self.endpoint.forward if name in trace.headers}
        if self.endpoint.pass_key and trace.authorization:
            headers["Authorization"] = trace.authorization
        attempt = _Attempt()
        _attempt.set(attempt)
        try:
            return await self._send(body, headers)
        except Unreachable as error:
            if not attempt.reused or not isinstance(
                error.__cause__, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError
            ):
                raise
        log.debug("upstream %s had closed an idle connection: once more", self.name)
        return await self._send(body, headers)

    async def _send(self, body: bytes, headers: dict[str, str]) -> aiohttp.ClientResponse:
        data = body if len(body) < LARGE else io.BytesIO(body)  # aiohttp writes it piece by piece
        accept = min((t for t in (self.timeouts.accept, self.timeouts.total) if t is not None), default=None)
        try:
            async with asyncio.timeout(accept):
                return await self._session.post(
                    self._target, data=data, headers=headers, timeout=self._connecting, allow_redirects=False
                )
        except aiohttp.ConnectionTimeoutError as error:
            raise self._unreachable(f"no connection within {self.timeouts.connect:g} s") from error
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable(f"{error.strerror or error}") from error
        except TimeoutError as error:
            raise self._unreachable(f"no answer within {accept or 0:g} s", status=504) from error
        except aiohttp.ClientError as error:  # it accepted the connection and then closed it, or speaks no HTTP
            raise self._unreachable(
                f"it closed the connection without an answer ({type(error).__name__})", status=502
            ) from error

    def _without_secrets(self, error: ProxyError, trace: Trace) -> ProxyError:
        """Some servers quote the key that they refuse, or all headers."""
        forwarded = [trace.headers[name] for name in self.endpoint.forward if name in trace.headers]
        client = trace.authorization.removeprefix("Bearer ").strip()
        for secret in (self.endpoint.key, client, *self.endpoint.headers.values(), *forwarded):
            if len(secret) >= SHORTEST_SECRET:
                error.message = error.message.replace(secret, "***")
                if secret in f"{error.code} {error.param}":
                    error.code = error.param = None
        return error

    def _unreachable(self, why: str, status: int = 503) -> Unreachable:
        code = "server_is_overloaded" if status == 503 else "server_error"
        again = 1 if status == 503 else None
        return Unreachable(
            f"The upstream {self.name!r} can't be reached: {why}.", status=status, code=code, retry_after=again
        )

    async def _refusal(self, answer: aiohttp.ClientResponse) -> ProxyError:
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
        headers = answer.headers
        return self.dialect.refusal(answer.status, body, headers.get("Content-Type", ""), headers.get("Retry-After"))

    async def models(self) -> Sequence[str]:
        """The ids of the models that it offers; raises Unreachable or what it answers."""
        try:
            async with (
                asyncio.timeout(LISTING),
                self._session.get(
                    self._listing, headers=self._headers | {"Accept": "application/json"}, allow_redirects=False
                ) as answer,
            ):
                if answer.status >= 300:
                    raise await self._refusal(answer)
                return self.dialect.models(await answer.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(f"it lists no models ({type(error).__name__})") from error
