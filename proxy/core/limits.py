"""Requests and tokens a minute, and how their headers say it (RESPONSES.md 7.5)."""

from math import ceil, inf

_MINUTE = 60.0
_GRAIN = 1e-6  # seconds: floats of a monotonic clock are no finer


class Bucket:
    """A token bucket: `per_minute` (over 0) at once, and as many a minute again, drop by drop.

    So any span of t seconds gives at most per_minute * (1 + t / 60). Kept as one number (GCRA): when it will be full.
    """

    __slots__ = ("_cost", "_full_at", "per_minute")

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._cost = _MINUTE / per_minute  # seconds to refill one
        self._full_at = -inf

    def take(self, now: float, n: int = 1) -> bool:
        """Take n if they are there. 0 asks whether there is no debt."""
        if self.wait(now, n):
            return False
        self.charge(now, n)
        return True

    def charge(self, now: float, n: int) -> None:
        """Take n, into debt if need be: what was used is known afterwards. A negative n gives back."""
        self._full_at = max(self._full_at, now) + n * self._cost

    def remaining(self, now: float) -> int:
        """What take would give; 0 in debt."""
        return max(0, int((_MINUTE - self.reset(now) + _GRAIN) / self._cost))

    def reset(self, now: float) -> float:
        """Seconds until it is full."""
        return max(0.0, self._full_at - now)

    def wait(self, now: float, n: int = 1) -> float:
        """Seconds until n are there, 0 if they are; infinite if n is more than it holds."""
        if n > self.per_minute:
            return inf
        missing = self.reset(now) + n * self._cost - _MINUTE
        return missing if missing > _GRAIN else 0.0


def duration(seconds: float) -> str:
    """As OpenAI writes it: 12ms, 1s, 6m0s, 1h2m3s; rounded up, as who comes back too early is refused again."""
    if 0 < seconds <= 0.999:
        return f"{ceil(seconds * 1000)}ms"
    minutes, second = divmod(ceil(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minute}m{second}s"
    return f"{minute}m{second}s" if minute else f"{second}s"
