"""Simulate the policies, without a network: how even the load is, how often a conversation finds its upstream again,
what moves when an upstream comes or goes, and what a choice costs. `python -m bench.balance` prints Markdown; seeded.

A million requests to a thousand upstreams of equal weight, of a hundred thousand conversations (Zipf). Requests come
one a tick and hold their upstream for exponentially distributed times, so that ten are under way at each on average.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import accumulate
from math import inf
from random import Random
from statistics import fmean, pstdev
from time import perf_counter

from proxy.core.balance import POLICIES, Members, Policy, affinity, affinity_key

UPSTREAMS, REQUESTS, CONVERSATIONS = 1_000, 1_000_000, 100_000
SKEW = 0.9  # of Zipf: the most frequent conversation makes 2.8% of the requests, 28 times an upstream's share
UNDER_WAY = 10  # requests at an upstream, on average
WARM_UP, SAMPLE = UPSTREAMS * UNDER_WAY * 5, 10_000  # requests before the first sample, and between two
SEED = 1


class Upstream:
    __slots__ = ("load", "name", "weight")

    def __init__(self, number: int) -> None:
        self.name = f"http://10.0.{number // 256}.{number % 256}:8000"
        self.weight = 1.0
        self.load = 0


@dataclass
class Load:
    """Means over the samples; hits: share of the requests that met the upstream of their conversation's last one."""

    most: float
    p99: float
    deviation: float
    hits: float


def pool(size: int) -> Members[Upstream]:
    return Members([Upstream(number) for number in range(size)])


def conversations(random: Random) -> Iterator[int]:
    """Their numbers, the frequent ones low."""
    sums = list(accumulate((number + 1) ** -SKEW for number in range(CONVERSATIONS)))
    for _ in range(REQUESTS // SAMPLE):
        yield from random.choices(range(CONVERSATIONS), cum_weights=sums, k=SAMPLE)


def simulate(policy: Policy, fixed: bool) -> Load:
    """fixed: the choice depends on the key alone, so each key asks once."""
    random, members = Random(SEED), pool(UPSTREAMS)
    keys = [affinity_key(f"conversation {number}") for number in range(CONVERSATIONS)]
    under_way: list[tuple[float, int, Upstream]] = []
    last: dict[int, Upstream] = {}
    hits = 0
    samples = []
    for now, conversation in enumerate(conversations(random)):
        while under_way and under_way[0][0] <= now:
            heappop(under_way)[2].load -= 1
            members.load -= 1
        if fixed and conversation in last:
            chosen = last[conversation]
        else:
            chosen = next(policy(members, keys[conversation], random.random()))
        members.count += 1
        members.load += 1
        chosen.load += 1
        heappush(under_way, (now + random.expovariate(1 / (UPSTREAMS * UNDER_WAY)), now, chosen))
        hits += last.get(conversation) is chosen
        last[conversation] = chosen
        if now >= WARM_UP and now % SAMPLE == 0:
            samples.append(sorted(member.load for member in members.everyone))
    means = [fmean(sample) for sample in samples]
    return Load(
        most=fmean(sample[-1] / mean for sample, mean in zip(samples, means, strict=True)),
        p99=fmean(sample[len(sample) * 99 // 100] / mean for sample, mean in zip(samples, means, strict=True)),
        deviation=fmean(pstdev(sample) / mean for sample, mean in zip(samples, means, strict=True)),
        hits=hits / (REQUESTS - len(last)),
    )


def moved(size: int) -> tuple[float, float, int]:
    """Shares of the keys that move when one upstream is added to `size`, and when one is lost; keys moved in vain."""
    upstreams = [Upstream(number) for number in range(size + 1)]
    before, more, fewer = (Members(some) for some in (upstreams[:-1], upstreams, upstreams[1:-1]))
    came = went = needless = 0
    for number in range(CONVERSATIONS // 5):
        key = affinity_key(f"conversation {number}")
        was, with_more, with_fewer = (next(affinity(each, key, 0)) for each in (before, more, fewer))
        came += with_more is not was
        went += with_fewer is not was
        needless += with_more not in (was, upstreams[-1])
        needless += with_fewer is not was and was is not upstreams[0]
    return came / (CONVERSATIONS // 5), went / (CONVERSATIONS // 5), needless


def cost(policy: Policy, size: int) -> float:
    """Microseconds a choice, the best of five rounds."""
    members, random = pool(size), Random(SEED)
    draws = [(random.getrandbits(64), random.random()) for _ in range(200_000 // (size + 100))]
    best = inf
    for _ in range(5):
        start = perf_counter()
        for key, point in draws:
            next(policy(members, key, point))
            members.count += 1
        best = min(best, (perf_counter() - start) / len(draws))
    return best * 1e6


def main() -> None:
    unbound = "affinity, no bound"
    policies: dict[str, Policy] = {**POLICIES, unbound: partial(affinity, bound=inf)}
    # Affinity first: it takes as long as all others together.
    with ProcessPoolExecutor() as processes:
        loads = {name: processes.submit(simulate, policies[name], name == unbound) for name in sorted(policies)}
        moves = {size: processes.submit(moved, size) for size in (10, 100, UPSTREAMS)}
    print("| policy | max/mean | p99/mean | deviation/mean | same upstream | us at 10 | at 100 | at 1,000 |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name, policy in policies.items():
        load = loads[name].result()
        costs = " | ".join(f"{cost(policy, size):.1f}" for size in (10, 100, 1_000))
        print(f"| {name} | {load.most:.2f} | {load.p99:.2f} | {load.deviation:.2f} | {load.hits:.1%} | {costs} |")
    print("\n| affinity, upstreams | moved by one more | by one less | 1/n | needlessly |")
    print("|---|--:|--:|--:|--:|")
    for size, move in moves.items():
        came, went, needless = move.result()
        print(f"| {size:,} | {came:.2%} | {went:.2%} | {1 / size:.2%} | {needless} |")


if __name__ == "__main__":
    main()
