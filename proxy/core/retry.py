"""When to try again, and how often a pool may: whether a failure is safe to retry is the caller's to say."""

_SLOTS = 10
"""One a second: the window of a retry budget."""


class Backoff:
    """Exponential, with full jitter: between nothing and first, twice first, four times first ... cap; in seconds."""

    __slots__ = ("_cap", "_first")

    def __init__(self, first: float, cap: float) -> None:
        self._first, self._cap = first, cap

    def delay(self, attempt: int, random: float, retry_after: float | None = None) -> float | None:
        """Seconds to wait after failed attempt `attempt`, from 0. random: in [0, 1).

        retry_after: what the upstream asked for, in seconds; it is honoured, and a little more, so that not everybody
        comes back at once. None when it asks for more than the cap: don't try this one again.
        """
        jitter = random * min(self._cap, self._first * 2.0 ** min(attempt, 64))
        if retry_after is None:
            return jitter
        return min(retry_after + jitter, self._cap) if retry_after <= self._cap else None


class Budget:
    """A pool's retry budget: in a window of 10 s at most `ratio` of the requests, and `floor` more for a quiet pool.

    It keeps a failing pool from getting several times its load. The window moves by the second.
    """

    __slots__ = ("_asked", "_floor", "_granted", "_ratio", "_requests", "_retries", "_second")

    def __init__(self, ratio: float, floor: int) -> None:
        self._ratio, self._floor = ratio, floor
        self._requests = [0] * _SLOTS
        self._retries = [0] * _SLOTS
        self._asked = self._granted = 0  # in the window
        self._second = 0

    def request(self, now: float) -> None:
        """A request came, with its first attempt."""
        self._requests[self._slot(now)] += 1
        self._asked += 1

    def allows(self, now: float) -> bool:
        """Whether one more attempt may be made."""
        self._slot(now)
        return self._granted + 1 <= self._ratio * self._asked + self._floor

    def retry(self, now: float) -> bool:
        """Whether one more attempt may be made; it is counted."""
        if not self.allows(now):
            return False
        self._retries[self._slot(now)] += 1
        self._granted += 1
        return True

    def _slot(self, now: float) -> int:
        """The place of this second, after what lies behind the window was forgotten."""
        second = int(now)
        if second != self._second:
            for passed in range(self._second + 1, min(second, self._second + _SLOTS) + 1):
                slot = passed % _SLOTS
                self._asked -= self._requests[slot]
                self._granted -= self._retries[slot]
                self._requests[slot] = self._retries[slot] = 0
            self._second = second
        return second % _SLOTS
