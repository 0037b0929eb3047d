"""The upstreams of a pool, and what is known of each: its health, what it has to do, who waits for it."""

import asyncio
import logging
import random
from collections.abc import Iterator, Sequence
from math import inf
from typing import Any
from weakref import WeakSet

from msgspec import Struct

from proxy.core.balance import Members, Policy
from proxy.core.health import Health
from proxy.core.line import Line
from proxy.core.retry import Budget
from proxy.errors import Busy
from proxy.upstream import Upstream

log = logging.getLogger(__name__)

LOOK = 0.5  # seconds between two looks at shares that grow


class Check(Struct, frozen=True):
    """An active health check. See config.Check."""

    path: str
    interval: float
    timeout: float
    status: tuple[int, ...]
    rise: int
    fall: int


class Terms(Struct, frozen=True):
    """How much an upstream gets, and when it is passed over. See config.Upstream and config.Health; in seconds."""

    max_requests: int | None = None
    line: int = 100
    patience: float = 30
    max_fails: int = 3
    fail_duration: float = 30
    slow_start: float = 10
    check: Check | None = None


class State:
    """One upstream, whoever asks it: a reload that leaves its address and its terms alone leaves this alone.

    load: requests under way.
    """

    def __init__(self, name: str, terms: Terms, address: str = "") -> None:
        self.name = name
        self.terms = terms
        self.address = address
        self.load = 0
        self.pools: WeakSet[Pool] = WeakSet()  # to be told when its health changes
        check = terms.check
        self.health = Health(
            terms.max_fails,
            terms.fail_duration,
            terms.slow_start,
            rise=check.rise if check else 1,
            fall=check.fall if check else 1,
        )
        self._limit = inf if terms.max_requests is None else terms.max_requests
        self._line: Line[str, Place] = Line(terms.line)
        self._paused_until = -inf

    # -- places

    @property
    def waiting(self) -> int:
        """Requests that wait for a place, here or elsewhere."""
        return len(self._line)

    @property
    def full(self) -> bool:
        return self.load >= self._limit

    def enter(self) -> None:
        """Take a place, which must be free."""
        self.load += 1

    def join(self, key: str, place: "Place") -> bool:
        """Stand in the line; False if there is no room."""
        pushed = self._line.join(key, place)
        if pushed is not None:
            pushed.lost()
        return pushed is not place

    def withdraw(self, key: str, place: "Place") -> None:
        """Stand in the line no more."""
        self._line.leave(key, place)

    def leave(self) -> None:
        """Give a place back, to the next who waits."""
        while (place := self._line.next()) is not None:
            if not place.given.done():
                place.given.set_result(self)
                return
        self.load -= 1

    # -- health

    def available(self, now: float) -> bool:
        """Whether it may be asked, not whether it has a place."""
        return now >= self._paused_until and self.health.available(now)

    def failed(self, now: float, reason: str) -> None:
        """A request failed by its fault."""
        before = self.health.available(now)
        self.health.failed(now, reason)
        self._changed(now, before)

    def checked(self, now: float, reason: str = "") -> None:
        """An active check has ended. reason: why it failed, "" when it passed."""
        before = self.health.available(now)
        self.health.checked(not reason, now, reason)
        self._changed(now, before)

    def pause(self, until: float) -> None:
        """The upstream has asked to be left alone."""
        self._paused_until = max(self._paused_until, until)
        self._tell()

    def share(self, now: float) -> float:
        """Of its weight: see Health.share."""
        return self.health.share(now) if now >= self._paused_until else 0.0

    def settled(self, now: float) -> float:
        """The time at which its share may be another one, if nothing happens."""
        if now < self._paused_until:
            return self._paused_until
        if self.health.available(now):
            return inf if now >= self.health.settled else now + LOOK
        return now + self.health.next_try(now)

    def show(self, now: float) -> dict[str, Any]:
        """For people, as JSON."""
        return {
            "name": self.name,
            "available": self.available(now),
            "health": self.health.state(now),
            "reason": self.health.reason,
            "paused": max(0.0, round(self._paused_until - now, 3)),
            "requests": self.load,
            "max_requests": self.terms.max_requests,
            "waiting": self.waiting,
        }

    def _changed(self, now: float, before: bool) -> None:
        if self.health.available(now) != before:
            reason = f": {self.health.reason}" if before else ""
            log.warning("upstream %s is %s%s", self.name, self.health.state(now), reason)
        self._tell()

    def _tell(self) -> None:
        for pool in self.pools:
            pool.look_at = -inf


