"""The connections to all upstreams: opened as their configuration says, kept while idle, closed at the end."""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Hashable, Mapping
from types import SimpleNamespace
from typing import NamedTuple, Self

import aiohttp
from aiohttp.connector import Connection
from msgspec import Struct

from proxy.blocks import small_socket

READ = 16 * 1024  # bytes: twice as much is buffered for a stream; more costs memory with stalled clients and no time
KEEP_IDLE = 4.0  # seconds: uvicorn and llama.cpp close idle connections after 5


class Tls(Struct, frozen=True):
    """How an https upstream is recognised, and how we show who we are. All are paths of PEM files, "" for none.

    ca: the only authorities that are trusted; "": those of the system. certificate: ours, with what it needs of its
    chain. key: that of the certificate; "": it stands in the same file. verify: False: the upstream may be anybody.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """Reads the files. Raises OSError, with the name of the file that can't be used in `filename`."""
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
        except OSError as error:
            raise _unusable(self.ca, error) from error
        try:
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key or None, password=_no_password)
        except OSError as error:
            raise _unusable(self.certificate, error) from error
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["http/1.1"])
        return context


def _unusable(path: str, error: OSError) -> OSError:
    return OSError(error.errno or 0, f"no usable certificates or key ({error.strerror or error})", path)


def _no_password() -> str:
    """Instead of asking on the terminal."""
    return ""


class Attempt:
    """One request by the session. reused: on an old connection, which may have died unnoticed."""

    reused = False


async def _reused(_: object, context: SimpleNamespace, __: object) -> None:
    context.trace_request_ctx.reused = True


class Idle:
    """Connections to one place that wait for the next request; each is closed after `keep` seconds.

    aiohttp's own pool takes 16 us more for each request.
    """

    def __init__(self, keep: float = KEEP_IDLE) -> None:
        self._keep = keep
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[float, Connection]] = []  # the last one used is the last one
        self._armed = False

    def take(self) -> Connection | None:
        while self._waiting:
            _, connection = self._waiting.pop()
            if not connection.closed:
                return connection
            connection.close()
        return None

    def give(self, connection: Connection) -> None:
        due = self._loop.time() + self._keep
        self._waiting.append((due, connection))
        if not self._armed:
            self._armed = True
            self._loop.call_at(due, self._expire)

    def _expire(self) -> None:
        now = self._loop.time()
        while self._waiting and self._waiting[0][0] <= now:
            self._waiting.pop(0)[1].close()
        self._armed = bool(self._waiting)
        if self._armed:
            self._loop.call_at(self._waiting[0][0], self._expire)

    def close(self) -> None:
        for _, connection in self._waiting:
            connection.close()
        self._waiting.clear()


class Session(NamedTuple):
    """One way to connect. idle: by place."""

    client: aiohttp.ClientSession
    idle: defaultdict[Hashable, Idle]


class Connections:
    """One session for each way to connect, shared by the upstreams that are reached so.

    Without limits: a limit would queue streams silently. contexts: those that need no reading of files any more.
    """

    def __init__(self, contexts: Mapping[Tls, ssl.SSLContext] | None = None) -> None:
        self._contexts = contexts or {}
        self._sessions: dict[tuple[Tls, str], Session] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in self._sessions.values():
            for idle in session.idle.values():
                idle.close()
            await session.client.close()

    def session(self, tls: Tls = Tls(), socket: str = "") -> Session:  # noqa: B008 - it is frozen
        """socket: the path of a Unix socket to connect to instead of a URL's host; "": none. Raises as Tls.context."""
        if (tls, socket) not in self._sessions:
            self._sessions[tls, socket] = Session(_open(tls, socket, self._contexts), defaultdict(Idle))
        return self._sessions[tls, socket]


def _open(tls: Tls, socket: str, contexts: Mapping[Tls, ssl.SSLContext]) -> aiohttp.ClientSession:
    connector: aiohttp.BaseConnector
    if socket:
        connector = aiohttp.UnixConnector(socket, limit=0, keepalive_timeout=KEEP_IDLE)
    else:
        secure = True if tls == Tls() else contexts.get(tls) or tls.context()
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_IDLE, socket_factory=small_socket, ssl=secure)
    watched = aiohttp.TraceConfig()
    watched.on_connection_reuseconn.append(_reused)
    return aiohttp.ClientSession(
        connector=connector,
        trace_configs=[watched],
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        read_bufsize=READ,
        requote_redirect_url=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
    )
