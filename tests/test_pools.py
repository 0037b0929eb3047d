"""Places at upstreams: never more than there are, never lost; and what a pool makes of its members' states."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.attempts import Attempts, Retries
from proxy.connections import Connections
from proxy.core.balance import round_robin
from proxy.core.retry import Backoff, Budget
from proxy.dialects import load
from proxy.errors import Busy, Failed, Overloaded, ProxyError, RequestError, Unreachable
from proxy.metrics import Metrics
from proxy.pools import Member, Pool, State, Terms, place_at
from proxy.trace import Trace
from proxy.upstream import Endpoint, Upstream


def full(size: int = 100, patience: float = 30) -> State:
    """An upstream with one place, which is taken."""
    state = State("u", Terms(max_requests=1, line=size, patience=patience))
    state.enter()
    return state


async def stand(state: State, key: str = "") -> "asyncio.Task[State]":
    """Somebody who waits."""
    task = asyncio.create_task(place_at([state], key))
    await asyncio.sleep(0)  # now it stands in the line
    return task


# The line


async def test_a_free_place_is_taken_at_once() -> None:
    state = State("u", Terms(max_requests=1))
    await place_at([state], "")
    assert (state.load, state.full, state.waiting) == (1, True, 0)


async def test_a_place_goes_from_hand_to_hand() -> None:
    state = full()
    first, second = await stand(state), await stand(state)
    state.leave()
    await first
    assert (state.load, state.waiting, second.done()) == (1, 1, False)
    state.leave()
    await second
    state.leave()
    assert (state.load, state.waiting) == (0, 0)


async def test_keys_take_turns() -> None:
    state, order = full(), ""
    tasks = {await stand(state, key): key for key in "aaabbc"}
    for _ in range(6):
        state.leave()
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        order += "".join(tasks.pop(task) for task in done)
    assert order == "abcaba"


async def test_who_comes_to_a_full_line_is_refused() -> None:
    state = full(size=1)
    await stand(state)
    with pytest.raises(Busy, match="Too many requests wait") as caught:
        await place_at([state], "")
    assert (caught.value.status, caught.value.retry_after, state.waiting) == (429, 2, 1)
    state.leave()


async def test_a_full_line_has_room_for_another_key() -> None:
    state = full(size=2)
    first, second, other = await stand(state, "a"), await stand(state, "a"), await stand(state, "b")
    with pytest.raises(Busy) as caught:
        await second
    assert (caught.value.status, state.waiting) == (429, 2)
    for task in (first, other):
        state.leave()
        await task


async def test_a_wait_ends() -> None:
    state = full(patience=0.01)
    with pytest.raises(Busy, match=r"within 0\.01 s") as caught:
        await place_at([state], "")
    assert (caught.value.status, state.load, state.waiting) == (503, 1, 0)


async def test_who_leaves_as_another_one_needs_the_room_has_left() -> None:
    state = full(size=2)
    tasks = [await stand(state, "a"), await stand(state, "a")]
    for _ in range(2):
        asyncio.get_running_loop().call_later(0.01, state.leave)
    tasks[1].cancel()  # it stands in the line until it runs again
    await place_at([state], "b")
    await asyncio.wait(tasks)
    assert (tasks[1].cancelled(), state.load, state.waiting) == (True, 1, 0)


@pytest.mark.parametrize("late", [True, False])
async def test_who_leaves_as_it_gets_a_place_hands_it_on(late: bool) -> None:
    state = full()
    task, next_one = await stand(state), await stand(state)
    steps: list[Callable[[], object]] = [task.cancel, state.leave]
    for step in reversed(steps) if late else steps:
        step()
    await asyncio.wait([task])
    await next_one
    assert (task.cancelled(), state.load, state.waiting) == (True, 1, 0)


# No place is lost, whatever happens when


def upstreams(connections: Connections) -> list[Upstream]:
    """Three, that nobody asks for anything."""
    chat = load("chat")
    profile = chat.PROFILES["generic"]
    return [Upstream(Endpoint(name, "http://127.0.0.1:1/v1", chat, profile), connections) for name in "abc"]


def failure(random: Random) -> ProxyError | None:
    """How a try ends."""
    slow = Overloaded("slow", status=429)
    slow.asked = 0.001
    refused, reset = Unreachable("refused"), Unreachable("reset", status=502)
    long = RequestError("long", code="context_length_exceeded")
    return random.choice([None, None, Failed("died"), slow, refused, reset, RequestError("bad"), long])


async def ask(
    attempts: Attempts, random: Random, seen: Callable[[], None], pause: Callable[[], Awaitable[None]]
) -> None:
    """A request that is served as the router does it."""
    async for attempt in attempts:
        with attempt:
            seen()
            await pause()
            if (error := failure(random)) is not None:
                attempt.spoke = random.random() < 0.2
                raise error
            return


async def crowd(given: list[Upstream], seed: int, size: int, places: int, line: int) -> None:
    """Many requests, of which some leave at any moment."""
    random = Random(seed)
    terms = Terms(max_requests=places, line=line, patience=random.choice([0.001, 5]))
    members = [Member(each, 1, State(each.name, terms)) for each in given]
    states = [member.state for member in members]
    both = [Pool(name, some, round_robin, Budget(1, 9)) for name, some in (("p", members[:2]), ("q", members[2:]))]
    retries = Retries(4, Backoff(0.0005, 0.002))

    def seen() -> None:
        assert all(state.load <= places for state in states)

    async def pause() -> None:
        for _ in range(random.randrange(6)):
            await asyncio.sleep(0)

    async def leave(task: "asyncio.Task[None]") -> None:
        for _ in range(random.randrange(25)):
            await asyncio.sleep(0)
        task.cancel()

    tasks = []
    for number in range(size):
        trace = Trace(f"r{number}", {}, asyncio.get_running_loop(), key=random.choice("ab"))
        attempts = Attempts(both, trace, retries, Metrics(), None, both[1] if number % 3 else None)
        tasks.append(asyncio.create_task(ask(attempts, random, seen, pause)))
        if random.random() < 0.5:
            tasks.append(asyncio.create_task(leave(tasks[-1])))
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert result is None or isinstance(result, ProxyError | asyncio.CancelledError)
    assert [(state.load, state.waiting) for state in states] == [(0, 0)] * 3


@settings(max_examples=150)
@given(st.integers(), st.integers(1, 40), st.integers(1, 3), st.integers(0, 5))
def test_no_place_is_lost_whoever_leaves_when(seed: int, size: int, places: int, line: int) -> None:
    async def run() -> None:
        async with Connections() as connections:
            await crowd(upstreams(connections), seed, size, places, line)

    asyncio.run(run())


# Health, and what a pool makes of it


@pytest.fixture
async def trio() -> AsyncIterator[Pool]:
    async with Connections() as connections:
        members = [Member(each, 1, State(each.name, Terms())) for each in upstreams(connections)]
        yield Pool("p", members, round_robin, Budget(0, 0))


def first_choices(pool: Pool, number: int, now: float = 0) -> Counter[str]:
    return Counter(next(pool.choose(None).order(now)).name for _ in range(number))


async def test_everybody_has_a_turn(trio: Pool) -> None:
    assert first_choices(trio, 9) == {"a": 3, "b": 3, "c": 3}


async def test_looking_at_an_old_choice_again_takes_no_turn_back(trio: Pool) -> None:
    old = trio.choose(None)
    found = []
    for _ in range(9):
        found.append(next(trio.choose(None).order(0)).name)
        assert next(old.order(0)).name == "b"
    assert Counter(found) == {"a": 3, "b": 3, "c": 3}


async def test_who_fails_gets_nothing_until_it_is_back(trio: Pool) -> None:
    for _ in range(3):
        trio.members[0].state.failed(10, "died")
    assert first_choices(trio, 10, now=11) == {"b": 5, "c": 5}
    assert first_choices(trio, 30, now=60)["a"] == 10


async def test_who_comes_back_gets_more_and_more(trio: Pool) -> None:
    for _ in range(3):
        trio.members[0].state.failed(0, "died")
    early, later, whole = (first_choices(trio, 300, now)["a"] for now in (31, 35, 41))
    assert 0 < early < later < whole == 100


async def test_who_asks_to_be_left_alone_gets_nothing_until_then(trio: Pool) -> None:
    assert first_choices(trio, 30)["a"] == 10
    trio.members[0].state.pause(10)
    assert set(first_choices(trio, 30, now=9)) == {"b", "c"}
    assert first_choices(trio, 30, now=10)["a"] == 10


async def test_checks_take_out_and_bring_back(trio: Pool) -> None:
    state = trio.members[0].state
    state.checked(0, "status 500")
    assert (state.available(0), state.show(0)["health"], state.show(0)["reason"]) == (False, "unhealthy", "status 500")
    assert first_choices(trio, 10, now=1e9) == {"b": 5, "c": 5}
    state.checked(2e9)
    assert first_choices(trio, 30, now=3e9)["a"] == 10


def test_a_change_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    state = State("u", Terms(max_fails=1, fail_duration=5))
    state.failed(0, "died")
    state.failed(1, "died again")
    state.checked(6)
    assert [record.message for record in caplog.records] == ["upstream u is failing: died"]


async def test_the_first_place_that_comes_free_anywhere_is_taken() -> None:
    states = [full() for _ in range(3)]
    waiters = [asyncio.create_task(place_at(states, "")) for _ in range(2)]
    await asyncio.sleep(0)
    states[2].leave()
    states[1].leave()
    assert [await waiter for waiter in waiters] == [states[2], states[1]]
    assert [(state.load, state.waiting) for state in states] == [(1, 0)] * 3


async def test_who_is_pushed_out_of_one_line_keeps_the_others() -> None:
    short, long = full(1), full(5)
    waiters = [asyncio.create_task(place_at([short, long], "greedy")) for _ in range(2)]
    await asyncio.sleep(0)
    other = asyncio.create_task(place_at([short], "other"))
    await asyncio.sleep(0)
    long.leave()
    long.leave()
    assert [await waiter for waiter in waiters] == [long, long]
    other.cancel()
