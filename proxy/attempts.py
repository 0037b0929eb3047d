"""Which upstream is asked, and which one next when it fails.

    async for attempt in Attempts(pools, ...):
        with attempt:
            ... ask attempt.upstream; set attempt.spoke with the first delta ...
            return

Going round again is the next try; when there is none, the last failure is raised. A try of an upstream that has not
been asked yet comes at once, another one of the same upstream after a pause.
"""

import asyncio
import logging
import random
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from msgspec import Struct

from proxy.core.retry import Backoff
from proxy.errors import Broken, Failed, Overloaded, ProxyError, RateLimited, Unreachable, UpstreamError
from proxy.metrics import Metrics, Outcome
from proxy.pools import Choice, Member, Pool
from proxy.trace import Trace
from proxy.upstream import Upstream

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
        self.now = asyncio.get_running_loop().time
        self._key = key
        self._retries = retries
        self._long_context = long_context
        self._pools = pools
        self._choices: list[Choice] | None = None
        self._tried: set[Member] = set()
        self._asked: set[Pool] = set()
        self._counted = 0
        self._rounds = 0  # of all upstreams
        self._error: ProxyError | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> "Attempt":
        error = self._error
        if error is not None and self._counted >= self._retries.attempts:
            raise error
        pool, member = self._free() or await self._waited() or await self._once_more()
        trace = self.trace
        if error is not None:
            log.warning("%s: asking upstream %s, after: %s", trace.id, member.name, error)
            if pool.name == trace.pool:
                self.metrics.retry(pool.name)
            else:
                self.metrics.fallback(trace.route)
        self._asked.add(pool)
        self._tried.add(member)
        trace.pool, trace.upstream, trace.attempts = pool.name, member.name, trace.attempts + 1
        return Attempt(self, pool, member)

    def _free(self) -> tuple[Pool, Member] | None:
        """An available upstream that has a place, which is taken; when none is available, any that has one."""
        now = self.now()
        for healthy in (True, False):
            for pool, member in self._open(now, healthy=healthy):
                if not member.state.full and self._may(pool, now):
                    member.state.enter()
                    return pool, member
            if healthy and any(True for _ in self._open(now, healthy=True)):
                return None  # somebody will have a place
        return None

    def _open(self, now: float, *, healthy: bool) -> Iterator[tuple[Pool, Member]]:
        """The upstreams that have not been tried, in order."""
        for choice in self._begun(now):
            for member in choice.order():
                if member not in self._tried and (not healthy or member.state.available(now)):
                    yield choice.pool, member

    def _begun(self, now: float) -> list[Choice]:
        if self._choices is None:
            self._choices = [pool.begin(now, self._key) for pool in self._pools]
        return self._choices

    def _may(self, pool: Pool, now: float) -> bool:
        """Whether the pool's budget allows this try: its first is no retry, nor is one after a refused connection."""
        return pool not in self._asked or self._unsent() or pool.budget.retry(now)

    def _unsent(self) -> bool:
        """Whether the last failure came before anything had been sent."""
        return isinstance(self._error, Unreachable) and self._error.status == 503

    async def _waited(self) -> tuple[Pool, Member] | None:
        """The first upstream with room in its waiting line, after the wait."""
        full: RateLimited | None = None
        now = self.now()
        for pool, member in list(self._open(now, healthy=True)) or list(self._open(now, healthy=False)):
            if not member.state.full:
                continue  # the budget forbids it
            try:
                await member.state.wait(self.trace.key)
            except RateLimited as error:
                full = full or error
            else:
                return pool, member
        if full is not None:
            raise self._error or full
        return None

    async def _once_more(self) -> tuple[Pool, Member]:
        """After a pause, one that has failed before. Raises the last failure when that makes no sense."""
        error = self._error
        assert error is not None
        asked = error.retry_after if isinstance(error, Overloaded) else None
        delay = self._retries.backoff.delay(self._rounds, random.random(), asked)  # noqa: S311 - no secret
        if delay is None or not _may_be_repeated(error):
            raise error
        self._rounds += 1
        self._counted += self._unsent()
        if self._counted >= self._retries.attempts:
            raise error
        self._tried.clear()
        if not any(pool.budget.retry(self.now()) for pool in self._asked):
            raise error
        self._asked.clear()
        await asyncio.sleep(delay)
        again = self._free() or await self._waited()
        if again is None:
            raise error
        return again

    def failed(self, error: UpstreamError) -> None:
        """A try has failed before it spoke."""
        self._counted += not (isinstance(error, Unreachable) and error.status == 503)
        self._error = error

    def too_long(self, error: ProxyError) -> bool:
        """The prompt does not fit. True: a pool with a larger window is asked next."""
        if self._long_context is None:
            return False
        self._pools, self._long_context, self._choices = [self._long_context], None, None
        self._tried.clear()
        self._counted = 0
        self._error = error
        return True


def _may_be_repeated(error: ProxyError) -> bool:
    """Whether the same upstream may be asked again. What was too slow once is not asked to begin anew."""
    slow = isinstance(error, Unreachable | Broken) and error.status == 504
    return isinstance(error, UpstreamError) and error.here and not slow


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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Keeps a failure to itself when another try may follow."""
        self._member.state.leave()
        trace, metrics = self._attempts.trace, self._attempts.metrics
        outcome = _outcome(error)
        metrics.attempt(trace.route, self._pool.name, self._member.name, outcome)
        self._span.end(outcome)
        now = self._attempts.now()
        if error is None:
            self._member.state.health.succeeded(now)
            return False
        if isinstance(error, UpstreamError):
            self._blame(error, now)
            if not self.spoke:
                self._attempts.failed(error)
            return not self.spoke
        if isinstance(error, ProxyError) and error.code == "context_length_exceeded" and not self.spoke:
            return self._attempts.too_long(error)
        return False

    def _blame(self, error: UpstreamError, now: float) -> None:
        """What the failure says of the upstream."""
        state = self._member.state
        if not isinstance(error, Overloaded) or error.status != 429:
            state.failed(now, error.message)
        elif error.here and error.retry_after is not None:
            state.pause(now + min(error.retry_after, LONGEST_PAUSE))


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
