"""Builds everything from the configuration, starts it, and ends it in good order."""

import asyncio
import gc
import logging
import os
import signal
import ssl
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from proxy.assemble import assemble, client_contexts
from proxy.config import Config
from proxy.connections import Tls
from proxy.lag import Lag
from proxy.listener import Listener, server_context
from proxy.logs import LoopErrors, set_up
from proxy.metrics import Metrics
from proxy.reload import Reload
from proxy.server import Server
from proxy.serving import Instruments
from proxy.source import Source
from proxy.spans import Tracer
from proxy.tasks import spawn

log = logging.getLogger(__name__)

Announce = Callable[[str, int], None]
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Contexts(NamedTuple):
    """What the TLS files of a configuration say. server: None without `listen.tls`."""

    server: ssl.SSLContext | None
    clients: Mapping[Tls, ssl.SSLContext]


def read_contexts(config: Config) -> Contexts:
    """Raises OSError when the files can't be used."""
    tls = config.listen.tls
    return Contexts(server_context(tls) if tls else None, client_contexts(config))


class Worker(NamedTuple):
    """One of several processes that serve the same.

    number: from 0; one that takes the place of a dead one has its number. supervisor: a pipe that ends with the process
    that has started them. folder: where they keep their metrics together. contexts: of the configuration in force,
    whose files may be others by now.
    """

    number: int
    supervisor: int
    folder: Path
    contexts: Contexts


def serve(source: Source, config: Config, announce: Announce, worker: Worker | None = None) -> int:
    """Run until SIGTERM or SIGINT; gives the exit status. announce: called with host and port once clients can connect.

    config: what `source` says. worker: None when this is the only process. Raises ListenError.
    """
    set_up(config.log.format, config.log.level, bodies=config.log.bodies)
    with asyncio.Runner(loop_factory=_loop_factory(config.loop)) as runner:
        runner.run(_serve(source, config, announce, worker))
    return 0


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if loop_name(name) == "asyncio":
        return None
    import uvloop  # noqa: PLC0415 - an extra

    return uvloop.new_event_loop


def loop_name(choice: str) -> str:
    """asyncio or uvloop, which takes 15-40 % less CPU, and a third of the slowest latencies."""
    if choice == "auto":
        return "asyncio" if find_spec("uvloop") is None else "uvloop"
    return choice


def version() -> str:
    try:
        return metadata.version("responses-proxy")
    except metadata.PackageNotFoundError:
        return "(not installed)"


async def _serve(source: Source, config: Config, announce: Announce, worker: Worker | None) -> None:
    # The loop would remember every generator, 1.5 % of a request, to close at the end what nobody has: all are closed.
    sys.set_asyncgen_hooks(None, None)
    stop, again = asyncio.Event(), asyncio.Event()
    _listen_to_signals(stop, again)
    if worker is not None:
        _end_with(worker.supervisor, stop)
    async with AsyncExitStack() as stack:
        contexts = worker.contexts if worker else read_contexts(config)
        server = await build(config, stack, worker, contexts.clients)
        # handler_cancellation: a client that goes away must end its handler, and thereby its upstream (pitfall 73)
        runner = web.AppRunner(
            server.app,
            handler_cancellation=True,
            auto_decompress=False,  # proxy.body does it
            access_log=None,
            shutdown_timeout=1,
            keepalive_timeout=75,
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        listener = Listener(config, contexts.server, shared=worker is not None)
        await listener.start(runner)
        stack.callback(Lag().close)
        reload = Reload(source, config, server, listener, again, supervised=worker is not None)
        reloading = spawn(reload.run(), "reload")
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)  # little here is cyclic; the default looks after every 700 objects
        announce(*listener.address)
        await stop.wait()
        log.info("stopping")
        await listener.stop()
        reloading.cancel()
        await asyncio.wait([reloading])
        await server.stop(reload.config.drain)
        await reload.close()


def _listen_to_signals(stop: asyncio.Event, again: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(LoopErrors().tell)
    had_terminal = os.isatty(0)

    def hang_up() -> None:
        (stop if had_terminal and not os.isatty(0) else again).set()  # it is also sent when a terminal is closed

    for number in SIGNALS:
        loop.add_signal_handler(number, hang_up if number == signal.SIGHUP else stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # a supervisor blocks them until somebody hears them


def _end_with(supervisor: int, stop: asyncio.Event) -> None:
    """Stop when the supervisor has died."""
    loop = asyncio.get_running_loop()

    def died() -> None:
        loop.remove_reader(supervisor)
        log.error("the supervisor has died: this worker ends too")
        stop.set()

    loop.add_reader(supervisor, died)


async def build(
    config: Config,
    stack: AsyncExitStack,
    worker: Worker | None = None,
    contexts: Mapping[Tls, ssl.SSLContext] | None = None,
) -> Server:
    """Everything but the listener. stack: closes what was opened, and what has replaced it meanwhile.

    contexts: for upstreams, made before.
    """
    metrics, tracer = _metrics(config, worker), _tracer(config)
    metrics.start()
    stack.callback(metrics.close)
    stack.push_async_callback(tracer.close)
    server = Server(await assemble(config, Instruments(metrics, tracer), contexts=contexts))

    async def close() -> None:
        await server.serving.close()

    stack.push_async_callback(close)
    return server


def _metrics(config: Config, worker: Worker | None) -> Metrics:
    """Of the whole process: they go on when the configuration changes."""
    if not config.metrics.enabled:
        return Metrics()
    from proxy.prometheus import Prometheus, Shared  # noqa: PLC0415 - only where it is wanted

    shared = Shared(worker.folder, worker.number) if worker else None
    return Prometheus(version(), loop_name(config.loop), shared)


def _tracer(config: Config) -> Tracer:
    if config.otel is None:
        return Tracer()
    from proxy.otel import OtelTracer  # noqa: PLC0415 - an extra

    otel = config.otel
    return OtelTracer(otel.endpoint, otel.service, version(), otel.headers, otel.ratio)
