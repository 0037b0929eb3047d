"""Metrics by `prometheus_client`: of one process, or of several that share a directory.

What is counted is added to plain numbers (`proxy.counts`), and handed to the library when somebody reads, or four times
a second when several workers share a directory.
"""

import asyncio
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import isnan, nan
from pathlib import Path
from typing import Literal, get_args

from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics, values
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from proxy.counts import Count, Counts, Histogram, Spread, Spreads
from proxy.metrics import GAPS, Done, Limit, Metrics, Outcome, UpstreamState

PREFIX = "responses_proxy"
FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300)
DURATION = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1800)
LAG = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
LOOK = 0.25
"""Seconds between looks at the loop's lag: a longer blockade is always seen."""

KINDS = ("input", "cached", "output", "reasoning")
NONE = "none"
"""A label where there is nothing: a request without a route, without a key, without an end."""


class Shared(Struct, frozen=True):
    """Where several workers keep their numbers, so that each can answer for all.

    directory: exists, empty when the first worker starts. worker: its number; one that takes the place of a dead one
    has the number of that one, and goes on with its counters, so that there are never more files than workers need.
    """

    directory: Path
    worker: int


def forget(shared: Shared) -> None:
    """The worker is dead: what it had under way no longer counts. Its counters stay."""
    mark_process_dead(shared.worker, str(shared.directory))  # type: ignore[no-untyped-call]


