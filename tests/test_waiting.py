"""What happens when an upstream has all the requests that it may have, and when somebody leaves."""

import asyncio
from collections import Counter

import pytest

from proxy.access import Line
from proxy.keys import hash_of
from tests.failing import BOTH, FIRST, GOOD, attempts, counted, idle, limited, oh, retries
from tests.proxy import Client, in_process, until
from tests.upstream import CUT, GONE, Head, Raw, Request, Script, Upstream, answer, chunk, sse


async def waiting(proxy: Client, number: int) -> None:
    """Returns once so many stand in lines."""
    while (await counted(proxy, "upstream_requests_waiting", "upstream")).total() != number:
        pass


async def test_a_full_upstream_is_waited_for() -> None:
    go = asyncio.Event()
    async with Upstream([*FIRST, go, *GOOD], GOOD) as upstream, in_process(limited(upstream)) as proxy:
        first, second = asyncio.create_task(proxy.post()), None
        await upstream.received(1)
        second = asyncio.create_task(proxy.post(stream=True))
        await waiting(proxy, 1)
        assert len(upstream.requests) == 1
        go.set()
        assert (await first).status == 200
        assert (await second).final()["status"] == "completed"


async def test_an_upstream_with_a_free_place_goes_before_a_line() -> None:
    async with Upstream([*FIRST, GONE]) as first, Upstream(GOOD) as second:
        async with in_process(limited(first), second) as proxy, proxy.stream() as stream:
            await stream.until("output_text.delta")
            assert (await proxy.post()).status == 200
            assert await counted(proxy, "fallbacks_total", "route") == {"*": 1}
        assert (len(first.requests), len(second.requests)) == (1, 1)


async def test_a_line_goes_before_an_ill_upstream() -> None:
    settings = {"health": {"max_fails": 1, "fail_duration": 3600}}
    async with (
        Upstream(answer(500, oh("died"))) as ill,
        Upstream(GOOD, [*FIRST, GONE], GOOD) as well,
        in_process({"url": ill.url}, limited(well), **settings) as proxy,
    ):
        assert (await proxy.post()).status == 200
        async with proxy.stream() as stream:
            await stream.until("output_text.delta")
            task = asyncio.create_task(proxy.post())
            await waiting(proxy, 1)
        assert (await task).status == 200
        assert (len(ill.requests), len(well.requests)) == (1, 3)


@pytest.mark.parametrize("frees", [0, 1])
@pytest.mark.parametrize("policy", ["affinity", "round_robin"])
async def test_who_waits_gets_the_first_place_that_is_free_anywhere(policy: str, frees: int) -> None:
    go = asyncio.Event()
    scripts: list[Script] = [[*FIRST, GONE], [*FIRST, GONE]]
    scripts[frees] = [*FIRST, go, *sse(chunk({}, "stop"))]
    pools = {"both": {"upstreams": ["u1", "u2"], "policy": policy}}
    routes = [{"model": "*", "pools": ["both"]}]
    async with (
        Upstream(scripts[0], GOOD) as first,
        Upstream(scripts[1], GOOD) as second,
        in_process(limited(first), limited(second), pools=pools, routes=routes) as proxy,
        proxy.stream(prompt_cache_key="k") as one,
        proxy.stream(prompt_cache_key="k") as other,
    ):
        await one.until("output_text.delta")
        await other.until("output_text.delta")
        task = asyncio.create_task(proxy.post(prompt_cache_key="k"))
        await waiting(proxy, 2)  # in both lines
        go.set()
        assert (await task).status == 200


@BOTH
async def test_a_full_line_is_a_429(stream: bool) -> None:
    async with Upstream([*FIRST, GONE], GOOD) as upstream, in_process(limited(upstream, size=0)) as proxy:
        async with proxy.stream() as other:
            await other.until("output_text.delta")
            reply = await proxy.post(stream=stream)
            assert (await counted(proxy, "limited_requests_total", "limit")) == {"waiting": 1}
        assert len(upstream.requests) == 1
    assert (reply.status, reply.error()["code"], reply.headers["retry-after"]) == (429, "rate_limit_exceeded", "2")


@BOTH
async def test_a_wait_that_is_too_long_is_a_503(stream: bool) -> None:
    async with Upstream([*FIRST, GONE], GOOD) as upstream, in_process(limited(upstream, seconds=0.05)) as proxy:
        async with proxy.stream() as other:
            await other.until("output_text.delta")
            reply = await proxy.post(stream=stream)
            assert (await counted(proxy, "limited_requests_total", "limit")) == {"waiting": 1}
        assert len(upstream.requests) == 1
    assert (reply.status, reply.error()["code"], reply.headers["retry-after"]) == (503, "server_is_overloaded", "2")


