"""Routes as clients see them: names, what a route changes in a request, its limits, and the list of models."""

import asyncio
from typing import Any

import pytest

from proxy.router import Shared
from tests.chat import CHAT, chat
from tests.proxy import in_process
from tests.upstream import CUT, Script, Upstream, answer, text

GOOD = text("Hi")


def route(**fields: Any) -> dict[str, Any]:
    """The YAML: a route of the model m."""
    return {"routes": [{"model": "m", "upstreams": ["u1"]} | fields]}


# Names


@pytest.mark.parametrize("name", ["m", "alias", "family-7b", "org/one"])
async def test_any_name_of_a_route_leads_there_and_is_echoed(name: str) -> None:
    settings = route(aliases=["alias", "family-*", "org/?ne"], upstream_model="llama")
    async with Upstream(GOOD) as upstream, in_process(upstream, **settings) as proxy:
        whole, stream = await proxy.both(model=name)
        assert (whole.json()["model"], {stream.final()["model"]}) == (name, {name})
        await chat(proxy, json=CHAT | {"model": name})
    assert {request.json()["model"] for request in upstream.requests} == {"llama"}


async def test_a_pattern_passes_the_clients_name_on() -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream, **route(model="qwen*")) as proxy:
        await proxy.post(model="qwen3-8b")
    assert upstream.requests[0].json()["model"] == "qwen3-8b"


async def test_the_first_route_that_takes_a_name_has_it() -> None:
    routes = [
        {"model": "a*", "upstreams": ["u1"]},
        {"model": "ab*", "aliases": ["abc"], "upstreams": ["u2"]},
        {"model": "abc", "upstreams": ["u1"]},
        {"model": "*", "upstreams": ["u2"]},
    ]
    async with Upstream(GOOD) as one, Upstream(GOOD) as two, in_process(one, two, routes=routes) as proxy:
        for name in ("abd", "abc", "other"):
            await proxy.post(model=name)
    asked = [[request.json()["model"] for request in each.requests] for each in (one, two)]
    assert asked == [["abd"], ["abc", "other"]]


@pytest.mark.parametrize("name", ["x", "M", "m ", "m\n", "é", "a" * 10_000])
async def test_an_unknown_model_is_told_which_there_are(name: str) -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream, **route(aliases=["big-*"])) as proxy:
        replies = [await proxy.post(model=name), await chat(proxy, json=CHAT | {"model": name})]
        assert upstream.requests == []
    assert [(reply.status, reply.error()["param"]) for reply in replies] == [(400, "model"), (404, "model")]
    for reply in replies:
        assert reply.error()["code"] == "model_not_found"
        assert "'m', 'big-*'" in reply.error()["message"]
        assert len(reply.body) < 400


async def test_an_alias_is_another_name_for_keys_and_lists() -> None:
    listed = answer(200, {"data": [{"id": "big-1"}, {"id": "small"}]})
    async with Upstream(listed) as upstream, in_process(upstream, **route(aliases=["n", "big-*"])) as proxy:
        models = (await proxy.get("/v1/models")).json()["data"]
        assert (await proxy.get("/v1/models/n")).status == 200
        assert (await proxy.get("/v1/models/small")).status == 404
    assert [model["id"] for model in models] == ["m", "n", "big-1"]


# What a route changes


DEFAULTS = {"temperature": 0.5, "reasoning": {"effort": "low", "summary": "auto"}, "max_output_tokens": 99}


async def test_defaults_are_for_what_the_client_leaves_open() -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream, **route(defaults=DEFAULTS)) as proxy:
        bare = (await proxy.post()).json()
        own = (await proxy.post(temperature=1.5, reasoning={"effort": "high"}, max_output_tokens=None)).json()
    sent = [request.json() for request in upstream.requests]
    assert [body["temperature"] for body in (bare, own, *sent)] == [0.5, 1.5, 0.5, 1.5]
    assert bare["reasoning"] == {"effort": "low", "summary": "auto"}
    assert own["reasoning"] == {"effort": "high", "summary": "auto"}
    assert (own["max_output_tokens"], sent[1]["reasoning_effort"]) == (99, "high")


async def test_overrides_are_stronger_than_the_client() -> None:
    overrides = {"temperature": 0, "reasoning": {"effort": "low"}, "parallel_tool_calls": False}
    settings = route(defaults=DEFAULTS, overrides=overrides)
    async with Upstream(GOOD) as upstream, in_process(upstream, **settings) as proxy:
        reply = (await proxy.post(temperature=1.5, reasoning={"effort": "high", "summary": "detailed"})).json()
    assert (reply["temperature"], reply["parallel_tool_calls"]) == (0, False)
    assert reply["reasoning"] == {"effort": "low", "summary": "detailed"}
    assert upstream.requests[0].json()["temperature"] == 0


async def test_what_passes_through_is_not_changed_by_the_route() -> None:
    settings = route(defaults=DEFAULTS, overrides={"temperature": 0}, body={"top_k": 1}, max_output_tokens=100)
    async with Upstream(GOOD) as upstream, in_process(upstream, **settings) as proxy:
        await chat(proxy, json=CHAT | {"temperature": 1})
    assert upstream.requests[0].json() == CHAT | {"temperature": 1}


async def test_further_fields_of_the_upstream_win_over_those_of_the_route() -> None:
    settings = route(body={"top_k": 1, "chat_template_kwargs": {"a": 1}})
    async with Upstream(GOOD) as upstream, in_process({"url": upstream.url, "body": {"top_k": 2}}, **settings) as proxy:
        await proxy.post()
    sent = upstream.requests[0].json()
    assert (sent["top_k"], sent["chat_template_kwargs"]) == (2, {"a": 1})


