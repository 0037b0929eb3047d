"""For each fault of an upstream: what the client gets, which attempts are made, and what metrics and log say."""

import asyncio
import time

import pytest

from proxy.access import Line
from tests.failing import (
    BOTH,
    FAULTS,
    FIRST,
    GOOD,
    Fault,
    admin,
    attempts,
    counted,
    idle,
    no_more_files,
    oh,
    pool,
    retries,
    upstreams,
)
from tests.proxy import Json, Reply, in_process, until
from tests.upstream import CUT, Head, Raw, Script, Upstream, answer

EACH = pytest.mark.parametrize("name", FAULTS)


def at(upstream: Upstream, fault: Fault) -> Json:
    return {"url": upstream.url, **fault.fields}


def told(reply: Reply, fault: Fault, *, stream: bool) -> None:
    """The client has heard of this fault."""
    if stream and fault.begun:
        assert reply.failure()["message"]
    else:
        assert reply.status == fault.status
        assert reply.error()["message"]


# Each fault


@EACH
@BOTH
async def test_an_only_upstream_is_asked_again_where_that_can_help(name: str, stream: bool, lines: list[Line]) -> None:
    fault = FAULTS[name]
    tries = 3 if fault.again else 1
    async with Upstream(fault.script) as bad, in_process(at(bad, fault), **retries()) as proxy:
        reply = await proxy.post(stream=stream)
        await until(lambda: len(lines) == 1)
        assert len(bad.requests) == tries
        assert await attempts(proxy) == {("u1", fault.outcome): tries}
        assert await counted(proxy, "retries_total", "pool") == ({"u1": tries - 1} if fault.again else {})
        assert await counted(proxy, "fallbacks_total", "route") == {}
        await idle(proxy)
    told(reply, fault, stream=stream)
    assert (lines[0].attempts, lines[0].pool, lines[0].upstream) == (tries, "u1", "u1")


@EACH
@BOTH
async def test_another_upstream_of_the_pool_answers(name: str, stream: bool, lines: list[Line]) -> None:
    fault = FAULTS[name]
    async with (
        Upstream(fault.script) as bad,
        Upstream(GOOD) as good,
        in_process(at(bad, fault), good, **pool("u1", "u2"), **retries(2)) as proxy,
    ):
        replies = [await proxy.post(stream=stream) for _ in range(2)]  # each of the two is the first choice once
        await until(lambda: len(lines) == 2)
        assert (len(bad.requests), len(good.requests)) == (1, 2)
        assert await attempts(proxy) == {("u1", fault.outcome): 1, ("u2", "ok"): 2}
        assert await counted(proxy, "retries_total", "pool") == {"p": 1}
        assert await counted(proxy, "fallbacks_total", "route") == {}
    assert [(reply.final() if stream else reply.json())["status"] for reply in replies] == ["completed"] * 2
    assert sorted((line.attempts, line.pool, line.upstream) for line in lines) == [(1, "p", "u2"), (2, "p", "u2")]


@EACH
@BOTH
async def test_the_next_pool_answers(name: str, stream: bool, lines: list[Line]) -> None:
    fault = FAULTS[name]
    settings = retries(2, budget=0, reserve=0)  # which is of no concern to another pool
    async with (
        Upstream(fault.script) as bad,
        Upstream(GOOD) as good,
        in_process(at(bad, fault), good, **settings) as proxy,
    ):
        reply = await proxy.post(stream=stream)
        await until(lambda: len(lines) == 1)
        assert (len(bad.requests), len(good.requests)) == (1, 1)
        assert await attempts(proxy) == {("u1", fault.outcome): 1, ("u2", "ok"): 1}
        assert await counted(proxy, "retries_total", "pool") == {}
        assert await counted(proxy, "fallbacks_total", "route") == {"*": 1}
    assert (reply.final() if stream else reply.json())["status"] == "completed"
    assert (lines[0].attempts, lines[0].pool, lines[0].upstream) == (2, "u2", "u2")


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if not fault.begun])
async def test_what_passes_through_is_passed_over_alike(name: str) -> None:
    fault = FAULTS[name]
    async with (
        Upstream(fault.script) as bad,
        Upstream(GOOD) as good,
        in_process(at(bad, fault), good, **retries(2)) as proxy,
    ):
        reply = await proxy.ask("POST", "/v1/chat/completions", json={"model": "m"})
        assert (reply.status, reply.body) == (200, b"".join(GOOD))
        assert (len(bad.requests), len(good.requests)) == (1, 1)


# An upstream that is not there


