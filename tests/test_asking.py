"""How an upstream is asked - keys, headers, fields - and what its answer may be packed in."""

import asyncio
import logging
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import brotli  # type: ignore[import-untyped]
import pytest

from tests.proxy import in_process
from tests.upstream import EVENT_STREAM, GONE, Head, Raw, Script, Step, Upstream, answer, text

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

GOOD = text("Hi")


def refusal(status: int, message: str) -> list[Step]:
    return answer(status, {"error": {"message": message}})


# Keys


@pytest.mark.parametrize("status", [400, 401, 404, 500])
async def test_a_key_is_in_no_answer_and_no_log(status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = refusal(status, "Incorrect API key provided: sk-hush, model sk-hush.")
    async with Upstream(said) as upstream, in_process({"url": upstream.url, "key": "sk-hush"}) as proxy:
        replies = await proxy.both()
        assert upstream.requests[0].headers["authorization"] == "Bearer sk-hush"
    assert "sk-hush" not in caplog.text
    assert all(b"sk-hush" not in reply.body for reply in replies)


async def test_a_clients_own_key_stays_here() -> None:
    mine = {"Authorization": "Bearer sk-mine"}
    async with (
        Upstream(GOOD) as keyed,
        Upstream(GOOD) as open_one,
        in_process({"url": keyed.url, "key": "sk-hush"}) as proxy,
        in_process(open_one) as other,
    ):
        await proxy.post(headers=mine)
        await other.post(headers=mine)
    assert keyed.requests[0].headers["authorization"] == "Bearer sk-hush"
    assert "authorization" not in open_one.requests[0].headers


async def test_a_key_can_be_passed_through() -> None:
    async with (
        Upstream(GOOD) as upstream,
        in_process({"url": upstream.url, "key": "sk-hush", "pass_key": True}) as proxy,
    ):
        await proxy.post(headers={"Authorization": "Bearer sk-mine"})
        assert upstream.requests[0].headers["authorization"] == "Bearer sk-mine"


async def test_a_redirect_is_not_followed_with_a_key_in_hand() -> None:
    async with Upstream(GOOD) as other, Upstream(answer(307, "", location=f"{other.url}/chat/completions")) as upstream:
        async with in_process({"url": upstream.url, "key": "sk-hush"}) as proxy:
            assert [reply.status for reply in await proxy.both()] == [502, 502]
        assert other.requests == []


@pytest.mark.parametrize("status", [401, 403])
async def test_a_passed_key_that_is_refused_is_the_clients(status: int) -> None:
    async with (
        Upstream(refusal(status, "bad key: sk-mine")) as upstream,
        in_process({"url": upstream.url, "pass_key": True}) as proxy,
    ):
        reply = await proxy.post(headers={"Authorization": "Bearer sk-mine"})
    assert (reply.status, reply.error()["type"]) == (status, "invalid_request_error")
    assert b"sk-mine" not in reply.body


# How an upstream is asked


async def test_only_listed_headers_go_on() -> None:
    sent = {"X-Session": "s1", "X-Other": "o", "Cookie": "c=1", "OpenAI-Organization": "org"}
    async with Upstream(GOOD) as upstream, in_process({"url": upstream.url, "forward_headers": ["x-session"]}) as proxy:
        await proxy.post(headers=sent)
        headers = upstream.requests[0].headers
    assert headers["x-session"] == "s1"
    assert not {"x-other", "cookie", "openai-organization"} & set(headers)


async def test_headers_and_fields_of_the_configuration_are_sent() -> None:
    endpoint = {"headers": {"x-team": "search"}, "body": {"top_k": 20, "temperature": 0.5, "stream_options": {"a": 1}}}
    async with Upstream(GOOD) as upstream, in_process({"url": upstream.url} | endpoint) as proxy:
        await proxy.post(temperature=1)
        request = upstream.requests[0]
    assert request.headers["x-team"] == "search"
    assert (request.json()["top_k"], request.json()["temperature"]) == (20, 0.5)
    assert request.json()["stream_options"] == {"include_usage": True, "a": 1}


async def test_what_a_client_did_not_ask_for_is_not_sent() -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream) as proxy:
        await proxy.post(tools=[], tool_choice="auto", parallel_tool_calls=True)
        assert upstream.requests[0].json() == {
            "model": "m",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }


