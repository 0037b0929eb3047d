"""A Chat Completions endpoint that costs next to nothing, so that it is never what is measured.

The prompt says what to stream: `bench SCENARIO COUNT GAP`.
- `burst`: COUNT tokens at once.
- `paced`: one token, silence until somebody asks for `GET /go`, then COUNT tokens, GAP ms apart; each holds the
  monotonic time in ns at which it was sent.
- `endless`: tokens for as long as somebody takes them.
Every event is an HTTP chunk of its own, as engines send them. Any other GET answers the state of the endless streams.
"""

import asyncio
import itertools
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator

HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: bench\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
PROMPT = re.compile(rb"bench (\w+) (\d+) (\d+)")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
GOLDEN = 0.618033988749895
"""Multiples of it, modulo 1, spread any number of paced streams evenly over the gap."""
BLOCK = 256
"""Tokens in one write of a burst: about 64 KiB."""


def event(choices: str, rest: str = "") -> bytes:
    """One event in one HTTP chunk, with the fields and the size of a vLLM chunk."""
    head = '"id":"chatcmpl-bf49c14eb0f9b89e","object":"chat.completion.chunk","created":1795452942,"model":"m"'
    data = f'data: {{{head},"choices":[{choices}]{rest}}}\n\n'
    return f"{len(data):x}\r\n{data}\r\n".encode()


def choice(delta: str, finish_reason: str = "null") -> str:
    return f'{{"index":0,"delta":{{{delta}}},"logprobs":null,"finish_reason":{finish_reason},"token_ids":null}}'


def token(text: str) -> bytes:
    return event(choice(f'"content":{json.dumps(text)}'))


START = event(choice('"role":"assistant","content":""'))
END = (
    event(choice("", '"stop"'))
    + event("", ',"usage":{"prompt_tokens":19,"total_tokens":29,"completion_tokens":10}')
    + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
)
WORDS = [
    token(word) for word in (" the", " proxy", ",", " stream", "ing", '"', "\n\n", " café", " 42", ".", " to", "kens")
]
UNSTAMPED = b"@" * 20
STAMPED = token(" " + UNSTAMPED.decode())


def tokens(count: int) -> Iterator[bytes]:
    """`count` tokens in blocks."""
    block = b"".join(itertools.islice(itertools.cycle(WORDS), BLOCK))
    yield from itertools.repeat(block, count // BLOCK)
    yield b"".join(itertools.islice(itertools.cycle(WORDS), count % BLOCK))


def stream(count: int) -> Iterable[bytes]:
    """A whole answer in blocks; a short one in one write."""
    if count < BLOCK:
        return [HEAD + START + b"".join(tokens(count)) + END]
    return itertools.chain([HEAD + START], tokens(count), [END])


class Connection(asyncio.Protocol):
    """One client's connection: reads a request, streams what its prompt says."""

    def __init__(self, waiting: "dict[Connection, tuple[int, float]]", endless: "set[Connection]") -> None:
        self.waiting = waiting
        self.endless = endless
        self.loop = asyncio.get_running_loop()
        self.timer: asyncio.TimerHandle | None = None
        self.blocks: Iterator[bytes] = iter(())
        self.request = b""
        self.sent = 0
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.waiting.pop(self, None)
        self.endless.discard(self)
        if self.timer:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        self.request += data
        head, blank, body = self.request.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not blank or (length and len(body) < int(length[1])):
            return
        self.request = b""
        if prompt := PROMPT.search(body):
            self.answer(prompt[1], int(prompt[2]), int(prompt[3]) / 1000)
            return
        if head.startswith(b"GET /go "):
            self.go()
        self.state()

    def state(self) -> None:
        streams = [{"sent": stream.sent, "paused": stream.paused} for stream in self.endless]
        body = json.dumps({"object": "list", "data": [], "streams": streams}).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(head % len(body) + body)

    def answer(self, scenario: bytes, count: int, gap: float) -> None:
        if scenario == b"paced":
            self.waiting[self] = count, gap
            self.transport.write(HEAD + START + WORDS[0])
            return
        if scenario == b"endless":
            self.endless.add(self)
            count = sys.maxsize
        self.blocks = iter(stream(count))
        self.push()

    def go(self) -> None:
        """Start all paced streams that wait, spread evenly over the gap."""
        now = self.loop.time()
        for number, (connection, (count, gap)) in enumerate(self.waiting.items()):
            connection.tick(count, now + gap * (1 + number * GOLDEN % 1), gap)
        self.waiting.clear()

    def tick(self, left: int, due: float, gap: float) -> None:
        """Wait until `due`, send a token, go on with the next: an engine does not wait for slow readers either."""
        self.timer = self.loop.call_at(due, self.send_token, left, due, gap)

    def send_token(self, left: int, due: float, gap: float) -> None:
        if left == 0:
            self.transport.write(END)
            return
        self.transport.write(STAMPED.replace(UNSTAMPED, b"%020d" % time.monotonic_ns()))
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
    waiting: dict[Connection, tuple[int, float]] = {}
    endless: set[Connection] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(waiting, endless), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
