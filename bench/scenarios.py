"""What is done to a target, and the figures that come of it."""

import asyncio
import json
import socket
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import chain

from bench.client import Connection, WrongStreamError
from bench.targets import Process

Figures = dict[str, float]
GAP = 20
"""ms between the tokens of a paced stream."""
PATIENCE = 20
"""Seconds until all streams must have begun, or must stand still."""
GRACE = 1
"""Seconds after the last token within which it must have arrived to count as delivered."""


@dataclass(frozen=True)
class Load:
    """How much is asked of a target."""

    upstream: int
    """Its port."""
    rounds: int = 7
    burst_streams: int = 16
    burst_tokens: int = 4000
    paced_streams: int = 200
    paced_tokens: int = 250
    capacity_streams: int = 350
    requests: int = 2000
    concurrency: int = 16
    idle_streams: int = 1000
    stalled_streams: int = 50


def quick(upstream: int) -> Load:
    return Load(upstream, rounds=3, burst_tokens=2000, paced_tokens=100, requests=600, idle_streams=300)


@asynccontextmanager
async def connections(process: Process, count: int) -> AsyncIterator[list[Connection]]:
    opened = await asyncio.gather(*(Connection.open(process.api, process.port) for _ in range(count)))
    try:
        yield opened
    finally:
        for connection in opened:
            connection.close()
        await process.quiet()


async def one_by_one(connection: Connection, count: int) -> None:
    for _ in range(count):
        await connection.stream(1, "bench burst 1 0")


async def request(process: Process, load: Load) -> Figures:
    """One-token requests on open connections: half of them one after the other, half of them concurrently."""
    each = max(1, round(load.requests * process.scale / 2 / load.concurrency))
    async with connections(process, load.concurrency) as opened:
        before = process.cpu()
        await one_by_one(opened[0], each * load.concurrency)
        await asyncio.gather(*(one_by_one(connection, each) for connection in opened))
        return {"request_cpu": (process.cpu() - before) / (2 * each * load.concurrency)}


async def routing(process: Process, load: Load) -> Figures:
    """One-token requests, each of another conversation, one by one, once there are connections to all upstreams."""
    count = load.requests // 2
    async with connections(process, 1) as opened:
        await ask_anew(opened[0], count // 2, "beginner")
        before = process.cpu()
        await ask_anew(opened[0], count, "conversation")
        return {"routing_cpu": (process.cpu() - before) / count}


async def ask_anew(connection: Connection, count: int, name: str) -> None:
    for number in range(count):
        await connection.stream(1, f"bench burst 1 0: {name} {number}")


async def burst(process: Process, load: Load) -> Figures:
    """Some streams whose tokens come as fast as they are taken."""
    tokens = load.burst_tokens
    streams = max(1, round(load.burst_streams * process.scale))
    async with connections(process, streams) as opened:
        before = process.cpu()
        await asyncio.gather(*(connection.stream(tokens, f"bench burst {tokens} 0") for connection in opened))
        return {"burst_cpu": (process.cpu() - before) / (tokens * streams)}


async def paced(process: Process, load: Load) -> Figures:
    """Many streams at the pace of an engine."""
    figures = await run_paced(process, load, load.paced_streams)
    return {f"paced_{name}": value for name, value in figures.items()}


async def capacity(process: Process, load: Load) -> Figures:
    """As many paced streams as one core must carry."""
    figures = await run_paced(process, load, load.capacity_streams)
    return {"capacity_delivered": figures["delivered"]}


async def run_paced(process: Process, load: Load, streams: int) -> Figures:
    async with waiting(process, streams, load.paced_tokens) as opened:
        before = process.cpu()
        ask(load.upstream, "/go")
        await asyncio.sleep(load.paced_tokens * GAP / 1000)
        cpu, seen = process.cpu() - before, sum(connection.deltas - 1 for connection in opened)
        await asyncio.wait([connection.finished for connection in opened], timeout=GRACE)
        delivered = sum(connection.deltas - 1 for connection in opened)
        for connection in opened:
            connection.raise_failure()
            if connection.finished.done():
                connection.check(load.paced_tokens + 1)
        latencies = sorted(chain.from_iterable(connection.latencies for connection in opened)) or [0]
        return {
            "cpu": cpu / max(seen, 1),
            "delivered": 100 * delivered / (streams * load.paced_tokens),
            "p50": latencies[len(latencies) // 2] / 1e6,
            "p99": latencies[len(latencies) * 99 // 100] / 1e6,
        }


@asynccontextmanager
async def waiting(process: Process, count: int, tokens: int) -> AsyncIterator[list[Connection]]:
    """Paced streams that have had their first token and wait for /go."""
    async with connections(process, count) as opened:
        for connection in opened:
            connection.send(f"bench paced {tokens} {GAP}")
        end = time.monotonic() + PATIENCE
        while (begun := sum(connection.deltas for connection in opened)) < count:
            for connection in opened:
                connection.raise_failure()
            if time.monotonic() > end:
                raise WrongStreamError(f"only {begun} of {count} streams have their first token")
            await process.quiet()
        yield opened


async def memory(process: Process, load: Load) -> Figures:
    """Streams that have begun and then say nothing."""
    await request(process, load)
    count = round(load.idle_streams * process.scale)
    before = process.rss()
    async with waiting(process, count, 1):
        return {"stream_memory": (process.rss() - before) / count}


async def stalled(process: Process, load: Load) -> Figures:
    """Clients that never read in front of an endless upstream: the peak of memory, the upstreams that stand still."""
    await request(process, load)
    before = peak = process.rss()
    with ExitStack() as clients:
        for _ in range(load.stalled_streams):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", process.port)))
            client.sendall(process.api.request("bench endless 0 0"))
        end = time.monotonic() + PATIENCE
        last: list[int] = []
        still = 0
        while (len(last) < load.stalled_streams or still < len(last)) and time.monotonic() < end:
            await asyncio.sleep(1)
            peak = max(peak, process.rss())
            sent = sorted(stream["sent"] for stream in ask(load.upstream, "/") if stream["paused"])
            still = sum((Counter(sent) & Counter(last)).values())
            last = sent
        return {"stalled_memory": (peak - before) / 1000, "stalled_streams": still}


def ask(upstream: int, path: str) -> list[dict[str, int]]:
    """The state of the upstream's endless streams: bytes sent, and whether it waits for the reader."""
    with urllib.request.urlopen(f"http://127.0.0.1:{upstream}{path}") as answer:
        streams: list[dict[str, int]] = json.load(answer)["streams"]
        return streams


Scenario = Callable[[Process, Load], Awaitable[Figures]]
SCENARIOS: dict[str, Scenario] = {
    "burst": burst,
    "paced": paced,
    "capacity": capacity,
    "request": request,
    "memory": memory,
    "stalled": stalled,
    "routing": routing,
}
FRESH = {"memory", "stalled"}
"""These need a process that has not grown yet."""
STEADY = {"capacity", "memory", "stalled"}
"""Three rounds of these are enough."""
FINE = {"routing"}
"""Three times as many: small differences are looked for."""
