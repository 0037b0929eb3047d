"""The proxy as its users have it: on a real port, in this process or as a process of its own, and a client for it.

    async with Upstream(text("Hi")) as upstream, in_process(upstream) as proxy:
        reply = await proxy.post(stream=True)

Both ways take the endpoints, named u1, u2 ... and asked in this order, and the fields of the YAML, and go through it.
"""

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDictProxy

from proxy.app import build
from proxy.loading import load
from proxy.server import Server
from tests.checker import check, parse_sse
from tests.snapshots import must
from tests.upstream import Upstream

Json = dict[str, Any]

ROOT = Path(__file__).parent.parent
REQUEST = {"model": "m", "input": "hi"}
GUARD = 60
"""Seconds after which a test that hangs fails."""


@dataclass
class Reply:
    """A whole answer."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[Json]:
        """Of a stream, checked."""
        events = parse_sse(self.body)
        check(events)
        return events

    def final(self) -> Json:
        """The response that the stream ends with."""
        return check(parse_sse(self.body))

    def failure(self) -> Json:
        """The error of a stream that ended with response.failed."""
        final = self.final()
        assert (self.status, final["status"]) == (200, "failed")
        error: Json = final["error"]
        return error

    def error(self) -> Json:
        """The error object of an envelope, which is whole."""
        assert self.headers["content-type"].startswith("application/json")
        error: Json = self.json()["error"]
        must(set(error) == {"message", "type", "param", "code"}, f"the envelope holds {error}")
        must(bool(error["message"]) and bool(error["type"]), f"the envelope holds {error}")
        return error


@dataclass
class Stream:
    """An answer that is read as it comes."""

    answer: aiohttp.ClientResponse
    body: bytearray = field(default_factory=bytearray)

    async def until(self, words: str) -> None:
        """Read on to the first frame with these words in it."""
        while words.encode() not in (frame := await self.answer.content.readuntil(b"\n\n")):
            self.body += frame
        self.body += frame

    async def rest(self) -> Reply:
        """The whole of it, from the beginning, once it has ended."""
        self.body += await self.answer.read()
        return Reply(self.answer.status, self.answer.headers, bytes(self.body))


class Client:
    """Asks the proxy. url: up to /v1. server: its insides, when it is in this process."""

    server: Server

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.port = int(re.findall(r":(\d+)/", url)[0])
        self.session = session

    async def get(self, path: str) -> Reply:
        return await self.ask("GET", path)

    async def post(self, *, headers: dict[str, str] | None = None, **fields: Any) -> Reply:
        """A response of the least request there is, with these fields."""
        return await self.ask("POST", "/v1/responses", json=REQUEST | fields, headers=headers)

    async def both(self, **fields: Any) -> tuple[Reply, Reply]:
        """The same request without a stream and with one."""
        return await self.post(stream=False, **fields), await self.post(stream=True, **fields)

    async def ask(self, method: str, path: str, **options: Any) -> Reply:
        async with self.session.request(method, self.url.removesuffix("/v1") + path, **options) as answer:
            return Reply(answer.status, answer.headers, await answer.read())

    @asynccontextmanager
    async def stream(self, **fields: Any) -> AsyncIterator[Stream]:
        """The same as a stream; leaving early closes the connection."""
        async with self.session.post(f"{self.url}/responses", json=REQUEST | {"stream": True} | fields) as answer:
            yield Stream(answer)
            answer.close()

    async def mute(self, version: str = "1.1", **fields: Any) -> socket.socket:
        """The same on a connection with little room, of which nobody reads; whoever asks closes it."""
        body = json.dumps(REQUEST | {"stream": True} | fields).encode()
        lines = ["Host: proxy", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        head = "\r\n".join([f"POST /v1/responses HTTP/{version}", *lines, "", ""])
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(made, ("127.0.0.1", self.port))
        await loop.sock_sendall(made, head.encode() + body)
        return made


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, read_bufsize=1 << 20) as session:
        yield Client(url, session)


def config(*endpoints: Upstream | Json, **fields: Any) -> Json:
    """The YAML as data. An endpoint is a scripted upstream, or its fields.

    Each is tried once, unless `retries` is among the fields.
    """
    given = [{"url": each.url} if isinstance(each, Upstream) else each for each in endpoints]
    upstreams = {f"u{number}": each for number, each in enumerate(given, 1)}
    return {"upstreams": upstreams, "retries": {"attempts": max(1, len(given))}} | fields


@contextmanager
def written(data: Json) -> Iterator[Path]:
    """The path of a file that says this; JSON is YAML."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "proxy.yaml"
        path.write_text(json.dumps(data))
        yield path


@asynccontextmanager
async def in_process(*endpoints: Upstream | Json, **fields: Any) -> AsyncIterator[Client]:
    """The application in this process and on this loop."""
    with written(config(*endpoints, **fields)) as path:
        settings = load(path, {})
    async with asyncio.timeout(GUARD), AsyncExitStack() as stack:
        server = await build(settings, stack)
        runner = web.AppRunner(
            server.app, handler_cancellation=True, auto_decompress=False, access_log=None, shutdown_timeout=1
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        client = await stack.enter_async_context(connected(f"http://127.0.0.1:{port}/v1"))
        client.server = server
        yield client


async def until(true: Callable[[], bool]) -> None:
    """Returns once it is so; looks now and then, for what another process does."""
    while not true():  # noqa: ASYNC110 - nobody could set an event
        await asyncio.sleep(0.02)


class Process(Client):
    """The proxy as a process of its own. path: its configuration. log: what it writes to standard error."""

    def __init__(self, client: Client, process: asyncio.subprocess.Process, path: Path, log: Path) -> None:
        super().__init__(client.url, client.session)
        self.process = process
        self.path = path
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def said(self, words: str, times: int = 1) -> None:
        """Returns once the log holds these words so many times."""
        await until(lambda: self.log.count(words) >= times)

    def workers(self) -> set[int]:
        """The process ids of its children."""
        pid = self.process.pid
        return {int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    def memory(self) -> int:
        """Resident bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    async def refusing(self) -> None:
        """Returns once no new connection is accepted."""
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionRefusedError:
                return
            except ConnectionResetError:
                continue  # it stood in the queue of the listener that was closed
            writer.close()


@asynccontextmanager
async def as_process(*endpoints: Upstream | Json, status: int = 0, **fields: Any) -> AsyncIterator[Process]:
    """The command that `make run` runs, on a free port; it is stopped at the end, and has to end with this status."""
    with written(config(*endpoints, **fields)) as path:
        log = path.with_name("log")
        command = (sys.executable, "-m", "proxy", str(path), "--port", "0")
        with log.open("wb") as errors:
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=pipe, stderr=errors)
        try:
            async with asyncio.timeout(GUARD):
                assert process.stdout
                url = (await process.stdout.readline()).decode().split()[-1]
                async with connected(url) as client:
                    yield Process(client, process, path, log)
                if process.returncode is None:
                    process.terminate()
                await process.stdout.read()
                assert await process.wait() == status, log.read_text()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
