"""Requests to one upstream over HTTP/1.1, and its answers once they have begun.

aiohttp's client spends 130 us on a request with an answer, most of it before the first byte leaves: the headers are
merged four times, and there are cookies, redirects, timers and a task that writes the body. Here aiohttp's connections
and parser are used without all that, with ready bytes: 55 us. Besides `blocks` this is the only file that knows
aiohttp's insides. Where they are not as expected, for large bodies and through a proxy, its client does the work.
"""

import asyncio
import errno
import inspect
import io
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from typing import Any, Protocol

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDictProxy
from yarl import URL

from proxy.blocks import read_small
from proxy.connections import READ, Attempt, Idle, Session
from proxy.errors import RequestError, Unreachable
from proxy.timers import Timer, after

log = logging.getLogger(__name__)

LARGE = 1024 * 1024  # bytes of a body from which on it is written piece by piece
_LINE = re.compile(r"[\w!#$%&'*+.^`|~-]+: [^\x00-\x08\x0a-\x1f\x7f]*\r\n", re.ASCII)
_START = re.compile(r"[A-Z]+ /[\x21-\x7e]* HTTP/1\.1\r\n")
_FRAMING = {"connection", "content-length", "expect", "te", "transfer-encoding", "upgrade"}
_WITHOUT_BODY = {"GET", "HEAD"}
_FULL = {errno.EMFILE, errno.ENFILE}  # no file descriptor is left, here


