"""A Chat Completions endpoint that costs next to nothing, so that it is never what is measured.

The prompt says what to stream: `bench SCENARIO COUNT GAP`. Scenarios: `burst` (COUNT tokens at once), `paced` (COUNT tokens, GAP ms apart, each
holding the monotonic time in ns at which it was sent), `idle` (one token, then silence), `endless` (tokens for as long as somebody takes them).
Every event is an HTTP chunk of its own, as engines send them. GET answers the state of all streams.
"""

import asyncio
import itertools
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator

HEAD = b"HTTP/1.1 200 OK\r\nserver: bench\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
PROMPT = re.compile(rb"bench (\w+) (\d+) (\d+)")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
GOLDEN = 0.618033988749895
"""Multiples of it, modulo 1, spread any number of paced streams evenly over the gap."""
BLOCK = 256
"""Tokens in one write of a burst: about 64 KiB."""


def event(choices: str, rest: str = "") -> bytes:
    """One event in one HTTP chunk, with the fields and the size of a vLLM chunk."""
    data = f'data: {{"id":"chatcmpl-bf49c14eb0f9b89e","object":"chat.completion.chunk","created":1795452942,"model":"m","choices":[{choices}]{rest}}}\n\n'
    return f"{len(data):x}\r\n{data}\r\n".encode()


def token(text: str) -> bytes:
    return event(f'{{"index":0,"delta":{{"content":{json.dumps(text)}}},"logprobs":null,"finish_reason":null,"token_ids":null}}')


START = event('{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}')
END = (
    event('{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":null,"token_ids":null}')
    + event("", ',"usage":{"prompt_tokens":19,"total_tokens":29,"completion_tokens":10}')
    + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
)
WORDS = [token(word) for word in (" the", " proxy", ",", " stream", "ing", '"', " of", "\n\n", " caf\u00e9", " 42", ".", " Responses", " to", "ken", "s", " is")]
STAMPED = token(" @@@@@@@@@@@@@@@@@@@@")
STAMP_AT = STAMPED.index(b"@")


def tokens(count: int) -> Iterator[bytes]:
    """`count` tokens in blocks."""
    block = b"".join(itertools.islice(itertools.cycle(WORDS), BLOCK))
    yield from itertools.repeat(block, count // BLOCK)
    yield b"".join(itertools.islice(itertools.cycle(WORDS), count % BLOCK))


def burst(count: int) -> Iterable[bytes]:
    if count < BLOCK:
        return [HEAD + START + b"".join(tokens(count)) + END]
    return itertools.chain([HEAD + START], tokens(count), [END])


class Connection(asyncio.Protocol):
    """One client's connection: reads a request, streams what its prompt says."""

    opened = 0
    streams: "set[Connection]" = set()
    """The idle and endless streams that are open."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.timer: asyncio.TimerHandle | None = None
        self.blocks: Iterator[bytes] = iter(())
        self.request = b""
        self.sent = 0
        self.paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.streams.discard(self)
        if self.timer:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        self.request += data
        head, blank, body = self.request.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not blank or (length and len(body) < int(length[1])):
            return
        self.request = b""
        prompt = PROMPT.search(body)
        if prompt:
            self.answer(prompt[1].decode(), int(prompt[2]), int(prompt[3]) / 1000)
        else:
            self.state()

    def state(self) -> None:
        streams = [{"sent": stream.sent, "paused": stream.paused} for stream in self.streams]
        body = json.dumps({"object": "list", "data": [], "streams": streams}).encode()
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    def answer(self, scenario: str, count: int, gap: float) -> None:
        if scenario == "paced":
            self.transport.write(HEAD + START)
            type(self).opened += 1
            self.tick(count, self.loop.time() + gap * (1 + self.opened * GOLDEN % 1), gap)
            return
        if scenario == "burst":
            self.blocks = iter(burst(count))
        else:
            self.streams.add(self)
            endless = tokens(sys.maxsize) if scenario == "endless" else []
            self.blocks = itertools.chain([HEAD + START + WORDS[0]], endless)
        self.push()

    def tick(self, left: int, due: float, gap: float) -> None:
        """Wait until `due`, send a token, go on with the next: an engine does not wait for slow readers either."""
        self.timer = self.loop.call_at(due, self.send_token, left, due, gap)

    def send_token(self, left: int, due: float, gap: float) -> None:
        if left == 0:
            self.transport.write(END)
            return
        stamp = b"%020d" % time.monotonic_ns()
        self.transport.write(STAMPED[:STAMP_AT] + stamp + STAMPED[STAMP_AT + 20 :])
        self.tick(left - 1, due + gap, gap)

    def push(self) -> None:
        while not self.paused and (block := next(self.blocks, None)) is not None:
            self.sent += len(block)
            self.transport.write(block)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.push()


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
