"""Timers that hardly cost anything when they do not go off, which is nearly always.

To set and cancel a timer of the loop takes 1.7 us, asyncio.timeout 5 us: objects, a heap, accounts of what was
cancelled. Timers of one length go off in the order in which they were set, so that a dict in that order, with one timer
of the loop at its head, serves all of them: 0.7 us.
"""

import asyncio
from collections.abc import Callable

from msgspec import Struct

_series: "dict[float, Series]" = {}  # of the running loop, by length


def _nothing() -> None: ...


class Timer(Struct, eq=False):
    """One call that is due. It stands in its series until it has gone off or is cancelled."""

    series: "Series"
    due: float
    call: Callable[[], object]

    def cancel(self) -> None:
        self.series.waiting.pop(self, None)
        self.call = _nothing  # who keeps the timer is mostly who is called: a circle


class Series:
    """All timers of one length, the next one first."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waiting: dict[Timer, None] = {}
        self.armed = False

    def arm(self, due: float) -> None:
        self.armed = True
        self.loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self.armed = False
        now, due = self.loop.time(), []
        for timer in self.waiting:
            if timer.due > now:
                self.arm(timer.due)
                break
            due.append(timer)
        for timer in due:
            if timer in self.waiting:  # one call may cancel another
                del self.waiting[timer]
                timer.call()


def after(delay: float, call: Callable[[], object], loop: asyncio.AbstractEventLoop | None = None) -> Timer:
    """Make this call in `delay` seconds, one of few different lengths; it must not raise.

    loop: the running one, from who has it at hand: Python 3.11 makes a system call to find it.
    """
    loop = loop or asyncio.get_running_loop()
    series = _series.get(delay)
    if series is None or series.loop is not loop:
        series = _series[delay] = Series(loop)
    timer = Timer(series, loop.time() + delay, call)
    series.waiting[timer] = None
    if not series.armed:
        series.arm(timer.due)
    return timer
