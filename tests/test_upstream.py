"""The scripted upstream does what its scripts say: the other tests stand on it."""

import asyncio

import aiohttp
import pytest
from yarl import URL

from tests.upstream import CLOSE, CUT, GONE, Forever, Head, Raw, Script, Upstream, answer, replay, sse, text


async def test_a_script_is_played_and_the_request_kept() -> None:
    async with Upstream(text("Hi")) as upstream, aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.post(f"{upstream.url}/chat/completions", json={"model": "m"}) as got:
                assert (got.status, await got.read()) == (200, b"".join(text("Hi")))
        assert [request.json() for request in upstream.requests] == [{"model": "m"}] * 2
        assert upstream.requests[0].path == "/v1/chat/completions"
        assert upstream.requests[0].headers["content-type"] == "application/json"
        assert (upstream.connections, upstream.open) == (1, 1)


async def test_scripts_follow_each_other() -> None:
    busy = answer(503, {"error": "busy"}, retry_after="7")
    async with Upstream(busy, text("Hi")) as upstream, aiohttp.ClientSession() as session:
        async with session.post(upstream.url) as got:
            assert (got.status, await got.json(), got.headers["retry-after"]) == (503, {"error": "busy"}, "7")
        async with session.post(upstream.url) as got:
            assert (await got.read()).endswith(b"data: [DONE]\n\n")


async def test_a_piece_waits_for_the_test() -> None:
    go = asyncio.Event()
    async with Upstream([b"one", go, b"two"]) as upstream, aiohttp.request("POST", upstream.url) as got:
        assert await got.content.readany() == b"one"
        assert not upstream.requests[0].played.is_set()
        go.set()
        assert await got.read() == b"two"


@pytest.mark.parametrize("end", [CUT, CLOSE])
async def test_a_stream_can_be_cut(end: str) -> None:
    script: Script = [b"one", end]  # type: ignore[list-item]
    async with Upstream(script) as upstream, aiohttp.request("POST", upstream.url) as got:
        with pytest.raises(aiohttp.ClientError):
            await got.read()


async def test_a_departure_is_seen_at_once() -> None:
    async with Upstream([b"one", GONE]) as upstream, aiohttp.ClientSession() as session:
        async with session.post(upstream.url) as got:
            await got.content.readany()
            request = await upstream.received(1)
            assert not request.gone.is_set()
        await request.gone.wait()
        assert request.gone.at is not None


async def test_a_departure_is_seen_while_the_upstream_writes() -> None:
    async with Upstream([Forever(b"x" * 10000)]) as upstream, aiohttp.ClientSession() as session:
        async with session.post(upstream.url) as got:
            request = await upstream.received(1)
            await request.stalled.wait()
            assert request.sent > 0
            got.close()
        await request.gone.wait()


async def test_every_byte_is_the_scripts() -> None:
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
    async with Upstream([Raw(reply)], [Head(framing="close"), b"a", b"b"]) as upstream:
        for expected in (reply, b"ab"):
            reader, writer = await asyncio.open_connection("127.0.0.1", URL(upstream.url).port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert (await reader.read()).endswith(expected)
            writer.close()


async def test_a_recorded_answer_is_replayed() -> None:
    head = b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ntransfer-encoding: chunked\r\n\r\n"
    recorded = head + b"".join(sse({"choices": []}))
    async with Upstream(replay(recorded)) as upstream, aiohttp.request("POST", upstream.url) as got:
        assert got.headers["server"] == "uvicorn"
        assert await got.read() == b'data: {"choices":[]}\n\ndata: [DONE]\n\n'
