"""The configuration changes while the proxy runs."""

import asyncio
import gc
import json
import logging
import signal
import weakref
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from proxy.app import build
from proxy.config import Config
from proxy.listener import Listener
from proxy.reload import Reload
from proxy.server import Server
from proxy.serving import Serving
from proxy.source import Source
from tests.proxy import GUARD, Process, Reply, as_process, config, until, written
from tests.upstream import Upstream, chunk, sse, text

FIRST = sse(chunk({"role": "assistant", "content": "Hel"}), done=False)
REST = text("lo")


def put(path: Path, *endpoints: Upstream, **fields: object) -> None:
    path.write_text(json.dumps(config(*endpoints, **fields)))


def word(reply: Reply) -> str:
    words: str = reply.json()["output"][0]["content"][0]["text"]
    return words


async def hang_up(proxy: Process, times: int) -> None:
    """Asks for a reload, this one of so many, and waits for it."""
    proxy.process.send_signal(signal.SIGHUP)
    await proxy.said("INFO reloaded", times)


# Nothing is dropped


async def test_fifty_reloads_break_none_of_two_hundred_streams() -> None:
    go = asyncio.Event()
    async with (
        Upstream([*FIRST, go, *REST]) as old,
        Upstream(text("new")) as new,
        as_process(old, watch=False) as proxy,
        AsyncExitStack() as stack,
    ):
        streams = [await stack.enter_async_context(proxy.stream()) for _ in range(200)]
        for stream in streams:
            await stream.until('"delta":"Hel"')
        put(proxy.path, new, watch=False)
        for times in range(1, 11):
            await hang_up(proxy, times)
        before = proxy.memory()
        for times in range(11, 51):
            await hang_up(proxy, times)
        grown = proxy.memory() - before
        print(f"40 reloads under 200 streams: {grown / 2**20:.1f} MiB")  # noqa: T201
        assert word(await proxy.post()) == "new"
        assert len(old.requests) == 200
        go.set()
        for stream in streams:
            assert (await stream.rest()).final()["output"][0]["content"][0]["text"] == "Hello"
    assert grown < 4 * 2**20


@pytest.fixture
def same_log() -> Iterator[None]:
    """A reload sets the log up, here that of the tests."""
    proxy = logging.getLogger("proxy")
    before = proxy.handlers[:], proxy.propagate, proxy.level
    yield
    proxy.handlers[:], proxy.propagate, proxy.level = before


def sees(source: Source, config: Config, server: Server, asked: asyncio.Event) -> Reload:
    return Reload(source, config, server, Listener(config), asked)


@pytest.mark.usefixtures("same_log")
async def test_what_is_no_longer_in_force_is_gone_with_its_last_request() -> None:
    asked = asyncio.Event()
    async with asyncio.timeout(GUARD), Upstream(text("a")) as upstream, AsyncExitStack() as stack:
        source = Source(stack.enter_context(written(config(upstream, watch=False))))
        settings = source.load()
        server = await build(settings, stack)
        running = asyncio.create_task(sees(source, settings, server, asked).run())
        old: list[weakref.ref[Serving]] = []
        server.serving.enter()  # a request that lasts
        first = weakref.ref(server.serving)
        for _ in range(50):
            old.append(weakref.ref(server.serving))
            asked.set()
            await until(lambda: server.serving is not old[-1]())
        await until(lambda: gone(old[1:]))
        held = first()
        assert held is not None
        held.leave()
        del held
        await until(lambda: gone(old))
        running.cancel()
        await asyncio.wait([running])


def gone(servings: list["weakref.ref[Serving]"]) -> bool:
    gc.collect()
    return all(each() is None for each in servings)


# What is refused


async def test_a_bad_file_is_refused_once_and_the_old_one_goes_on() -> None:
    async with Upstream(text("old")) as old, Upstream(text("new")) as new, as_process(old) as proxy:
        proxy.path.write_text("upstreams: {main: {ulr: 'http://127.0.0.1:1/v1'}}")
        await proxy.said("ERROR not reloaded")
        assert "the configuration from before goes on: " in proxy.log
        assert f"{proxy.path}:1: upstreams.main.ulr: unknown field `ulr`" in proxy.log
        assert word(await proxy.post()) == "old"
        put(proxy.path, new)
        await proxy.said("INFO reloaded")
        assert word(await proxy.post()) == "new"
        assert proxy.log.count("not reloaded") == 1


