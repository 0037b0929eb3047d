"""Bodies of clients' requests: packed in any way, cut anywhere, and bombs."""

import asyncio
import json
import sys
import zlib
from collections.abc import AsyncIterator, Callable

import brotli  # type: ignore[import-untyped]
import pytest

from tests.proxy import Client, Reply, as_process, in_process
from tests.upstream import Upstream, answer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LIMITS = {"limits": {"body": "1 MiB"}}
BODY = json.dumps({"model": "m", "input": "x" * 1000, "numbers": list(range(1000))}).encode()


def zipped(bits: int) -> Callable[[bytes], bytes]:
    def pack(data: bytes) -> bytes:
        compressor = zlib.compressobj(9, wbits=bits)
        return compressor.compress(data) + compressor.flush()

    return pack


PACKED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "plain": ("identity", bytes),
    "gzip": ("gzip", zipped(31)),
    "deflate": ("deflate", zipped(15)),
    "deflate without its header": ("deflate", zipped(-15)),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstd.compress),
}


async def send(proxy: Client, data: bytes, encoding: str, size: int = 0) -> Reply:
    """size: of the pieces in which it is sent, 0 for one."""

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(data), size or len(data) or 1):
            yield data[at : at + size] if size else data

    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    return await proxy.ask("POST", "/v1/embeddings", data=pieces(), headers=headers)


@pytest.mark.parametrize("name", PACKED)
async def test_a_packed_body_may_be_cut_anywhere(name: str) -> None:
    encoding, pack = PACKED[name]
    async with Upstream(answer(200, {})) as upstream, in_process(upstream, **LIMITS) as proxy:
        for size in (0, 1, 7, 100):
            assert (await send(proxy, pack(BODY), encoding, size)).status == 200
    assert [request.body == BODY for request in upstream.requests] == [True] * 4


@pytest.mark.parametrize("size", [0, 1000])
@pytest.mark.parametrize("name", PACKED)
async def test_the_limit_is_that_of_what_comes_out(name: str, size: int) -> None:
    encoding, pack = PACKED[name]
    fits, over = (b'{"model":"m"' + b" " * (length - 13) + b"}" for length in (1 << 20, (1 << 20) + 1))
    async with Upstream(answer(200, {})) as upstream, in_process(upstream, **LIMITS) as proxy:
        assert (await send(proxy, pack(fits), encoding, size)).status == 200
        reply = await send(proxy, pack(over), encoding, size)
        assert upstream.requests[0].body == fits
    assert (reply.status, reply.error()["code"]) == (413, "request_too_large")
    assert "1048576" in reply.error()["message"]


@pytest.mark.parametrize("data", [b"no", b""])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
async def test_what_is_not_packed_as_it_says_is_refused(encoding: str, data: bytes) -> None:
    async with Upstream(answer(200, {})) as upstream, in_process(upstream, **LIMITS) as proxy:
        reply = await send(proxy, data, encoding)
    assert (reply.status, reply.error()["type"]) == (400, "invalid_request_error")


async def test_several_members_are_one_body() -> None:
    async with Upstream(answer(200, {})) as upstream, in_process(upstream, **LIMITS) as proxy:
        for encoding, pack in (PACKED["gzip"], PACKED["zstd"]):
            assert (await send(proxy, pack(BODY[:500]) + pack(BODY[500:]), encoding)).status == 200
    assert [request.body for request in upstream.requests] == [BODY, BODY]


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/embeddings"])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("size", [0, 5])
async def test_a_body_that_does_not_come_is_not_waited_for(size: int, encoding: str, path: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield PACKED["gzip" if encoding == "gzip" else "plain"][1](BODY)[:size]
        await asyncio.Event().wait()

    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    async with Upstream(answer(200, {})) as upstream, in_process(upstream) as proxy:
        proxy.server.patience = 0.05
        reply = await proxy.ask("POST", path, data=pieces(), headers=headers)
        assert upstream.requests == []
    assert (reply.status, reply.error()["code"], reply.headers["connection"]) == (408, "request_timeout", "close")
    assert "0.05 s" in reply.error()["message"]


def bomb() -> bytes:
    """1 GiB in 1 KB."""
    compressor = brotli.Compressor(quality=5)
    pieces = [*(compressor.process(bytes(1 << 20)) for _ in range(1024)), compressor.finish()]
    return b"".join(pieces)


@pytest.mark.parametrize(("path", "status"), [("/v1/embeddings", 413), ("/v1/responses", 413), ("/nowhere", 404)])
async def test_a_bomb_takes_no_memory(path: str, status: int) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "br"}
    async with Upstream(answer(200, {})) as upstream, as_process(upstream, limits={"body": "1 MiB"}) as proxy:
        await proxy.get("/health")
        memory = proxy.memory()
        reply = await proxy.ask("POST", path, data=bomb(), headers=headers)
        assert (await proxy.get("/health")).status == 200
        assert proxy.memory() - memory < 16 << 20
    assert reply.status == status
