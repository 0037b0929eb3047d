"""The load client: raw connections that read streams cheaply and still check each one."""

import asyncio
import json
import re
import time
from dataclasses import dataclass, field

STAMP = re.compile(rb'\b(\d{20})"')


@dataclass(frozen=True)
class Api:
    """What a target is asked for and how its stream is checked."""

    path: str
    field: str
    """The request's field for the prompt."""
    delta: bytes
    """Stands exactly once in each delta event and nowhere else."""
    end: bytes
    """Stands in the last event of a whole stream."""

    def request(self, prompt: str) -> bytes:
        content = prompt if self.field == "input" else [{"role": "user", "content": prompt}]
        body = json.dumps({"model": "m", self.field: content, "stream": True}).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        return f"{head}\r\n\r\n".encode() + body


CHAT = Api("/v1/chat/completions", "messages", b'"delta":{"content":', b"[DONE]")
RESPONSES = Api("/v1/responses", "input", b'response.output_text.delta"', b'response.completed"')


class WrongStreamError(Exception):
    """A target's stream is not what the upstream sent."""


@dataclass(eq=False)
class Connection(asyncio.Protocol):
    """One keep-alive connection to a target; carries one stream at a time."""

    api: Api
    deltas: int = 0
    latencies: list[int] = field(default_factory=list)
    """ns from the upstream's send to here, for deltas that hold a stamp."""
    raw: bytes = b""
    """Bytes before the chunked encoding is taken off: less than a chunk."""
    text: bytes = b""
    """Bytes of an event that is not whole yet."""
    last: list[bytes] = field(default_factory=list)
    """The last two events."""
    in_body: bool = False
    stamped: bool = False
    finished: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Done at the last byte of the stream."""

    @classmethod
    async def open(cls, api: Api, port: int) -> "Connection":
        _, connection = await asyncio.get_running_loop().create_connection(lambda: cls(api), "127.0.0.1", port)
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(f"connection lost after {self.deltas} deltas ({exc})")

    def fail(self, why: str) -> None:
        if not self.finished.done():
            self.finished.set_exception(WrongStreamError(why))

    def raise_failure(self) -> None:
        if self.finished.done():
            self.finished.result()

    def close(self) -> None:
        self.finished.cancel()
        self.transport.abort()

    def send(self, prompt: str) -> None:
        """Ask for a stream; `finished` will be its end."""
        self.deltas, self.in_body, self.raw, self.text, self.last = 0, False, b"", b"", []
        self.stamped = prompt.startswith("bench paced")
        self.latencies.clear()
        self.finished = asyncio.get_running_loop().create_future()
        self.transport.write(self.api.request(prompt))

    async def stream(self, count: int, prompt: str) -> None:
        """Ask for a stream, read it to its end, check that it has `count` deltas and the right end."""
        self.send(prompt)
        await self.finished
        self.check(count)

    def check(self, count: int) -> None:
        events = [event for event in self.last if b"[DONE]" not in event or self.api.end == b"[DONE]"]
        if self.deltas != count or not events or self.api.end not in events[-1]:
            ends = [event[:200] for event in self.last]
            raise WrongStreamError(f"{self.deltas} deltas instead of {count}, or a wrong end: {ends}")

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self.raw += data
        if not self.in_body and not self.read_head():
            return
        block, ended = self.dechunk()
        self.text += block
        cut = self.text.rfind(b"\n\n") + 2
        if cut > 1:
            self.read_events(self.text[:cut], now)
            self.text = self.text[cut:]
        if ended and not self.finished.done():
            self.finished.set_result(None)

    def read_head(self) -> bool:
        head, blank, rest = self.raw.partition(b"\r\n\r\n")
        if not blank:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            self.fail(self.raw[:4000].decode(errors="replace"))
            return False
        self.raw, self.in_body = rest, True
        return True

    def dechunk(self) -> tuple[bytes, bool]:
        """The content of all whole chunks that are there, and whether the last one was among them."""
        raw, at, parts, size = self.raw, 0, [], -1
        while size and (line_end := raw.find(b"\r\n", at)) > 0:
            size = int(raw[at:line_end], 16)
            end = line_end + 2 + size
            if len(raw) < end + 2:
                size = -1
                break
            parts.append(raw[line_end + 2 : end])
            at = end + 2
        self.raw = raw[at:]
        return b"".join(parts), size == 0

    def read_events(self, block: bytes, now: int) -> None:
        found = block.count(self.api.delta)
        self.deltas += found
        events = block[:-2].rsplit(b"\n\n", 2)[-2:]
        self.last = [event for event in (*self.last, *events) if b"data:" in event][-2:]
        if self.stamped and found:
            delta_events = (event for event in block.split(b"\n\n") if self.api.delta in event)
            self.latencies += [now - int(stamp[1]) for event in delta_events if (stamp := STAMP.search(event))]
