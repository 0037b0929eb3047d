"""Several processes on one port, and what keeps them running."""

import asyncio
import json
import os
import re
import signal
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
import trustme

from tests.command import CI, command, file, paste, running
from tests.proxy import REQUEST, Process, Reply, Stream, as_process, config, until
from tests.upstream import Upstream, chunk, sse, text

FIRST = sse(chunk({"role": "assistant", "content": "Hel"}), done=False)
REST = text("lo")

pytestmark = pytest.mark.skipif(not CI and not Path("/proc/self/task").exists(), reason="nothing tells the workers")


async def ask(proxy: Process) -> Reply:
    """By a connection of its own, which any worker may get."""
    options = {"json": REQUEST, "headers": {"Connection": "close"}}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{proxy.url}/responses", **options) as answer,  # type: ignore[arg-type]
    ):
        return Reply(answer.status, answer.headers, await answer.read())


async def opened(proxy: Process, stack: AsyncExitStack, count: int) -> list[Stream]:
    """So many streams, whose first word is there."""
    streams = [await stack.enter_async_context(proxy.stream()) for _ in range(count)]
    for stream in streams:
        await stream.until('"delta":"Hel"')
    return streams


async def whole(stream: Stream) -> bool:
    """Whether it comes to its end, which has to be a good one then."""
    try:
        return (await stream.rest()).final()["status"] == "completed"
    except aiohttp.ClientPayloadError:
        return False


async def replaced(proxy: Process, before: set[int], count: int) -> None:
    """Returns once there are as many workers again, others than these, and all have begun to serve."""
    await until(lambda: len(proxy.workers() - before) >= count and all(map(listens, proxy.workers())))


def listens(pid: int) -> bool:
    """Whether a process has a TCP socket that connections come to."""
    try:
        sockets = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:  # it ends, or opens and closes something, just now
        return False
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()]
    return any(row[3] == "0A" and f"socket:[{row[9]}]" in sockets for row in rows)


async def test_all_serve_on_one_free_port() -> None:
    async with Upstream(text("a")) as upstream, as_process(upstream, workers=3) as proxy:
        assert len(proxy.workers()) == 3
        assert all(map(listens, proxy.workers()))
        assert not listens(proxy.process.pid)
        for _ in range(10):
            assert (await ask(proxy)).status == 200


async def test_when_one_is_killed_the_others_serve_on_and_another_one_comes() -> None:
    go = asyncio.Event()
    async with (
        Upstream([*FIRST, go, *REST]) as upstream,
        as_process(upstream, workers=3) as proxy,
        AsyncExitStack() as stack,
    ):
        streams = await opened(proxy, stack, 30)
        before = proxy.workers()
        killed, began = min(before), time.monotonic()
        os.kill(killed, signal.SIGKILL)
        await replaced(proxy, before, 1)
        print(f"a worker is back after {time.monotonic() - began:.2f} s")  # noqa: T201
        assert proxy.workers() > before - {killed}
        assert "was ended by SIGKILL; another one takes its place in 0 s" in proxy.log
        go.set()
        assert any([await whole(stream) for stream in streams])
        for _ in range(10):
            assert (await ask(proxy)).status == 200


async def test_one_that_dies_again_and_again_is_started_less_often() -> None:
    async with Upstream(text("a")) as upstream, as_process(upstream, workers=2) as proxy:
        (kept,) = {max(proxy.workers())}
        for times in range(1, 4):
            dead = proxy.workers() - {kept}
            os.kill(dead.pop(), signal.SIGKILL)
            await proxy.said("another one takes its place", times)
            await replaced(proxy, dead | {kept}, 1)
        assert re.findall(r"in ([\d.]+) s", proxy.log) == ["0", "0.25", "0.5"]


