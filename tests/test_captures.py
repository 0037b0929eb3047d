"""Answers of real engines, recorded with their status and headers, replayed over a socket to the whole proxy.

tests/captures holds them: NAME.raw is every byte of a connection, NAME.http an answer without its chunks. What these
engines stream is mostly told in transcripts; here are the answers in which HTTP has a part.

Recorded in November 2026: llama.cpp 0.5.0 and b11549, vLLM 0.32, transformers serve 5.23, llama-cpp-python 0.3.36.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.proxy import in_process
from tests.upstream import CLOSE, Raw, Script, Upstream, replay

Json = dict[str, Any]

FOLDER = Path(__file__).with_name("captures")
HELLO = "message: Hello! How can I help you today?"
CALL = "function_call: get_weather {'location': 'Paris'}"
CALLS = [CALL, "function_call: get_weather {'location': 'London'}"]
THOUGHT = "reasoning: I need the weather in Paris. I should call the tool."
TOOL = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}


def recorded(name: str) -> Script:
    data = (FOLDER / name).read_bytes()
    return [Raw(data)] if name.endswith(".raw") else replay(data)


def broken_off(name: str) -> Script:
    """Without the end of the body, as when an engine is killed."""
    return [*recorded(name), CLOSE]


def told(response: Json) -> list[str]:
    """What the items of a response say, in a line each."""
    return [f"{item['type']}: {_told(item)}".strip() for item in response["output"]]


def _told(item: Json) -> str:
    if item["type"] == "function_call":
        return f"{item['name']} {json.loads(item['arguments'])}"
    return "".join(part["text"] for part in item["content"]).strip()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("name", "expected", "tokens"),
    [
        ("lcppython-text.raw", [HELLO], 0),  # usage never comes in its streams
        ("llamacpp-json-body.http", [THOUGHT, CALL], 335),
        ("llamacpp-parallel-calls.raw", CALLS, 262),
        ("transformers-text.http", [HELLO], 21),  # no [DONE]
        ("transformers-thought-then-call.http", [THOUGHT, CALL], 335),
        ("vllm-json-body.http", [HELLO], 21),
        ("vllm-parallel-calls.raw", CALLS, 262),
    ],
)
async def test_an_answer(name: str, expected: list[str], tokens: int, stream: bool) -> None:
    async with Upstream(recorded(name)) as upstream, in_process(upstream) as proxy:
        reply = await proxy.post(tools=[TOOL], stream=stream)
        response = reply.final() if stream else reply.json()
    assert (reply.status, response["status"]) == (200, "completed")
    assert [line for line in told(response) if line != "message:"] == expected
    assert response["usage"]["total_tokens"] == tokens


@pytest.mark.parametrize(
    ("name", "status", "type", "message"),
    [
        ("lcppython-empty.http", 502, "server_error", "empty stream"),  # it refuses a prompt that is too long
        ("transformers-string-error.http", 502, "server_error", "must be greater than 0"),
        ("vllm-error-event.http", 400, "invalid_request_error", "Grammar error"),
    ],
)
async def test_a_failure_behind_a_good_status(name: str, status: int, type: str, message: str) -> None:
    async with Upstream(recorded(name)) as upstream, in_process(upstream) as proxy:
        body, stream = await proxy.post(), await proxy.post(stream=True)
    assert (body.status, stream.status) == (status, 200)
    for error in body.error(), stream.final()["error"]:
        assert message in error["message"]
        assert error["type"] == type


async def test_a_connection_that_broke_off() -> None:
    async with Upstream(broken_off("llamacpp-broken-off.http")) as upstream, in_process(upstream) as proxy:
        body, stream = await proxy.post(), await proxy.post(stream=True)
    assert "broke off its answer" in body.error()["message"]
    assert told(stream.final())[0].startswith("message: Once upon a time")
    assert stream.final()["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("name", "status", "code", "param"),
    [
        ("lcppython-500.http", 502, "server_error", None),  # text/plain
        ("lcppython-overlong.http", 400, "context_length_exceeded", "input"),
        ("lcppython-schema.http", 502, "server_error", None),  # its validation errors are a 500
        ("llamacpp-image.http", 502, "server_error", None),
        ("llamacpp-logprobs.http", 400, None, "tools"),
        ("llamacpp-overlong.http", 400, "context_length_exceeded", "input"),
        ("transformers-500.http", 502, "server_error", None),  # text/plain
        ("transformers-field.http", 400, None, None),  # {"detail": text}
        ("transformers-model.http", 400, None, None),
        ("vllm-key.http", 502, "server_error", None),  # {"error": text}
        ("vllm-model.http", 400, "model_not_found", "model"),
        ("vllm-overlong.http", 400, "context_length_exceeded", "input"),
        ("vllm-url.http", 502, "server_error", None),
    ],
)
async def test_a_refusal(name: str, status: int, code: str | None, param: str | None, stream: bool) -> None:
    async with Upstream(recorded(name)) as upstream, in_process(upstream) as proxy:
        reply = await proxy.post(stream=stream)
    error = reply.error()
    assert (reply.status, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == ("invalid_request_error" if status == 400 else "server_error")


async def test_a_connection_that_promised_to_stay_may_go() -> None:
    async with Upstream(recorded("llamacpp-parallel-calls.raw")) as upstream, in_process(upstream) as proxy:
        for _ in range(5):
            assert told((await proxy.post(tools=[TOOL], stream=True)).final()) == CALLS
        assert b"Keep-Alive: timeout=5" in (FOLDER / "llamacpp-parallel-calls.raw").read_bytes()
        assert upstream.connections == len(upstream.requests) == 5