async def test_upstreams_that_are_not_there_do_not_count(lines: list[Line]) -> None:
    async with Upstream() as first, Upstream() as second, Upstream(GOOD) as third:
        await first.away()
        await second.away()
        settings = pool("u1", "u2", "u3") | retries(1, budget=0, reserve=0)
        async with in_process(first, second, third, **settings) as proxy:
            replies = [await proxy.post() for _ in range(6)]  # in all orders
            await until(lambda: len(lines) == 6)
            assert [reply.status for reply in replies] == [200] * 6
            found = await attempts(proxy)
    assert found["u3", "ok"] == 6
    assert found["u1", "unreachable"] + found["u2", "unreachable"] == sum(line.attempts or 0 for line in lines) - 6
    assert max(line.attempts or 0 for line in lines) == 3


@pytest.mark.parametrize(("tries", "made"), [(1, 2), (2, 3), (4, 5)])
async def test_asking_in_vain_ends(tries: int, made: int, lines: list[Line]) -> None:
    async with Upstream() as first, Upstream() as second:
        await first.away()
        await second.away()
        async with in_process(first, second, health={"max_fails": 0}, **retries(tries)) as proxy:
            reply = await proxy.post()
            await until(lambda: len(lines) == 1)
    assert (reply.status, reply.error()["code"], "retry-after" in reply.headers) == (503, "server_is_overloaded", True)
    assert lines[0].attempts == made  # all once, and then as often as further tries are allowed


async def test_one_that_comes_back_is_asked_again() -> None:
    settings: Json = {"health": {"max_fails": 0}, **retries(1)}
    async with Upstream(GOOD) as upstream, in_process(upstream, **settings) as proxy:
        await upstream.away()
        assert (await proxy.post()).status == 503
        await upstream.back()
        assert (await proxy.post()).status == 200


# After the first delta


@BOTH
async def test_after_the_first_delta_the_response_fails(stream: bool, lines: list[Line]) -> None:
    broken: Script = [*FIRST, b"data: {oh\n\n"]
    async with Upstream(broken) as bad, Upstream(GOOD) as good, in_process(bad, good, **retries()) as proxy:
        reply = await proxy.post(stream=stream)
        await until(lambda: len(lines) == 1)
        assert (len(bad.requests), len(good.requests)) == (1, 0)
        assert await attempts(proxy) == {("u1", "broken"): 1}
        assert await counted(proxy, "retries_total", "pool") == await counted(proxy, "fallbacks_total", "route") == {}
        await idle(proxy)
    assert (reply.failure() if stream else reply.error())["code"] == "server_error"
    assert (lines[0].attempts, lines[0].upstream, lines[0].ended) == (1, "u1", "failed")


async def test_a_stream_cut_behind_its_first_delta_ends_well() -> None:
    go = asyncio.Event()
    async with Upstream([*FIRST, go, CUT]) as bad, Upstream(GOOD) as good, in_process(bad, good) as proxy:
        async with proxy.stream() as stream:
            await stream.until("output_text.delta")
            go.set()
            failure = (await stream.rest()).failure()
        assert (failure["code"], good.requests) == ("server_error", [])


async def test_a_cut_after_any_number_of_bytes_is_noticed_only_behind_a_delta() -> None:
    whole, said = b"".join(GOOD), b"".join(GOOD[:2])  # the second piece says "Hi"
    places = iter(range(0, len(said), 17))
    async with (
        Upstream(lambda _: [Head(), whole[: next(places)], CUT]) as bad,
        Upstream(GOOD) as good,
        in_process(bad, good, health={"max_fails": 0}) as proxy,
    ):
        for asked in range(1, len(range(0, len(said), 17)) + 1):
            assert (await proxy.post(stream=True)).final()["status"] == "completed"
            assert len(bad.requests) == len(good.requests) == asked


# Retry-After


async def test_who_asks_to_be_left_alone_is() -> None:
    slow = answer(429, oh("slow"), retry_after="30")
    async with Upstream(slow) as first, Upstream(GOOD) as second, in_process(first, second, **admin()) as proxy:
        assert [(await proxy.post()).status for _ in range(3)] == [200] * 3
        assert (len(first.requests), len(second.requests)) == (1, 3)
        shown = (await upstreams(proxy))["u1"]
    assert (shown["available"], shown["health"], 20 < shown["paused"] <= 30) == (False, "healthy", True)


async def test_when_all_want_to_be_left_alone_they_are_asked_all_the_same() -> None:
    slow = answer(429, oh("slow"), retry_after="30")
    async with Upstream(slow, slow, GOOD) as upstream, in_process(upstream) as proxy:
        assert [(await proxy.post()).status for _ in range(3)] == [429, 429, 200]