async def test_keys_take_turns() -> None:
    go = [asyncio.Event() for _ in range(6)]
    names = ["alice", "bob"]
    keys = [{"name": name, "hash": hash_of(f"sk-{name}")} for name in names]
    turn = iter(go)
    async with Upstream(lambda _: [next(turn), *GOOD]) as upstream, in_process(limited(upstream), keys=keys) as proxy:
        tasks = []
        for number, name in enumerate(["alice"] * 4 + ["bob"] * 2):
            ask = proxy.post(input=name, headers={"Authorization": f"Bearer sk-{name}"})
            tasks.append(asyncio.create_task(ask))
            await (upstream.received(1) if number == 0 else waiting(proxy, number))
        for number, event in enumerate(go, 1):
            await upstream.received(number)
            event.set()
        assert [(await task).status for task in tasks] == [200] * 6
        order = [asked(request)[0] for request in upstream.requests]
    assert order == ["a", "a", "b", "a", "b", "a"]


def asked(request: Request) -> str:
    """What the user says in it."""
    words: str = request.json()["messages"][-1]["content"]
    return words


async def test_an_upstream_never_gets_more_than_it_may() -> None:
    ends: list[Script] = [GOOD, answer(500, oh("died")), [Raw(b""), CUT], [*FIRST, CUT], answer(429, oh("slow"))]
    held = [asyncio.Event() for _ in range(60)]
    scripts = [[Raw(b""), event, *ends[number % 5]] for number, event in enumerate(held)]
    settings = {"health": {"max_fails": 0}, **retries(1)}
    async with Upstream(*scripts) as upstream, in_process(limited(upstream, most=3), **settings) as proxy:
        tasks = [asyncio.create_task(proxy.post(stream=number % 2 == 0)) for number in range(60)]
        for ended, event in enumerate(held):
            await upstream.received(min(ended + 3, 60))
            await waiting(proxy, max(0, 57 - ended))
            assert len(upstream.requests) <= ended + 3
            event.set()
        assert Counter([(await task).status for task in tasks]).keys() <= {200, 429, 502}
        await idle(proxy)


# Who leaves gives its place back


async def test_who_leaves_the_line_is_not_waited_for() -> None:
    go = asyncio.Event()
    async with Upstream([go, *GOOD], GOOD) as upstream, in_process(limited(upstream)) as proxy:
        first = asyncio.create_task(proxy.post())
        await upstream.received(1)
        gone = [asyncio.create_task(proxy.post(stream=stream)) for stream in (True, False)]
        await waiting(proxy, 2)
        for task in gone:
            task.cancel()
        await waiting(proxy, 0)
        go.set()
        assert [(await first).status, (await proxy.post()).status] == [200, 200]
        assert len(upstream.requests) == 2
        await idle(proxy)


@BOTH
@pytest.mark.parametrize("script", [[Raw(b""), GONE], [Head(), GONE], [*FIRST, GONE]], ids=["head", "token", "end"])
async def test_who_leaves_in_a_try_frees_its_place_at_once(script: Script, stream: bool) -> None:
    async with Upstream(script, GOOD) as upstream, in_process(limited(upstream)) as proxy:
        task = asyncio.create_task(proxy.post(stream=stream))
        request = await upstream.received(1)
        task.cancel()
        await request.gone.wait()
        assert (await proxy.post()).status == 200
        await idle(proxy)
        assert await attempts(proxy) == {("u1", "cancelled"): 1, ("u1", "ok"): 1}


@BOTH
async def test_who_leaves_between_two_tries_asks_nobody_any_more(stream: bool, lines: list[Line]) -> None:
    settings = {"retries": {"attempts": 5, "backoff": 3600, "max_backoff": 3600}}
    async with Upstream(answer(500, oh("died")), GOOD) as upstream, in_process(limited(upstream), **settings) as proxy:
        task = asyncio.create_task(proxy.post(stream=stream))
        await upstream.received(1)
        while not await attempts(proxy):
            pass
        await idle(proxy)  # the pause holds no place
        task.cancel()
        await until(lambda: len(lines) == 1)
        assert (await proxy.post()).status == 200
        assert (lines[0].ended, lines[0].status, lines[0].attempts) == ("client_closed", 499, 1)
        assert len(upstream.requests) == 2