async def test_a_file_that_is_gone_changes_nothing() -> None:
    async with Upstream(text("old")) as old, as_process(old) as proxy:
        proxy.path.unlink()
        await proxy.said("can't be read: No such file")
        assert word(await proxy.post()) == "old"


@pytest.mark.usefixtures("same_log")
def test_an_open_address_needs_keys_also_when_the_file_names_another_one_by_now(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("proxy").propagate = True
    path = tmp_path / "proxy.yaml"
    path.write_text("upstreams: {a: {url: 'demo:'}}\nlisten: {host: 0.0.0.0}\nopen: true")
    source = Source(path)
    begun = source.load()
    path.write_text("upstreams: {a: {url: 'demo:'}}\nlisten: {host: 127.0.0.1}")
    assert source.reload(begun) is None
    assert "on `0.0.0.0` others could use your upstreams" in caplog.text


async def test_what_needs_a_restart_is_named_and_the_rest_takes_effect() -> None:
    async with Upstream(text("old")) as old, Upstream(text("new")) as new, as_process(old) as proxy:
        put(proxy.path, new, workers=3, listen={"host": "localhost"})
        await proxy.said("INFO reloaded")
        assert "workers is changed by a restart only" in proxy.log
        assert "listen.host is changed by a restart only" in proxy.log
        assert "listen.port" not in proxy.log
        assert word(await proxy.post()) == "new"


# How a change is noticed


async def test_a_file_written_in_place_and_one_moved_there_are_noticed() -> None:
    async with Upstream(text("1")) as one, Upstream(text("2")) as two, as_process(one) as proxy:
        put(proxy.path, two)
        await proxy.said("INFO reloaded", 1)
        assert word(await proxy.post()) == "2"
        put(proxy.path.with_name("draft"), one)
        proxy.path.with_name("draft").replace(proxy.path)
        await proxy.said("INFO reloaded", 2)
        assert word(await proxy.post()) == "1"


async def test_a_config_map_that_is_replaced_is_noticed() -> None:
    async with Upstream(text("1")) as one, Upstream(text("2")) as two, as_process(one) as proxy:
        folder = proxy.path.parent
        for name, upstream in (("v1", one), ("v2", two)):
            (folder / name).mkdir()
            put(folder / name / "proxy.yaml", upstream)
        turn(folder / "..data", "v1")
        turn(proxy.path, "..data/proxy.yaml")
        await proxy.said("INFO reloaded", 1)
        turn(folder / "..data", "v2")
        await proxy.said("INFO reloaded", 2)
        assert word(await proxy.post()) == "2"


def turn(link: Path, target: str) -> None:
    """Lets the link lead there, in one step."""
    new = link.with_name("new")
    new.symlink_to(target)
    new.replace(link)


async def test_the_file_with_the_keys_is_watched_too() -> None:
    known = [{"name": "k", "hash": "sha256:" + "0" * 64}]
    async with Upstream(text("a")) as upstream, as_process(upstream) as proxy:
        keys = proxy.path.with_name("keys.yaml")
        keys.write_text(json.dumps(known))
        put(proxy.path, upstream, keys_file="keys.yaml")
        await proxy.said("INFO reloaded", 1)
        assert (await proxy.post()).status == 401
        keys.write_text("[{name: k}]")
        await proxy.said("ERROR not reloaded")
        keys.write_text(json.dumps([*known, {"name": "l", "hash": "sha256:" + "1" * 64}]))
        await proxy.said("INFO reloaded", 2)


async def test_unwatched_files_are_read_on_sighup_only() -> None:
    async with Upstream(text("1")) as one, Upstream(text("2")) as two, as_process(one, watch=False) as proxy:
        put(proxy.path, two, watch=True)
        await hang_up(proxy, 1)
        assert word(await proxy.post()) == "2"
        put(proxy.path, one, watch=True)
        await proxy.said("INFO reloaded", 2)
        assert word(await proxy.post()) == "1"


async def test_the_log_changes_its_form() -> None:
    async with Upstream(text("a")) as upstream, as_process(upstream, log={"level": "error"}) as proxy:
        await proxy.post()
        put(proxy.path, upstream, log={"format": "json"})
        await proxy.said('"message":"reloaded')
        await proxy.post()
        await proxy.said('"status":200')
        assert proxy.log.count("/v1/responses") == 1
