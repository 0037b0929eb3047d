"""Endpoints that pass through: what ends an answer early, and what is written down."""

import asyncio
import contextlib
import json
import re
import socket
from typing import Any

import aiohttp
import pytest

from tests.chat import chat, streaming, unread
from tests.proxy import Process, as_process, in_process
from tests.upstream import CLOSE, CUT, GONE, Forever, Head, Raw, Request, Script, Upstream, answer, chunk, sse, text

LIMIT = 5
"""Seconds within which something that should happen at once has to happen, on the most loaded machine."""

GOOD = text("Hel", "lo")
FIRST = sse(chunk({"content": "Hel"}), done=False)
PIECE = b"".join(sse(*[chunk({"content": "word "})] * 100, done=False))
PROMISED = Head(headers={"content-type": "application/json", "content-length": "20"}, framing="close")


# Answers that end too early


@pytest.mark.parametrize("end", [CUT, CLOSE])
async def test_a_stream_that_breaks_ends_with_an_error(end: Any) -> None:
    async with Upstream([*FIRST, end]) as broken, Upstream(GOOD) as other, in_process(broken, other) as proxy:
        reply = await chat(proxy)
        assert other.requests == []
    first, last, rest = reply.body.split(b"\n\n")
    assert (first + b"\n\n", rest) == (FIRST[0], b"")
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "server_error"


async def test_silence_ends_a_stream_with_an_error() -> None:
    async with Upstream([*FIRST, GONE]) as upstream, in_process(upstream, timeouts={"idle": 0.1}) as proxy:
        assert b"sent nothing" in (await chat(proxy)).body
        await upstream.requests[0].gone.wait()


BROKEN: list[Script] = [
    [*FIRST, b"data: {", CUT],
    [Head(headers={"content-type": "application/json"}), b'{"a": 1}', CUT],
    [PROMISED, b'{"a": 1}', CLOSE],
]


@pytest.mark.parametrize("script", BROKEN)
async def test_what_breaks_elsewhere_does_not_look_complete(script: Script) -> None:
    async with Upstream(script) as upstream, in_process(upstream) as proxy:
        with pytest.raises(aiohttp.ClientError):
            await chat(proxy)


SECRET = "sk-upstream-0123"
TELLING = b'data: {"error": {"message": "bad key %b"}}\n\n'


@pytest.mark.parametrize("settings", [{"key": SECRET}, {"headers": {"api-key": f"Key {SECRET}"}}])
@pytest.mark.parametrize("head", [Head(), Head(framing="length"), Head(headers={"content-type": "application/json"})])
async def test_an_error_that_quotes_a_credential_of_ours_is_told_without(head: Head, settings: dict[str, Any]) -> None:
    script = [head, *FIRST, TELLING % SECRET.encode()]
    async with Upstream(script) as upstream, in_process({"url": upstream.url} | settings) as proxy:
        assert (await chat(proxy)).body == FIRST[0] + TELLING % (b"*" * len(SECRET))


# Clients that leave, or do not read

PHASES: dict[str, tuple[Script, bytes]] = {
    "before the upstream accepted": ([Raw(b""), GONE], b""),
    "before the first byte": ([Head(), GONE], b""),
    "in the middle": ([*FIRST, GONE], b"Hel"),
    "while the upstream goes on": ([Forever(PIECE)], b"word"),
}


@pytest.mark.parametrize("phase", PHASES)
async def test_a_client_that_leaves_closes_the_upstream(phase: str) -> None:
    script, seen = PHASES[phase]
    async with Upstream(script) as upstream, as_process(upstream) as proxy:
        client = await unread(proxy)
        request = await upstream.received(1)
        received = b""
        while seen not in received:
            received += await asyncio.get_running_loop().sock_recv(client, 4096)
        await left(client, request, phase)


async def left(client: socket.socket, request: Request, phase: str) -> None:
    at = asyncio.get_running_loop().time()
    client.close()
    async with asyncio.timeout(LIMIT):
        await request.gone.wait()
    assert request.gone.at is not None
    print(f"client left {phase}: upstream closed after {(request.gone.at - at) * 1000:.1f} ms")  # noqa: T201


async def test_a_client_that_leaves_with_a_full_buffer_closes_the_upstream() -> None:
    async with Upstream([Forever(PIECE)]) as upstream, as_process(upstream) as proxy:
        client = await unread(proxy)
        request = await upstream.received(1)
        await request.stalled.wait()
        await left(client, request, "with a full buffer")
        await ended(proxy, "client_closed")


async def ended(proxy: Process, how: str) -> None:
    """Returns once the log tells of the only request; nothing is wrong in it."""
    await proxy.said("POST /v1/chat/completions")
    assert how in proxy.log
    assert "Traceback" not in proxy.log


async def test_a_client_that_does_not_read_stops_the_upstream_and_is_dropped() -> None:
    stream = {"send_timeout": 1}
    async with Upstream([Forever(PIECE)]) as upstream, as_process(upstream, stream=stream) as proxy:
        before = proxy.memory()
        with contextlib.closing(await unread(proxy)):
            request = await upstream.received(1)
            await request.stalled.wait()
            assert proxy.memory() - before < 5 * 2**20
            async with asyncio.timeout(LIMIT):
                await request.gone.wait()
            await ended(proxy, "client_stalled")


