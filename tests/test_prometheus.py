"""What is counted can be read, of one process and of several."""

import asyncio
import json
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from proxy.metrics import GAPS, Done, UpstreamState
from proxy.prometheus import LOOK, Prometheus, Shared, forget

ROOT = Path(__file__).parent.parent
DONE = Done(
    endpoint="/v1/responses", status=200, ended="completed", route="big", key="ann", input=7, cached=3, output=5,
    reasoning=2, duration=1.5, first=0.3, gaps=[0] * len(GAPS) + [1], streamed=90, stream=True,
)  # fmt: skip

REQUESTS = "requests_total{ended=completed,endpoint=/v1/responses,key=ann,route=big,status=200}"

Samples = dict[str, float]


def samples(text: str) -> Samples:
    """By name and labels as they stand in the text, in the order of the alphabet, without our prefix."""
    found = {}
    for family in parse(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name.removeprefix('responses_proxy_')}{{{labels}}}"] = sample.value
    return found


async def read(metrics: Prometheus) -> Samples:
    return samples((await metrics.render())[1].decode())


@pytest.fixture
def metrics() -> Prometheus:
    return Prometheus("1.2", "asyncio")


async def test_a_request_is_counted_with_its_tokens_and_times(metrics: Prometheus) -> None:
    metrics.request(DONE)
    metrics.request(DONE)
    found = await read(metrics)
    assert found[REQUESTS] == 2
    tokens = [found[f"tokens_total{{key=ann,kind={kind},route=big}}"] for kind in ("input", "cached", "output")]
    assert tokens == [14, 6, 10]
    assert found["request_duration_seconds_sum{endpoint=/v1/responses,route=big,stream=true}"] == 3
    assert found["first_event_seconds_bucket{le=0.25,route=big}"] == 0
    assert found["first_event_seconds_bucket{le=0.5,route=big}"] == 2
    assert found["event_gap_seconds_count{route=big}"] == 2


async def test_what_has_been_read_is_not_counted_again(metrics: Prometheus) -> None:
    metrics.request(DONE)
    first, second = await read(metrics), await read(metrics)
    for name in (REQUESTS, "event_gap_seconds_count{route=big}", "tokens_total{key=ann,kind=input,route=big}"):
        assert first[name] == second[name] > 0


async def test_what_a_request_did_not_have_is_called_none(metrics: Prometheus) -> None:
    metrics.opened("")
    metrics.request(Done(endpoint="other", status=404))
    found = await read(metrics)
    assert found["requests_total{ended=none,endpoint=other,key=none,route=none,status=404}"] == 1
    assert found["requests_open{route=none}"] == 1
    assert not [name for name in found if "first_event" in name or "gap" in name]


@given(gaps=st.lists(st.floats(0, 100) | st.sampled_from(GAPS)))
def test_gaps_counted_by_the_stream_are_those_that_the_library_would_count(gaps: list[float]) -> None:
    counts = [0] * (len(GAPS) + 1)
    for gap in gaps:
        counts[bisect_left(GAPS, gap)] += 1
    ours = Prometheus("1", "asyncio")
    ours.request(Done(endpoint="other", status=200, gaps=counts, streamed=sum(gaps)))
    registry = prometheus_client.CollectorRegistry()
    theirs = prometheus_client.Histogram("event_gap_seconds", "", ["route"], registry=registry, buckets=GAPS)
    for gap in gaps:
        theirs.labels("none").observe(gap)
    expected = samples(prometheus_client.generate_latest(registry).decode()) if gaps else {}
    found = asyncio.run(read(ours))
    assert {name: found[name] for name in expected} == pytest.approx(expected)


async def test_attempts_retries_fallbacks_and_refusals_are_counted(metrics: Prometheus) -> None:
    metrics.attempt("big", "main", "u1", "broken")
    metrics.retry("main")
    metrics.fallback("big")
    metrics.limited("tokens")
    found = await read(metrics)
    assert found["upstream_attempts_total{outcome=broken,pool=main,route=big,upstream=u1}"] == 1
    assert (found["retries_total{pool=main}"], found["fallbacks_total{route=big}"]) == (1, 1)
    assert [found[f"limited_requests_total{{limit={limit}}}"] for limit in ("tokens", "streams")] == [1, 0]


async def test_requests_under_way_go_up_and_down(metrics: Prometheus) -> None:
    metrics.opened("big")
    metrics.opened("big")
    metrics.closed("big")
    assert (await read(metrics))["requests_open{route=big}"] == 1
    metrics.closed("big")
    assert (await read(metrics))["requests_open{route=big}"] == 0


async def test_upstreams_are_shown_as_they_are_when_metrics_are_read(metrics: Prometheus) -> None:
    states = [UpstreamState("a", available=True, load=2), UpstreamState("b", available=False, waiting=3)]
    metrics.watch(lambda: states)
    found = await read(metrics)
    assert [found[f"upstream_available{{upstream={name}}}"] for name in "ab"] == [1, 0]
    assert [found[f"upstream_requests_open{{upstream={name}}}"] for name in "ab"] == [2, 0]
    assert [found[f"upstream_requests_waiting{{upstream={name}}}"] for name in "ab"] == [0, 3]


async def test_an_upstream_that_has_left_the_configuration_leaves_the_metrics(metrics: Prometheus) -> None:
    a, b = UpstreamState("a", available=False), UpstreamState("b", available=True)
    metrics.watch(lambda: [a, b])
    await read(metrics)
    metrics.watch(lambda: [b])
    assert [name for name in await read(metrics) if "upstream=a" in name] == []
    metrics.watch(lambda: [a])
    found = await read(metrics)
    assert [name for name in found if "upstream=b" in name] == []
    assert found["upstream_available{upstream=a}"] == 0


