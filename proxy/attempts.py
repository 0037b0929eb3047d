"""Which upstream is asked, and which one next when it fails.

    async for attempt in Attempts(pools, ...):
        with attempt:
            ... attempt.ask(turn); set attempt.spoke with the first delta ...
            break

Going round again is the next try; when there is none, the last failure is raised. A try of an upstream that has not
been asked yet comes at once, another one of the same upstream after a pause.
"""

import asyncio
import logging
import random
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import NoReturn, Self

from msgspec import Struct

from proxy.core.retry import Backoff
from proxy.core.turn import Turn
from proxy.errors import Broken, Busy, Failed, Overloaded, ProxyError, Refused, Unreachable, UpstreamError
from proxy.metrics import Metrics, Outcome
from proxy.pools import Choice, Member, Pool, State, place_at
from proxy.trace import Trace
from proxy.upstream import Deltas, Upstream

log = logging.getLogger(__name__)

LONGEST_PAUSE = 60  # seconds for which an upstream's Retry-After keeps it from being chosen


class Retries(Struct, frozen=True):
    """attempts: for one request, the first included. backoff: between two at the same upstream."""

    attempts: int
    backoff: Backoff


class Attempts:
    """The tries for one request.

    pools: in the order in which they are asked. key: what requests of one conversation have in common, or None.
    long_context: asked instead when the prompt is too long for the others.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        trace: Trace,
        retries: Retries,
        metrics: Metrics,
        key: int | None,
        long_context: Pool | None = None,
    ) -> None:
        self.trace = trace
        self.metrics = metrics
        self.now = time.monotonic
        self._key = key
        self._retries = retries
        self._long_context = long_context
        self._pools = pools
        self._home = pools[0]
        self._choices: list[Choice] = []  # of the first pools: mostly one is enough
        self._tried: set[State] = set()  # not to be asked now
        self._again: dict[State, float] = {}  # when those that may be asked once more have had their pause
        self._asked: set[Pool] = set()
        self._sent: set[Pool] = set()  # where one more try is a retry, which takes from the pool's budget
        self._counted = 0
        self._pauses = 0
        self._error: ProxyError | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> "Attempt":
        if self._error is not None and self._counted >= self._retries.attempts:
            self._give_up()
        pool, member = self._free() or await self._waited() or await self._once_more()
        self._note(pool, member)
        return Attempt(self, pool, member)

    def _free(self) -> tuple[Pool, Member] | None:
        """An available upstream that has a place, which is taken; when none is available, any that has one."""
        now = self.now()
        for healthy in (True, False):
            full = False
            for pool, member in self._open(now, healthy=healthy):
                if not member.state.full:
                    member.state.enter()
                    return pool, member
                full = True
            if full:
                break  # one of these will have a place
        return None

    async def _waited(self) -> tuple[Pool, Member] | None:
        """The first upstream that has a place again. Raises Busy if waiting was all there was to do."""
        now = self.now()
        places: dict[State, tuple[Pool, Member]] = {}
        for pool, member in list(self._open(now, healthy=True)) or list(self._open(now, healthy=False)):
            places.setdefault(member.state, (pool, member))
        if not places:
            return None
        try:
            return places[await place_at(list(places), self.trace.key)]
        except Busy:
            if self._error is not None:
                return None
            self.metrics.limited("waiting")
            raise

    async def _once_more(self) -> tuple[Pool, Member]:
        """One that has failed, after a pause. Raises the last failure when none may be asked again."""
        self._counted = max(self._counted, 1)
        self._pauses += 1
        while self._again and self._counted < self._retries.attempts:
            now = self.now()
            if not any(self._may(pool, now) for pool in self._pools):
                break
            due = min(self._again.values())
            await asyncio.sleep(due - now)
            rested = {state for state, at in self._again.items() if at <= due}
            self._tried -= rested
            for state in rested:
                del self._again[state]
            if place := self._free() or await self._waited():
                return place
        return self._give_up()

    def _give_up(self) -> NoReturn:
        """Raise the last failure, and keep nothing of it: what refers to itself stays until the collector comes."""
        error, self._error = self._error, None
        assert error is not None
        try:
            raise error
        finally:
            del error

    def _open(self, now: float, *, healthy: bool) -> Iterator[tuple[Pool, Member]]:
        """Those that may be asked now, in order. healthy: only those that are available."""
        for index, pool in enumerate(self._pools):
            if not self._may(pool, now):
                continue
            if index == len(self._choices):
                self._choices.append(pool.choose(self._key))
            for member in self._choices[index].order(now):
                if member.state not in self._tried and (not healthy or member.state.available(now)):
                    yield pool, member

    def _may(self, pool: Pool, now: float) -> bool:
        """Whether the pool's budget allows a try. Its first is no retry, nor is one after a refused connection."""
        return pool not in self._sent or pool.budget.allows(now)

    def _note(self, pool: Pool, member: Member) -> None:
        """This one is asked now."""
        trace = self.trace
        if self._error is not None:
            log.warning("%s: asking upstream %s, after: %s", trace.id, member.name, self._error)
        if pool in self._asked:
            self.metrics.retry(pool.name)
        else:
            self._asked.add(pool)
            pool.budget.request(self.now())
            if pool is not self._home:
                self.metrics.fallback(trace.route)
        if pool in self._sent:
            self._sent.remove(pool)
            pool.budget.retry(self.now())
        self._tried.add(member.state)
        trace.pool, trace.upstream, trace.attempts = pool.name, member.name, trace.attempts + 1

    def failed(self, pool: Pool, state: State, error: UpstreamError) -> None:
        """A try has failed before it spoke."""
        self._error = error.with_traceback(None)
        sent = not isinstance(error, Unreachable) or error.status != 503
        if sent:
            self._sent.add(pool)
        self._counted += sent or self._pauses > 0
        asked = error.asked if isinstance(error, Overloaded) else None
        delay = self._retries.backoff.delay(self._pauses, random.random(), asked)  # noqa: S311 - no secret
        if error.here and delay is not None:
            self._again[state] = self.now() + delay

    def too_long(self, error: ProxyError) -> bool:
        """The prompt does not fit. True: a pool with a larger window is asked next."""
        if self._long_context is None:
            return False
        self._pools, self._long_context, self._choices = [self._long_context], None, []
        self._tried.clear()
        self._again.clear()
        self._error = error.with_traceback(None)
        return True