class Place:
    """What a request waits for: a place at one of several upstreams, in whose lines it stands.

    given: the upstream whose place it has, or None when it has been pushed out of all lines by other clients.
    """

    __slots__ = ("_lines", "given")

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self.given: asyncio.Future[State | None] = asyncio.get_running_loop().create_future()

    def lost(self) -> None:
        """It stands in one line less."""
        self._lines -= 1
        if not self._lines and not self.given.done():
            self.given.set_result(None)


async def place_at(states: Sequence[State], key: str) -> State:
    """Wait for a place at one of these, and take it; with a free one that is at once.

    key: of the client; keys take turns.
    Raises Busy when there is no room in any line, and when it takes too long.
    """
    for state in states:
        if not state.full:
            state.enter()
            return state
    place = Place(len(states))
    joined = [state for state in states if state.join(key, place)]
    patience = max((state.terms.patience for state in joined), default=0)
    try:
        async with asyncio.timeout(patience):
            given = await place.given
    except TimeoutError:
        if place.given.cancelled() or (given := place.given.result()) is None:
            raise Busy(f"No upstream had a place within {patience:g} s.", 503) from None
    except asyncio.CancelledError:
        if not place.given.cancelled() and (late := place.given.result()) is not None:
            late.leave()
        raise
    finally:
        for state in joined:
            state.withdraw(key, place)
    if given is None:
        names = ", ".join(repr(state.name) for state in states[:3])
        raise Busy(f"Too many requests wait for {names}{' ...' if len(states) > 3 else ''}.", 429)
    return given


class Member:
    """An upstream in a pool."""

    __slots__ = ("name", "state", "upstream", "weight")

    def __init__(self, upstream: Upstream, weight: float, state: State) -> None:
        self.name = upstream.name
        self.upstream = upstream
        self.weight = weight
        self.state = state

    @property
    def load(self) -> int:
        return self.state.load


class Pool:
    """Upstreams that serve the same models. look_at: when the members' shares are to be looked at again."""

    def __init__(self, name: str, members: Sequence[Member], policy: Policy, budget: Budget) -> None:
        self.name = name
        self.budget = budget
        self.members = members
        self.look_at = -inf
        self._policy = policy
        self._balance = Members(members)
        self._count = 0
        self._states = [member.state for member in members]
        for state in self._states:
            state.pools.add(self)

    def choose(self, key: int | None) -> "Choice":
        """The choice for one request. key: what it is like, of core.balance.affinity_key; None: nothing."""
        if len(self.members) == 1:
            return Choice(self, 0, 0, 0.0)
        self._count += 1
        chance = random.random()  # noqa: S311 - no secret
        return Choice(self, self._count, int(chance * 2**64) if key is None else key, chance)

    def order(self, choice: "Choice", now: float) -> Iterator[Member]:
        """Its members, the preferred one first; the same each time for one choice, but for what has changed since.

        Good until the next call.
        """
        if len(self.members) == 1:
            return iter(self.members)
        balance = self._balance
        if now >= self.look_at:
            shares = [state.share(now) for state in self._states]
            balance.weigh(shares if min(shares) < 1 else None)
            self.look_at = min(state.settled(now) for state in self._states)
        balance.count = choice.count
        balance.load = sum([state.load for state in self._states])
        return self._policy(balance, choice.key, choice.random)


class Choice(Struct, frozen=True, gc=False):
    """What the choices of one request in one pool depend on."""

    pool: Pool
    count: int
    key: int
    random: float

    def order(self, now: float) -> Iterator[Member]:
        return self.pool.order(self, now)