async def test_a_refused_configuration_shows_until_one_is_taken(metrics: Prometheus) -> None:
    began = (await read(metrics))["config_last_reload_success_timestamp_seconds{}"]
    metrics.reloaded(ok=False)
    found = await read(metrics)
    assert found["config_last_reload_successful{}"] == 0
    assert found["config_last_reload_success_timestamp_seconds{}"] == began
    metrics.reloaded(ok=True)
    found = await read(metrics)
    assert found["config_last_reload_successful{}"] == 1
    assert found["config_last_reload_success_timestamp_seconds{}"] > began
    assert [found[f"config_reloads_total{{outcome={outcome}}}"] for outcome in ("ok", "refused")] == [1, 1]


def hold_up() -> None:
    time.sleep(LOOK + 0.1)


async def test_a_loop_that_is_held_up_shows(metrics: Prometheus) -> None:
    metrics.start()
    hold_up()
    async with asyncio.timeout(10):
        while not (found := await read(metrics)).get("loop_lag_seconds_count{}"):
            pass  # reading gives the loop its turn
    metrics.close()
    assert found["loop_lag_seconds_sum{}"] >= 0.09


async def test_openmetrics_is_spoken_to_who_asks_for_it(metrics: Prometheus) -> None:
    metrics.request(DONE)
    metrics.reloaded(ok=True)
    content_type, body = await metrics.render("application/openmetrics-text; version=1.0.0, text/plain; q=0.5")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family.type for family in parse_openmetrics(body.decode())}  # type: ignore[no-untyped-call]
    assert families["responses_proxy_requests"] == "counter"
    assert (await metrics.render("*/*"))[0].startswith("text/plain; version=0.0.4")


# -- several workers

WORKER = """
import asyncio, json, sys
from pathlib import Path
from proxy.metrics import UpstreamState
from proxy.prometheus import Prometheus, Shared
from tests.test_prometheus import DONE

metrics = Prometheus("1.2", "asyncio", Shared(Path(sys.argv[1]), int(sys.argv[2])))
for line in sys.stdin:
    result = eval(line)
    metrics.flush()
    print(json.dumps(result), flush=True)
"""


class Worker:
    """A process that counts into this directory."""

    def __init__(self, directory: Path, number: int, process: "subprocess.Popen[str]") -> None:
        self.shared = Shared(directory, number)
        self._process = process

    def do(self, code: str) -> object:
        """Run this expression there."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(code + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def read(self) -> Samples:
        return samples(str(self.do("asyncio.run(metrics.render())[1].decode()")))


@contextmanager
def worker(directory: Path, number: int) -> Iterator[Worker]:
    """It is killed at the end."""
    command = (sys.executable, "-c", WORKER, str(directory), str(number))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield Worker(directory, number, process)
        finally:
            process.kill()


def test_every_worker_answers_for_all(tmp_path: Path) -> None:
    with worker(tmp_path, 1) as one, worker(tmp_path, 2) as two:
        for each in (one, two, two):
            each.do("metrics.request(DONE)")
            each.do("metrics.opened('big')")
        assert (found := one.read()) == two.read()
    assert (found[REQUESTS], found["requests_open{route=big}"]) == (3, 3)
    assert found["event_gap_seconds_bucket{le=+Inf,route=big}"] == 3
    assert found["event_gap_seconds_sum{route=big}"] == 270
    assert [value for name, value in found.items() if name.startswith("build_info")] == [1]


def test_loads_are_added_up_and_an_upstream_that_is_down_for_one_worker_shows(tmp_path: Path) -> None:
    with worker(tmp_path, 1) as one, worker(tmp_path, 2) as two:
        one.do("metrics.watch(lambda: [UpstreamState('a', True, 2, 1), UpstreamState('b', True)])")
        two.do("metrics.watch(lambda: [UpstreamState('a', False, 3, 1), UpstreamState('b', True)])")
        found = one.read()
        assert [found[f"upstream_available{{upstream={name}}}"] for name in "ab"] == [0, 1]
        assert (found["upstream_requests_open{upstream=a}"], found["upstream_requests_waiting{upstream=a}"]) == (5, 2)
        for each in (one, two):
            each.do("metrics.watch(lambda: [UpstreamState('b', True)])")
        assert [name for name in one.read() if "upstream=a" in name] == []


def test_what_a_dead_worker_has_counted_stays_and_what_it_had_under_way_goes(tmp_path: Path) -> None:
    with worker(tmp_path, 1) as one:
        with worker(tmp_path, 2) as two:
            two.do("metrics.request(DONE)")
            two.do("metrics.opened('big')")
            assert one.read()["requests_open{route=big}"] == 1
        forget(two.shared)
        found = one.read()
    assert found[REQUESTS] == 1
    assert "requests_open{route=big}" not in found


def test_a_worker_goes_on_where_the_dead_one_before_it_stopped(tmp_path: Path) -> None:
    files = []
    for number in range(1, 4):
        with worker(tmp_path, 1) as one:
            one.do("metrics.request(DONE)")
            one.do(f"metrics.opened('r{number}')")
            found = one.read()
            assert found[REQUESTS] == number
            assert [name for name in found if "requests_open" in name] == [f"requests_open{{route=r{number}}}"]
            files.append(sorted(path.name for path in tmp_path.iterdir()))
    assert files[0] == files[2]
