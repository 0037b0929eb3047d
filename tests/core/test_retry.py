"""Waits that stay within their cap, retries that stay within their budget."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.retry import Backoff, Budget

POINTS = st.floats(0, 1, exclude_max=True)


def test_the_longest_wait_doubles_up_to_the_cap() -> None:
    backoff = Backoff(0.1, 1)
    assert [backoff.delay(attempt, 0.5) for attempt in range(6)] == [0.05, 0.1, 0.2, 0.4, 0.5, 0.5]


@given(st.floats(0.001, 10), st.floats(0, 60), st.integers(0, 10**6), POINTS, st.none() | st.floats(0, 100))
def test_a_wait_is_within_its_cap_and_not_shorter_than_asked(
    first: float, cap: float, attempt: int, random: float, retry_after: float | None
) -> None:
    delay = Backoff(first, cap).delay(attempt, random, retry_after)
    if delay is None:
        assert retry_after is not None
        assert retry_after > cap
    else:
        assert (retry_after or 0) <= delay <= cap


def test_the_whole_span_is_used() -> None:
    waits = [Backoff(1, 8).delay(2, point / 100) for point in range(100)]
    assert min(waits) == 0
    assert max(waits) == 3.96


def test_not_everybody_comes_back_at_once_after_a_retry_after() -> None:
    assert Backoff(1, 8).delay(0, 0.25, 3) == 3.25
    assert Backoff(1, 8).delay(0, 0.25, 9) is None


def test_a_quiet_pool_may_retry_a_little() -> None:
    budget = Budget(0.2, 3)
    assert [budget.retry(100) for _ in range(5)] == [True, True, True, False, False]


def test_a_share_of_the_requests_may_be_retried() -> None:
    budget = Budget(0.2, 0)
    for _ in range(100):
        budget.request(50)
    assert sum(budget.retry(50) for _ in range(100)) == 20


def test_the_window_moves_on() -> None:
    budget = Budget(0.2, 1)
    budget.retry(0)
    for second in range(6):
        budget.request(second)
    assert budget.retry(9.9)
    assert not budget.retry(9.95)
    assert budget.retry(10)  # the first one is forgotten
    assert not budget.retry(11)
    assert budget.retry(1e12)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0, 0, 0.1, 1, 4, 30])), max_size=200), st.integers(0, 3))
def test_the_budget_is_never_exceeded_and_always_given(steps: list[tuple[bool, float]], floor: int) -> None:
    budget, now, ratio = Budget(0.25, floor), 0.0, 0.25
    requests: list[float] = []
    retries: list[float] = []
    for is_request, later in steps:
        now += later
        if is_request:
            budget.request(now)
            requests.append(now)
            continue
        asked, granted = (sum(at >= int(now) - 9 for at in times) for times in (requests, retries))
        given = budget.retry(now)
        assert given == (granted + 1 <= ratio * asked + floor)
        if given:
            retries.append(now)
