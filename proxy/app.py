"""Builds everything from the configuration, starts it, and ends it in good order."""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack

from aiohttp import web

from proxy.assemble import assemble
from proxy.config import Config
from proxy.logs import set_up
from proxy.server import Server

log = logging.getLogger(__name__)

SEND = 72 * 1024
"""Bytes of the kernel's send buffer toward a client, which it doubles."""

Announce = Callable[[str, int], None]


def serve(config: Config, announce: Announce) -> int:
    """Run until SIGTERM or SIGINT; gives the exit status. announce: called with host and port once clients can connect.

    Raises OSError when the address can't be listened on.
    """
    set_up(config.log.format, config.log.level, bodies=config.log.bodies)
    with asyncio.Runner(loop_factory=_loop_factory(config.loop)) as runner:
        runner.run(_serve(config, announce))
    return 0


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop when it is installed and not ruled out: 15-40 % less CPU, and a third of the slowest latencies."""
    if name == "asyncio":
        return None
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        if name == "uvloop":
            raise
        return None
    return uvloop.new_event_loop


async def _serve(config: Config, announce: Announce) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        server = await build(config, stack)
        # handler_cancellation: a client that goes away must end its handler, and thereby its upstream (pitfall 73)
        runner = web.AppRunner(
            server.app, handler_cancellation=True, access_log=None, shutdown_timeout=1, keepalive_timeout=75
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        sites = [web.SockSite(runner, each, backlog=1024) for each in await _sockets(config)]
        for site in sites:
            await site.start()
        host, port = runner.addresses[0][:2]
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)  # little here is cyclic; the default looks after every 700 objects
        announce(host, port)
        await stop.wait()
        log.info("stopping")
        for site in sites:
            await site.stop()
        await server.stop(config.drain)


async def _sockets(config: Config) -> list[socket.socket]:
    """Bound sockets, whose options every connection inherits."""
    host, port = config.listen.host, config.listen.port
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets = []
    for family, kind, protocol, _, address in dict.fromkeys(addresses):
        made = socket.socket(family, kind, protocol)
        sockets.append(made)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Else the kernel buffers megabytes for a client that does not read, all that an engine generates meanwhile.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # a client that has vanished without a word
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(config.stream.send_timeout * 1000))
        made.bind(address)
    return sockets


async def build(config: Config, stack: AsyncExitStack) -> Server:
    """Everything but the listener. stack: closes what was opened."""
    serving = await assemble(config)
    stack.push_async_callback(serving.close)
    return Server(serving)
