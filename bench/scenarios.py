"""What is done to a target, and the figures that come of it."""

import asyncio
import json
import socket
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import chain

from bench.client import Connection
from bench.targets import Process

Figures = dict[str, float]
GAP = 20
"""ms between the tokens of a paced stream."""
SETTLE = 0.5
"""Seconds at the start of a paced run that do not count: connections and first events."""
GRACE = 1.2
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
            connection.transport.abort()
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


async def burst(process: Process, load: Load) -> Figures:
    """Some streams whose tokens come as fast as they are taken."""
    tokens = round(load.burst_tokens * process.scale)
    async with connections(process, load.burst_streams) as opened:
        before = process.cpu()
        await asyncio.gather(*(connection.stream(tokens, f"bench burst {tokens} 0") for connection in opened))
        return {"burst_cpu": (process.cpu() - before) / (tokens * load.burst_streams)}


async def paced(process: Process, load: Load) -> Figures:
    """Many streams at the pace of an engine."""
    figures = await run_paced(process, load.paced_streams, load.paced_tokens)
    return {f"paced_{name}": value for name, value in figures.items()}


async def capacity(process: Process, load: Load) -> Figures:
    """As many paced streams as one core must carry."""
    figures = await run_paced(process, load.capacity_streams, load.paced_tokens)
    return {"capacity_delivered": figures["delivered"]}


async def run_paced(process: Process, streams: int, tokens: int) -> Figures:
    async with connections(process, streams) as opened:
        finished = [connection.send(f"bench paced {tokens} {GAP}") for connection in opened]
        await asyncio.sleep(SETTLE)
        for connection in opened:
            connection.latencies.clear()
        cpu, seen = process.cpu(), sum(connection.deltas for connection in opened)
        await asyncio.sleep(tokens * GAP / 1000 - 2 * SETTLE)
        cpu, seen = process.cpu() - cpu, sum(connection.deltas for connection in opened) - seen
        await asyncio.wait(finished, timeout=SETTLE + GRACE)
        delivered = sum(connection.deltas for connection in opened)
        for connection, future in zip(opened, finished, strict=True):
            if not future.cancel():
                future.result()
                connection.check(tokens)
        latencies = sorted(chain.from_iterable(connection.latencies for connection in opened)) or [0]
        return {
            "cpu": cpu / max(seen, 1),
            "delivered": 100 * delivered / (streams * tokens),
            "p50": latencies[len(latencies) // 2] / 1e6,
            "p99": latencies[len(latencies) * 99 // 100] / 1e6,
        }


async def memory(process: Process, load: Load) -> Figures:
    """Streams that have begun and then say nothing."""
    await request(process, load)
    count = round(load.idle_streams * max(process.scale, 0.1))
    before = process.rss()
    async with connections(process, count) as opened:
        for connection in opened:
            connection.send("bench idle 1 0")
        async with asyncio.timeout(60):
            while any(connection.deltas != 1 for connection in opened):
                await asyncio.sleep(0.1)
        await process.quiet()
        return {"stream_memory": (process.rss() - before) / count}


async def stalled(process: Process, load: Load) -> Figures:
    """Clients that never read in front of an upstream that never ends: memory at its highest, and how many upstream connections stand still."""
    await request(process, load)
    before = peak = process.rss()
    with ExitStack() as clients:
        for _ in range(load.stalled_streams):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", process.port)))
            client.sendall(process.api.request("bench endless 1 0"))
        end = time.monotonic() + 20
        sent, still = -1, 0.0
        while still < 2 and time.monotonic() < end:
            await asyncio.sleep(0.25)
            peak = max(peak, process.rss())
            paused, now = endless(load.upstream)
            still = still + 0.25 if paused == load.stalled_streams and now == sent else 0
            sent = now
        return {"stalled_memory": (peak - before) / 1000, "stalled_streams": paused if still else 0}


def endless(upstream: int) -> tuple[int, int]:
    """The upstream's open streams that wait for a reader, and the bytes that all have sent."""
    with urllib.request.urlopen(f"http://127.0.0.1:{upstream}/") as answer:
        streams = json.load(answer)["streams"]
    return sum(stream["paused"] for stream in streams), sum(stream["sent"] for stream in streams)


Scenario = Callable[[Process, Load], Awaitable[Figures]]
SCENARIOS: dict[str, Scenario] = {
    "burst": burst,
    "paced": paced,
    "capacity": capacity,
    "request": request,
    "memory": memory,
    "stalled": stalled,
}
FRESH = {"memory", "stalled"}
"""These need a process that has not grown yet."""
