"""Silence, slow clients, clients that leave, and the end of the process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.chat import chat
from tests.checker import parse_sse
from tests.proxy import Process, as_process, in_process
from tests.upstream import CUT, GONE, Forever, Head, Raw, Request, Script, Upstream, answer, chunk, sse, text

LIMIT = 5
"""Seconds within which something that should happen at once has to happen, on the most loaded machine."""

GOOD = text("Hel", "lo")
EARLY = {"accept_wait": 0.05}
FIRST = sse(chunk({"role": "assistant", "content": "Hel"}), done=False)
PIECE = b"".join(sse(*[chunk({"content": "word "})] * 100, done=False))


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


# Silence before the upstream's status


async def test_a_stream_begins_before_the_upstream_does() -> None:
    go = asyncio.Event()
    stream = {"accept_wait": 0.05, "keep_alive": 0.05}
    async with (
        Upstream([Raw(b""), go, Head(), *GOOD]) as upstream,
        in_process(upstream, stream=stream) as proxy,
        proxy.stream() as reply,
    ):
        for words in ("response.created", "response.in_progress", ": keepalive", ": keepalive"):
            await reply.until(words)
        go.set()
        assert (await reply.rest()).final()["status"] == "completed"


@pytest.mark.parametrize("status", [400, 401, 429, 503])
async def test_an_error_after_the_beginning_is_an_event(status: int) -> None:
    go = asyncio.Event()
    error = answer(status, {"error": {"message": "oh"}})
    async with (
        Upstream([Raw(b""), go, *error]) as upstream,
        in_process(upstream, stream=EARLY) as proxy,
        proxy.stream() as reply,
    ):
        await reply.until("response.in_progress")
        go.set()
        events = (await reply.rest()).events()
    assert types(events) == ["created", "in_progress", "error", "failed"]


async def test_the_next_upstream_is_asked_after_the_beginning_too() -> None:
    go = asyncio.Event()
    first: Script = [Raw(b""), go, CUT]
    async with (
        Upstream(first) as silent,
        Upstream(GOOD) as second,
        in_process(silent, second, stream=EARLY) as proxy,
        proxy.stream() as reply,
    ):
        await reply.until("response.in_progress")
        go.set()
        assert (await reply.rest()).final()["status"] == "completed"


async def test_an_upstream_that_never_begins_ends_the_stream() -> None:
    settings = {"stream": EARLY, "timeouts": {"accept": 0.2}}
    async with Upstream([Raw(b""), GONE]) as upstream, in_process(upstream, **settings) as proxy:
        events = (await proxy.post(stream=True)).events()
        await upstream.requests[0].gone.wait()
    assert types(events) == ["created", "in_progress", "error", "failed"]


async def test_without_a_wait_the_stream_begins_at_once() -> None:
    script: Script = [Raw(b""), GONE]
    async with (
        Upstream(script) as upstream,
        in_process(upstream, stream={"accept_wait": 0}) as proxy,
        proxy.stream() as reply,
    ):
        await reply.until("response.in_progress")


# Silence within a stream


@pytest.mark.parametrize("before", [[Head()], FIRST])
async def test_a_comment_breaks_the_silence(before: Script) -> None:
    go = asyncio.Event()
    async with (
        Upstream([*before, go, *GOOD]) as upstream,
        in_process(upstream, stream={"keep_alive": 0.05}) as proxy,
        proxy.stream() as reply,
    ):
        for _ in range(3):
            await reply.until(": keepalive")
        go.set()
        assert (await reply.rest()).final()["status"] == "completed"


@pytest.mark.parametrize("before", [[Head()], FIRST])
async def test_an_event_breaks_a_long_silence(before: Script) -> None:
    go = asyncio.Event()
    stream = {"keep_alive": 0.05, "progress": 0.12}
    async with (
        Upstream([*before, go, *GOOD]) as upstream,
        in_process(upstream, stream=stream) as proxy,
        proxy.stream() as reply,
    ):
        for words in ("response.in_progress", ": keepalive", "response.in_progress", "response.in_progress"):
            await reply.until(words)
        go.set()
        assert types((await reply.rest()).events()).count("in_progress") >= 3


async def test_a_stream_that_fails_has_no_comment_behind_its_end() -> None:
    stream = {"keep_alive": 0.02}
    async with (
        Upstream([*FIRST, GONE]) as upstream,
        in_process(upstream, stream=stream, timeouts={"idle": 0.2}) as proxy,
    ):
        body = (await proxy.post(stream=True)).body
    assert b": keepalive\n\n" in body
    parse_sse(body)


# Clients that leave: the upstream's connection closes at once, in every phase

PHASES: dict[str, tuple[Script, str]] = {
    "before the upstream accepted": ([Raw(b""), GONE], ""),
    "after the stream has begun before the upstream": ([Raw(b""), GONE], "response.in_progress"),
    "before the first token": ([Head(), GONE], "response.in_progress"),
    "in the middle": ([*FIRST, GONE], "output_text.delta"),
    "while the upstream goes on": ([Forever(PIECE)], "output_text.delta"),
}


def report(phase: str, left: float, request: Request) -> None:
    assert request.gone.at is not None
    print(f"client left {phase}: upstream closed after {(request.gone.at - left) * 1000:.1f} ms")  # noqa: T201


@pytest.mark.parametrize("phase", PHASES)
async def test_a_client_that_leaves_a_stream_closes_the_upstream(phase: str) -> None:
    script, seen = PHASES[phase]
    wait = 0.05 if phase.startswith("after") else 30
    async with Upstream(script) as upstream, as_process(upstream, stream={"accept_wait": wait}) as proxy:
        client = await proxy.mute()
        request = await upstream.received(1)
        received = b""
        while seen.encode() not in received:
            received += await asyncio.get_running_loop().sock_recv(client, 4096)
        left = asyncio.get_running_loop().time()
        client.close()
        async with asyncio.timeout(LIMIT):
            await request.gone.wait()
    report(phase, left, request)


async def test_a_client_that_leaves_with_a_full_buffer_closes_the_upstream() -> None:
    async with Upstream([Forever(PIECE)]) as upstream, as_process(upstream) as proxy:
        client = await proxy.mute()
        request = await upstream.received(1)
        await request.stalled.wait()
        left = asyncio.get_running_loop().time()
        client.close()
        async with asyncio.timeout(LIMIT):
            await request.gone.wait()
        report("with a full buffer", left, request)


@pytest.mark.parametrize("script", [[Raw(b""), GONE], [Head(), GONE], [*FIRST, GONE], [Forever(FIRST[0])]])
async def test_a_client_that_does_not_wait_for_a_body_closes_the_upstream(script: Script) -> None:
    async with Upstream(script) as upstream, as_process(upstream) as proxy:
        client = await proxy.mute(stream=False)
        request = await upstream.received(1)
        left = asyncio.get_running_loop().time()
        client.close()
        async with asyncio.timeout(LIMIT):
            await request.gone.wait()
        report("without a stream", left, request)


async def test_a_client_that_leaves_between_two_upstreams_asks_no_more() -> None:
    async with Upstream([Raw(b""), GONE]) as first, Upstream(GOOD) as second:
        async with as_process(first, second, timeouts={"accept": 30}) as proxy:
            client = await proxy.mute()
            request = await first.received(1)
            client.close()
            async with asyncio.timeout(LIMIT):
                await request.gone.wait()
            assert (await proxy.get("/health")).status == 200
        assert second.requests == []


async def test_a_client_that_leaves_is_no_error_in_the_log() -> None:
    async with Upstream([*FIRST, GONE]) as upstream, as_process(upstream) as proxy:
        client = await proxy.mute()
        request = await upstream.received(1)
        client.close()
        await request.gone.wait()
        proxy.process.terminate()
        await proxy.process.wait()
        assert "client_closed" in proxy.log
        assert "Traceback" not in proxy.log


# The end of the process


@asynccontextmanager
async def open_streams(proxy: Process, count: int) -> AsyncIterator[list[Any]]:
    async with AsyncExitStack() as stack:
        replies = [await stack.enter_async_context(proxy.stream()) for _ in range(count)]
        for reply in replies:
            await reply.until('"delta":"Hel"')
        yield replies


async def test_open_streams_may_finish_before_the_process_ends() -> None:
    go = asyncio.Event()
    async with Upstream([*FIRST, go, *GOOD]) as upstream, as_process(upstream, drain=30) as proxy:
        async with open_streams(proxy, 2) as replies:
            proxy.process.terminate()
            await proxy.refusing()
            go.set()
            for reply in replies:
                assert (await reply.rest()).final()["status"] == "completed"
        assert await proxy.process.wait() == 0


async def test_connections_that_are_kept_end_with_what_still_comes_on_them() -> None:
    go = asyncio.Event()
    async with Upstream([*FIRST, go, *GOOD], GOOD) as upstream, as_process(upstream, drain=30) as proxy:
        async with open_streams(proxy, 1) as replies:
            kept = await asyncio.gather(*(proxy.get("/health") for _ in range(4)))
            assert not any("connection" in reply.headers for reply in kept)
            proxy.process.terminate()
            await proxy.refusing()
            asked = [proxy.get("/health"), proxy.post(), proxy.post(stream=True), chat(proxy)]
            last = await asyncio.gather(*asked)
            assert [(reply.status, reply.headers["connection"]) for reply in last] == [(200, "close")] * 4
            with pytest.raises(aiohttp.ClientConnectorError):
                await proxy.get("/health")
            go.set()
            assert (await replies[0].rest()).final()["status"] == "completed"
        assert await proxy.process.wait() == 0


async def test_streams_that_take_too_long_are_ended_in_good_order() -> None:
    async with Upstream([*FIRST, GONE]) as upstream, as_process(upstream, drain=0.2) as proxy:
        async with open_streams(proxy, 2) as replies:
            proxy.process.terminate()
            for reply in replies:
                final = (await reply.rest()).final()
                assert (final["status"], final["error"]["code"]) == ("failed", "server_error")
        assert await proxy.process.wait() == 0
        assert all(request.gone.is_set() for request in upstream.requests)
        assert "Traceback" not in proxy.log


async def test_some_finish_and_some_are_ended() -> None:
    go = asyncio.Event()
    async with Upstream([*FIRST, go, *GOOD], [*FIRST, GONE]) as upstream, as_process(upstream, drain=2) as proxy:
        async with open_streams(proxy, 2) as replies:
            proxy.process.terminate()
            await proxy.refusing()
            go.set()
            finals = [(await reply.rest()).final()["status"] for reply in replies]
        assert (finals, await proxy.process.wait()) == (["completed", "failed"], 0)


@pytest.mark.parametrize("script", [[Raw(b""), GONE], [Head(), GONE]])
async def test_requests_without_an_event_are_ended_in_good_order(script: Script) -> None:
    async with Upstream(script) as upstream, as_process(upstream, drain=0.2) as proxy:
        asked = [asyncio.create_task(proxy.post(stream=stream)) for stream in (True, False)]
        await upstream.received(2)
        proxy.process.terminate()
        stream, whole = await asyncio.gather(*asked)
        assert await proxy.process.wait() == 0
    assert (whole.status, whole.error()["code"], int(whole.headers["retry-after"]) >= 1) == (503, "server_error", True)
    assert stream.status == 503 or stream.final()["status"] == "failed"


async def test_a_client_that_does_not_read_does_not_hold_up_the_end() -> None:
    async with Upstream([Forever(PIECE)]) as upstream, as_process(upstream, drain=0.2) as proxy:
        with contextlib.closing(await proxy.mute()):
            request = await upstream.received(1)
            await request.stalled.wait()
            proxy.process.terminate()
            assert await proxy.process.wait() == 0
        await request.gone.wait()
