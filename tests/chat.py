"""Requests to an endpoint that passes through."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.proxy import Client, Reply

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


async def chat(proxy: Client, path: str = "/v1/chat/completions", **options: Any) -> Reply:
    return await proxy.ask("POST", path, **({"json": CHAT} | options))


@asynccontextmanager
async def streaming(proxy: Client) -> AsyncIterator[aiohttp.ClientResponse]:
    """An answer that has begun; leaving early closes the connection."""
    async with proxy.session.post(f"{proxy.url}/chat/completions", json=CHAT) as reply:
        yield reply
        reply.close()


async def unread(proxy: Client, **fields: Any) -> socket.socket:
    """A request on a connection with little room, of which nobody reads; whoever asks closes it."""
    body = json.dumps(CHAT | fields).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: proxy\r\nContent-Type: application/json\r\nContent-Length: %d"
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(made, ("127.0.0.1", proxy.port))
    await loop.sock_sendall(made, (head % len(body)).encode() + b"\r\n\r\n" + body)
    return made