async def test_sigterm_lets_the_streams_of_all_end() -> None:
    go = asyncio.Event()
    async with (
        Upstream([*FIRST, go, *REST]) as upstream,
        as_process(upstream, workers=2) as proxy,
        AsyncExitStack() as stack,
    ):
        streams = await opened(proxy, stack, 20)
        proxy.process.terminate()
        await proxy.refusing()
        go.set()
        assert all([await whole(stream) for stream in streams])
        await proxy.process.wait()


async def test_what_lasts_longer_than_the_drain_fails_well_formed() -> None:
    async with (
        Upstream([*FIRST, asyncio.Event()]) as upstream,
        as_process(upstream, workers=2, drain=0.1) as proxy,
        AsyncExitStack() as stack,
    ):
        streams = await opened(proxy, stack, 10)
        proxy.process.terminate()
        for stream in streams:
            assert (await stream.rest()).failure()["code"]
        await proxy.process.wait()


async def test_when_the_supervisor_is_killed_its_workers_end_in_good_order() -> None:
    go = asyncio.Event()
    async with (
        Upstream([*FIRST, go, *REST]) as upstream,
        as_process(upstream, workers=3, status=-signal.SIGKILL) as proxy,
        AsyncExitStack() as stack,
    ):
        streams = await opened(proxy, stack, 20)
        proxy.process.kill()
        await proxy.said("the supervisor has died", 3)
        go.set()
        assert all([await whole(stream) for stream in streams])
        # as_process reads to the end of what they could write to: nobody is left then


async def test_when_the_supervisor_is_killed_nothing_of_it_is_left(tmp_path: Path) -> None:
    path, folder = file(tmp_path, "upstreams: {a: {url: 'demo:'}}\nworkers: 2\nlisten: {port: 0}"), tmp_path / "tmp"
    folder.mkdir()
    async with running(path, TMPDIR=str(folder)) as (process, _):
        assert len([*folder.iterdir()]) == 1
        process.kill()
        await process.wait()
    assert not [*folder.iterdir()]


async def test_sighup_reaches_all_and_those_that_come_later() -> None:
    async with (
        Upstream(text("old")) as old,
        Upstream(text("new")) as new,
        as_process(old, workers=2, watch=False) as proxy,
    ):
        proxy.path.write_text(json.dumps(config(new, workers=2, watch=False)))
        proxy.process.send_signal(signal.SIGHUP)
        await proxy.said("INFO reloaded", 2)
        proxy.path.write_text("upstreams: {}")  # what comes now has to do with what was in force
        before = proxy.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await replaced(proxy, before, 2)
        for _ in range(10):
            assert b"new" in (await ask(proxy)).body
        assert not old.requests


async def test_a_bad_file_is_refused_by_the_supervisor_for_all() -> None:
    series = rb"^responses_proxy_config_last_reload_successful ([\d.]+)$"
    async with Upstream(text("old")) as old, as_process(old, workers=3) as proxy:
        proxy.path.write_text("upstreams: {}")
        await proxy.said("upstreams: expected at least one")
        await shown(proxy, series, 0)
        assert b"old" in (await ask(proxy)).body
        proxy.path.write_text(json.dumps(config(old, workers=2)))
        await proxy.said("INFO reloaded", 3)
        assert proxy.log.count("not reloaded") == 1
        assert proxy.log.count("workers is changed by a restart only") == 1
        await shown(proxy, series, 1)


async def test_a_worker_that_comes_later_listens_as_the_others_do(tmp_path: Path) -> None:
    made, both = trustme.CA().issue_cert("127.0.0.1"), tmp_path / "both.pem"
    made.private_key_and_cert_chain_pem.write_to_path(str(both))
    listen = {"tls": {"certificate": str(both), "key": str(both)}}
    async with as_process({"url": "demo:"}, workers=2) as proxy:
        proxy.path.write_text(json.dumps(config({"url": "demo:"}, workers=2, listen=listen)))
        await proxy.said("INFO reloaded", 2)
        assert "listen.tls is changed by a restart only" in proxy.log
        before = proxy.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await replaced(proxy, before, 2)
        assert (await ask(proxy)).status == 200


