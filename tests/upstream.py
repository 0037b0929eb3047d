"""A scripted upstream on a real socket: HTTP/1.1 in which every byte, and the moment it goes out, is the test's.

A script is a list of steps, played to one request:

    Head(...)        status line and headers; a script without one begins with the Head of an event stream
    b"..."           a piece of the body, as one HTTP chunk when the body is chunked
    Raw(b"...")      bytes as they are, past all framing
    asyncio.Event    wait until the test sets it
    Forever(b"...")  the piece again and again, as fast as the proxy takes it
    GONE             wait until the proxy has closed the connection
    CUT              reset the connection
    CLOSE            close the connection, in an orderly way but without the end of the body

A script that plays to its end ends the body and keeps the connection, unless the body's end is the connection's.
"""

import asyncio
import json
import re
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from urllib.parse import urlsplit

EVENT_STREAM = {"content-type": "text/event-stream; charset=utf-8"}
DONE = b"data: [DONE]\n\n"
STALL = 0.3
"""Seconds for which a write must wait for the proxy before the upstream counts as stalled."""


@dataclass(frozen=True)
class Head:
    """framing: how the body's end is told; `length` takes the sum of the script's pieces."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: dict(EVENT_STREAM))
    framing: Literal["chunked", "length", "close"] = "chunked"


@dataclass(frozen=True)
class Raw:
    data: bytes


@dataclass(frozen=True)
class Forever:
    piece: bytes


class Gone(asyncio.Event):
    """The proxy has closed the connection: at this moment, by the loop's clock."""

    at: float | None = None

    def set(self) -> None:
        if self.at is None:
            self.at = asyncio.get_running_loop().time()
        super().set()


GONE: Literal["gone"] = "gone"
CUT: Literal["cut"] = "cut"
CLOSE: Literal["close"] = "close"
Step = Head | bytes | Raw | Forever | asyncio.Event | Literal["gone", "cut", "close"]
Script = Sequence[Step]


@dataclass
class Request:
    """What the proxy asked, and what became of it.

    connection: which of the connections, counted from 1. headers: names in lower case. gone: the connection is closed.
    sent: bytes that are out. stalled: set once a write has waited for the proxy for STALL seconds.
    played: set when the script is at its end.
    """

    connection: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    gone: Gone
    sent: int = 0
    stalled: asyncio.Event = field(default_factory=asyncio.Event)
    played: asyncio.Event = field(default_factory=asyncio.Event)

    def json(self) -> Any:
        return json.loads(self.body)


def sse(*chunks: Any, done: bool = True) -> list[bytes]:
    """The pieces of an event stream: each chunk as JSON in a frame of its own, bytes as they are, then [DONE]."""
    frames = [chunk if isinstance(chunk, bytes) else b"data: " + _dump(chunk) + b"\n\n" for chunk in chunks]
    return frames + [DONE] * done


def chunk(delta: Any = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """One chat.completion.chunk with one choice."""
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **fields}


def text(*words: str, finish: str | None = "stop") -> list[bytes]:
    """The pieces of a plain answer."""
    deltas = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": word}) for word in words)]
    usage = {"prompt_tokens": 5, "completion_tokens": len(words), "total_tokens": 5 + len(words)}
    return sse(*deltas, chunk(finish=finish), chunk() | {"choices": [], "usage": usage})


def answer(status: int, body: Any, **headers: str) -> list[Step]:
    """A whole JSON answer; bytes and text go as they are. Underscores in the names of headers stand for hyphens."""
    named = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    payload = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else _dump(body)
    return [Head(status, named, "length"), payload]


def replay(capture: bytes) -> list[Step]:
    """A recorded answer: status line, headers, blank line, body. Chunked again, one chunk an event, if it was."""
    head, body = re.split(rb"\r?\n\r?\n", capture, maxsplit=1)
    status, *lines = head.decode().splitlines()
    pairs = (line.split(":", 1) for line in lines)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    chunked = headers.pop("transfer-encoding", "") == "chunked"
    headers.pop("content-length", None)
    pieces = [piece + b"\n\n" for piece in body.split(b"\n\n") if piece] if chunked else [body]
    return [Head(int(status.split()[1]), headers, "chunked" if chunked else "length"), *pieces]


