"""The endpoints: what a request is answered with when nothing goes wrong behind them, and what a bad one is."""

import asyncio
import json
import re
from io import BytesIO
from typing import Any
from urllib.parse import unquote

import pytest

from proxy.upstream import LISTING
from tests.proxy import in_process
from tests.upstream import GONE, Raw, Upstream, answer, text

HEADERS = {"content-type": "application/json"}


# A response, both ways


async def test_a_stream_and_a_body_say_the_same() -> None:
    async with Upstream(text("Hel", "lo")) as upstream, in_process(upstream) as proxy:
        streamed, whole = (await proxy.post(stream=True)).final(), (await proxy.post()).json()
    assert whole["output"][0]["content"][0]["text"] == "Hello"
    changing = {"id", "output", "created_at", "completed_at"}
    assert {k: v for k, v in streamed.items() if k not in changing} == {
        k: v for k, v in whole.items() if k not in changing
    }
    assert streamed["output"][0]["content"] == whole["output"][0]["content"]


async def test_the_upstream_is_asked_the_same_for_both() -> None:
    async with Upstream(text("Hi")) as upstream, in_process(upstream) as proxy:
        await proxy.post(stream=True)
        await proxy.post()
        assert upstream.requests[0].json() == upstream.requests[1].json()
    assert upstream.requests[0].json()["stream"] is True
    assert upstream.requests[0].path == "/v1/chat/completions"


async def test_events_come_as_they_are_made() -> None:
    go = asyncio.Event()
    script = text("Hel", "lo")
    async with (
        Upstream([*script[:2], go, *script[2:]]) as upstream,
        in_process(upstream) as proxy,
        proxy.stream() as stream,
    ):
        await stream.until('"delta":"Hel"')
        go.set()
        assert (await stream.rest()).final()["status"] == "completed"


async def test_every_delta_has_an_event() -> None:
    async with Upstream(text("a", "b", "c")) as upstream, in_process(upstream) as proxy:
        events = (await proxy.post(stream=True)).events()
    assert [event["delta"] for event in events if event["type"] == "response.output_text.delta"] == ["a", "b", "c"]


async def test_a_stream_needs_no_done() -> None:
    async with Upstream(text("Hi")) as upstream, in_process(upstream, stream={"done": False}) as proxy:
        body = (await proxy.post(stream=True)).body
    assert b"[DONE]" not in body
    assert body.rstrip(b"\n").rsplit(b"\n\n", 1)[1].startswith(b"event: response.completed\n")


async def test_a_connection_serves_many_requests() -> None:
    async with Upstream(text("Hi")) as upstream, in_process(upstream) as proxy:
        for stream in (True, False) * 3:
            assert (await proxy.post(stream=stream)).status == 200
        assert upstream.connections == 1


# Headers


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_has_the_headers_of_the_api(stream: bool) -> None:
    async with Upstream(text("Hi")) as upstream, in_process(upstream) as proxy:
        headers = (await proxy.post(stream=stream)).headers
    assert re.fullmatch(r"req_[0-9a-f]{32}", headers["x-request-id"])
    assert headers["openai-processing-ms"].isdecimal()
    assert headers["openai-version"] == "2020-10-01"
    kind = "text/event-stream; charset=utf-8" if stream else "application/json"
    assert headers["content-type"].startswith(kind)


async def test_a_stream_is_not_to_be_kept_by_anybody() -> None:
    async with Upstream(text("Hi")) as upstream, in_process(upstream) as proxy:
        headers = (await proxy.post(stream=True)).headers
    assert "no-cache" in headers["cache-control"]
    assert headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in headers


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_id_goes_from_end_to_end(stream: bool) -> None:
    async with Upstream(text("Hi")) as upstream, in_process(upstream) as proxy:
        reply = await proxy.post(stream=stream, headers={"X-Request-Id": "mine-1"})
        assert reply.headers["x-request-id"] == "mine-1"
        assert upstream.requests[0].headers["x-request-id"] == "mine-1"


