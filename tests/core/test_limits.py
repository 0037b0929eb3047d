"""Buckets that never give more than they may, and say truly when there is more."""

import re
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.limits import Bucket, duration


def test_a_minute_worth_at_once_then_drop_by_drop() -> None:
    bucket = Bucket(60)
    assert sum(bucket.take(0) for _ in range(100)) == 60
    assert not bucket.take(0.9)
    assert bucket.take(1)
    assert not bucket.take(1.5)
    assert sum(bucket.take(1000) for _ in range(100)) == 60


def test_what_was_used_is_charged_into_debt() -> None:
    bucket = Bucket(600)
    bucket.charge(0, 900)
    assert (bucket.remaining(0), bucket.reset(0), bucket.wait(0, 0)) == (0, 90, 30)
    assert not bucket.take(29, 0)
    assert bucket.take(30, 0)
    assert not bucket.take(30, 1)
    assert (bucket.remaining(60), bucket.reset(60)) == (300, 30)


def test_what_was_taken_too_much_is_given_back() -> None:
    bucket = Bucket(600)
    assert bucket.take(0, 500)
    bucket.charge(0, -400)
    assert bucket.remaining(0) == 500
    bucket.charge(0, -400)
    assert bucket.remaining(0) == 600


def test_more_than_it_holds_never_comes() -> None:
    bucket = Bucket(10)
    assert bucket.wait(0, 11) == inf
    assert not bucket.take(0, 11)
    assert bucket.take(0, 10)


STEPS = st.lists(st.tuples(st.floats(0, 20), st.integers(0, 40)), max_size=60)
STARTS = st.sampled_from([0.0, 12.3, 1e7])


@given(STARTS, STEPS, st.integers(1, 100))
def test_no_span_gives_more_than_allowed(now: float, steps: list[tuple[float, int]], per_minute: int) -> None:
    bucket = Bucket(per_minute)
    given: list[tuple[float, int]] = []
    for later, n in steps:
        now += later
        if bucket.take(now, n):
            given.append((now, n))
    for first, (since, _) in enumerate(given):
        total = 0
        for at, n in given[first:]:
            total += n
            assert total <= per_minute * (1 + (at - since) / 60) + 1e-4


@given(STARTS, STEPS, st.integers(1, 100), st.integers(1, 100))
def test_it_says_truly_what_there_is_and_when(
    now: float, steps: list[tuple[float, int]], per_minute: int, n: int
) -> None:
    bucket = Bucket(per_minute)
    for later, used in steps:
        now += later
        bucket.charge(now, used)
    remaining, wait = bucket.remaining(now), bucket.wait(now, n)
    assert (wait == 0) == (remaining >= n)
    assert (wait == inf) == (n > per_minute)
    assert bucket.remaining(now + bucket.reset(now)) == per_minute
    if 0 < wait < inf:
        assert not bucket.take(now + wait * 0.99 - 1e-4, n)
        assert bucket.take(now + wait + 1e-7, n)
    elif remaining:
        assert bucket.take(now, remaining)
        assert not bucket.take(now, 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0s"), (0.012, "12ms"), (0.0001, "1ms"), (0.999, "999ms"), (0.9991, "1s"), (1, "1s"), (1.1, "2s")),
        *((59.5, "1m0s"), (360, "6m0s"), (3600, "1h0m0s"), (3723, "1h2m3s"), (90000, "25h0m0s")),
    ],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(0, 10**6))
def test_a_duration_is_never_too_short(seconds: float) -> None:
    found = re.fullmatch(r"(\d+)ms|(?:(?:(\d+)h)?(\d+)m)?(\d+)s", duration(seconds))
    assert found
    milliseconds, hours, minutes, rest = (int(group or 0) for group in found.groups())
    assert seconds <= milliseconds / 1000 + hours * 3600 + minutes * 60 + rest < seconds + 1
