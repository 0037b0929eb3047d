"""Which upstream gets a request, seen from outside: health, policies, the larger window."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from proxy.access import Line
from proxy.assemble import assemble
from proxy.config import Config
from proxy.loading import load
from proxy.metrics import Metrics
from proxy.serving import Instruments
from proxy.spans import Tracer
from tests.failing import BOTH, FAST, FIRST, GOOD, admin, attempts, counted, idle, oh, pool, retries, upstreams
from tests.proxy import Client, Json, config, in_process, until, written
from tests.upstream import Request, Script, Upstream, answer, sse, text

LONG = {"error": {"message": "This model's maximum context length is 8192 tokens.", "code": "context_length_exceeded"}}


# Health


async def test_an_upstream_that_fails_too_often_is_passed_over() -> None:
    settings = {"health": {"max_fails": 2, "fail_duration": 60}, **admin()}
    async with (
        Upstream(answer(500, oh("died"))) as first,
        Upstream(GOOD) as second,
        in_process(first, second, **settings) as proxy,
    ):
        assert [(await proxy.post()).status for _ in range(5)] == [200] * 5
        assert (len(first.requests), len(second.requests)) == (2, 5)
        assert await counted(proxy, "upstream_available", "upstream") == {"u2": 1}
        assert await counted(proxy, "fallbacks_total", "route") == {"*": 5}
        shown = (await upstreams(proxy))["u1"]
    assert (shown["available"], shown["health"], shown["reason"]) == (False, "failing", "died")


async def test_when_none_is_left_they_are_asked_all_the_same() -> None:
    settings = {"health": {"max_fails": 1, "fail_duration": 60}, **retries(1)}
    async with Upstream(answer(500, oh("died")), GOOD) as upstream, in_process(upstream, **settings) as proxy:
        assert [(await proxy.post()).status for _ in range(3)] == [502, 200, 200]


async def test_an_upstream_that_is_out_comes_back() -> None:
    settings = {"health": {"max_fails": 1, "fail_duration": 0.2, "slow_start": 0}}
    async with (
        Upstream(answer(500, oh("died")), GOOD) as first,
        Upstream(GOOD) as second,
        in_process(first, second, **settings) as proxy,
    ):
        assert (await proxy.post()).status == 200
        while len(first.requests) == 1:
            assert (await proxy.post()).status == 200


async def test_who_has_come_back_may_fail_once_again() -> None:
    bad = answer(500, oh("died"))
    settings = {"health": {"max_fails": 2, "fail_duration": 0.05, "slow_start": 0}, **admin()}
    async with (
        Upstream(bad, bad, GOOD, bad, GOOD) as first,
        Upstream(GOOD) as second,
        in_process(first, second, **settings) as proxy,
    ):
        while len(first.requests) < 4:
            assert (await proxy.post()).status == 200
        assert (await upstreams(proxy))["u1"]["health"] == "healthy"


@pytest.mark.parametrize("moved", [False, True])
async def test_an_upstream_keeps_its_health_over_a_reload_unless_it_is_another_place(moved: bool) -> None:
    instruments = Instruments(Metrics(), Tracer())
    urls = ["http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1" if moved else "http://127.0.0.1:1/v1"]
    found: list[Config] = []
    for url in urls:
        with written(config({"url": url})) as path:
            found.append(load(path, {}))
    old = await assemble(found[0], instruments)
    new = await assemble(found[1], instruments, old)
    assert (new.service.router.states[0] is not old.service.router.states[0]) == moved
    await new.close()
    await old.close()


async def test_upstreams_show_their_load_and_health() -> None:
    go = asyncio.Event()
    async with Upstream([*FIRST, go, *GOOD]) as first, Upstream(GOOD) as second:
        limited = {"url": first.url, "max_requests": 7}
        async with in_process(limited, second, **admin()) as proxy, proxy.stream() as stream:
            await stream.until("output_text.delta")
            busy = await upstreams(proxy)
            go.set()
            await stream.rest()
            await idle(proxy)
            after = await upstreams(proxy)
    quiet = {"available": True, "health": "healthy", "reason": "", "paused": 0, "requests": 0, "waiting": 0}
    assert busy == {"u1": quiet | {"requests": 1, "max_requests": 7}, "u2": quiet | {"max_requests": None}}
    assert after["u1"]["requests"] == 0


async def test_metrics_may_be_for_admins_only() -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream, metrics={"open": False}, **admin()) as proxy:
        shut = await proxy.get("/metrics")
        opened = await proxy.ask("GET", "/metrics", headers={"Authorization": "Bearer sk-root"})
    assert (shut.status, shut.error()["type"], b"upstream" in shut.body) == (401, "invalid_request_error", False)
    assert (opened.status, b"responses_proxy_upstream_available" in opened.body) == (200, True)


# A larger window


@BOTH
@pytest.mark.parametrize("script", [answer(400, LONG), sse(LONG, done=False)], ids=["status", "event"])
async def test_a_long_prompt_goes_to_the_larger_window(script: Script, stream: bool, lines: list[Line]) -> None:
    pools = {"small": {"upstreams": ["u1"]}, "next": {"upstreams": ["u2"]}, "large": {"upstreams": ["u3"]}}
    routes = [{"model": "*", "pools": ["small", "next"], "long_context": "large"}]
    async with (
        Upstream(script) as small,
        Upstream(GOOD) as second,
        Upstream(GOOD) as large,
        in_process(small, second, large, pools=pools, routes=routes, **retries(1)) as proxy,
    ):
        reply = await proxy.post(stream=stream)
        await until(lambda: len(lines) == 1)
        assert (len(small.requests), len(second.requests), len(large.requests)) == (1, 0, 1)
        assert await attempts(proxy) == {("u1", "refused"): 1, ("u3", "ok"): 1}
        assert await counted(proxy, "fallbacks_total", "route") == {"*": 1}
    assert (reply.final() if stream else reply.json())["status"] == "completed"
    assert (lines[0].attempts, lines[0].pool, lines[0].upstream) == (2, "large", "u3")


async def test_a_long_conversation_stays_where_it_was() -> None:
    pools = {"large": {"upstreams": ["u2", "u3", "u4"], "policy": "affinity"}}
    routes = [{"model": "*", "upstreams": ["u1"], "long_context": "large"}]
    async with AsyncExitStack() as stack:
        scripts: list[Script] = [answer(400, LONG), GOOD, GOOD, GOOD]
        given = [await stack.enter_async_context(Upstream(script)) for script in scripts]
        proxy = await stack.enter_async_context(in_process(*given, pools=pools, routes=routes))
        for number in range(12):
            assert (await proxy.post(prompt_cache_key="k", input=f"{number}")).status == 200
        assert sorted(len(upstream.requests) for upstream in given) == [0, 0, 12, 12]


async def test_what_is_too_long_for_all_is_a_bad_request() -> None:
    routes = [{"model": "*", "upstreams": ["u1"], "long_context": "large"}]
    async with Upstream(answer(400, LONG)) as small, Upstream(answer(400, LONG)) as large:
        async with in_process(small, large, pools={"large": {"upstreams": ["u2"]}}, routes=routes) as proxy:
            reply = await proxy.post()
        assert (len(small.requests), len(large.requests)) == (1, 1)
    assert (reply.status, reply.error()["code"]) == (400, "context_length_exceeded")


# Policies, seen from outside


async def spread(proxy: Client, names: list[str], **fields: Any) -> dict[str, str]:
    """Which upstream has answered, by what was asked: they say their names."""
    found = {}
    for name in names:
        reply = await proxy.post(**{key: value.format(name) for key, value in fields.items()})
        found[name] = reply.json()["output"][0]["content"][0]["text"]
    return found


async def test_a_conversation_stays_where_it_was_and_a_lost_upstream_moves_only_its_own() -> None:
    lost = asyncio.Event()
    names = [f"conversation {number}" for number in range(40)]
    scripts = [lambda _, word=f"u{number}": text(word) for number in range(2, 5)]

    def first(_: Request) -> Script:
        return answer(500, oh("died")) if lost.is_set() else text("u1")

    settings: Json = pool("u1", "u2", "u3", "u4", policy="affinity") | {"health": {"max_fails": 1}} | retries(2)
    async with (
        Upstream(first) as one,
        Upstream(scripts[0]) as two,
        Upstream(scripts[1]) as three,
        Upstream(scripts[2]) as four,
        in_process(one, two, three, four, **settings) as proxy,
    ):
        before = await spread(proxy, names, input="x", prompt_cache_key="{}")
        again = await spread(proxy, names, input="something else", prompt_cache_key="{}")
        heads = await spread(proxy, names, instructions="You are {}.", input="hi")
        assert heads == await spread(proxy, names, instructions="You are {}.", input="hi")
        lost.set()
        after = await spread(proxy, names, prompt_cache_key="{}")
        assert len(one.requests) == 1 + sum(
            where == "u1" for where in [*before.values(), *again.values(), *heads.values(), *heads.values()]
        )
    assert before == again
    assert set(before.values()) == {"u1", "u2", "u3", "u4"}
    assert {name: where for name, where in before.items() if where != "u1"}.items() <= after.items()
    assert len({where for name, where in after.items() if before[name] == "u1"}) > 1


async def test_weights_are_kept() -> None:
    pools = {"p": {"upstreams": {"u1": 3, "u2": 1}, "policy": "weighted"}}
    routes = [{"model": "*", "pools": ["p"]}]
    async with Upstream(GOOD) as heavy, Upstream(GOOD) as light:
        async with in_process(heavy, light, pools=pools, routes=routes) as proxy:
            for _ in range(40):
                await proxy.post()
        assert abs(len(heavy.requests) - 30) <= 2
        assert len(heavy.requests) + len(light.requests) == 40


async def test_retries_do_not_disturb_the_turns() -> None:
    async with Upstream(answer(500, oh("died")), GOOD) as first, Upstream(GOOD) as second, Upstream(GOOD) as third:
        settings = pool("u1", "u2", "u3") | {"retries": FAST | {"attempts": 2}}
        async with in_process(first, second, third, **settings) as proxy:
            for _ in range(9):
                await proxy.post()
        assert (len(first.requests), len(second.requests) + len(third.requests)) == (3, 7)