async def test_a_request_id_that_could_do_harm_is_replaced() -> None:
    async with Upstream(text("Hi")) as upstream, in_process(upstream) as proxy:
        reply = await proxy.post(headers={"X-Request-Id": 'a b"c'})
        assert reply.headers["x-request-id"].startswith("req_")
        assert upstream.requests[0].headers["x-request-id"] == reply.headers["x-request-id"]


async def test_errors_have_a_request_id_too() -> None:
    async with Upstream(answer(500, {"error": "no"})) as upstream, in_process(upstream) as proxy:
        for reply in (await proxy.post(), await proxy.get("/nowhere")):
            assert reply.headers["x-request-id"].startswith("req_")
            assert reply.headers["openai-version"] == "2020-10-01"


@pytest.mark.parametrize("stream", [True, False])
async def test_what_could_not_be_said_is_named_in_a_header(stream: bool) -> None:
    async with Upstream(text("Hi")) as upstream, in_process(upstream) as proxy:
        reply = await proxy.post(stream=stream, text={"verbosity": "low"}, invented=1)
    assert reply.status == 200
    assert set(reply.headers["x-dropped-parameters"].split(", ")) == {"invented", "text.verbosity"}


@pytest.mark.parametrize("stream", [True, False])
async def test_items_that_say_nothing_are_counted_in_a_header(stream: bool) -> None:
    items = [{"type": "invented", "id": "x"}, {"role": "user", "content": "hi"}]
    async with Upstream(text("Hi")) as upstream, in_process(upstream) as proxy:
        reply = await proxy.post(stream=stream, input=items)
    assert reply.headers["x-ignored-items"] == "1"


async def test_nothing_is_named_where_nothing_is_dropped() -> None:
    async with Upstream(text("Hi")) as upstream, in_process(upstream) as proxy:
        headers = (await proxy.post()).headers
    assert "x-dropped-parameters" not in headers
    assert "x-ignored-items" not in headers


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"invented": 1}, "unknown_parameter", "invented"),
        ({"text": {"verbosity": "low"}}, "unsupported_parameter", "text.verbosity"),
    ],
)
async def test_strict_refuses_what_would_be_dropped(fields: dict[str, Any], code: str, param: str) -> None:
    async with Upstream(text("Hi")) as upstream, in_process(upstream, strict=True) as proxy:
        reply = await proxy.post(stream=True, **fields)
        assert (reply.status, reply.error()["code"], reply.error()["param"]) == (400, code, param)
        assert upstream.requests == []


# Bad requests


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v1/nowhere", 404, "unknown_url"),
        ("GET", "/", 404, "unknown_url"),
        ("POST", "/v1/responses/resp_1/cancel", 404, "unknown_url"),
        ("GET", "/v1/responses", 405, "method_not_supported"),
        ("DELETE", "/v1/models", 405, "method_not_supported"),
        ("POST", "/health", 405, "method_not_supported"),
        ("POST", "/%0A", 404, "unknown_url"),
        ("GET", "/v1/models/x%0Ay", 404, "model_not_found"),
        ("POST", "/v1/models/x%0Ay", 405, "method_not_supported"),
    ],
)
async def test_a_wrong_url_or_method_is_told(method: str, path: str, status: int, code: str) -> None:
    async with in_process({"url": "http://127.0.0.1:1/v1"}) as proxy:
        reply = await proxy.ask(method, path, json={})
    assert (reply.status, reply.error()["code"]) == (status, code)
    assert reply.error()["type"] == "invalid_request_error"
    assert re.fullmatch(r"req_[0-9a-f]{32}", reply.headers["x-request-id"])
    if code != "model_not_found":
        assert f"{method} {unquote(path)}" in reply.error()["message"]


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/models", "/nowhere"])
async def test_nothing_is_expected_but_a_word_to_go_on(path: str) -> None:
    async with in_process({"url": "http://127.0.0.1:1/v1"}) as proxy:
        reply = await proxy.ask("POST", path, json={}, headers={"Expect": "something"})
    assert (reply.status, reply.error()["type"]) == (417, "invalid_request_error")
    assert "'something'" in reply.error()["message"]
    assert reply.headers["x-request-id"].startswith("req_")