async def test_a_client_that_reads_again_gets_the_rest() -> None:
    script: Script = [Head(framing="length"), *[PIECE] * 1000]
    async with Upstream(script) as upstream, in_process(upstream) as proxy:
        with contextlib.closing(await unread(proxy)) as client:
            await (await upstream.received(1)).stalled.wait()
            received = bytearray()
            while not received.endswith(PIECE) or received.count(PIECE) < 1000:
                received += await asyncio.get_running_loop().sock_recv(client, 1 << 20)
    assert received.partition(b"\r\n\r\n")[2] == PIECE * 1000


# The end of the process


async def test_a_stream_may_finish_before_the_process_ends() -> None:
    go = asyncio.Event()
    async with Upstream([*FIRST, go, *GOOD]) as upstream, as_process(upstream, drain=30) as proxy:
        async with streaming(proxy) as reply:
            await reply.content.readuntil(b"\n\n")
            proxy.process.terminate()
            await proxy.refusing()
            go.set()
            assert await reply.read() == b"".join(GOOD)
        assert await proxy.process.wait() == 0


async def test_a_stream_that_takes_too_long_is_ended_in_good_order() -> None:
    async with Upstream([*FIRST, GONE]) as upstream, as_process(upstream, drain=0.2) as proxy:
        async with streaming(proxy) as reply:
            await reply.content.readuntil(b"\n\n")
            proxy.process.terminate()
            assert b"shutting down" in await reply.read()
        assert await proxy.process.wait() == 0
        assert "Traceback" not in proxy.log


async def test_a_request_without_an_answer_is_ended_in_good_order() -> None:
    async with Upstream([Raw(b""), GONE]) as upstream, as_process(upstream, drain=0.2) as proxy:
        asked = asyncio.create_task(chat(proxy))
        await upstream.received(1)
        proxy.process.terminate()
        reply = await asked
        assert await proxy.process.wait() == 0
    assert (reply.status, reply.error()["code"]) == (503, "server_error")


# What is written down

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
COUNTED: list[tuple[Script, str]] = [
    (answer(200, {"choices": ["x" * 9000], "usage": USAGE}), "3/2"),
    (answer(200, {"usage": {"prompt_tokens": 4, "total_tokens": 4}, "data": ["x" * 9000]}), "4/0"),
    (answer(200, {"choices": ["data: data:"]}), "0/0"),
    (sse(chunk({"content": "a"}, usage=None), chunk(usage=USAGE)), "3/2"),
    (sse(chunk({"content": "a"}), chunk({"content": '"usage": {"prompt_tokens": 9}'})), "0/3"),
]


@pytest.mark.parametrize(("script", "tokens"), COUNTED)
async def test_the_line_in_the_log_tells_tokens(script: Script, tokens: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "proxy.access"):
        async with Upstream(script) as upstream, in_process(upstream) as proxy:
            body = (await chat(proxy)).body
    line = caplog.messages[-1]
    assert (
        f"POST /v1/chat/completions 200 completed model=m route=* pool=u1 upstream=u1 attempts=1 tokens={tokens} "
        in line
    )
    assert f" bytes={len(body)}" in line
    assert re.search(r" first=0\.\d+s", line)


async def test_no_value_looks_like_another_field(caplog: pytest.LogCaptureFixture) -> None:
    model, message = "m key=admin 200", 'a "b" route=x\\'
    async with Upstream(answer(400, {"error": {"message": message}})) as upstream, in_process(upstream) as proxy:
        with caplog.at_level("INFO", "proxy.access"):
            headers = {"X-Client-Request-Id": "c=1"}
            await chat(proxy, json={"model": model, "messages": [{"role": "x y=z"}]}, headers=headers)
            await proxy.get("/v1/a 200 key=b")
    first, second = caplog.messages
    assert ' model="m key=admin 200" route=* ' in first
    assert r' client="c=1" error="a \"b\" route=x\\" req_' in first
    assert second.startswith('GET "/v1/a 200 key=b" 404 ')


async def test_an_error_of_any_length_is_cut_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with Upstream(answer(400, {"error": {"message": "x" * 20_000}})) as upstream, in_process(upstream) as proxy:
        with caplog.at_level("INFO", "proxy.access"):
            await chat(proxy)
    assert f"error={'x' * 500} req_" in caplog.messages[-1]


async def test_the_metrics_tell_of_what_passes_through() -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream) as proxy:
        await chat(proxy)
        shown = (await proxy.get("/metrics")).body.decode()
    for name, labels, value in [
        ("requests_total", 'endpoint="/v1/chat/completions"', "1.0"),
        ("first_event_seconds_count", 'route="*"', "1.0"),
    ]:
        assert any(name in line and labels in line and line.endswith(value) for line in shown.splitlines()), name


async def test_bodies_are_logged_only_when_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    async with Upstream(answer(200, "pong")) as upstream, in_process(upstream) as proxy:
        await chat(proxy)
        assert "pong" not in caplog.text
        with caplog.at_level("INFO", "proxy.bodies"):
            await chat(proxy)
    assert '"content": "hi"' in caplog.text
    assert "pong" in caplog.text