async def test_stream_options_are_left_out_for_an_upstream_that_refuses_them() -> None:
    refused = refusal(400, "Unrecognized request argument supplied: stream_options")
    async with Upstream(refused, GOOD) as upstream, in_process(upstream) as proxy:
        replies = await proxy.both()
        sent = ["stream_options" in request.json() for request in upstream.requests]
    assert [reply.status for reply in replies] == [200, 200]
    assert sent == [True, False, False]  # it is remembered


# Encodings


def deflated(pieces: list[bytes], compressor: Any) -> Iterator[bytes]:
    for piece in pieces:
        yield compressor.compress(piece) + compressor.flush(zlib.Z_SYNC_FLUSH)
    yield compressor.flush()


def brotlied(pieces: list[bytes]) -> Iterator[bytes]:
    compressor = brotli.Compressor()
    for piece in pieces:
        yield compressor.process(piece) + compressor.flush()
    yield compressor.finish()


def zstandard(pieces: list[bytes]) -> Iterator[bytes]:
    compressor = zstd.ZstdCompressor()
    for piece in pieces:
        yield compressor.compress(piece, mode=compressor.FLUSH_BLOCK)
    yield compressor.flush()


COMPRESSED: dict[str, Callable[[list[bytes]], Iterator[bytes]]] = {
    "gzip": lambda pieces: deflated(pieces, zlib.compressobj(wbits=31)),
    "deflate": lambda pieces: deflated(pieces, zlib.compressobj()),
    "br": brotlied,
    "zstd": zstandard,
}


@pytest.mark.parametrize("name", COMPRESSED)
async def test_a_compressed_stream_is_read_as_it_comes(name: str) -> None:
    go = asyncio.Event()
    pieces = list(COMPRESSED[name](text("Hel", "lo")))
    script: Script = [Head(headers=EVENT_STREAM | {"content-encoding": name}), *pieces[:2], go, *pieces[2:]]
    async with Upstream(script) as upstream, in_process(upstream) as proxy, proxy.stream() as stream:
        await stream.until('"delta":"Hel"')
        go.set()
        assert (await stream.rest()).final()["output"][0]["content"][0]["text"] == "Hello"


@pytest.mark.parametrize("name", COMPRESSED)
async def test_a_compressed_error_is_understood(name: str) -> None:
    body = b"".join(COMPRESSED[name]([b'{"error": {"message": "bad temperature"}}']))
    async with Upstream(answer(400, body, content_encoding=name)) as upstream, in_process(upstream) as proxy:
        reply = await proxy.post()
    assert (reply.status, reply.error()["message"]) == (400, "bad temperature")


async def test_a_body_that_is_not_compressed_as_it_says_is_a_failure() -> None:
    script: Script = [Head(headers=EVENT_STREAM | {"content-encoding": "gzip"}), *GOOD]
    async with Upstream(script) as upstream, in_process(upstream) as proxy:
        whole, stream = await proxy.both()
    assert (whole.status, stream.failure()["code"]) == (502, "server_error")


async def test_a_json_body_is_an_answer_too() -> None:
    message = {"role": "assistant", "content": "Hello"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = answer(200, {"id": "c", "object": "chat.completion", "choices": [choice]})
    async with Upstream(body) as upstream, in_process(upstream) as proxy:
        whole, stream = await proxy.both()
    for final in (whole.json(), stream.final()):
        assert final["output"][0]["content"][0]["text"] == "Hello"


async def test_an_answer_may_end_with_its_connection() -> None:
    head = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    async with Upstream([Raw(head + b"".join(GOOD))]) as upstream, in_process(upstream) as proxy:
        whole, stream = await proxy.both()
        assert upstream.connections == 2
    assert (whole.json()["status"], stream.final()["status"]) == ("completed", "completed")


async def test_a_body_that_goes_on_behind_its_end_is_left() -> None:
    async with Upstream([*GOOD, GONE]) as upstream, in_process(upstream) as proxy:
        for reply in await proxy.both():
            assert reply.status == 200
        await asyncio.gather(*(request.gone.wait() for request in upstream.requests))