async def test_who_waits_for_a_word_to_go_on_gets_it() -> None:
    async with Upstream(text("Hi")) as upstream, in_process(upstream) as proxy:
        for _ in range(2):
            assert (await proxy.post(headers={"Expect": "100-Continue"})).status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_a_body_of_another_type_is_refused(kind: str) -> None:
    async with in_process({"url": "http://127.0.0.1:1/v1"}) as proxy:
        reply = await proxy.ask("POST", "/v1/responses", data=b"{}", headers={"content-type": kind})
    assert (reply.status, reply.error()["code"]) == (415, "unsupported_content_type")


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "application/vnd.api+json"])
async def test_json_may_be_called_by_its_names(kind: str) -> None:
    async with Upstream(text("Hi")) as upstream, in_process(upstream) as proxy:
        body = b'{"model":"m","input":"hi"}'
        reply = await proxy.ask("POST", "/v1/responses", data=body, headers={"content-type": kind})
    assert reply.status == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"model":"m","input":"hi"} {}'])
async def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    async with in_process({"url": "http://127.0.0.1:1/v1"}) as proxy:
        reply = await proxy.ask("POST", "/v1/responses", data=body, headers=HEADERS)
    assert (reply.status, reply.error()["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_over_the_limit_is_refused(chunked: bool) -> None:
    async def pieces() -> Any:
        for _ in range(300):
            yield b" " * 10

    body = pieces() if chunked else b" " * 3000
    async with in_process({"url": "http://127.0.0.1:1/v1"}, limits={"body": "2 KiB"}) as proxy:
        reply = await proxy.ask("POST", "/v1/responses", data=body, headers=HEADERS)
    assert (reply.status, reply.error()["code"]) == (413, "request_too_large")
    assert "2048" in reply.error()["message"]


async def test_a_long_history_is_no_large_body() -> None:
    words = "x" * (3 << 20)  # aiohttp's own limit is 1 MiB
    body = BytesIO(json.dumps({"model": "m", "input": words}).encode())
    async with Upstream(text("Hi")) as upstream, in_process(upstream) as proxy:
        assert (await proxy.ask("POST", "/v1/responses", data=body, headers=HEADERS)).status == 200
        assert upstream.requests[0].json()["messages"][0]["content"] == words


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"model": None}, "missing_required_parameter", "model"),
        ({"input": None}, "missing_required_parameter", "input"),
        ({"temperature": 3}, "decimal_above_max_value", "temperature"),
        ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].name"),
        ({"tools": [{"type": "web_search"}]}, "unsupported_parameter", "tools[0].type"),
        ({"background": True}, "unsupported_parameter", "background"),
        ({"previous_response_id": "resp_1"}, "unsupported_parameter", "previous_response_id"),
    ],
)
async def test_a_bad_request_names_its_parameter(stream: bool, fields: dict[str, Any], code: str, param: str) -> None:
    async with Upstream(text("Hi")) as upstream, in_process(upstream) as proxy:
        reply = await proxy.post(stream=stream, **fields)
        assert (reply.status, reply.error()["code"], reply.error()["param"]) == (400, code, param)
        assert upstream.requests == []


# Routes and models


async def test_an_exact_route_renames_and_others_are_refused() -> None:
    routes = [{"model": "small", "upstreams": ["u1"], "upstream_model": "llama"}]
    async with Upstream(text("Hi")) as upstream, in_process(upstream, routes=routes) as proxy:
        reply = await proxy.post(model="small")
        refused = await proxy.post(model="large")
    assert (reply.json()["model"], upstream.requests[0].json()["model"]) == ("small", "llama")
    assert (refused.status, refused.error()["code"], refused.error()["param"]) == (400, "model_not_found", "model")
    assert "'small'" in refused.error()["message"]


async def test_an_exact_route_goes_before_a_pattern() -> None:
    routes = [{"model": "g*", "upstreams": ["u1"]}, {"model": "gpt", "upstreams": ["u2"]}]
    async with (
        Upstream(text("1")) as first,
        Upstream(text("2")) as second,
        in_process(first, second, routes=routes) as proxy,
    ):
        for model in ("gpt", "gemma"):
            await proxy.post(model=model)
    assert [each.requests[0].json()["model"] for each in (first, second)] == ["gemma", "gpt"]


