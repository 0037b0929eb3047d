"""Which upstream of a pool: one pure function per policy, over members that are prepared once.

A policy gives every member once, in order of preference: the first is the choice, the next ones are where a retry goes.
The caller walks it and skips those that are unavailable, full or tried already.
"""

from bisect import bisect
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate
from math import inf, log
from struct import Struct
from typing import Generic, Protocol, TypeVar

BOUND = 1.25
"""How many times its fair share of the load a member may have before affinity passes it over."""

_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 times the golden ratio: its multiples lie more evenly in a circle than any other's
_LANE = 12  # bytes: a 64-bit seed times a 32-bit key
_SCORE = ((1 << 62) - 1).to_bytes(_LANE, "little")  # of a lane: 30 bits to compare, and what lies below them
_TOP = log(1 << 30)
_NEVER = 1e300  # what a score below all others is multiplied with
_FEW = 3  # places found one by one, as few walks go further: sorting 100 takes as long


class Member(Protocol):
    """An upstream as policies see it.

    name: its identity, unique in the pool; affinity hashes it. weight: over 0. load: requests under way.
    """

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def load(self) -> int: ...


M = TypeVar("M", bound=Member)


class Members(Generic[M]):
    """The members of a pool, at least one, and what policies need to know of them.

    count: choices made so far. load: requests under way in the whole pool. The caller keeps both.
    """

    __slots__ = (
        "_inverse",
        "_lanes",
        "_mask",
        "_unpack",
        "count",
        "even",
        "everyone",
        "load",
        "shares",
        "sums",
        "weights",
    )

    def __init__(self, everyone: Sequence[M]) -> None:
        self.everyone = tuple(everyone)
        self.count = 0
        self.load = 0
        seeds = [blake2b(member.name.encode(), digest_size=8).digest() for member in everyone]
        self._lanes = int.from_bytes(b"".join(seed.ljust(_LANE, b"\0") for seed in seeds), "little")
        self._unpack = Struct("<" + "4xI4x" * len(seeds)).unpack
        self.weigh(None)

    def weigh(self, shares: Sequence[float] | None) -> None:
        """Take effect of the members' shares, 0 (unavailable) to 1, None for all 1; to be called when they change.

        Those with share 0 are given last. With all at 0 it is as if all had 1: somebody has to be tried.
        """
        self.shares = shares if shares and any(shares) else None
        self.weights = [member.weight for member in self.everyone]
        if self.shares:
            self.weights = [weight * share for weight, share in zip(self.weights, self.shares, strict=True)]
        self.sums = list(accumulate(self.weights))
        self.even = len(set(self.weights) - {0.0}) == 1
        self._inverse = [1 / weight if weight else _NEVER for weight in self.weights]
        lanes = b"".join(_SCORE if weight else bytes(_LANE) for weight in self.weights)
        self._mask = int.from_bytes(lanes, "little")

    def at(self, point: float) -> int:
        """The index of the member at this point of [0, 1), each being as wide as its weight."""
        return bisect(self.sums, point * self.sums[-1], hi=len(self.sums) - 1)

    def scores(self, key: int) -> Sequence[float]:
        """One a member, the highest is the key's: rendezvous hashing.

        Each score is a multiply-shift hash of the key, by the member's own multiplier. One product of two big integers
        makes all of them: 3 us for 100 members, where a loop over the members takes 10.
        """
        product = self._lanes * (key & 0xFFFFFFFF | 1) & self._mask
        words = self._unpack(product.to_bytes(_LANE * len(self.everyone), "little"))
        if self.even:
            return words
        return [(log(word + 0.5) - _TOP) * inverse for word, inverse in zip(words, self._inverse, strict=True)]

    def ranked(self, key: int) -> Iterator[M]:
        """All of them, by their scores."""
        scores = list(self.scores(key))
        for _ in scores[:_FEW]:
            best = scores.index(max(scores))
            yield self.everyone[best]
            scores[best] = -inf
        order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
        yield from (self.everyone[index] for index in order if scores[index] != -inf)


class Policy(Protocol):
    """key: of affinity_key. random: in [0, 1)."""

    def __call__(self, members: Members[M], key: int, random: float) -> Iterator[M]: ...


def affinity_key(text: str | bytes) -> int:
    """64 bits, the same in every process and on every machine."""
    data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


def round_robin(members: Members[M], key: int, random: float) -> Iterator[M]:
    """In turn, whatever the weights."""
    if members.shares is None:
        return _turns(members)
    return _smooth(members, list(accumulate(members.shares)))


def weighted(members: Members[M], key: int, random: float) -> Iterator[M]:
    """In turn, by weight, and the turns of one member lie apart as evenly as they can."""
    return _turns(members) if members.even and members.shares is None else _smooth(members, members.sums)


def least_loaded(members: Members[M], key: int, random: float) -> Iterator[M]:
    """The less loaded of two at random (power of two choices), by requests under way over weight."""
    everyone, weights, sums = members.everyone, members.weights, members.sums
    one = members.at(random)
    # 53 random bits are two draws; the second falls anywhere but on the first one's width.
    beyond = sums[one] + (random * (1 << 26) % 1.0) * (sums[-1] - weights[one])
    other = members.at(beyond / sums[-1] % 1.0)
    # Products, as a weight may be 0 here.
    first = one if (everyone[one].load + 1) * weights[other] <= (everyone[other].load + 1) * weights[one] else other
    yield everyone[first]
    # Equals in an order that depends on the draw: an idle pool would send all its retries to one member.
    rest = [*range(first + 1, len(everyone)), *range(first)]
    for index in sorted(rest, key=lambda at: (everyone[at].load + 1) / weights[at] if weights[at] else inf):
        yield everyone[index]


def affinity(members: Members[M], key: int, random: float, bound: float = BOUND) -> Iterator[M]:
    """The key's own member: weighted rendezvous hashing with bounded load.

    A member with more than 1 + `bound` times its fair share of the load is passed over for the next in the key's order;
    the 1 lets a quiet pool keep two requests of a key together. An added or lost member moves only its own keys.
    """
    passed = []
    for member in members.ranked(key):
        if member.load <= bound * (members.load + 1) * member.weight / members.sums[-1] + 1:
            yield member
        else:
            passed.append(member)
    yield from passed


def _turns(members: Members[M]) -> Iterator[M]:
    """Round and round; a retry goes to another neighbour in each round, so that all share a lost one's turns."""
    everyone = members.everyone
    size = len(everyone)
    rounds, first = divmod(members.count, size)
    yield everyone[first]
    for step in range(size - 1):
        yield everyone[(first + 1 + (rounds + step) % (size - 1)) % size]


def _smooth(members: Members[M], sums: list[float]) -> Iterator[M]:
    """sums: running, of the members' widths. The counts are multiples of the golden ratio on a circle of all widths."""
    count = members.count
    point = (count * _GOLDEN & (1 << 64) - 1) / (1 << 64)
    first = members.everyone[bisect(sums, point * sums[-1], hi=len(sums) - 1)]
    yield first
    for member in members.ranked(affinity_key(b"%d" % count)):
        if member is not first:
            yield member


POLICIES: dict[str, Policy] = {
    "round_robin": round_robin,
    "weighted": weighted,
    "least_loaded": least_loaded,
    "affinity": affinity,
}
"""By their names in the YAML."""