class Attempt:
    """One try, from choosing an upstream to the end of its answer. spoke: something of it has reached the client."""

    __slots__ = ("_attempts", "_member", "_pool", "_span", "spoke")

    def __init__(self, attempts: Attempts, pool: Pool, member: Member) -> None:
        self._attempts = attempts
        self._pool = pool
        self._member = member
        self.spoke = False
        trace, endpoint = attempts.trace, member.upstream.endpoint
        self._span = trace.span.attempt(member.name, endpoint.url, endpoint.product, trace.upstream_model)
        trace.context = self._span.headers

    @property
    def upstream(self) -> Upstream:
        return self._member.upstream

    def ask(self, turn: Turn) -> Deltas:
        """The deltas of the upstream's answer."""
        return self._member.upstream.ask(turn, self._attempts.trace)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Keeps a failure to itself when another try may follow."""
        attempts, state = self._attempts, self._member.state
        state.leave()
        outcome = _outcome(error)
        attempts.metrics.attempt(attempts.trace.route, self._pool.name, self._member.name, outcome)
        self._span.end(outcome)
        if error is None:
            state.health.succeeded(attempts.now())
        if isinstance(error, UpstreamError):
            self._blame(error)
            if not self.spoke:
                attempts.failed(self._pool, state, error)
            return not self.spoke
        if isinstance(error, ProxyError) and error.code == "context_length_exceeded" and not self.spoke:
            return attempts.too_long(error)
        return False

    def _blame(self, error: UpstreamError) -> None:
        """What the failure says of the upstream."""
        if isinstance(error, Unreachable) and error.ours:
            return
        state, now = self._member.state, self._attempts.now()
        limited = isinstance(error, Overloaded) and error.status == 429
        if self.upstream.endpoint.pass_key and (limited or isinstance(error, Refused)):
            return  # that is about the client's own key
        if not limited:
            state.failed(now, error.message)
        if isinstance(error, Overloaded) and error.asked is not None:
            state.pause(now + min(error.asked, LONGEST_PAUSE))


def _outcome(error: BaseException | None) -> Outcome:
    match error:
        case None:
            return "ok"
        case Unreachable():
            return "unreachable"
        case Overloaded():
            return "overloaded"
        case Failed():
            return "failed"
        case Broken():
            return "broken"
        case ProxyError():
            return "refused"
    return "cancelled"