async def test_models_are_those_of_routes_and_behind_patterns() -> None:
    routes = [{"model": "mine", "upstreams": ["u1"]}, {"model": "l*", "upstreams": ["u1"]}]
    offered = answer(200, {"object": "list", "data": [{"id": "llama"}, {"id": "qwen"}, {"id": "org/llava"}]})
    async with Upstream(offered) as upstream, in_process(upstream, routes=routes) as proxy:
        listed = (await proxy.get("/v1/models")).json()
        assert upstream.requests[0].path == "/v1/models"
    assert (listed["object"], [model["id"] for model in listed["data"]]) == ("list", ["mine", "llama"])
    assert {"id", "object", "created", "owned_by"} == set(listed["data"][0])


async def test_one_model_is_found_by_its_name() -> None:
    offered = answer(200, {"object": "list", "data": [{"id": "org/llama"}]})
    async with Upstream(offered) as upstream, in_process(upstream) as proxy:
        assert (await proxy.get("/v1/models/org/llama")).json()["id"] == "org/llama"
        assert (await proxy.get("/v1/models/org%2Fllama")).json()["id"] == "org/llama"
        for name in ("other", "o" * 5000):
            missing = await proxy.get(f"/v1/models/{name}")
            assert (missing.status, missing.error()["code"]) == (404, "model_not_found")
            assert (missing.error()["param"], len(missing.body) < 400) == ("model", True)


@pytest.mark.parametrize("list", [answer(500, "oh"), answer(200, "<html>"), answer(404, {"detail": "Not Found"})])
async def test_an_upstream_without_a_list_hides_no_other(list: Any) -> None:
    offered = answer(200, {"data": [{"id": "llama"}]})
    async with Upstream(list) as broken, Upstream(offered) as other, in_process(broken, other) as proxy:
        reply = await proxy.get("/v1/models")
    assert (reply.status, [model["id"] for model in reply.json()["data"]]) == (200, ["llama"])


# Health


async def test_alive_is_not_ready() -> None:
    async with in_process({"url": "http://127.0.0.1:1/v1"}) as proxy:
        assert (await proxy.get("/health")).status == 200
        reply = await proxy.get("/ready")
    assert (reply.status, reply.error()["code"]) == (503, "server_is_overloaded")
    assert int(reply.headers["retry-after"]) >= 1


@pytest.mark.parametrize("list", [answer(200, {"data": []}), answer(200, "<p>"), answer(404, "no"), answer(401, "no")])
async def test_ready_with_one_upstream_that_answers(list: Any) -> None:
    async with Upstream(list) as upstream, in_process({"url": "http://127.0.0.1:1/v1"}, upstream) as proxy:
        assert (await proxy.get("/ready")).status == 200


async def test_an_upstream_that_fails_is_not_ready() -> None:
    async with Upstream(answer(503, "loading")) as upstream, in_process(upstream) as proxy:
        assert (await proxy.get("/ready")).status == 503


async def test_one_that_answers_is_ready_whatever_hangs() -> None:
    good = answer(200, {"data": []})
    async with Upstream([Raw(b""), GONE]) as hung, Upstream(good) as upstream, in_process(hung, upstream) as proxy:
        async with asyncio.timeout(LISTING):
            assert (await proxy.get("/ready")).status == 200
            await (await hung.received(1)).gone.wait()


async def test_many_who_ask_at_once_ask_an_upstream_once() -> None:
    go = asyncio.Event()
    slow = [*answer(200, {"data": []})[:1], go, b'{"data": []}']
    async with Upstream(slow) as upstream, in_process(upstream) as proxy:
        asked = [asyncio.create_task(proxy.get("/ready")) for _ in range(20)]
        await upstream.received(1)
        asked.pop().cancel()
        go.set()
        assert {reply.status for reply in await asyncio.gather(*asked)} == {200}
        assert len(upstream.requests) == 1
