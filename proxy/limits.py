"""What each key may use: requests and tokens a minute, requests under way. Counted here per process."""

import time
from collections.abc import Callable, Iterable
from math import ceil
from typing import Protocol

from proxy.core.limits import Bucket, duration
from proxy.errors import KeyLimit, RateLimited
from proxy.keys import Grant

_SOON = 1.0
"""Seconds; nobody knows when one of the requests under way will end."""


class Admission(Protocol):
    """One request that may go on."""

    def headers(self) -> dict[str, str]:
        """The x-ratelimit headers as of now, of what is limited (RESPONSES.md 7.5)."""

    async def done(self, tokens: int) -> None:
        """To be awaited exactly once, however the request ended. tokens: used by it, input and output."""


class Limits(Protocol):
    """Counts what keys use. No key's use touches another's."""

    async def admit(self, grant: Grant) -> Admission:
        """Count a request that begins. Raises RateLimited; then nothing was counted."""

    def keep(self, grants: Iterable[Grant]) -> None:
        """A new configuration: counts go on under its limits.

        Those of keys that are gone are forgotten once they would be as new: such a key may come back.
        """


class MemoryLimits:
    """Limits within this process. clock: in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._uses: dict[str, _Use] = {}  # by the hash of the key

    async def admit(self, grant: Grant) -> Admission:
        use = self._uses.get(grant.hash)
        if use is None:
            use = self._uses[grant.hash] = _Use(self._clock, grant)
        use.begin()
        return use

    def keep(self, grants: Iterable[Grant]) -> None:
        given = {grant.hash: grant for grant in grants}
        self._uses = {key: use for key, use in self._uses.items() if key in given or not use.is_as_new()}
        for key in given.keys() & self._uses:
            self._uses[key].change(given[key])


class _Use:
    """What one key has used, and the admission of each of its requests: all that one of these knows is its key."""

    def __init__(self, clock: Callable[[], float], grant: Grant) -> None:
        self._clock = clock
        self._grant = grant
        self._under_way = 0
        self._requests = _refitted(None, grant.requests_per_minute, 0)
        self._tokens = _refitted(None, grant.tokens_per_minute, 0)

    def change(self, grant: Grant) -> None:
        now = self._clock()
        self._grant = grant
        self._requests = _refitted(self._requests, grant.requests_per_minute, now)
        self._tokens = _refitted(self._tokens, grant.tokens_per_minute, now)

    def is_as_new(self) -> bool:
        """Whether nothing is under way, and each bucket is full again."""
        now = self._clock()
        return not self._under_way and not any(each and each.reset(now) for each in (self._requests, self._tokens))

    def begin(self) -> None:
        streams, now = self._grant.streams, self._clock()
        if streams is not None and self._under_way >= streams:
            raise self._refusal("streams", f"{streams} requests may be under way at a time", _SOON)
        if self._tokens and (wait := self._tokens.wait(now, 1)):
            raise self._refusal("tokens", f"{self._tokens.per_minute} tokens a minute", wait)
        if self._requests and not self._requests.take(now):
            rate = self._requests.per_minute
            raise self._refusal("requests", f"{rate} requests a minute", self._requests.wait(now))
        self._under_way += 1

    def headers(self) -> dict[str, str]:
        now = self._clock()
        headers = {}
        for kind, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket:
                headers[f"x-ratelimit-limit-{kind}"] = str(bucket.per_minute)
                headers[f"x-ratelimit-remaining-{kind}"] = str(bucket.remaining(now))
                headers[f"x-ratelimit-reset-{kind}"] = duration(bucket.reset(now))
        return headers

    async def done(self, tokens: int) -> None:
        self._under_way -= 1
        if self._tokens:
            self._tokens.charge(self._clock(), tokens)

    def _refusal(self, limit: KeyLimit, what: str, wait: float) -> RateLimited:
        message = f"Rate limit reached for the key {self._grant.name!r}: {what}."
        return RateLimited(message, limit, wait, self.headers())


def _refitted(bucket: Bucket | None, per_minute: int | None, now: float) -> Bucket | None:
    """A bucket of this size, as full, or as deep in debt, as the old one; without an old one it is full."""
    if per_minute is None or (bucket and bucket.per_minute == per_minute):
        return bucket if per_minute else None
    made = Bucket(per_minute)
    if bucket:
        made.charge(now, ceil(bucket.reset(now) / 60 * per_minute))
    return made
