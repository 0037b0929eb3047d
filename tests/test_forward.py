"""Endpoints that pass through: what goes on, and what does not."""

import asyncio
import gzip
import io
import json
from typing import Any

import aiohttp
import pytest

from tests.chat import CHAT, chat, streaming
from tests.proxy import in_process
from tests.upstream import (
    CLOSE,
    CUT,
    EVENT_STREAM,
    Head,
    Raw,
    Script,
    Upstream,
    answer,
    text,
)

ODD = b'{ "messages" : [{"role":"user","content":"h\\u00e9 \xc3\xa9"}],\n "model":\t"m" , "x":1.50,"stream":true }'
JSON = {"Content-Type": "application/json"}
GOOD = text("Hel", "lo")


# What goes on


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions?a=%20b&c", "/v1/embeddings"])
async def test_the_request_goes_on_byte_for_byte(path: str) -> None:
    async with Upstream(answer(200, {})) as upstream, in_process(upstream) as proxy:
        await chat(proxy, path, json=None, data=ODD, headers=JSON | {"Accept": "text/x", "X-Other": "secret"})
    request = upstream.requests[0]
    assert (request.path, request.body) == (path, ODD)
    assert (request.headers["content-type"], request.headers["accept"]) == ("application/json", "text/x")
    assert "x-other" not in request.headers


async def test_only_the_name_of_the_model_is_another_one() -> None:
    routes = [{"model": "m", "upstreams": ["u1"], "upstream_model": "org/llama"}]
    async with Upstream(answer(200, {})) as upstream, in_process(upstream, routes=routes) as proxy:
        await chat(proxy, json=None, data=ODD, headers=JSON)
    assert upstream.requests[0].body == ODD.replace(b'"m"', b'"org/llama"')


@pytest.mark.parametrize("size", [100, 5_000_000])
async def test_bodies_of_any_size_pass_both_ways(size: int) -> None:
    fields = CHAT | {"messages": [{"role": "user", "content": "x" * size}]}
    async with Upstream(lambda request: answer(200, request.body)) as upstream, in_process(upstream) as proxy:
        sent = io.BytesIO(json.dumps(fields).encode())
        assert (await chat(proxy, json=None, data=sent, headers=JSON)).json() == fields


async def test_a_stream_passes_as_it_comes() -> None:
    go = asyncio.Event()
    async with Upstream([GOOD[0], go, *GOOD[1:]]) as upstream, in_process(upstream) as proxy, streaming(proxy) as reply:
        first = await reply.content.readuntil(b"\n\n")
        go.set()
        body = first + await reply.read()
    assert (body, reply.headers["content-type"]) == (b"".join(GOOD), EVENT_STREAM["content-type"])
    assert "stream_options" not in upstream.requests[0].json()


@pytest.mark.parametrize("status", [200, 201, 204])
async def test_status_and_framing_stay(status: int) -> None:
    body = b'{"data": []}' if status != 204 else b""
    async with Upstream(answer(status, body)) as upstream, in_process(upstream) as proxy:
        reply = await chat(proxy)
    assert (reply.status, reply.body) == (status, body)
    assert reply.headers.get("content-length") in (str(len(body)), None if status == 204 else "")


async def test_headers_of_the_connection_and_of_the_upstream_itself_stay_behind() -> None:
    named = {"set-cookie": "a=b", "connection": "x-hop", "x-hop": "1", "server": "engine", "keep-alive": "timeout=5"}
    script = answer(200, {}, **named, x_kept="1", X_Request_Id="theirs", OpenAI_Processing_Ms="9")
    async with Upstream(script) as upstream, in_process(upstream) as proxy:
        headers = (await chat(proxy, headers={"X-Request-Id": "mine"})).headers
    assert (headers["x-kept"], headers["x-request-id"]) == ("1", "mine")
    assert all(len(headers.getall(name)) == 1 for name in headers)
    assert {"set-cookie", "x-hop", "keep-alive"}.isdisjoint(name.lower() for name in headers)
    assert headers["server"] != "engine"


