"""Requests that nobody should send, and what they must not do."""

import asyncio
import gzip
import json

import pytest

from tests.proxy import REQUEST, as_process, in_process
from tests.upstream import Upstream, answer, text

GOOD = text("Hi")


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", b"no gzip", 400),
        ("br", b"no br", 400),
        ("zstd", b"no zstd", 400),
        ("gzip", gzip.compress(json.dumps(REQUEST).encode()), 200),
        ("foo", json.dumps(REQUEST).encode(), 415),
    ],
)
async def test_a_body_is_packed_as_it_says(encoding: str, body: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    async with Upstream(GOOD) as upstream, in_process(upstream) as proxy:
        reply = await proxy.ask("POST", "/v1/responses", data=body, headers=headers)
    assert reply.status == status
    assert status == 200 or reply.error()["type"] == "invalid_request_error"


async def test_what_is_no_http_is_not_quoted_in_the_log() -> None:
    async with Upstream(GOOD) as upstream, as_process(upstream) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-hush\x01\r\n\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()
        assert (await proxy.get("/v1/%1b[31m")).status == 404
        assert "sk-hush" not in proxy.log
        assert "\x1b" not in proxy.log


async def test_a_websocket_is_sent_back_to_http() -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
    async with in_process({"url": "http://127.0.0.1:1/v1"}) as proxy:
        assert (await proxy.ask("GET", "/v1/responses", headers=headers)).status == 426
        plain = await proxy.get("/v1/responses")
        assert (plain.status, plain.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["compact", "input_tokens"])
async def test_what_is_not_there_yet_says_so(path: str) -> None:
    async with in_process({"url": "http://127.0.0.1:1/v1"}) as proxy:
        reply = await proxy.ask("POST", f"/v1/responses/{path}", json=REQUEST)
        assert (reply.status, reply.error()["code"]) == (400, "unsupported_parameter")


async def test_one_odd_entry_does_not_hide_the_other_models() -> None:
    listed = answer(200, {"data": [{"id": "one"}, {"id": None}, 3, {"id": "two"}]})
    async with Upstream(listed) as upstream, in_process(upstream) as proxy:
        assert [model["id"] for model in (await proxy.get("/v1/models")).json()["data"]] == ["one", "two"]


async def test_a_tier_that_nobody_gave_is_not_claimed() -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream) as proxy:
        events = (await proxy.post(stream=True, service_tier="flex")).events()
    assert [events[n]["response"]["service_tier"] for n in (0, -1)] == ["flex", "default"]


async def test_strict_refuses_what_changes_nothing() -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream, strict=True) as proxy:
        assert (await proxy.post(truncation="auto")).error()["param"] == "truncation"
        assert upstream.requests == []


async def test_many_halves_of_characters_are_no_accident() -> None:
    headers = {"Content-Type": "application/json"}
    body = b'{"model":"m","input":"%b"}'
    async with Upstream(GOOD) as upstream, in_process(upstream) as proxy:
        few = await proxy.ask("POST", "/v1/responses", data=body % (rb"\ud83d" * 9), headers=headers)
        many = await proxy.ask("POST", "/v1/responses", data=body % (rb"\ud83d" * 9999), headers=headers)
    assert (few.status, many.status) == (200, 400)
    assert upstream.requests[0].json()["messages"][0]["content"] == "\ufffd" * 9
