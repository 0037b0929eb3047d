"""Requests to an upstream: what leaves, what an answer is, and when its connection is used again.

Whatever the way, by the ready bytes or by aiohttp's client, which takes the requests that go through a proxy.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.connections import Connections
from proxy.errors import RequestError, Unreachable
from proxy.exchange import LARGE, Answer, Exchange
from tests.failing import no_more_files
from tests.upstream import CLOSE, CUT, GONE, Head, Raw, Script, Upstream, answer

BOTH = pytest.mark.parametrize("way", ["ready bytes", "client"])
OK = answer(200, "{}")
GUARD = 10
"""Seconds after which a test that hangs fails."""


@asynccontextmanager
async def asking(upstream: Upstream, way: str = "ready bytes", **options: Any) -> AsyncIterator[Exchange]:
    """The scripted upstream passes for a proxy too: it answers whatever is asked of it."""
    proxy = upstream.url.removesuffix("/v1") if way == "client" else ""
    headers = options.pop("headers", {"X-Constant": "1"})
    async with asyncio.timeout(GUARD), Connections() as connections:
        yield Exchange("u1", upstream.url, connections.session(), headers=headers, proxy=proxy, **options)


async def whole(given: Answer) -> tuple[int, bytes]:
    try:
        return given.status, await given.content.read()
    finally:
        given.close()


# What leaves


@BOTH
async def test_a_request_is_sent_as_it_is_given(way: str) -> None:
    async with Upstream(OK) as upstream, asking(upstream, way) as exchange:
        given = await exchange.request("POST", "/embeddings?a=%20b", {"Content-Type": "text/odd"}, b"some body")
        assert await whole(given) == (200, b"{}")
        request = upstream.requests[0]
    assert (request.method, request.body) == ("POST", b"some body")
    assert request.path.removeprefix(upstream.url.removesuffix("/v1")) == "/v1/embeddings?a=%20b"
    sent = {"content-type": "text/odd", "x-constant": "1", "content-length": "9", "host": upstream.url.split("/")[2]}
    assert request.headers == sent


@BOTH
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_request_may_have_no_body(method: str, way: str) -> None:
    empty: Script = [Head(200, {"content-length": "5", "x-answer": "yes"}, "close")]
    async with Upstream(empty if method == "HEAD" else OK) as upstream, asking(upstream, way) as exchange:
        given = await exchange.request(method, "/models", {})
        assert await whole(given) == ((200, b"") if method == "HEAD" else (200, b"{}"))
        assert upstream.requests[0].method == method
        assert "content-length" not in upstream.requests[0].headers


@BOTH
async def test_a_header_of_a_request_wins_over_a_constant_one(way: str) -> None:
    async with Upstream(OK) as upstream, asking(upstream, way) as exchange:
        await whole(await exchange.request("POST", "/x", {"x-CONSTANT": "2"}))
        await whole(await exchange.request("POST", "/x", {}))
        assert [request.headers["x-constant"] for request in upstream.requests] == ["2", "1"]


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\rb", "a\0b", "a\x7fb"])
async def test_no_header_can_hold_another_one(value: str) -> None:
    async with Upstream(OK) as upstream, asking(upstream) as exchange:
        for headers in ({"x-given": value}, {value: "x-given"}):
            with pytest.raises(RequestError):
                await exchange.request("POST", "/x", headers)
        assert upstream.connections == 0


async def test_a_header_goes_on_byte_by_byte() -> None:
    async with Upstream(OK) as upstream, asking(upstream) as exchange:
        given = b"caf\xc3\xa9 \xe9".decode("utf-8", "surrogateescape")  # as aiohttp gives it, Latin-1 among it
        await whole(await exchange.request("POST", "/x", {"x-name": given}))
        assert upstream.requests[0].headers["x-name"].encode("latin-1") == b"caf\xc3\xa9 \xe9"


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Connection"])
async def test_nobody_else_frames_a_request(name: str) -> None:
    async with Upstream(OK) as upstream, asking(upstream) as exchange:
        with pytest.raises(ValueError, match=name.lower()):
            await exchange.request("POST", "/x", {name: "1"})


@pytest.mark.parametrize("path", ["/x y", "/x\r\nx-evil: 1", "/é"])
async def test_a_path_must_be_ready_for_the_wire(path: str) -> None:
    async with Upstream(OK) as upstream, asking(upstream) as exchange:
        with pytest.raises(ValueError, match="request line"):
            await exchange.request("POST", path, {})
        assert upstream.connections == 0


@BOTH
@pytest.mark.parametrize("size", [LARGE - 1, 4 * LARGE])
async def test_a_large_body_arrives_whole(size: int, way: str) -> None:
    async with Upstream(OK) as upstream, asking(upstream, way) as exchange:
        assert await whole(await exchange.request("POST", "/x", {}, b"x" * size)) == (200, b"{}")
        assert len(upstream.requests[0].body) == size


# Answers


@BOTH
async def test_what_only_announces_an_answer_is_none(way: str) -> None:
    before = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    async with Upstream([Raw(before), *OK]) as upstream, asking(upstream, way) as exchange:
        assert await whole(await exchange.request("POST", "/x", {})) == (200, b"{}")


@BOTH
async def test_a_redirect_is_an_answer(way: str) -> None:
    async with Upstream(answer(307, "", location="/v1/y")) as upstream, asking(upstream, way) as exchange:
        given = await exchange.request("POST", "/x", {})
        assert given.headers["Location"] == "/v1/y"
        assert (await whole(given), len(upstream.requests)) == ((307, b""), 1)


@BOTH
@pytest.mark.parametrize("script", [[Raw(b"SSH-2.0-OpenSSH\r\n\r\n")], [Raw(b""), CUT], [Raw(b""), CLOSE]])
async def test_without_an_answer_the_upstream_is_unreachable(script: Script, way: str) -> None:
    async with Upstream(script) as upstream, asking(upstream, way) as exchange:
        with pytest.raises(Unreachable) as failure:
            await exchange.request("POST", "/x", {})
        assert (failure.value.status, len(upstream.requests)) == (502, 1)


@BOTH
async def test_an_answer_must_begin_in_time(way: str) -> None:
    async with Upstream([Raw(b""), GONE]) as upstream, asking(upstream, way, accept=0.05) as exchange:
        with pytest.raises(Unreachable, match=r"no answer within 0\.05 s") as failure:
            await exchange.request("POST", "/x", {})
        await upstream.requests[0].gone.wait()
    assert failure.value.status == 504


@BOTH
async def test_who_leaves_before_the_answer_closes_the_connection(way: str) -> None:
    async with Upstream([Raw(b""), GONE]) as upstream, asking(upstream, way) as exchange:
        asked = asyncio.ensure_future(exchange.request("POST", "/x", {}))
        request = await upstream.received(1)
        asked.cancel()
        await request.gone.wait()


# Connections

ENDS: dict[str, tuple[Script, int]] = {
    "a length": (OK, 1),
    "chunks": ([Head(), b"{}"], 1),
    "no body": ([Head(204, {}, "length")], 1),
    "the connection's end": ([Head(framing="close"), b"{}"], 2),
    "only the connection's end": ([Raw(b"HTTP/1.1 200 OK\r\n\r\n{}")], 2),
    "a close that is announced": (answer(200, "{}", connection="close"), 2),
    "HTTP/1.0": ([Raw(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}")], 2),
}


@BOTH
@pytest.mark.parametrize("name", ENDS)
async def test_a_connection_is_used_again_when_the_answer_allows_it(name: str, way: str) -> None:
    script, connections = ENDS[name]
    async with Upstream(script) as upstream, asking(upstream, way) as exchange:
        for _ in range(2):
            assert (await whole(await exchange.request("POST", "/x", {}, b"body")))[0] in (200, 204)
        assert upstream.connections == connections


@BOTH
async def test_a_connection_that_is_left_early_is_closed(way: str) -> None:
    async with Upstream([b"one", GONE], OK) as upstream, asking(upstream, way) as exchange:
        given = await exchange.request("POST", "/x", {})
        assert await given.content.readany() == b"one"
        given.close()
        await upstream.requests[0].gone.wait()
        assert await whole(await exchange.request("POST", "/x", {})) == (200, b"{}")


@BOTH
async def test_a_request_on_a_connection_that_had_died_is_sent_once_more(way: str) -> None:
    async with Upstream(OK, [Raw(b""), CUT], OK) as upstream, asking(upstream, way) as exchange:
        for _ in range(2):
            assert await whole(await exchange.request("POST", "/x", {}, b"body")) == (200, b"{}")
        assert [(request.connection, request.body) for request in upstream.requests[1:]] == [(1, b"body"), (2, b"body")]


async def test_the_second_try_is_not_on_another_old_connection() -> None:
    go = asyncio.Event()
    slow: Script = [Head(), go, b"{}"]
    async with Upstream(slow, slow, [Raw(b""), CUT], OK) as upstream, asking(upstream) as exchange:
        both = [await exchange.request("POST", "/x", {}) for _ in range(2)]
        go.set()
        assert [await whole(each) for each in both] == [(200, b"{}")] * 2
        assert await whole(await exchange.request("POST", "/x", {})) == (200, b"{}")
        assert upstream.connections == 3


async def test_who_has_been_told_to_go_on_does_not_ask_again() -> None:
    heard = [Raw(b"HTTP/1.1 100 Continue\r\n\r\n"), CUT]
    async with Upstream(OK, heard, OK) as upstream, asking(upstream) as exchange:
        await whole(await exchange.request("POST", "/x", {}))
        with pytest.raises(Unreachable):
            await exchange.request("POST", "/x", {})
        assert len(upstream.requests) == 2


async def test_what_an_upstream_says_while_idle_is_no_answer() -> None:
    timeout = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n"
    late = asyncio.Event()
    async with (
        Upstream([*OK, late, Raw(timeout)], OK) as upstream,
        Upstream(OK) as other,
        asking(upstream) as exchange,
        asking(other) as elsewhere,
    ):
        assert await whole(await exchange.request("POST", "/x", {})) == (200, b"{}")
        late.set()
        await upstream.requests[0].played.wait()
        await whole(await elsewhere.request("POST", "/x", {}))  # by now it has arrived here too
        assert await whole(await exchange.request("POST", "/x", {})) == (200, b"{}")
        assert upstream.connections == 2


async def test_a_connection_whose_request_has_not_left_whole_is_not_used_again(tmp_path: Path) -> None:
    """An upstream may refuse a body that it has not read: the rest of it still waits to be sent."""
    loop, path = asyncio.get_running_loop(), str(tmp_path / "socket")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        async with asyncio.timeout(GUARD), Connections() as connections:
            exchange = Exchange("u1", "http://x.test/v1", connections.session(socket=path), headers={})
            asked = asyncio.ensure_future(exchange.request("POST", "/x", {}, b"x" * (LARGE - 1)))
            first, _ = await loop.sock_accept(listener)
            with contextlib.closing(first):
                await loop.sock_sendall(first, b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\n{}")
                assert await whole(await asked) == (413, b"{}")
                asked = asyncio.ensure_future(exchange.request("POST", "/x", {}))
                second, _ = await loop.sock_accept(listener)
                second.close()
            with pytest.raises(Unreachable):
                await asked


@BOTH
async def test_what_is_no_name_of_a_host_can_not_be_reached(way: str) -> None:
    proxy = "http://a..b:1" if way == "client" else ""
    async with Connections() as connections:
        exchange = Exchange("u1", "http://a..b/v1", connections.session(), headers={}, proxy=proxy)
        with pytest.raises(Unreachable, match=r"'u1' can't be reached: .*idna") as raised:
            await exchange.request("POST", "/x", {})
    assert (raised.value.status, raised.value.ours) == (503, False)


@BOTH
async def test_without_a_file_descriptor_nobody_else_is_to_blame(way: str) -> None:
    async with Upstream(OK) as upstream, asking(upstream, way) as exchange:
        with no_more_files(), pytest.raises(Unreachable, match="Too many open files") as raised:
            await exchange.request("POST", "/x", {})
        assert (raised.value.status, raised.value.ours) == (503, True)
        assert await whole(await exchange.request("POST", "/x", {})) == (200, b"{}")
