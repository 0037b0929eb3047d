"""The connections to all upstreams: opened as their configuration says, kept while idle, closed at the end."""

import ssl
from types import SimpleNamespace
from typing import Self

import aiohttp
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


class Connections:
    """One session for each way to connect, shared by the upstreams that are reached so.

    Without limits: a limit would queue streams silently.
    """

    def __init__(self) -> None:
        self._sessions: dict[tuple[Tls, str], aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in self._sessions.values():
            await session.close()

    def session(self, tls: Tls = Tls(), socket: str = "") -> aiohttp.ClientSession:  # noqa: B008 - it is frozen
        """socket: the path of a Unix socket to connect to instead of a URL's host; "": none. Raises as Tls.context."""
        if (tls, socket) not in self._sessions:
            self._sessions[tls, socket] = _open(tls, socket)
        return self._sessions[tls, socket]


def _open(tls: Tls, socket: str) -> aiohttp.ClientSession:
    connector: aiohttp.BaseConnector
    if socket:
        connector = aiohttp.UnixConnector(socket, limit=0, keepalive_timeout=KEEP_IDLE)
    else:
        secure = True if tls == Tls() else tls.context()
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
