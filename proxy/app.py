"""Builds everything from the configuration, starts it, and ends it in good order."""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack

import msgspec
from aiohttp import web

from proxy import demo
from proxy.answer import Timeouts
from proxy.config import DEMO, Config
from proxy.config import Route as ConfiguredRoute
from proxy.core.profile import Profile
from proxy.dialects import load
from proxy.loading import resolve_profile
from proxy.logs import set_up
from proxy.router import Route, Router
from proxy.server import Server
from proxy.service import Service
from proxy.sinks import Pace
from proxy.upstream import Endpoint, Upstream, open_session

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
    session = await stack.enter_async_context(open_session())
    demo_url = ""
    if any(upstream.url == DEMO for upstream in config.upstreams.values()):
        model = await demo.start()
        stack.push_async_callback(model.close)
        demo_url = model.url
    upstreams: dict[tuple[str, Profile], Upstream] = {}
    routes = []
    for route in config.routes:
        wanted = [_endpoint(config, route, name, demo_url) for name in route.upstreams]
        asked = [upstreams.setdefault((e.name, e.profile), Upstream(e, session)) for e in wanted]
        shown = None if route.reasoning_output == "auto" else route.reasoning_output
        routes.append(Route(route.model, asked, route.upstream_model, shown))
    pace = msgspec.convert(config.stream, Pace, from_attributes=True)
    return Server(Service(Router(routes)), pace, strict=config.strict, body_limit=config.limits.body)


def _endpoint(config: Config, route: ConfiguredRoute, name: str, demo_url: str) -> Endpoint:
    """An upstream as a route sees it: the route may change its profile."""
    given = config.upstreams[name]
    return Endpoint(
        name=name,
        url=demo_url if given.url == DEMO else given.url,
        dialect=load(given.dialect),
        profile=resolve_profile(given, route),
        key=given.key,
        pass_key=given.pass_key,
        headers=given.headers,
        body=given.body,
        forward=given.forward_headers,
        timeouts=msgspec.convert(given.timeouts, Timeouts, from_attributes=True),
        event_limit=config.limits.event,
        strict=config.strict,
    )
