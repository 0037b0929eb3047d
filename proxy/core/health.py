"""Whether an upstream is available: what requests saw (passive), what checks saw (active), how fast it comes back."""

from collections import deque
from math import inf

_START = 0.1
"""The share with which slow start begins: enough to see that it works."""


class Health:
    """One upstream's health.

    Passive, as in nginx: max_fails failures within fail_duration seconds make it unavailable for fail_duration seconds;
    then one more failure is enough until a request succeeds (in Caddy each failure is forgotten by itself). 0: never.
    Active: `fall` failed checks in a row make it unhealthy, until `rise` in a row pass. The two are independent.
    slow_start: seconds from coming back to its full share. reason: of the last failure, "" before the first.
    """

    __slots__ = (
        "_back",
        "_duration",
        "_fails",
        "_fall",
        "_passing",
        "_rise",
        "_slow_start",
        "_streak",
        "_trial",
        "reason",
    )

    def __init__(
        self, max_fails: int, fail_duration: float, slow_start: float, *, rise: int = 1, fall: int = 1
    ) -> None:
        self._fails: deque[float] = deque(maxlen=max_fails)
        self._duration = fail_duration
        self._slow_start = slow_start
        self._rise, self._fall = rise, fall
        self._back = -inf  # when it came back, or will
        self._trial = False  # it was unavailable, and no request has succeeded since
        self._passing = True
        self._streak = 0  # checks in a row that say otherwise
        self.reason = ""

    def failed(self, now: float, reason: str = "") -> None:
        """A request failed by the upstream's fault. One that is out stays so no longer for it: the request is old."""
        self.reason = reason
        fails = self._fails
        if not fails.maxlen or now < self._back:
            return
        fails.append(now)
        if self._trial or (len(fails) == fails.maxlen and now - fails[0] < self._duration):
            self._trial = True
            self._back = now + self._duration

    def succeeded(self, now: float) -> None:
        """A request was answered. Failures within fail_duration still count: an upstream may fail every second time."""
        if self._trial and now >= self._back:
            self._trial = False

    def checked(self, ok: bool, now: float, reason: str = "") -> None:
        """An active check ended."""
        if not ok:
            self.reason = reason
        if ok == self._passing:
            self._streak = 0
            return
        self._streak += 1
        if self._streak >= (self._rise if ok else self._fall):
            self._streak = 0
            self._passing = ok
            if ok:
                self._back = max(self._back, now)

    def available(self, now: float) -> bool:
        return self._passing and now >= self._back

    def share(self, now: float) -> float:
        """Of its weight: 0 while unavailable, growing in slow start, else 1."""
        if not self.available(now):
            return 0.0
        if now >= self.settled:
            return 1.0
        return max(_START, (now - self._back) / self._slow_start)

    @property
    def settled(self) -> float:
        """From when on its share is 1, if nothing happens; infinite while only a check can bring it back."""
        return self._back + self._slow_start if self._passing else inf

    def next_try(self, now: float) -> float:
        """Seconds until it is available, 0 if it is; infinite while only a check can bring it back."""
        return max(0.0, self._back - now) if self._passing else inf

    def state(self, now: float) -> str:
        """In a word, for people."""
        if not self._passing:
            return "unhealthy"
        if now < self._back:
            return "failing"
        return "healthy" if now >= self.settled else "slow start"