@pytest.mark.parametrize("strict", [True, False])
async def test_listed_fields_go_on_and_are_not_called_dropped(strict: bool) -> None:
    settings = route(pass_fields=["seed", "stop", "top_k"])
    async with Upstream(GOOD) as upstream, in_process(upstream, strict=strict, **settings) as proxy:
        reply = await proxy.post(seed=7, stop=["a"], top_k=4)
        other = await proxy.post(seed=7, min_p=0.1)
    assert {"seed": 7, "stop": ["a"], "top_k": 4}.items() <= upstream.requests[0].json().items()
    assert (reply.status, "x-dropped-parameters" in reply.headers) == (200, False)
    assert other.status == 400 if strict else other.headers["x-dropped-parameters"] == "min_p"


# Limits


async def test_more_output_than_a_route_allows_is_refused() -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream, **route(max_output_tokens=100)) as proxy:
        statuses = [(await proxy.post(max_output_tokens=most)).status for most in (99, 100, None)]
        refused = await proxy.post(max_output_tokens=101)
    assert statuses == [200, 200, 200]
    assert [request.json()["max_tokens"] for request in upstream.requests] == [99, 100, 100]
    assert (refused.status, refused.error()["param"]) == (400, "max_output_tokens")
    assert "100" in refused.error()["message"]


async def test_a_larger_request_than_a_route_allows_is_refused() -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream, **route(max_input="1 KiB")) as proxy:
        assert (await proxy.post(input="x" * 500)).status == 200
        refused = await proxy.post(input="x" * 1100)
        assert len(upstream.requests) == 1
    assert (refused.status, refused.error()["code"]) == (400, "context_length_exceeded")
    assert "1024" in refused.error()["message"]


# Pools


@pytest.mark.parametrize("fault", [[CUT], answer(503, "no"), answer(429, "no")])
async def test_the_next_pool_is_asked_when_one_fails(fault: Script) -> None:
    pools = {"first": {"upstreams": ["u1"]}, "second": {"upstreams": ["u2"]}}
    settings = {"pools": pools, "routes": [{"model": "m", "pools": ["first", "second"]}]}
    async with Upstream(fault) as bad, Upstream(GOOD) as good, in_process(bad, good, **settings) as proxy:
        assert (await proxy.post()).json()["status"] == "completed"
        assert (await chat(proxy)).body == b"".join(GOOD)
    assert len(good.requests) == 2


@pytest.mark.parametrize("passes", [True, False])
async def test_a_prompt_that_is_too_long_goes_to_the_larger_window(passes: bool) -> None:
    said = {"error": {"message": "maximum context length is 8 tokens", "code": "context_length_exceeded"}}
    settings = {"pools": {"large": {"upstreams": ["u2"]}}} | route(long_context="large")
    async with (
        Upstream(answer(400, said)) as small,
        Upstream(GOOD) as large,
        in_process(small, large, **settings) as proxy,
    ):
        reply = await (chat(proxy) if passes else proxy.post())
    assert (reply.status, len(small.requests), len(large.requests)) == (200, 1, 1)


# The list of models


async def test_the_list_of_an_upstream_is_kept_for_a_while() -> None:
    listed = answer(200, {"data": [{"id": "one"}]})
    async with Upstream(listed) as upstream, in_process(upstream, models_cache=60) as proxy:
        for _ in range(3):
            await proxy.get("/v1/models")
        await proxy.get("/v1/models/one")
        assert len(upstream.requests) == 1
    async with Upstream(listed) as upstream, in_process(upstream, models_cache=0) as proxy:
        for _ in range(3):
            await proxy.get("/v1/models")
        assert len(upstream.requests) == 3


NOTHING: list[Any] = ["<html>", b"\xff", "null", {}, [], {"data": "x"}, {"data": {"id": "x"}}]


@pytest.mark.parametrize(
    "fault", [[CUT], answer(500, "no"), answer(429, "no"), *(answer(200, body) for body in NOTHING)]
)
async def test_the_old_list_stays_when_an_upstream_fails(fault: Script) -> None:
    listed = answer(200, {"data": [{"id": "one"}]})
    async with Upstream(listed, fault) as upstream, in_process(upstream, models_cache=0) as proxy:
        lists = [(await proxy.get("/v1/models")).json()["data"] for _ in range(3)]
        assert len(upstream.requests) >= 3
    assert [[model["id"] for model in models] for models in lists] == [["one"]] * 3


async def test_an_empty_list_is_a_list() -> None:
    scripts = [answer(200, {"data": data}) for data in ([{"id": "one"}], None, [{"id": "two"}], [])]
    async with Upstream(*scripts) as upstream, in_process(upstream, models_cache=0) as proxy:
        lists = [(await proxy.get("/v1/models")).json()["data"] for _ in scripts]
    assert [[model["id"] for model in models] for models in lists] == [["one"], [], ["two"], []]


async def test_who_lists_no_models_is_not_asked_again_at_once() -> None:
    async with Upstream(answer(500, "no")) as upstream, in_process(upstream, models_cache=60) as proxy:
        assert [(await proxy.get("/v1/models")).json()["data"] for _ in range(3)] == [[]] * 3
        assert len(upstream.requests) == 1


async def test_what_several_want_to_know_is_found_out_once() -> None:
    go, looked = asyncio.Event(), 0

    async def look() -> tuple[int, float]:
        nonlocal looked
        looked += 1
        await go.wait()
        return looked, 60 if looked > 1 else 0

    shared = Shared(look, "look")
    leaves, *stay = [asyncio.create_task(shared.get()) for _ in range(3)]
    await asyncio.sleep(0)
    leaves.cancel()
    asyncio.get_running_loop().call_soon(go.set)
    assert await asyncio.gather(*stay) == [1, 1]
    assert [await shared.get() for _ in range(3)] == [2, 2, 2]
