"""Policies: everybody once, evenly by weight, and only what must move moves."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.balance import POLICIES, Members, Policy, affinity, affinity_key, least_loaded, round_robin, weighted


@dataclass(eq=False)
class Upstream:
    name: str
    weight: float = 1.0
    load: int = 0


def pool(*weights: float) -> Members[Upstream]:
    return Members([Upstream(f"gpu-{number}", weight) for number, weight in enumerate(weights)])


def order(policy: Policy, members: Members[Upstream], key: int = 0, random: float = 0.0) -> list[str]:
    return [member.name for member in policy(members, key, random)]


def keys(number: int) -> list[int]:
    return [affinity_key(f"conversation {each}") for each in range(number)]


def turns(policy: Policy, members: Members[Upstream], number: int, place: int = 0) -> list[str]:
    """Who has this place of the order, in so many choices one after the other."""
    random = Random(1)
    found = []
    for key in keys(number):
        found.append(order(policy, members, key, random.random())[place])
        members.count += 1
    return found


def evenly(found: Sequence[str], weights: Sequence[float]) -> bool:
    """No member is more than 5 standard deviations of chance away from its share."""
    counts, whole = Counter(found), sum(weights)
    for number, weight in enumerate(weights):
        expected = len(found) * weight / whole
        if abs(counts[f"gpu-{number}"] - expected) > 5 * sqrt(expected):
            return False
    return True


WEIGHTS = st.lists(st.floats(0.01, 100), min_size=1, max_size=12)
POINTS = st.floats(0, 1, exclude_max=True)
KEYS = st.integers(0, 2**64 - 1)


@given(WEIGHTS, st.sampled_from(sorted(POLICIES)), KEYS, POINTS, st.integers(0, 10**12), st.data())
def test_every_member_is_given_once(
    weights: list[float], policy: str, key: int, random: float, count: int, data: st.DataObject
) -> None:
    members = pool(*weights)
    members.count = count
    each = {"min_size": len(weights), "max_size": len(weights)}
    members.weigh(data.draw(st.none() | st.lists(st.sampled_from([0, 0.1, 0.5, 1]), **each)))
    for member, load in zip(members.everyone, data.draw(st.lists(st.integers(0, 20), **each)), strict=True):
        member.load = load
        members.load += load
    assert Counter(order(POLICIES[policy], members, key, random)) == Counter(each.name for each in members.everyone)


def test_round_robin_gives_everybody_the_same_turns() -> None:
    assert turns(round_robin, pool(1, 9, 1), 7) == ["gpu-0", "gpu-1", "gpu-2", "gpu-0", "gpu-1", "gpu-2", "gpu-0"]
    assert turns(weighted, pool(3, 3), 4) == ["gpu-0", "gpu-1", "gpu-0", "gpu-1"]


def test_the_turns_of_a_lost_one_go_to_all_others() -> None:
    members = pool(1, 1, 1, 1, 1)
    after_lost = Counter(turns(round_robin, members, 60, place=1)[2::5])
    assert after_lost == {"gpu-0": 3, "gpu-1": 3, "gpu-3": 3, "gpu-4": 3}


@given(WEIGHTS, st.integers(0, 10**9), st.integers(1, 400))
def test_weighted_turns_are_never_far_from_the_weights(weights: list[float], start: int, number: int) -> None:
    members = pool(*weights)
    members.count = start
    counts: Counter[str] = Counter()
    for _ in range(number):
        counts[next(weighted(members, 0, 0)).name] += 1
        members.count += 1
    for member in members.everyone:
        assert abs(counts[member.name] - number * member.weight / sum(weights)) < 3


@given(st.lists(st.integers(1, 20), min_size=2, max_size=6))
def test_weighted_turns_come_at_three_distances_at_most(weights: list[float]) -> None:
    found = turns(weighted, pool(*weights), 300)
    for name in set(found):
        places = [place for place, other in enumerate(found) if other == name]
        assert len({after - before for before, after in pairwise(places)}) <= 3


def test_weighted_retries_go_by_weight() -> None:
    assert evenly(turns(weighted, pool(1, 2, 1, 2, 1), 3000, place=0), (1, 2, 1, 2, 1))
    seconds = Counter(turns(weighted, pool(1, 4, 1), 4000, place=1))
    # After a heavy one either light one, after a light one mostly the heavy one: 4/6 * 1/2 + 1/6 * 1/5, 2/6 * 4/5.
    assert seconds["gpu-0"] / 4000 == pytest.approx(0.367, abs=0.03)
    assert seconds["gpu-1"] / 4000 == pytest.approx(0.267, abs=0.03)


def test_the_less_loaded_of_two_is_chosen_by_weight() -> None:
    members = pool(1, 4)
    members.everyone[0].load, members.everyone[1].load = 2, 10
    assert set(turns(least_loaded, members, 50)) == {"gpu-1"}
    members.everyone[1].load = 12
    assert set(turns(least_loaded, members, 50)) == {"gpu-0"}


def test_two_choices_keep_the_load_even() -> None:
    members, random = pool(*[1.0] * 100), Random(1)
    for _ in range(10_000):
        next(least_loaded(members, 0, random.random())).load += 1
    assert max(member.load for member in members.everyone) <= 104  # one choice would reach about 125


def test_two_choices_follow_the_weights() -> None:
    members, random = pool(1, 2, 4, 8), Random(1)
    members.weigh([1, 1, 0.5, 1])
    for _ in range(1300):
        next(least_loaded(members, 0, random.random())).load += 1
    assert [member.load for member in members.everyone] == pytest.approx([100, 200, 200, 800], abs=10)


def test_idle_members_share_the_retries() -> None:
    assert evenly(turns(least_loaded, pool(1, 1, 1, 1), 4000, place=1), (1, 1, 1, 1))


def test_keys_are_the_same_everywhere() -> None:
    assert affinity_key("conv_1") == affinity_key(b"conv_1") == 10529176661864601839
    assert order(affinity, pool(1, 1, 1, 1), affinity_key("conv_1")) == ["gpu-3", "gpu-0", "gpu-1", "gpu-2"]
    assert order(affinity, pool(1, 2, 3, 4), affinity_key("conv_1")) == ["gpu-3", "gpu-1", "gpu-0", "gpu-2"]
    affinity_key("\ud800")


@pytest.mark.parametrize("weights", [(1,) * 100, (1, 2, 4, 0.5), (3, 3, 1)], ids=["equal", "four", "three"])
def test_keys_spread_by_weight(weights: tuple[float, ...]) -> None:
    assert evenly(turns(affinity, pool(*weights), 30_000), weights)


def test_second_choices_spread_too() -> None:
    members = pool(*[1.0] * 20)
    seconds = [names[1] for key in keys(30_000) if (names := order(affinity, members, key))[0] == "gpu-7"]
    others = [name.replace("gpu-19", "gpu-7") for name in seconds]
    assert "gpu-7" not in seconds
    assert evenly(others, [1] * 19)


@given(WEIGHTS.filter(lambda weights: len(weights) > 1), KEYS, st.data())
def test_nobody_else_moves_when_a_member_is_lost(weights: list[float], key: int, data: st.DataObject) -> None:
    members = pool(*weights)
    lost = data.draw(st.sampled_from(members.everyone))
    fewer = Members([member for member in members.everyone if member is not lost])
    assert order(affinity, fewer, key) == [name for name in order(affinity, members, key) if name != lost.name]


def test_a_growing_member_only_gains_keys() -> None:
    members, had = pool(*[1.0] * 5), set[int]()
    for share in (0.1, 0.3, 0.6, 1):
        members.weigh([share, 1, 1, 1, 1])
        has = {key for key in keys(2000) if next(affinity(members, key, 0)).name == "gpu-0"}
        assert had < has
        had = has


@given(WEIGHTS, st.lists(st.integers(0, 3), min_size=1, max_size=200), st.floats(1, 2))
def test_no_member_has_more_than_its_bound(weights: list[float], asked: list[int], bound: float) -> None:
    members = pool(*weights)
    for key in asked:
        chosen = next(affinity(members, affinity_key(str(key)), 0, bound))
        chosen.load += 1
        members.load += 1
        assert chosen.load <= bound * members.load * chosen.weight / sum(weights) + 2.001


def test_a_full_member_is_passed_over_for_the_next_and_given_last() -> None:
    members, key = pool(1, 1, 1), affinity_key("conv_1")
    first, *others = affinity(members, key, 0)
    first.load = members.load = 9
    assert list(affinity(members, key, 0)) == [*others, first]
    assert list(affinity(members, key, 0, bound=3)) == [first, *others]


@pytest.mark.parametrize("policy", ["round_robin", "weighted", "affinity"])
def test_a_slow_start_takes_a_small_share(policy: str) -> None:
    members, weights = pool(1, 1, 1, 1), [0.2, 1, 1, 1]
    members.weigh(weights)
    assert evenly(turns(POLICIES[policy], members, 4000), weights)


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (1, 2, 3, 4)], ids=["equal", "weights"])
def test_who_is_unavailable_comes_last(policy: str, weights: tuple[float, ...]) -> None:
    members = pool(*weights)
    members.weigh([1, 0, 1, 1])
    assert set(turns(POLICIES[policy], members, 200, place=3)) == {"gpu-1"}
    members.weigh([0, 0, 0, 0])
    assert set(turns(POLICIES[policy], members, 200)) >= {"gpu-1", "gpu-2", "gpu-3"}