class Upstream:
    """Serves scripts in the order of the requests, the last one again and again; a function chooses by the request.

    tls: it speaks https. path: of the Unix socket that it listens on instead of a port.
    requests: what came, in order. connections: how many were opened.
    """

    def __init__(
        self, *scripts: Script | Callable[[Request], Script], tls: ssl.SSLContext | None = None, path: str = ""
    ) -> None:
        self.scripts = scripts
        self.tls = tls
        self.path = path
        self.requests: list[Request] = []
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._idle: set[asyncio.StreamWriter] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Condition()

    @property
    def open(self) -> int:
        """How many connections are open now."""
        return len(self._writers)

    async def __aenter__(self) -> Self:
        if self.path:
            self._server = await asyncio.start_unix_server(self._connected, self.path)
            self.url = "http://somewhere.test/v1"
            return self
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self.tls)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"{'https' if self.tls else 'http'}://{host}:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def away(self) -> None:
        """New connections are refused, idle ones reset, and the others closed after their answer."""
        self._server.close()
        for writer in self._idle:
            writer.transport.abort()

    async def back(self) -> None:
        """It can be reached again, under the same URL."""
        parts = urlsplit(self.url)
        self._server = await asyncio.start_server(self._connected, parts.hostname, parts.port)

    async def received(self, number: int) -> Request:
        """The request of this number, counted from 1, once it is here."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= number)
        return self.requests[number - 1]

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._tasks.append(asyncio.create_task(self._serve(reader, writer, self.connections)))

    async def _serve(self, raw: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        self._writers.add(writer)
        reader, gone = asyncio.StreamReader(), Gone()
        pump = asyncio.create_task(_pump(raw, writer, reader, gone))
        try:
            while (request := await self._next(reader, writer, gone, connection)) is not None:
                script = await self._note(request)
                if not await _Player(request, writer).play(script) or not self._server.is_serving():
                    break
        except ConnectionError:
            gone.set()  # the proxy left in the middle of a piece, which the pump may not have seen yet
        finally:
            pump.cancel()
            writer.close()
            self._writers.discard(writer)

    async def _next(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gone: Gone, connection: int
    ) -> Request | None:
        self._idle.add(writer)
        try:
            return await _read(reader, gone, connection)
        finally:
            self._idle.discard(writer)

    async def _note(self, request: Request) -> Script:
        self.requests.append(request)
        script = self.scripts[min(len(self.requests), len(self.scripts)) - 1]
        async with self._changed:
            self._changed.notify_all()
        return script(request) if callable(script) else script


class _Player:
    """Plays one script on one connection."""

    def __init__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self.writer = writer
        self.framing = "chunked"

    async def play(self, script: Script) -> bool:
        """Whether the connection can be used again."""
        steps = list(script) if script and isinstance(script[0], Head | Raw) else [Head(), *script]
        raw = isinstance(steps[0], Raw)
        for step in steps:
            if step in (CUT, CLOSE):
                self._leave(reset=step == CUT)
                return False
            await self._step(step, steps)
        if self.framing == "chunked" and not raw:
            await self._write(b"0\r\n\r\n")
        self.request.played.set()
        return self.framing != "close" and not raw

    async def _step(self, step: Step, steps: Sequence[Step]) -> None:
        match step:
            case Head():
                self.framing = step.framing
                await self._write(_head(step, sum(len(piece) for piece in steps if isinstance(piece, bytes))))
            case bytes():
                await self._write(self._framed(step))
            case Raw():
                await self._write(step.data)
            case Forever():
                while not self.request.gone.is_set():
                    await self._write(self._framed(step.piece))
                    await asyncio.sleep(0)  # drain alone does not let others run while the socket takes everything
            case asyncio.Event():
                await step.wait()
            case _:
                await self.request.gone.wait()

    def _framed(self, piece: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(piece), piece) if self.framing == "chunked" and piece else piece

    async def _write(self, data: bytes) -> None:
        self.writer.write(data)
        stall = asyncio.get_running_loop().call_later(STALL, self.request.stalled.set)
        try:
            await self.writer.drain()
        finally:
            stall.cancel()
        self.request.sent += len(data)

    def _leave(self, *, reset: bool) -> None:
        if reset:
            linger = struct.pack("ii", 1, 0)  # closing without lingering sends a reset
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.writer.transport.abort()
        self.request.played.set()


async def _pump(
    raw: asyncio.StreamReader, writer: asyncio.StreamWriter, reader: asyncio.StreamReader, gone: Gone
) -> None:
    """Read ahead from the socket, so that the other side's departure is seen at once, whatever the script is doing."""
    try:
        while data := await raw.read(65536):
            reader.feed_data(data)
    except ConnectionError:
        pass
    reader.feed_eof()
    gone.set()
    writer.transport.abort()  # a write that waits for the other side ends too


async def _read(reader: asyncio.StreamReader, gone: Gone, connection: int) -> Request | None:
    """The next request of a connection; None when there is none."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
    assert "transfer-encoding" not in headers, "the scripted upstream reads bodies with a content-length only"
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    method, path, _ = first.split(" ")
    return Request(connection, method, path, headers, body, gone)


def _head(head: Head, length: int) -> bytes:
    framing = {"chunked": "transfer-encoding: chunked", "length": f"content-length: {length}"}
    lines = [f"HTTP/1.1 {head.status} Scripted", *(f"{name}: {value}" for name, value in head.headers.items())]
    return "\r\n".join([*lines, framing.get(head.framing, "connection: close"), "", ""]).encode("latin-1")


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