@pytest.mark.parametrize("alone", [True, False])
async def test_rate_limits_are_those_of_the_only_upstream(alone: bool) -> None:
    script, count = answer(200, {}, X_RateLimit_Limit_Requests="7"), 1 if alone else 2
    async with Upstream(script) as upstream, in_process(*[upstream] * count) as proxy:
        headers = (await chat(proxy)).headers
    assert headers.getall("x-ratelimit-limit-requests", []) == ["7"] * alone


async def test_a_compressed_answer_is_passed_as_what_it_says() -> None:
    packed = answer(200, gzip.compress(b'{"a": 1}'), content_encoding="gzip")
    strange = answer(200, b"\x00\x01", content_encoding="x-strange")
    async with Upstream(packed, strange) as upstream, in_process(upstream) as proxy:
        url = f"{proxy.url}/chat/completions"
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            async with session.post(url, json=CHAT) as reply:
                assert (await reply.read(), reply.headers.get("content-encoding")) == (b'{"a": 1}', None)
            async with session.post(url, json=CHAT) as reply:
                assert (await reply.read(), reply.headers["content-encoding"]) == (b"\x00\x01", "x-strange")


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_an_old_client_gets_the_same_bytes(framing: Any) -> None:
    body = json.dumps(CHAT).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    async with Upstream([Head(framing=framing), *GOOD]) as upstream, in_process(upstream) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(head.encode() + body)
        got = (await reader.read()).split(b"\r\n\r\n", 1)[1]
        writer.close()
    assert got == b"".join(GOOD)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("framing", ["chunked", "length"])
async def test_who_keeps_a_connection_sees_where_an_answer_ends(framing: Any, version: str) -> None:
    async with Upstream([Head(framing=framing), *GOOD]) as upstream, in_process(upstream) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        body = json.dumps(CHAT).encode()
        lines = ["Host: a", "Connection: keep-alive", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        writer.write("\r\n".join([f"POST /v1/chat/completions HTTP/{version}", *lines, "", ""]).encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"content-length" in head:
            assert await reader.readexactly(len(b"".join(GOOD))) == b"".join(GOOD)
        elif b"chunked" in head:
            assert (await reader.readuntil(b"\r\n0\r\n\r\n")).count(b"data: ") == len(GOOD)
        else:
            assert b"connection: close" in head
            assert await reader.read() == b"".join(GOOD)
        writer.close()


# What is refused


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
async def test_only_post_is_allowed(method: str) -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream) as proxy:
        reply = await proxy.ask(method, "/v1/chat/completions")
        assert upstream.requests == []
    assert (reply.status, reply.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, None),
        (b"[1]", 400, None),
        (b"[" * 100_000, 400, None),
        (b"\xff", 400, None),
        (b"{}", 400, "missing_required_parameter"),
        (b'{"model": 3}', 400, "missing_required_parameter"),
        (b'{"model": "other"}', 404, "model_not_found"),
        (b'{"model": "m", "Model": "other"}', 400, None),
        (b'{"model": "m", "x": 1, "model": "other"}', 404, "model_not_found"),
        (b'{"model": "other", "x": 1, "model": "m"}', 400, None),
    ],
)
async def test_what_can_not_be_routed_is_refused(body: bytes, status: int, code: str | None) -> None:
    routes = [{"model": "m", "upstreams": ["u1"], "upstream_model": "llama"}]
    async with Upstream(GOOD) as upstream, in_process(upstream, routes=routes) as proxy:
        reply = await chat(proxy, json=None, data=body, headers=JSON)
        assert upstream.requests == []
    assert (reply.status, reply.error()["type"]) == (status, "invalid_request_error")
    assert code is None or reply.error()["code"] == code


