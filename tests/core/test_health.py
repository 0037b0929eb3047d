"""When an upstream is out, and how it comes back."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.health import Health


def health(slow_start: float = 0, **thresholds: int) -> Health:
    return Health(3, 10, slow_start, **thresholds)


def failed(slow_start: float = 0, at: float = 0) -> Health:
    """Out until ten seconds later."""
    made = health(slow_start)
    for _ in range(3):
        made.failed(at, "refused")
    return made


def test_a_new_one_is_healthy_at_once() -> None:
    made = health(slow_start=30)
    assert made.available(0)
    assert made.share(0) == 1
    assert made.state(0) == "healthy"
    assert made.reason == ""
    assert made.settled < 0


def test_failures_within_the_duration_put_it_out_for_the_duration() -> None:
    made = health()
    made.failed(0)
    made.failed(5)
    made.succeeded(6)
    assert made.available(9)
    made.failed(9.9, "reset")
    assert not made.available(19.8)
    assert (made.state(19.8), made.reason) == ("failing", "reset")
    assert made.available(19.91)


def test_failures_far_apart_do_no_harm() -> None:
    made = health()
    for at in range(0, 100, 5):
        made.failed(at)
        assert made.available(at)


def test_after_it_came_back_one_failure_is_enough_until_a_success() -> None:
    made = failed()
    made.failed(10.5)
    assert not made.available(20)
    made.succeeded(20.5)
    made.failed(21)
    assert made.available(21)


def test_late_failures_of_requests_from_before_keep_it_out_no_longer() -> None:
    made = failed()
    for _ in range(3):
        made.failed(5, "timed out")
    assert made.reason == "timed out"
    assert made.available(10)
    made.succeeded(10)
    made.failed(11)
    assert made.available(11)


def test_a_late_success_of_a_request_from_before_proves_nothing() -> None:
    made = failed()
    made.succeeded(5)
    made.failed(11)
    assert not made.available(11)


def test_no_number_of_failures_counts_with_max_fails_0() -> None:
    made = Health(0, 10, 0)
    for _ in range(100):
        made.failed(0)
    assert made.available(0)


def test_a_failed_check_puts_it_out_until_one_passes() -> None:
    made = health()
    made.checked(False, 1, "status 500")
    assert not made.available(1000)
    assert (made.state(1000), made.reason) == ("unhealthy", "status 500")
    assert made.next_try(1000) == made.settled == inf
    made.checked(True, 1001)
    assert made.available(1001)


def test_checks_count_in_a_row() -> None:
    made = health(rise=3, fall=2)
    for ok, available in [(False, True), (True, True), (False, True), (False, False), (True, False)]:
        made.checked(ok, 1)
        assert made.available(1) is available
    for ok, available in [(True, False), (False, False), (True, False), (True, False), (True, True)]:
        made.checked(ok, 1)
        assert made.available(1) is available


def test_a_passed_check_does_not_undo_failed_requests() -> None:
    made = failed()
    made.checked(False, 1)
    made.checked(True, 2)
    assert (made.state(2), made.next_try(2)) == ("failing", 8)


def test_the_share_grows_from_little_to_all() -> None:
    made = failed(slow_start=20)
    assert [made.share(now) for now in (9, 10, 11, 15, 20, 30, 50)] == [0, 0.1, 0.1, 0.25, 0.5, 1, 1]
    assert (made.state(29), made.state(30), made.settled) == ("slow start", "healthy", 30)


def test_a_passed_check_is_followed_by_a_slow_start() -> None:
    made = health(slow_start=20)
    made.checked(False, 0)
    made.checked(True, 100)
    assert [made.share(now) for now in (100, 110, 120)] == [0.1, 0.5, 1]


EVENTS = st.lists(st.tuples(st.sampled_from(["failed", "succeeded", "passed", "missed"]), st.floats(0, 8)), max_size=40)


@given(EVENTS, st.sampled_from([0, 0.5, 20]), st.integers(0, 3), st.integers(1, 3), st.integers(1, 3))
def test_all_that_it_says_fits_together(
    events: list[tuple[str, float]], slow_start: float, max_fails: int, rise: int, fall: int
) -> None:
    made, now = Health(max_fails, 10, slow_start, rise=rise, fall=fall), 0.0
    for event, later in events:
        now += later
        if event in ("passed", "missed"):
            made.checked(event == "passed", now)
        else:
            (made.failed if event == "failed" else made.succeeded)(now)
        available, share, state = made.available(now), made.share(now), made.state(now)
        assert available == (share > 0) == (state in ("healthy", "slow start")) == (made.next_try(now) == 0)
        assert (share == 1) == (state == "healthy") == (now >= made.settled)
        assert state == "unhealthy" or made.available(now + made.next_try(now) + 1e-9)
        assert state == "unhealthy" or made.next_try(now) < 10.0001