async def test_a_worker_that_comes_later_needs_no_files(tmp_path: Path) -> None:
    made, both, other = trustme.CA().issue_cert("127.0.0.1"), tmp_path / "both.pem", tmp_path / "ca.pem"
    made.private_key_and_cert_chain_pem.write_to_path(str(both))
    trustme.CA().cert_pem.write_to_path(str(other))
    asked = {"url": "https://127.0.0.1:1/v1", "tls": {"ca": str(other)}}
    listen = {"tls": {"certificate": str(both), "key": str(both)}}
    async with as_process({"url": "demo:"}, asked, workers=2, listen=listen) as proxy:
        both.write_text("rubbish")
        other.write_text("rubbish")
        await proxy.said("ERROR not reloaded")
        before = proxy.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await replaced(proxy, before, 2)
        async with proxy.session.post(f"{proxy.url}/responses", json=REQUEST, ssl=False) as answer:
            assert answer.status == 200
        assert "Traceback" not in proxy.log


@pytest.mark.parametrize("field", ["strict: !!bool foo", "drain: !!int ''", 'keys_file: "a\\0b"'])
async def test_no_file_ends_the_supervisor(field: str) -> None:
    async with Upstream(text("old")) as old, as_process(old, workers=2) as proxy:
        before = proxy.workers()
        proxy.path.write_text("upstreams: {a: {url: 'demo:'}}\n" + field)
        await proxy.said(f"ERROR not reloaded, the configuration from before goes on: {proxy.path}:2: ")
        assert b"old" in (await ask(proxy)).body
        assert proxy.workers() == before
        assert "Traceback" not in proxy.log


async def test_a_second_supervisor_does_not_join_the_first_ones_port(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    async with Upstream(text("a")) as upstream, as_process(upstream, workers=2) as proxy:
        path.write_text(json.dumps(config(upstream, workers=2)))
        result = await asyncio.to_thread(command, path, f"--port={proxy.port}")
    assert result.returncode == 1
    assert f"can't listen on 127.0.0.1:{proxy.port}: Address already in use" in result.stderr


async def test_ctrl_c_ends_all_with_status_0(tmp_path: Path) -> None:
    path = file(tmp_path, "upstreams: {a: {url: 'demo:'}}\nworkers: 2\nlisten: {port: 0}")
    async with running(path) as (process, _):
        os.killpg(process.pid, signal.SIGINT)
        assert await process.wait() == 0


async def test_what_they_count_is_one_sum_that_outlives_them() -> None:
    series = rb'^responses_proxy_requests_total\{.*endpoint="/v1/responses".*\} ([\d.]+)$'
    async with Upstream(text("a")) as upstream, as_process(upstream, workers=3) as proxy:
        for _ in range(20):
            await ask(proxy)
        await shown(proxy, series, 20)
        before = proxy.workers()
        os.kill(min(before), signal.SIGKILL)
        await replaced(proxy, before, 1)
        await shown(proxy, series, 20)


async def shown(proxy: Process, series: bytes, number: float) -> None:
    """Returns once the values of these series have this sum: each worker publishes its own now and then."""
    found: list[float] = []
    async with aiohttp.ClientSession() as session:
        while not found or sum(found) != number:
            async with session.get(f"{proxy.url.removesuffix('/v1')}/metrics", headers={"Connection": "close"}) as page:
                found = [float(each) for each in re.findall(series, await page.read(), re.MULTILINE)]


async def test_workers_that_can_not_begin_end_all_with_status_1(tmp_path: Path) -> None:
    path = file(tmp_path, "upstreams: {a: {url: 'http://127.0.0.1:1/v1'}}\nworkers: 2\nlisten: {port: 0}")
    said = await paste(["ulimit -n 12", f"{sys.executable} -m proxy {path} 2>&1", "echo status $?"])
    assert "before all were ready: giving up" in said
    assert said.endswith("status 1\n")
