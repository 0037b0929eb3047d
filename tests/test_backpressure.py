"""Clients that do not read stop their upstreams and cost little, and many streams are open at once."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from tests.checker import parse_sse
from tests.proxy import Client, as_process, in_process
from tests.upstream import Forever, Request, Script, Upstream, chunk, sse, text

GUARD = 10
"""Seconds within which something that should happen soon has to happen, on the most loaded machine."""

GOOD = text("Hel", "lo")
FIRST = sse(chunk({"role": "assistant", "content": "Hel"}), done=False)
LARGE = b"".join(sse(chunk({"content": "x" * 10_000}), done=False))
SMALL = b"".join(sse(*[chunk({"content": "word "})] * 100, done=False))


def endless(piece: bytes) -> Callable[[Request], Script]:
    """An upstream whose model m never ends; the others do."""
    return lambda request: [Forever(piece)] if request.json()["model"] == "m" else GOOD


# Clients that do not read


async def test_a_client_that_does_not_read_stops_the_upstream() -> None:
    async with Upstream(endless(SMALL)) as upstream, in_process(upstream) as proxy:
        with contextlib.closing(await proxy.mute()):
            request = await upstream.received(1)
            await settled([request], proxy)
            assert not request.gone.is_set()


async def test_a_client_that_reads_again_gets_the_rest() -> None:
    script: Script = [*[LARGE] * 2000, *GOOD]
    async with Upstream(script) as upstream, in_process(upstream, stream={"keep_alive": 0.05}) as proxy:
        with contextlib.closing(await proxy.mute(version="1.0")) as client:
            request = await upstream.received(1)
            await request.stalled.wait()
            _, body = (await everything(client)).split(b"\r\n\r\n", 1)
    events = parse_sse(body)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert sum(event["type"] == "response.output_text.delta" for event in events) == 2000 + 2


async def everything(client: socket.socket) -> bytes:
    received = []
    while data := await asyncio.get_running_loop().sock_recv(client, 65536):
        received.append(data)
    return b"".join(received)


async def test_a_client_that_reads_nothing_for_long_is_dropped() -> None:
    stream = {"send_timeout": 0.2, "keep_alive": 0.1}
    async with Upstream([Forever(SMALL)]) as upstream, as_process(upstream, stream=stream) as proxy:
        with contextlib.closing(await proxy.mute()):
            request = await upstream.received(1)
            async with asyncio.timeout(GUARD):
                await request.gone.wait()
        proxy.process.terminate()
        await proxy.process.wait()
        assert "client_stalled" in proxy.log
        assert "Traceback" not in proxy.log


async def test_silence_is_not_taken_for_a_client_that_does_not_read() -> None:
    go = asyncio.Event()
    stream = {"send_timeout": 0.1, "keep_alive": 0.05}
    async with (
        Upstream([*FIRST, go, *GOOD]) as upstream,
        in_process(upstream, stream=stream) as proxy,
        proxy.stream() as reply,
    ):
        for _ in range(5):
            await reply.until(": keepalive")
        go.set()
        assert (await reply.rest()).final()["status"] == "completed"


@pytest.mark.parametrize("piece", [SMALL, LARGE])
async def test_many_that_do_not_read_take_little_memory(piece: bytes) -> None:
    async with (
        Upstream(endless(piece)) as upstream,
        as_process(upstream) as proxy,
        AsyncExitStack() as stack,
    ):
        for stream in (True, False):
            await proxy.post(stream=stream, model="other")
        before = proxy.memory()
        for _ in range(50):
            stack.enter_context(contextlib.closing(await proxy.mute()))
        await upstream.received(52)
        held = upstream.requests[2:]
        await settled(held, proxy)
        grown = proxy.memory() - before
        print(f"50 clients that do not read: {grown / 2**20:.1f} MiB")  # noqa: T201
        assert grown < 25 * 2**20
        assert not any(request.gone.is_set() for request in held)


async def settled(requests: list[Request], proxy: Client) -> None:
    """Returns once each upstream has stalled and has sent nothing while the proxy answered others."""
    for request in requests:
        await request.stalled.wait()
    sent, last = [request.sent for request in requests], [-1]
    while sent != last:
        for _ in range(50):
            assert (await proxy.post(model="other")).status == 200
        sent, last = [request.sent for request in requests], sent


# Many at once


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 12_000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
async def test_two_thousand_streams_are_open_at_once() -> None:
    count, go = 2000, asyncio.Event()
    few = asyncio.Semaphore(50)
    alive = asyncio.Barrier(count + 1)

    async def one(proxy: Client) -> bytes:
        async with AsyncExitStack() as stack:
            async with few:
                reply = await stack.enter_async_context(proxy.stream())
                await reply.until('"delta":"Hel"')
            await alive.wait()
            return (await reply.rest()).body

    async with Upstream([*FIRST, go, *GOOD]) as upstream, as_process(upstream) as proxy:
        streams = [asyncio.create_task(one(proxy)) for _ in range(count)]
        await alive.wait()
        assert upstream.open == count
        assert (await proxy.get("/health")).status == 200
        go.set()
        bodies = await asyncio.gather(*streams)
    for body in bodies:
        assert parse_sse(body)[-1]["type"] == "response.completed"
