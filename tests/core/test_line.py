"""A line in which no key keeps the others waiting."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.line import Line


def line(size: int, *tickets: str) -> Line[str, str]:
    """Of tickets that begin with their key: a1, b7."""
    made = Line[str, str](size)
    for ticket in tickets:
        assert made.join(ticket[0], ticket) is None
    return made


def called(made: Line[str, str]) -> list[str]:
    return [ticket for ticket in iter(made.next, None) if ticket]


def test_keys_are_called_in_turn_and_their_tickets_in_order() -> None:
    made = line(9, "a1", "a2", "a3", "b1", "c1", "c2")
    assert len(made) == 6
    assert called(made) == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert len(made) == 0


def test_who_joins_again_stands_behind_the_others() -> None:
    made = line(9, "a1", "b1")
    assert made.next() == "a1"
    assert made.join("a", "a2") is None
    assert called(made) == ["b1", "a2"]


def test_who_leaves_is_not_called() -> None:
    made = line(9, "a1", "a2", "b1")
    assert made.leave("a", "a1")
    assert made.leave("b", "b1")
    assert not made.leave("b", "b1")
    assert not made.leave("c", "c1")
    assert called(made) == ["a2"]
    assert not made.leave("a", "a2")


def test_a_full_line_takes_nobody() -> None:
    made = line(2, "a1", "a2")
    assert made.join("a", "a3") == "a3"
    assert line(0).join("a", "a1") == "a1"
    assert called(made) == ["a1", "a2"]


def test_a_newcomer_pushes_out_the_newest_of_the_greediest() -> None:
    made = line(5, "a1", "b1", "b2", "b3", "a2")
    assert made.join("c", "c1") == "b3"
    assert made.join("c", "c2") == "c2"  # two, two and one: nobody is greedy any more
    assert called(made) == ["a1", "b1", "c1", "a2", "b2"]


KEYS = st.sampled_from("abcd")
STEPS = st.lists(st.tuples(st.sampled_from(["join", "join", "next", "leave"]), KEYS, st.integers(0, 30)), max_size=120)


@given(STEPS, st.integers(0, 8))
def test_it_does_what_a_slow_and_simple_line_does(steps: list[tuple[str, str, int]], size: int) -> None:
    made = Line[str, int](size)
    places: list[tuple[str, int]] = []  # in the order of joining
    keys: list[str] = []  # the next one first
    for ticket, (step, key, place) in enumerate(steps):
        counts = Counter(key for key, _ in places)
        if step == "leave" and places:
            who = places.pop(place % len(places))
            assert made.leave(*who)
        elif step == "next":
            expected = next(((of, waits) for key in keys[:1] for of, waits in places if of == key), None)
            assert made.next() == (expected[1] if expected else None)
            if expected:
                places.remove(expected)
                keys.append(keys.pop(0))
        elif step == "join":
            out = made.join(key, ticket)
            places.append((key, ticket))
            if len(places) > size:
                assert out is not None
                of = next(of for of, waits in places if waits == out)
                assert (of, out) == [each for each in places if each[0] == of][-1]
                greedy = max(counts.values(), default=0) > counts[key] + 1
                assert counts[of] == max(counts.values()) if greedy else out == ticket
                places.remove((of, out))
            else:
                assert out is None
        waiting = {of for of, _ in places}
        keys = [each for each in keys if each in waiting]
        keys += [key] if key in waiting and key not in keys else []
        assert len(made) == len(places) <= size


@given(st.lists(st.tuples(KEYS, st.integers(0, 2)), max_size=80))
def test_a_ticket_waits_one_turn_of_each_key_for_each_before_it(joins: list[tuple[str, int]]) -> None:
    made, clock, before = Line[str, int](100), 0, Counter[str]()
    latest: dict[int, int] = {}
    for ticket, (key, calls) in enumerate(joins):
        latest[ticket] = clock + (before[key] + 1) * 4  # four keys
        before[key] += 1
        assert made.join(key, ticket) is None
        for _ in range(calls):
            if (now := made.next()) is not None:
                clock += 1
                before[joins[now][0]] -= 1
                assert clock <= latest[now]
    while (now := made.next()) is not None:
        clock += 1
        assert clock <= latest[now]


def test_a_greedy_key_gets_no_more_than_its_share() -> None:
    made = line(1000, *(f"a{number}" for number in range(1000)))
    refused = [made.join("b", f"b{number}") for number in range(700)]
    assert len([ticket for ticket in refused if ticket and ticket[0] == "b"]) == 200
    assert Counter(ticket[0] for ticket in called(made)) == {"a": 500, "b": 500}
