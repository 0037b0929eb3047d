"""Where clients connect: TCP or a unix socket, with TLS or without."""

import errno
import os
import socket
import ssl
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from msgspec import structs

from proxy.config import Config, ServerTls

SEND = 72 * 1024
"""Bytes of the kernel's send buffer toward a client, which it doubles."""

BACKLOG = 1024
"""Connections that may wait to be accepted."""


class ListenError(Exception):
    """Nobody can connect there: one message with the address and the reason."""

    def __init__(self, where: str, reason: OSError | str) -> None:
        if isinstance(reason, OSError):  # a name that can't be resolved has a negative number
            number = reason.errno or 0
            reason = os.strerror(number) if number > 0 else reason.strerror or str(reason)
        super().__init__(f"can't listen on {where}: {reason}")


class Tls(ssl.SSLContext):
    """HTTPS that can be replaced: connections that begin then use `newest`, all others go on.

    They belong to it wholly. Those that an SNI callback hands over to another context still take up sessions of the
    first one, without a look at the client's certificate (OpenSSL 3.0).
    """

    newest: ssl.SSLContext

    def __new__(cls, _newest: ssl.SSLContext) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, newest: ssl.SSLContext) -> None:
        self.newest = newest

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """asyncio and uvloop call it for each connection."""
        return self.newest.wrap_bio(*args, **options)


def server_context(files: ServerTls) -> ssl.SSLContext:
    """Reads the files. Raises OSError when they can't be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(files.certificate, files.key)
    if files.client_ca:
        context.load_verify_locations(files.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class Listener:
    """What accepts connections. context: for HTTPS. shared: other processes do so on the same port."""

    def __init__(self, config: Config, context: ssl.SSLContext | None = None, *, shared: bool = False) -> None:
        self._config = config
        self._shared = shared
        self._tls = Tls(context) if context else None
        self._path = Path(config.listen.socket) if config.listen.socket else None
        self._sockets: list[socket.socket] = []
        self._sites: list[web.BaseSite] = []
        self._inode = 0

    async def start(self, runner: web.AppRunner) -> None:
        """Clients can connect afterwards. Raises ListenError."""
        if self._path:
            _claim(self._path)
            self._sites.append(web.UnixSite(runner, self._path, ssl_context=self._tls, backlog=BACKLOG))
        else:
            self._sockets = bind(self._config, shared=self._shared)
            for each in self._sockets:
                self._sites.append(web.SockSite(runner, each, ssl_context=self._tls, backlog=BACKLOG))
        try:
            for site in self._sites:
                await site.start()
        except OSError as error:
            raise ListenError(place(self._config), error) from error
        if self._path:
            self._inode = self._path.stat().st_ino

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of TCP; the path and 0 of a unix socket."""
        return (str(self._path), 0) if self._path else self._sockets[0].getsockname()[:2]

    def update(self, config: Config) -> None:
        """Take over what can be changed while clients connect. Raises OSError when the files of TLS can't be used."""
        if self._tls and config.listen.tls:
            self._tls.newest = server_context(config.listen.tls)
        for each in self._sockets:
            _limit_silence(each, config)

    async def stop(self) -> None:
        """Accept nobody any more."""
        for site in self._sites:
            await site.stop()
        if self._path:
            with suppress(FileNotFoundError):
                if self._path.stat().st_ino == self._inode:  # else somebody has taken it over
                    self._path.unlink()


def bind(config: Config, *, shared: bool = False) -> list[socket.socket]:
    """Sockets at the configured address, which do not listen yet; connections inherit their options.

    Port 0 becomes one free port for all of them. Raises ListenError.
    """
    host, port = config.listen.host, config.listen.port
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            made = socket.socket(family, kind, protocol)
            sockets.append(made)
            _set_options(made, config, shared=shared)
            made.bind((address[0], port, *address[2:]))
            port = made.getsockname()[1]
    except OSError as error:
        for each in sockets:
            each.close()
        raise ListenError(place(config), error) from error
    return sockets


def reserve(config: Config) -> list[socket.socket]:
    """Sockets that hold a port for `shared` listeners. Raises ListenError when somebody else listens there, whom such
    listeners would join unnoticed."""
    alone = bind(config)
    port = alone[0].getsockname()[1]
    for each in alone:
        each.close()
    return bind(structs.replace(config, listen=structs.replace(config.listen, port=port)), shared=True)


def _set_options(made: socket.socket, config: Config, *, shared: bool) -> None:
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Else the kernel buffers megabytes for a client that does not read, all that an engine generates meanwhile.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND)
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    _limit_silence(made, config)


def _limit_silence(made: socket.socket, config: Config) -> None:
    """For a client that has vanished without a word."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(config.stream.send_timeout * 1000))


def _claim(path: Path) -> None:
    """Remove the socket that a process has left when it died. Raises ListenError for anything else that is there."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise ListenError(str(path), "this file is no socket, and is not replaced")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            reply = probe.connect_ex(str(path))
        if reply != errno.ECONNREFUSED:
            raise ListenError(str(path), "another process listens there")
        path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ListenError(str(path), error) from error


def place(config: Config) -> str:
    """Where it listens, or would, for people."""
    listen = config.listen
    return listen.socket or joined(listen.host, listen.port)


def joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