class Prometheus(Metrics):
    """Counts. With `shared`, one of these at most may be made in a process."""

    def __init__(self, version: str, loop: str, shared: Shared | None = None) -> None:
        """version: of the proxy. loop: asyncio or uvloop."""
        disable_created_metrics()  # type: ignore[no-untyped-call] # twice the series, for what nobody asks
        own, self._registry = CollectorRegistry(), CollectorRegistry()
        if shared is not None:
            _share(shared)
            self._registry.register(_Present(MultiProcessCollector(None, str(shared.directory))))  # type: ignore[no-untyped-call]
        else:
            ProcessCollector(registry=own)
            self._registry.register(_Present(own))
        self._shared = shared
        self._define(own)
        self._rows: dict[tuple[str, str, str, int, str, bool], _Row] = {}
        self._open: defaultdict[str, int] = defaultdict(int)
        self._states: Callable[[], Iterable[UpstreamState]] = tuple
        self._upstreams: set[str] = set()
        self._rendering: dict[str, asyncio.Future[bytes]] = {}  # by content type
        self._timer: asyncio.TimerHandle | None = None
        self._build.labels(version, platform.python_version(), loop).set(1)
        for limit in get_args(Limit):
            self._limited[limit,]
        self._succeeded(time.time())

    def _define(self, registry: CollectorRegistry) -> None:
        def counts(name: str, text: str, *labels: str) -> Counts:
            return Counts(Counter(f"{PREFIX}_{name}", text, labels, registry=registry))

        def gauge(name: str, text: str, *labels: str, workers: Literal["livesum", "livemin", "livemax"]) -> Gauge:
            return Gauge(f"{PREFIX}_{name}", text, labels, registry=registry, multiprocess_mode=workers)

        def spreads(name: str, text: str, bounds: Sequence[float], *labels: str) -> Spreads:
            return Spreads(Histogram(f"{PREFIX}_{name}", text, labels, registry=registry, buckets=bounds), bounds)

        self._requests = counts("requests", "Requests that have ended.", "endpoint", "route", "key", "status", "ended")
        self._requests_open = gauge("requests_open", "Requests under way.", "route", workers="livesum")
        self._tokens = counts(
            "tokens", "Tokens; cached are part of input, reasoning of output.", "route", "key", "kind"
        )
        self._duration = spreads(
            "request_duration_seconds", "From request to end.", DURATION, "endpoint", "route", "stream"
        )
        self._first = spreads("first_event_seconds", "From request to first event of an item.", FIRST, "route")
        self._gaps = spreads("event_gap_seconds", "Between the writes of a stream.", GAPS, "route")
        self._attempts = counts(
            "upstream_attempts", "Requests to upstreams that have ended.", "route", "pool", "upstream", "outcome"
        )
        self._retries = counts("retries", "Further attempts within a pool.", "pool")
        self._fallbacks = counts("fallbacks", "Changes to a route's next pool.", "route")
        self._available = gauge("upstream_available", "1: it may be asked.", "upstream", workers="livemin")
        self._load = gauge("upstream_requests_open", "Requests under way at it.", "upstream", workers="livesum")
        self._waiting = gauge("upstream_requests_waiting", "Requests in its line.", "upstream", workers="livesum")
        self._limited = counts("limited_requests", "Requests refused by limits of the proxy's own.", "limit")
        self._lag = spreads("loop_lag_seconds", "How late the event loop calls what is due.", LAG)
        self._reloads = counts("config_reloads", "Readings of a changed configuration.", "outcome")
        self._last_ok = gauge("config_last_reload_successful", "0: the last one was refused.", workers="livemin")
        self._last_at = gauge("config_last_reload_success_timestamp_seconds", "Of the one in use.", workers="livemin")
        self._build = gauge("build_info", "Always 1.", "version", "python", "loop", workers="livemax")

    # -- counting

    def opened(self, route: str) -> None:
        self._open[route] += 1

    def closed(self, route: str) -> None:
        self._open[route] -= 1

    def request(self, done: Done) -> None:
        labels = (done.endpoint, done.route, done.key, done.status, done.ended, done.stream)
        row = self._rows.get(labels) or self._row(labels)
        row.requests.more += 1
        row.duration.observe(done.duration)
        if done.input or done.output:
            row.input.more += done.input
            row.cached.more += done.cached
            row.output.more += done.output
            row.reasoning.more += done.reasoning
        if done.first is not None:
            self._first[done.route or NONE,].observe(done.first)
        if done.gaps is not None:
            self._gaps[done.route or NONE,].add(done.gaps, done.streamed)

    def _row(self, labels: tuple[str, str, str, int, str, bool]) -> "_Row":
        endpoint, given_route, given_key, status, ended, stream = labels
        route, key = given_route or NONE, given_key or NONE
        row = self._rows[labels] = _Row(
            self._requests[endpoint, route, key, str(status), ended or NONE],
            self._duration[endpoint, route, str(stream).lower()],
            *(self._tokens[route, key, kind] for kind in KINDS),
        )
        return row

    def attempt(self, route: str, pool: str, upstream: str, outcome: Outcome) -> None:
        self._attempts[route, pool, upstream, outcome].more += 1

    def retry(self, pool: str) -> None:
        self._retries[pool,].more += 1

    def fallback(self, route: str) -> None:
        self._fallbacks[route,].more += 1

    def limited(self, limit: Limit) -> None:
        self._limited[limit,].more += 1

    def lag(self, seconds: float) -> None:
        self._lag[()].observe(seconds)

    def reloaded(self, *, ok: bool) -> None:
        self._reloads["ok" if ok else "refused",].more += 1
        if ok:
            self._succeeded(time.time())
        else:
            self._last_ok.set(0)

    def _succeeded(self, at: float) -> None:
        self._last_ok.set(1)
        self._last_at.set(at)

    def watch(self, states: Callable[[], Iterable[UpstreamState]]) -> None:
        self._states = states

    # -- being read

    def start(self) -> None:
        self._look_in(asyncio.get_running_loop())

    def _look_in(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(LOOK, self._look, loop, time.perf_counter() + LOOK)

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self.lag(max(0.0, time.perf_counter() - due))
        if self._shared is not None:  # another worker may be read
            self.flush()
        self._look_in(loop)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.flush()

    def flush(self) -> None:
        """Hand over what has been counted."""
        for counts in (
            self._requests,
            self._tokens,
            self._attempts,
            self._retries,
            self._fallbacks,
            self._limited,
            self._reloads,
        ):
            counts.flush()
        for spreads in (self._duration, self._first, self._gaps, self._lag):
            spreads.flush()
        for route, number in self._open.items():
            self._requests_open.labels(route or NONE).set(number)
        states = list(self._states())
        gone = self._upstreams.difference(state.name for state in states)
        for name in gone:
            self._show(name, nan, nan, nan)
        for state in states:
            self._show(state.name, state.available, state.load, state.waiting)
        self._upstreams = {state.name for state in states}

    def _show(self, upstream: str, available: float, load: float, waiting: float) -> None:
        self._available.labels(upstream).set(available)
        self._load.labels(upstream).set(load)
        self._waiting.labels(upstream).set(waiting)

    async def render(self, accept: str = "") -> tuple[str, bytes]:
        """Who asks while another rendering is under way gets that one: a thread each would slow down all streams."""
        encode, content_type = choose_encoder(accept)
        rendering = self._rendering.get(content_type)
        if rendering is None:
            self.flush()
            # 7,000 series take 0.1 s, in which no stream would go on; beside a thread they go on every 5 to 10 ms.
            rendering = asyncio.get_running_loop().run_in_executor(None, encode, self._registry)
            self._rendering[content_type] = rendering
            rendering.add_done_callback(lambda _: self._rendering.pop(content_type))
        return content_type, await asyncio.shield(rendering)  # who leaves takes it from nobody else


class _Row(Struct, gc=False):
    """What requests of one kind count."""

    requests: Count
    duration: Spread
    input: Count
    cached: Count
    output: Count
    reasoning: Count


class _Present(Collector):
    """Leaves out what is no number: the gauges of upstreams that have gone, which several workers can't remove."""

    def __init__(self, inner: Collector) -> None:
        self._inner = inner

    def collect(self) -> Iterator[Metric]:
        for metric in self._inner.collect():
            metric.samples = [sample for sample in metric.samples if not isnan(sample.value)]
            yield metric


def _share(shared: Shared) -> None:
    """The library keeps the numbers of this process in files named by the worker's number, and not by its process."""
    forget(shared)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(shared.directory)
    values.ValueClass = values.MultiProcessValue(lambda: shared.worker)  # type: ignore[no-untyped-call]
