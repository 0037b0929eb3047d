"""The head of a stream, and what becomes of its connection."""

import asyncio
import json
from email.utils import parsedate_to_datetime

import pytest

from tests.checker import check, parse_sse
from tests.proxy import REQUEST, Client, in_process
from tests.upstream import Upstream, text

GOOD = text("Hel", "lo")


def request(version: str, *headers: str) -> bytes:
    body = json.dumps(REQUEST | {"stream": True})
    lines = [f"POST /v1/responses HTTP/{version}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "Host: proxy", *headers, "", body]).encode()


async def connect(proxy: Client) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def test_a_stream_has_its_head() -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream) as proxy:
        reply = await proxy.post(stream=True, unheard_of=1, headers={"X-Request-Id": "mine"})
    headers = reply.headers
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert (headers["Cache-Control"], headers["X-Accel-Buffering"]) == ("no-cache", "no")
    assert (headers["x-request-id"], headers["x-dropped-parameters"]) == ("mine", "unheard_of")
    assert parsedate_to_datetime(headers["Date"])
    assert len(headers) == len({name.lower() for name in headers})


async def test_streams_follow_each_other_on_one_connection() -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream) as proxy:
        reader, writer = await connect(proxy)
        for _ in range(3):
            writer.write(request("1.1"))
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"HTTP/1.1 200 OK\r\n" in head
            assert b"Transfer-Encoding: chunked\r\n" in head
            assert b"[DONE]" in await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.close()


@pytest.mark.parametrize("asked", [request("1.1", "Connection: close"), request("1.0")])
async def test_a_connection_ends_with_the_stream_when_the_client_wants_it(asked: bytes) -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream) as proxy:
        reader, writer = await connect(proxy)
        writer.write(asked)
        head, body = (await reader.read()).split(b"\r\n\r\n", 1)
        writer.close()
    assert b"\r\nconnection: close\r\n" in head.lower() + b"\r\n"
    if asked == request("1.0"):
        assert b"transfer-encoding" not in head.lower()
        assert check(parse_sse(body))["status"] == "completed"
