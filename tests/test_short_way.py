"""The short way of a stream in full flow: what is decided there must be what the ordinary way decides."""

import asyncio
import socket

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol

from proxy.blocks import BlockReader, by_blocks
from tests.proxy import in_process
from tests.upstream import CUT, Head, Script, Upstream, chunk, sse, text


@pytest.mark.parametrize("loud", [True, False])
async def test_what_was_sent_on_the_short_way_rules_out_another_upstream(loud: bool) -> None:
    go, end = asyncio.Event(), asyncio.Event()
    role = sse(chunk({"role": "assistant", "content": "ZERO " if loud else ""}), done=False)
    script: Script = [Head(), *role, go, *sse(chunk({"content": "ONE "}), done=False), end, CUT]
    async with Upstream(script) as first, Upstream(text("TWO")) as second, in_process(first, second) as proxy:
        async with proxy.stream() as stream:
            await stream.until("response.in_progress")
            go.set()
            await stream.until("ONE ")
            end.set()
            final = (await stream.rest()).final()
        assert (final["status"], len(second.requests)) == ("failed", 0)
        assert final["output"][0]["content"][0]["text"] == ("ZERO ONE " if loud else "ONE ")


async def test_what_arrived_before_a_failure_is_read_before_it() -> None:
    loop = asyncio.get_running_loop()
    reader = by_blocks(aiohttp.StreamReader(BaseProtocol(loop), 1024, loop=loop))
    assert isinstance(reader, BlockReader)
    reader.feed_data(b"one")
    reader.feed_data(b"two")
    reader.set_exception(ConnectionResetError())
    assert await reader.readany() == b"onetwo"
    with pytest.raises(ConnectionResetError):
        await reader.readany()


async def test_a_listener_is_called_once_for_what_one_read_brings() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    protocol = BaseProtocol(loop)
    transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
    reader = by_blocks(aiohttp.StreamReader(protocol, 1024, loop=loop))
    assert isinstance(reader, BlockReader)
    heard: list[bytes] = []
    reader.listen(lambda: (heard.append(reader.take()), reader.feed_eof())[0])
    reading = asyncio.ensure_future(reader.readany())
    await asyncio.sleep(0)
    reader.feed_data(b"one")
    reader.feed_data(b"two")
    assert (await reading, heard) == (b"", [b"onetwo"])
    transport.close()
    theirs.close()
