"""Cheap timers go off in time, in order, and not when they are cancelled."""

import asyncio
from functools import partial

from proxy.timers import Timer, after


async def test_timers_of_all_lengths_go_off_in_the_order_in_which_they_are_due() -> None:
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    heard: list[tuple[float, float]] = []
    began = loop.time()

    def note(delay: float) -> None:
        heard.append((delay, loop.time() - began))

    for delay in (0.03, 0.01, 0.02, 0.01):
        after(delay, partial(note, delay))
    after(0.04, done.set)
    await done.wait()
    assert [delay for delay, _ in heard] == [0.01, 0.01, 0.02, 0.03]
    assert all(passed >= delay for delay, passed in heard)


async def test_a_cancelled_timer_is_silent_and_does_not_hold_up_the_next_ones() -> None:
    heard: list[int] = []
    done = asyncio.Event()
    timers = [after(0.01, partial(heard.append, number)) for number in range(4)]
    after(0.01, done.set)
    for number in (0, 2):
        timers[number].cancel()
        timers[number].cancel()
    await done.wait()
    assert heard == [1, 3]


async def test_one_timer_may_cancel_another_that_is_due_at_the_same_moment() -> None:
    heard: list[str] = []
    done = asyncio.Event()
    timers: list[Timer] = []

    def cancel() -> None:
        timers[0].cancel()

    after(0.01, cancel)
    timers.append(after(0.01, partial(heard.append, "never")))
    after(0.01, done.set)
    await done.wait()
    assert heard == []


async def test_timers_of_one_length_may_be_set_at_different_moments() -> None:
    heard: list[str] = []
    done = asyncio.Event()
    after(0.02, partial(heard.append, "first"))
    after(0.01, partial(after, 0.02, done.set))
    await done.wait()
    assert heard == ["first"]


def test_each_loop_has_its_own() -> None:
    async def wait() -> None:
        done = asyncio.Event()
        after(30, done.set)
        after(0.01, done.set)
        await done.wait()

    for _ in range(2):
        asyncio.run(wait())