async def test_a_429_is_no_ill_health() -> None:
    async with Upstream(answer(429, oh("slow"))) as first, Upstream(GOOD) as second:
        async with in_process(first, second, health={"max_fails": 1}, **admin()) as proxy:
            assert [(await proxy.post()).status for _ in range(3)] == [200] * 3
            assert (await upstreams(proxy))["u1"]["health"] == "healthy"
        assert (len(first.requests), len(second.requests)) == (3, 3)


@pytest.mark.parametrize("status", [401, 402, 429])
async def test_one_clients_own_key_spoils_an_upstream_for_nobody(status: int) -> None:
    refusing = answer(status, oh("no"), retry_after="30")
    async with Upstream(refusing, GOOD) as first, Upstream(GOOD) as second:
        own = {"url": first.url, "pass_key": True}
        async with in_process(own, second, health={"max_fails": 1}) as proxy:
            await proxy.post(headers={"Authorization": "Bearer mine"})
            assert (await proxy.post(headers={"Authorization": "Bearer another"})).status == 200
        assert len(first.requests) == 2


async def test_what_the_proxy_itself_lacks_is_no_ill_health() -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream, health={"max_fails": 1}, **admin()) as proxy:
        await proxy.get("/health")  # this connection is kept
        with no_more_files():
            reply = await proxy.post()
        assert (reply.status, "Too many open files" in reply.error()["message"]) == (503, True)
        assert (await upstreams(proxy))["u1"]["health"] == "healthy"
        assert (await proxy.post()).status == 200


async def test_a_retry_after_is_waited_for() -> None:
    slow = answer(429, oh("slow"), retry_after="0.2")
    settings: Json = {"retries": {"attempts": 2, "backoff": 0.001, "max_backoff": 1}}
    async with Upstream(slow, GOOD) as upstream, in_process(upstream, **settings) as proxy:
        began = time.monotonic()
        assert (await proxy.post()).status == 200
    assert time.monotonic() - began >= 0.2


# Bounds


async def test_who_refused_is_not_asked_again_though_others_are() -> None:
    async with Upstream(answer(401, oh("who?"))) as first, Upstream(answer(500, oh("died"))) as second:
        async with in_process(first, second, **retries(4)) as proxy:
            assert (await proxy.post()).status == 502
        assert (len(first.requests), len(second.requests)) == (1, 3)


async def test_who_failed_is_asked_again_though_the_last_one_refused() -> None:
    async with Upstream(answer(500, oh("died")), GOOD) as first, Upstream(answer(401, oh("who?"))) as second:
        async with in_process(first, second, **retries(3)) as proxy:
            assert (await proxy.post()).status == 200
        assert (len(first.requests), len(second.requests)) == (2, 1)


async def test_one_upstream_in_two_pools_is_asked_once_a_round() -> None:
    pools = {"a": {"upstreams": ["u1"]}, "b": {"upstreams": ["u1", "u2"], "policy": "round_robin"}}
    routes = [{"model": "*", "pools": ["a", "b"]}]
    async with Upstream(answer(500, oh("died"))) as first, Upstream(GOOD) as second:
        async with in_process(first, second, pools=pools, routes=routes, **retries(2)) as proxy:
            assert [(await proxy.post()).status for _ in range(2)] == [200, 200]
        assert (len(first.requests), len(second.requests)) == (2, 2)


async def test_without_a_budget_nothing_is_asked_again() -> None:
    settings: Json = {"health": {"max_fails": 0}, **retries(3, budget=0, reserve=2)}
    async with Upstream(answer(500, oh("died"))) as upstream, in_process(upstream, **settings) as proxy:
        tried = []
        for _ in range(3):
            await proxy.post()
            tried.append(len(upstream.requests))
        assert tried == [3, 4, 5]  # the reserve was gone after the first one
        assert await counted(proxy, "retries_total", "pool") == {"u1": 2}


async def test_the_budget_is_a_share_of_the_requests() -> None:
    settings: Json = {"health": {"max_fails": 0}, **retries(3, budget=0.2, reserve=0)}
    async with Upstream(answer(500, oh("died"))) as upstream, in_process(upstream, **settings) as proxy:
        for _ in range(20):
            await proxy.post()
        assert len(upstream.requests) == 24


async def test_the_budget_of_a_pool_is_not_filled_by_requests_that_it_never_saw() -> None:
    settings = retries(8, budget=0.5, reserve=0) | {"health": {"max_fails": 0}}
    async with Upstream(*[GOOD] * 10, [Raw(b""), CUT]) as first, Upstream(answer(500, oh("died"))) as second:
        async with in_process(first, second, **settings) as proxy:
            for _ in range(10):
                await proxy.post()
            assert (await proxy.post()).status == 502
        assert len(second.requests) == 1
