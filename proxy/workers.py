"""Several processes that share one port, and the supervisor that keeps them running.

The supervisor serves nobody and has neither threads nor an event loop, so that a worker can be a fork of it: that
starts in milliseconds, with the configuration that is in force.
"""

import gc
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from msgspec import Struct, structs

from proxy.app import SIGNALS, Announce, Worker, read_contexts, serve
from proxy.config import Config
from proxy.listener import reserve
from proxy.logs import set_up
from proxy.source import Source
from proxy.watch import LOOK

log = logging.getLogger(__name__)

STEADY = 10.0
"""Seconds after which a worker that dies is started again at once; the next ones after FIRST, then twice as long."""

FIRST, LONGEST = 0.25, 5.0
"""Seconds."""

MARGIN = 10.0
"""Seconds beyond `drain` after which a worker that still runs is killed."""


def supervise(source: Source, config: Config, announce: Announce) -> int:
    """Run `config.workers` workers until SIGTERM or SIGINT; gives the exit status, 0 when all of them ended well.

    announce: called with host and port once all of them accept connections. Raises ListenError.
    """
    set_up(config.log.format, config.log.level, bodies=config.log.bodies)
    held = reserve(config)
    host, port = held[0].getsockname()[:2]
    if not config.listen.port:  # all of them have to take the same one, also after a reload
        source.listen["port"] = port
        config = structs.replace(config, listen=structs.replace(config.listen, port=port))
    with TemporaryDirectory(prefix="responses-proxy-", ignore_cleanup_errors=True) as folder:
        return _Supervisor(source, config, Path(folder), held).run(lambda: announce(host, port))


class _Place(Struct):
    """A worker, and those that take its place. pid: 0 for none. began: when. due: when the next one is to start.

    delay: seconds that the next one has to wait if this one dies soon.
    """

    number: int
    pid: int = 0
    began: float = 0
    due: float = 0
    delay: float = 0


class _Supervisor:
    """held: sockets that keep the port as long as it lives."""

    def __init__(self, source: Source, config: Config, folder: Path, held: list[socket.socket]) -> None:
        self._source = source
        self._begun = self._config = config
        self._contexts = read_contexts(config)
        self._folder = folder
        self._held = held
        self._places = [_Place(number) for number in range(config.workers)]
        self._signals, self._signalled = os.pipe()
        self._ready, self._tell_ready = os.pipe()
        self._alive, self._life = os.pipe()  # never written to: it ends with this process
        self._had_terminal = os.isatty(0)
        self._running = 0  # workers that have begun to accept connections, as long as nobody has been told
        self._deadline: float | None = None  # when those that still run are killed; None: not stopping
        self._failed = False

    def run(self, announce: Callable[[], None]) -> int:
        os.set_blocking(self._signalled, False)
        signal.set_wakeup_fd(self._signalled)
        for number in (*SIGNALS, signal.SIGCHLD):
            signal.signal(number, _noted)
        gc.collect()
        gc.freeze()  # what the collector does not touch stays shared with the workers
        while self._deadline is None or any(place.pid for place in self._places):
            self._start_those_due()
            self._wait(announce)
            self._look_for_the_dead()
            self._look_at_files_and_clock()
        return int(self._failed)

    def _start_those_due(self) -> None:
        for place in self._places:
            if not place.pid and self._deadline is None and place.due <= time.monotonic():
                place.began = time.monotonic()
                place.pid = self._fork(place)

    def _fork(self, place: _Place) -> int:
        """The process id of a new worker, which hears signals when it can act on them."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if not pid:
            self._work(place)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return pid

    def _work(self, place: _Place) -> NoReturn:
        """In the worker."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (*SIGNALS, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            for end in (self._signals, self._signalled, self._ready, self._life):
                os.close(end)
            for each in self._held:
                each.close()
            worker = Worker(place.number, self._alive, self._folder, self._contexts)
            status = serve(self._source, self._config, self._say_ready, worker)
            if select.select([self._alive], [], [], 0)[0]:  # the supervisor has died
                _leave(self._folder, place.number)
        except Exception:
            log.exception("worker %d failed", os.getpid())
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _say_ready(self, _host: str, _port: int) -> None:
        os.write(self._tell_ready, b".")

    def _wait(self, announce: Callable[[], None]) -> None:
        """For a signal, a worker that is ready, or the next look at clock and files."""
        waiting = [place.due - time.monotonic() for place in self._places if not place.pid and self._deadline is None]
        readable, _, _ = select.select([self._signals, self._ready], [], [], max(0, min([LOOK, *waiting])))
        if self._signals in readable:
            self._hear(set(os.read(self._signals, 4096)))
        if self._ready in readable:
            before = self._running
            self._running += len(os.read(self._ready, 4096))
            if before < len(self._places) <= self._running:
                announce()

    def _hear(self, numbers: set[int]) -> None:
        terminal_closed = self._had_terminal and not os.isatty(0)
        if numbers & {signal.SIGTERM, signal.SIGINT} or (signal.SIGHUP in numbers and terminal_closed):
            self._stop()
        elif signal.SIGHUP in numbers:
            self._reload()

    def _stop(self) -> None:
        if self._deadline is None:
            log.info("stopping")
            self._deadline = time.monotonic() + self._config.drain + MARGIN
            self._tell(signal.SIGTERM)

    def _reload(self) -> None:
        try:
            self._take_over(self._source.reload(self._begun))
        except Exception:
            log.exception("not reloaded, the configuration from before goes on")
        self._tell(signal.SIGHUP)  # in any case: their metrics tell of refusals too

    def _take_over(self, config: Config | None) -> None:
        if config is not None:
            self._contexts = read_contexts(config)
            self._config = config
            set_up(config.log.format, config.log.level, bodies=config.log.bodies)

    def _tell(self, number: signal.Signals) -> None:
        for place in self._places:
            if place.pid:
                os.kill(place.pid, number)

    def _look_for_the_dead(self) -> None:
        for place in self._places:
            if place.pid:
                pid, status = os.waitpid(place.pid, os.WNOHANG)
                if pid:
                    self._ended(place, os.waitstatus_to_exitcode(status))

    def _ended(self, place: _Place, status: int) -> None:
        how = f"ended with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"
        pid, place.pid = place.pid, 0
        self._forget(place)
        if self._deadline is not None:
            if status:
                log.error("worker %d %s", pid, how)
            self._failed |= status != 0
        elif self._running < len(self._places):  # the next one would do no better
            log.error("worker %d %s before all were ready: giving up", pid, how)
            self._failed = True
            self._stop()
        else:
            now = time.monotonic()
            if now - place.began > STEADY:
                place.delay = 0
            log.error("worker %d %s; another one takes its place in %g s", pid, how, place.delay)
            place.due = now + place.delay
            place.delay = min(max(2 * place.delay, FIRST), LONGEST)

    def _forget(self, place: _Place) -> None:
        if self._config.metrics.enabled:
            from proxy.prometheus import Shared, forget  # noqa: PLC0415 - only where it is wanted

            forget(Shared(self._folder, place.number))

    def _look_at_files_and_clock(self) -> None:
        if self._deadline is None:
            if self._config.watch and self._source.changed():
                self._reload()
        elif time.monotonic() > self._deadline:
            self._tell(signal.SIGKILL)


def _leave(folder: Path, number: int) -> None:
    """What the supervisor can't do any more: each worker removes its metrics, and the last one the folder."""
    for file in folder.glob(f"*_{number}.db"):
        file.unlink(missing_ok=True)
    with suppress(OSError):  # others are there yet
        folder.rmdir()


def _noted(*_: object) -> None:
    """The signal's number is on its way to the pipe."""
