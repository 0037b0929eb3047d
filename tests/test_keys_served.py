"""Keys and their limits over the real server."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil
from typing import Any

import pytest

from proxy.keys import hash_of
from tests.proxy import REQUEST, Client, Reply, Stream, as_process, in_process
from tests.upstream import CLOSE, CUT, GONE, Head, Script, Upstream, answer, chunk, sse, text

ALICE, BOB, ROOT = "sk-alice-0123456789", "sk-bob-0123456789", "sk-root-0123456789"
GOOD = text("Hel", "lo")  # 7 tokens
MODELS = {"routes": [{"model": name, "upstreams": ["u1"]} for name in ("m", "other", "pattern-*")]}


def keys(**alice: Any) -> dict[str, Any]:
    """The YAML: what alice may do; bob may do anything."""
    return {
        "keys": [{"name": "alice", "hash": hash_of(ALICE)} | alice, {"name": "bob", "hash": hash_of(BOB)}],
        "admin_keys": [hash_of(ROOT)],
    }


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def ask(proxy: Client, key: str = ALICE, **fields: Any) -> Reply:
    return await proxy.post(headers=bearer(key), **fields)


@asynccontextmanager
async def streaming(proxy: Client, key: str = ALICE) -> AsyncIterator[Stream]:
    """A stream of which something has come; leaving early closes the connection."""
    body = REQUEST | {"stream": True}
    async with proxy.session.post(f"{proxy.url}/responses", json=body, headers=bearer(key)) as reply:
        stream = Stream(reply)
        await stream.until("output_text.delta")
        yield stream
        reply.close()


async def charged(proxy: Client) -> int:
    """The tokens that alice has used, who gets one a minute: by the minutes that she has to wait."""
    reply = await ask(proxy)
    assert (reply.status, reply.error()["type"]) == (429, "tokens")
    return ceil(int(reply.headers["retry-after-ms"]) / 60_000)


# Who may ask


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, None),
        ({"Authorization": "Basic YTpi"}, None),
        (bearer("sk-x"), "invalid_api_key"),
        (bearer(ROOT), "invalid_api_key"),
    ],
)
async def test_without_a_known_key_nothing_is_served(headers: dict[str, str], code: str | None, stream: bool) -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream, **keys()) as proxy:
        reply = await proxy.post(headers=headers, stream=stream)
        assert (reply.status, reply.error()["code"]) == (401, code)
        assert (await proxy.ask("GET", "/v1/models", headers=headers)).status == 401
        assert upstream.requests == []


async def test_a_key_opens_the_door_in_any_of_three_headers() -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream, **keys()) as proxy:
        for headers in (bearer(ALICE), {"x-api-key": ALICE}, {"api-key": BOB}):
            reply = await proxy.post(headers=headers)
            assert (reply.status, reply.json()["status"]) == (200, "completed")
        assert not any(ALICE in str(request.headers) + str(request.body) for request in upstream.requests)


async def test_health_needs_no_key() -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream, **keys()) as proxy:
        assert (await proxy.get("/health")).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_gets_its_models_only(stream: bool) -> None:
    settings = keys(models=["m", "pattern-*"]) | MODELS
    async with Upstream(GOOD) as upstream, in_process(upstream, **settings) as proxy:
        reply = await ask(proxy, model="other", stream=stream)
        error = reply.error()
        assert (reply.status, error["code"], error["param"]) == (403, "model_not_found", "model")
        assert upstream.requests == []
        assert (await ask(proxy, model="pattern-1", stream=stream)).status == 200
        assert (await ask(proxy, BOB, model="other", stream=stream)).status == 200


async def test_a_key_sees_its_models_only() -> None:
    models = answer(200, {"object": "list", "data": []})
    async with Upstream(models) as upstream, in_process(upstream, **keys(models=["m"]), **MODELS) as proxy:
        seen = {}
        for key in (ALICE, BOB):
            listed = (await proxy.ask("GET", "/v1/models", headers=bearer(key))).json()["data"]
            one = await proxy.ask("GET", "/v1/models/other", headers=bearer(key))
            seen[key] = [model["id"] for model in listed], one.status
    assert seen == {ALICE: (["m"], 404), BOB: (["m", "other"], 200)}


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 401), (bearer("x"), 401), (bearer(ALICE), 403), (bearer(ROOT), 200)]
)
async def test_only_an_admin_key_opens_admin(headers: dict[str, str], status: int) -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream, **keys()) as proxy:
        assert (await proxy.ask("GET", "/admin/upstreams", headers=headers)).status == status


# Limits


@pytest.mark.parametrize("stream", [False, True])
async def test_requests_over_the_limit_get_a_429_and_other_keys_an_answer(stream: bool) -> None:
    settings = keys(requests_per_minute=1)
    async with Upstream(GOOD) as upstream, in_process(upstream, **settings) as proxy:
        first, second = await ask(proxy, stream=stream), await ask(proxy, stream=stream)
        assert first.headers["x-ratelimit-limit-requests"] == "1"
        assert first.headers["x-ratelimit-remaining-requests"] == "0"
        assert "x-ratelimit-limit-tokens" not in first.headers
        error = second.error()
        assert (second.status, error["type"], error["code"]) == (429, "requests", "rate_limit_exceeded")
        assert "Please try again in" in error["message"]
        assert 0 < int(second.headers["Retry-After"]) <= 60
        assert second.headers["x-ratelimit-remaining-requests"] == "0"
        assert len(upstream.requests) == 1
        other = await ask(proxy, BOB, stream=stream)
        assert other.status == 200
        assert not any("ratelimit" in name.lower() for name in other.headers)


@pytest.mark.parametrize("body", [b"{", b'{"model": "m"}', b'{"model": "none", "input": "hi"}'])
async def test_a_request_that_reaches_no_upstream_counts(body: bytes) -> None:
    headers = bearer(ALICE) | {"Content-Type": "application/json"}
    settings = keys(requests_per_minute=1) | MODELS
    async with Upstream(GOOD) as upstream, in_process(upstream, **settings) as proxy:
        statuses = [(await proxy.ask("POST", "/v1/responses", data=body, headers=headers)).status for _ in range(2)]
    assert statuses == [400, 429]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_tokens_of_an_answer_are_charged(stream: bool) -> None:
    async with Upstream(GOOD) as upstream, in_process(upstream, **keys(tokens_per_minute=1)) as proxy:
        assert (await ask(proxy, stream=stream)).headers["x-ratelimit-limit-tokens"] == "1"
        assert await charged(proxy) == 7
        assert (await ask(proxy, BOB)).status == 200


async def test_a_client_that_leaves_before_the_usage_is_charged_a_token_an_event() -> None:
    script: Script = [*sse(chunk({"content": "Hel"}), done=False), *sse(chunk({"content": "lo"}), done=False), GONE]
    async with Upstream(script) as upstream, in_process(upstream, **keys(tokens_per_minute=1)) as proxy:
        async with streaming(proxy) as stream:
            await stream.until("lo")
        await upstream.requests[0].gone.wait()
        assert await charged(proxy) == 2


async def test_so_many_streams_may_be_open_and_no_more() -> None:
    script: Script = [*sse(chunk({"content": "Hel"}), done=False), GONE]
    async with Upstream(script) as upstream, in_process(upstream, **keys(streams=1)) as proxy:
        async with streaming(proxy), streaming(proxy, BOB):
            reply = await ask(proxy)
            assert (reply.status, reply.error()["code"]) == (429, "rate_limit_exceeded")
            assert int(reply.headers["Retry-After"]) >= 1
        await upstream.requests[0].gone.wait()
        async with streaming(proxy):
            assert len(upstream.requests) == 3


@pytest.mark.parametrize(
    "script",
    [
        answer(400, {"error": {"message": "oh"}}),
        answer(500, "oh"),
        [CUT],
        [Head(), CLOSE],
        [*sse(chunk({"content": "Hel"}), done=False), CUT],
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_place_comes_back_however_a_request_ends(script: Script, stream: bool) -> None:
    settings = keys(streams=1) | {"retries": {"attempts": 1}}
    async with Upstream(script, GOOD) as upstream, in_process(upstream, **settings) as proxy:
        await ask(proxy, stream=stream)
        reply = await ask(proxy, stream=stream)
    assert reply.status == 200


# Endpoints that pass through


CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


async def chat(proxy: Client, headers: dict[str, str], model: str = "m") -> Reply:
    return await proxy.ask("POST", "/v1/chat/completions", json=CHAT | {"model": model}, headers=headers)


async def test_what_passes_through_needs_a_key_that_opens_its_model() -> None:
    async with Upstream(answer(200, {})) as upstream, in_process(upstream, **keys(models=["m"]), **MODELS) as proxy:
        asked = [({}, "m"), (bearer("sk-x"), "m"), (bearer(ALICE), "other"), (bearer(ALICE), "m")]
        statuses = [(await chat(proxy, headers, model)).status for headers, model in asked]
        assert len(upstream.requests) == 1
        assert ALICE not in str(upstream.requests[0].headers)
    assert statuses == [401, 401, 403, 200]


@pytest.mark.parametrize(("script", "tokens"), [(answer(200, {"usage": USAGE}), 5), (GOOD, 7)])
async def test_what_passes_through_is_charged(script: Script, tokens: int) -> None:
    settings = keys(tokens_per_minute=1, requests_per_minute=5, streams=1)
    async with Upstream(script) as upstream, in_process(upstream, **settings) as proxy:
        reply = await chat(proxy, bearer(ALICE))
        assert (reply.status, reply.headers["x-ratelimit-remaining-requests"]) == (200, "4")
        assert await charged(proxy) == tokens
        assert (await chat(proxy, bearer(ALICE))).status == 429
        assert (await chat(proxy, bearer(BOB))).status == 200


@pytest.mark.parametrize("ask_for", [ask, lambda proxy: chat(proxy, bearer(ALICE))])
async def test_an_absurd_usage_is_charged_and_leaves_the_metrics_readable(ask_for: Any) -> None:
    usage = USAGE | {"prompt_tokens": int("9" * 400)}
    script = sse(chunk({"content": "Hel"}), chunk(finish="stop"), chunk(usage=usage))
    settings = keys(tokens_per_minute=1) | {"metrics": {"open": True}}
    async with Upstream(script) as upstream, in_process(upstream, **settings) as proxy:
        assert (await ask_for(proxy)).status == 200
        assert (await ask_for(proxy)).status == 429
        shown = await proxy.get("/metrics")
    assert shown.status == 200
    assert 'responses_proxy_tokens_total{key="alice",kind="input",route="*"} 1e+09' in shown.body.decode()


async def test_who_leaves_what_passes_through_is_charged_what_was_reported() -> None:
    script: Script = [*sse(chunk({"content": "Hel"}, usage=USAGE), done=False), GONE]
    async with Upstream(script) as upstream, in_process(upstream, **keys(tokens_per_minute=1)) as proxy:
        url = f"{proxy.url}/chat/completions"
        async with proxy.session.post(url, json=CHAT, headers=bearer(ALICE)) as reply:
            await reply.content.readuntil(b"\n\n")
            reply.close()
        await upstream.requests[0].gone.wait()
        assert await charged(proxy) == 5


# What an upstream is told


@pytest.mark.parametrize("key", [ALICE, ROOT])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "x-any", "Accept", "X-Request-Id", "traceparent"])
async def test_no_key_of_ours_goes_to_an_upstream(name: str, path: str, key: str) -> None:
    value = f"Bearer {key}" if name == "Authorization" else key
    given = {"api-key": BOB, name: value, "x-tenant": "t"}
    async with Upstream(GOOD) as upstream:
        endpoint = {
            "url": upstream.url,
            "pass_key": True,
            "forward_headers": ["x-api-key", "api-key", "x-any", "x-tenant"],
        }
        async with in_process(endpoint, **keys()) as proxy:
            reply = await proxy.ask("POST", path, json=CHAT | {"input": "hi"}, headers=given)
    assert reply.status == 200
    sent = upstream.requests[0].headers
    assert sent["x-tenant"] == "t"
    assert not [value for value in sent.values() if key in value or BOB in value]


async def test_an_admin_key_stays_here_where_everybody_may_ask() -> None:
    admin = {"admin_keys": [hash_of(ROOT)]}
    async with Upstream(GOOD) as upstream, in_process({"url": upstream.url, "pass_key": True}, **admin) as proxy:
        for key in (ROOT, "sk-meant-for-the-upstream"):
            await proxy.post(headers=bearer(key))
    sent = [request.headers.get("authorization") for request in upstream.requests]
    assert sent == [None, "Bearer sk-meant-for-the-upstream"]


# What is said of keys


async def talk(proxy: Client) -> list[Reply]:
    """An answer and every refusal there is; alice may ask once in a minute, and for m."""
    replies = [await ask(proxy, key, model=model) for key, model in ((ALICE, "m"), (ALICE, "m"), (BOB, "none"))]
    replies += [await ask(proxy, ALICE + "-wrong", stream=stream) for stream in (False, True)]
    replies += [await proxy.post(headers={name: ROOT}) for name in ("x-api-key", "api-key", "Authorization")]
    replies += [await proxy.ask("GET", "/admin/upstreams", headers=bearer(key)) for key in (BOB, ROOT)]
    return replies


SECRETS = ("0123456789", *(hash_of(key)[-16:] for key in (ALICE, BOB, ROOT)))


async def test_no_answer_and_no_record_of_the_log_holds_a_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    settings = keys(requests_per_minute=1) | {"routes": MODELS["routes"][:1]}
    async with Upstream(GOOD) as upstream, in_process(upstream, **settings) as proxy:
        replies = await talk(proxy)
    said = [f"{reply.headers} {reply.body!r}" for reply in replies]
    said += [f"{record.getMessage()} {vars(record)}" for record in caplog.records if record.name.startswith("proxy")]
    assert {reply.status for reply in replies} == {200, 400, 401, 403, 429}
    assert any("key=alice" in each for each in said)
    assert not [each for each in said for secret in SECRETS if secret in each]


@pytest.mark.parametrize("format", ["text", "json"])
async def test_no_line_of_the_log_holds_a_key(format: str) -> None:
    settings = keys(requests_per_minute=1) | {"log": {"format": format, "level": "debug", "bodies": True}}
    async with Upstream(GOOD) as upstream, as_process(upstream, **settings) as proxy:
        await talk(proxy)
        lines = proxy.log.splitlines()
    assert any("alice" in line for line in lines)
    assert not [line for line in lines for secret in SECRETS if secret in line]