class Answer(Protocol):
    """An answer that has begun. Its connection is used again once `content` has been read to its end."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> CIMultiDictProxy[str]: ...

    @property
    def content(self) -> aiohttp.StreamReader: ...

    def close(self) -> None:
        """Close the connection if the answer has not ended; to be called in every case."""


class Exchange:
    """Requests to one upstream.

    name: the upstream's, for messages. headers: go with every request. connect: seconds for the connection, TLS
    included. accept: seconds from the request until the answer's status. Both None: no limit.
    """

    def __init__(
        self,
        name: str,
        url: str,
        session: Session,
        *,
        headers: Mapping[str, str],
        connect: float | None = None,
        accept: float | None = None,
        proxy: str = "",
    ) -> None:
        self._name = name
        self._base = URL(url.rstrip("/"))
        self._prefix = self._base.raw_path.rstrip("/")
        self._client = session.client
        self._proxy = proxy
        self._accept = accept
        self._connect = min((limit for limit in (connect, accept) if limit is not None), default=None)
        self._connecting = aiohttp.ClientTimeout(total=None, connect=self._connect)
        self._constant = _lines({"Host": self._base.host_port_subcomponent or ""} | dict(headers))
        self._ready = "".join(self._constant.values())
        self._loop = asyncio.get_running_loop()
        self._place = _Place("GET", self._base, loop=self._loop) if _FITS and not proxy else None
        self._idle = session.idle[self._place.connection_key if self._place else None]

    async def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """The answer, whatever its status; redirects are not followed.

        path: appended to that of the URL, with its query, as it stands on the wire. headers: win over the constant
        ones. Raises Unreachable when no answer begins, RequestError for a header that no request can carry.
        """
        given = _lines(headers)
        try:
            return await self._send(method, path, given, body)
        except _Died:
            log.debug("upstream %s had closed an idle connection: once more, on a new one", self._name)
            self._idle.close()  # the others are as old
            return await self._send(method, path, given, body)

    async def _send(self, method: str, path: str, given: dict[str, str], body: bytes) -> Answer:
        if self._place is None or len(body) >= LARGE:
            return await self._send_by_session(method, path, given, body)
        data = self._head(method, path, given, len(body)) + body
        connection = self._idle.take() or await self._connection(self._place)
        protocol: Any = connection.protocol
        reused = protocol._parser is not None
        timer = None
        try:
            if protocol.transport is None or protocol.should_close:  # it has gone, or sent something while idle: a 408
                raise aiohttp.ServerDisconnectedError
            protocol.set_response_params(skip_payload=method == "HEAD", read_until_eof=True, read_bufsize=READ)
            protocol.transport.write(data)
            timer = self._limit(protocol)
            message, content = await protocol.read()
            while message.code < 200 and message.code != 101:  # 1xx announce the answer
                reused = False  # it has heard the request: asking again could be paid twice
                message, content = await protocol.read()
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            connection.close()
            raise self._failure(error, reused) from error
        except BaseException:
            connection.close()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        return _Answer(connection, self._idle, message.code, message.headers, content)

    def _head(self, method: str, path: str, given: dict[str, str], size: int) -> bytes:
        start = f"{method} {self._prefix}{path} HTTP/1.1\r\n"
        if not _START.fullmatch(start):
            raise ValueError(f"no request line: {start!r}")
        if self._constant.keys().isdisjoint(given):
            lines = self._ready + "".join(given.values())
        else:
            lines = "".join((self._constant | given).values())
        if size or method not in _WITHOUT_BODY:
            lines += f"Content-Length: {size}\r\n"
        return f"{start}{lines}\r\n".encode("utf-8", "surrogateescape")  # as aiohttp has decoded the client's

    async def _connection(self, place: "_Place") -> Connection:
        assert self._client.connector is not None
        try:
            connection = await self._client.connector.connect(place, [], self._connecting)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: no name of a host, says IDNA
            raise self._no_connection(error) from error
        read_small(connection.transport)
        return connection

    def _limit(self, protocol: ResponseHandler) -> Timer | None:
        if self._accept is None:
            return None
        return after(self._accept, partial(protocol.set_exception, TimeoutError()), self._loop)

    async def _send_by_session(self, method: str, path: str, given: dict[str, str], body: bytes) -> Answer:
        lines = (self._constant | given).values()
        headers = dict(line.removesuffix("\r\n").split(": ", 1) for line in lines)
        data = io.BytesIO(body) if len(body) >= LARGE else body or None  # aiohttp writes files piece by piece
        attempt = Attempt()
        try:
            async with asyncio.timeout(self._accept):
                answer = await self._client.request(
                    method,
                    URL(f"{self._base.origin()}{self._prefix}{path}", encoded=True),
                    data=data,
                    headers=headers,
                    timeout=self._connecting,
                    allow_redirects=False,
                    proxy=self._proxy or None,
                    trace_request_ctx=attempt,
                )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, ValueError) as error:
            raise self._no_connection(error) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._failure(error, attempt.reused) from error
        if answer.connection is not None:
            read_small(answer.connection.transport)
        return answer

    def _no_connection(self, error: Exception) -> Unreachable:
        if isinstance(error, TimeoutError):
            return self._unreachable(f"no connection within {self._connect or 0:g} s", late=True)
        failure = self._unreachable(f"{getattr(error, 'strerror', None) or error}")
        failure.ours = isinstance(error, OSError) and error.errno in _FULL
        return failure

    def _failure(self, error: Exception, reused: bool) -> Unreachable:
        if isinstance(error, TimeoutError):
            return self._unreachable(f"no answer within {self._accept or 0:g} s", status=504, late=True)
        # it accepted the connection and then closed it, or speaks no HTTP
        why = f"it closed the connection without an answer ({type(error).__name__})"
        died = reused and isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
        return self._unreachable(why, status=502, kind=_Died if died else Unreachable)

    def _unreachable(
        self, why: str, status: int = 503, kind: type[Unreachable] = Unreachable, *, late: bool = False
    ) -> Unreachable:
        code = "server_is_overloaded" if status == 503 else "server_error"
        again = 1 if status == 503 else None
        failure = kind(
            f"The upstream {self._name!r} can't be reached: {why}.", status=status, code=code, retry_after=again
        )
        failure.here = not late
        return failure


class _Died(Unreachable):
    """An old connection had died unnoticed, before a byte of the answer."""


class _Answer:
    """An answer that is read without aiohttp's client."""

    __slots__ = ("_connection", "_idle", "content", "headers", "status")

    def __init__(
        self,
        connection: Connection,
        idle: Idle,
        status: int,
        headers: CIMultiDictProxy[str],
        content: aiohttp.StreamReader,
    ) -> None:
        self._connection: Connection | None = connection
        self._idle = idle
        self.status = status
        self.headers = headers
        self.content = content
        content.on_eof(self._ended)

    def _ended(self) -> None:
        connection = self._connection
        if connection is None:
            return
        protocol: Any = connection.protocol
        transport = protocol.transport
        if transport is None or protocol.should_close or transport.get_write_buffer_size():
            self.close()  # also when it has answered before it has read the whole request
        else:
            self._connection = None
            self._idle.give(connection)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Place(aiohttp.ClientRequest):
    """Where connections lead: what a connector wants to know. It is never sent."""

    @cached_property
    def connection_key(self) -> Any:
        return super().connection_key


def _lines(headers: Mapping[str, str]) -> dict[str, str]:
    """The lines of a head, by the names in lower case."""
    lines = {name.lower(): f"{name}: {value}\r\n" for name, value in headers.items()}
    if not _FRAMING.isdisjoint(lines):
        raise ValueError(f"headers of the connection are not the caller's to set: {', '.join(_FRAMING & set(lines))}")
    for name, line in lines.items():
        if not _LINE.fullmatch(line):
            raise RequestError(f"The header {name!r} can't be passed on: it holds a control character.")
    return lines


def _has(function: Callable[..., object], names: Iterable[str]) -> bool:
    return set(names) <= set(inspect.signature(function).parameters)


_FITS = (
    _has(aiohttp.BaseConnector.connect, ("req", "traces", "timeout"))
    and _has(aiohttp.ClientRequest, ("method", "url", "loop"))
    and _has(ResponseHandler.set_response_params, ("skip_payload", "read_until_eof", "read_bufsize"))
    and all(hasattr(ResponseHandler, name) for name in ("_parser", "read", "set_exception", "should_close"))
)