async def test_other_content_is_refused() -> None:
    form = aiohttp.FormData({"model": "m"})
    form.add_field("file", b"RIFF", filename="a.wav")
    async with Upstream(GOOD) as upstream, in_process(upstream) as proxy:
        reply = await chat(proxy, json=None, data=form)
    assert (reply.status, reply.error()["code"]) == (415, "unsupported_content_type")
    assert "application/json" in reply.error()["message"]


async def test_a_route_says_what_passes_through() -> None:
    routes = [
        {"model": "m", "upstreams": ["u1"], "endpoints": ["/v1/rerank"]},
        {"model": "n", "upstreams": ["u1"], "endpoints": []},
    ]
    async with Upstream(answer(200, {})) as upstream, in_process(upstream, routes=routes) as proxy:
        assert (await chat(proxy, "/v1/rerank")).status == 200
        other = await chat(proxy, "/v1/rerank", json=CHAT | {"model": "n"})
        nowhere = await chat(proxy)
        assert [request.path for request in upstream.requests] == ["/v1/rerank"]
    assert (other.status, other.error()["code"], nowhere.status) == (404, "unknown_url", 404)


async def test_what_is_larger_than_the_route_allows_is_refused() -> None:
    routes = [{"model": "m", "upstreams": ["u1"], "max_input": 50}]
    async with Upstream(GOOD) as upstream, in_process(upstream, routes=routes) as proxy:
        reply = await chat(proxy)
    assert (reply.status, reply.error()["code"]) == (400, "context_length_exceeded")


# What upstreams refuse


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422, 429, 500, 503, 529])
async def test_an_error_keeps_its_own_words_and_shape(status: int) -> None:
    said = b'{"object":"error", "message":"no, for\\u00e9ver", "code": 7}'
    async with Upstream(answer(status, said, retry_after="3")) as upstream, in_process(upstream) as proxy:
        reply = await chat(proxy)
    assert (reply.status, reply.body, reply.headers["content-type"]) == (status, said, "application/json")
    assert reply.headers.get("retry-after", "3") == "3"


@pytest.mark.parametrize("status", [401, 403, 301, 307])
async def test_what_is_between_proxy_and_upstream_stays_there(status: int) -> None:
    script = answer(status, b"<p>http://inner/", content_type="text/html", location="http://inner/")
    async with Upstream(script) as upstream, in_process({"url": upstream.url, "key": "sk-proxy-key"}) as proxy:
        reply = await chat(proxy)
    assert (reply.status, reply.error()["code"]) == (502, "server_error")
    assert "location" not in reply.headers
    assert b"inner" not in reply.body


async def test_an_error_that_quotes_the_key_is_told_in_our_words() -> None:
    script = answer(400, {"error": {"message": "bad sk-proxy-key", "type": "x"}})
    async with Upstream(script) as upstream, in_process({"url": upstream.url, "key": "sk-proxy-key"}) as proxy:
        reply = await chat(proxy)
    assert (reply.status, reply.error()["message"]) == (400, "bad ***")


@pytest.mark.parametrize("said", [b"x" * 300_000, b""])
async def test_an_error_is_passed_whole_or_not_at_all(said: bytes) -> None:
    async with Upstream(answer(500, said)) as upstream, in_process(upstream) as proxy:
        reply = await chat(proxy)
    assert reply.body == said if not said else reply.error()["code"] == "server_error"


PROMISED = Head(headers={"content-type": "application/json", "content-length": "20"}, framing="close")
FAULTS: list[Script] = [[CUT], [Raw(b""), CLOSE], [Head(), CUT], [PROMISED, CLOSE], answer(503, "no")]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_failure_before_the_first_byte_is_passed_over(fault: Script) -> None:
    async with Upstream(fault) as bad, Upstream(GOOD) as good, in_process(bad, good) as proxy:
        reply = await chat(proxy)
    assert (reply.status, reply.body) == (200, b"".join(GOOD))
    assert bad.requests[0].body == good.requests[0].body
