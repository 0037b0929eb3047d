"""llama.cpp's server behind the proxy, asked by the official client. The model is small but knows some answers."""

import asyncio
import json
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response
from pydantic import BaseModel

from tests.checker import check, parse_sse
from tests.engines.conftest import PATIENCE, Engine, StartEngine, StartProxy

pytestmark = pytest.mark.engine

Json = dict[str, Any]

HELLO = "Hello! How can I help you today?"
STORY: Json = {"input": "Tell me a story."}
PARIS = {"location": "Paris"}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string", "description": "City name"}},
        "required": ["location"],
    },
}
ADD = {
    "type": "function",
    "name": "add",
    "description": "Add two numbers.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        "required": ["a", "b"],
    },
}


async def ask(client: AsyncOpenAI, **fields: Any) -> Response:
    """The answer without streaming, which must say the same as the stream, which must keep the rules."""
    request: Json = {"model": "tiny", "temperature": 0, "max_output_tokens": 300} | fields
    streamed = await streamed_by(client, **request)
    whole: Response = await client.responses.create(**request)
    assert _without_ids(whole.to_dict()["output"]) == _without_ids(streamed["output"])
    assert whole.status == streamed["status"]
    return whole


async def streamed_by(client: AsyncOpenAI, **request: Any) -> Json:
    """The response that a stream ends with: of its bytes, since the SDK's objects make floats of whole numbers."""
    async with client.responses.with_streaming_response.create(**request, stream=True) as answer:
        return check(parse_sse(await answer.read()))


def _without_ids(output: Any) -> list[Json]:
    return [{key: value for key, value in item.items() if key not in ("id", "call_id")} for item in output]


def types(response: Response) -> list[str]:
    return [item.type for item in response.output]


def calls(response: Response) -> list[tuple[str, Json]]:
    return [(item.name, json.loads(item.arguments)) for item in response.output if item.type == "function_call"]


def outputs(response: Response, *temperatures: int) -> list[Json]:
    """What came of the calls, in their order."""
    ids = [item.call_id for item in response.output if item.type == "function_call"]
    texts = [f'{{"temperature": {temperature}}}' for temperature in temperatures]
    answers = zip(ids, texts, strict=True)
    return [{"type": "function_call_output", "call_id": call_id, "output": text} for call_id, text in answers]


# What it says


async def test_text(client: AsyncOpenAI) -> None:
    response = await ask(client, input="Say hello.")
    assert (response.status, response.output_text) == ("completed", HELLO)
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (11, 10)


async def test_text_in_many_scripts(client: AsyncOpenAI) -> None:
    response = await ask(client, input="Greet me in many scripts.", instructions="You are a helpful assistant.")
    assert response.output_text == (
        "Grüße aus Köln! Café, naïve, smörgåsbord. 日本語のテスト。 Привет, мир. 🙂🚀👩‍👩‍👧 done."
    )


def test_the_synchronous_client(proxy: str) -> None:
    with OpenAI(base_url=proxy, api_key="any", max_retries=0, timeout=PATIENCE) as client:
        with client.responses.stream(model="tiny", input="Say hello.", temperature=0) as stream:
            assert "".join(e.delta for e in stream if e.type == "response.output_text.delta") == HELLO
            assert stream.get_final_response().output_text == HELLO
        assert "tiny" in [model.id for model in client.models.list()]


@pytest.mark.parametrize("reasoning", [None, {"summary": "auto"}])
async def test_reasoning(client: AsyncOpenAI, reasoning: Json | None) -> None:
    response = await ask(client, input="Think: what is 2 + 2?", reasoning=reasoning)
    thought, _ = response.output
    assert thought.type == "reasoning"
    parts = thought.summary if reasoning else thought.content
    assert "The user wants me to think." in "".join(part.text for part in parts or [])
    assert response.output_text.strip() == "2 + 2 is 4."


async def test_a_call_and_the_turn_after_it(client: AsyncOpenAI) -> None:
    tools = [WEATHER]
    question = {"role": "user", "content": "What is the weather in Paris?"}
    called = await ask(client, input=[question], tools=tools)
    assert calls(called) == [("get_weather", PARIS)]
    answered = await ask(client, input=[question, *called.output, *outputs(called, 10)], tools=tools)
    assert answered.output_text == "It is 10 degrees in Paris."
    assert types(answered) == ["message"]


async def test_parallel_calls_and_the_turn_after_them(client: AsyncOpenAI) -> None:
    request: Json = {"tools": [WEATHER, ADD], "parallel_tool_calls": True}
    question = {"role": "user", "content": "What is the weather in Paris and London?"}
    called = await ask(client, input=[question], **request)
    assert calls(called) == [("get_weather", PARIS), ("get_weather", {"location": "London"})]
    answered = await ask(client, input=[question, *called.output, *outputs(called, 10, 11)], **request)
    assert answered.output_text == "It is 10 degrees in Paris and 11 degrees in London."


async def test_text_and_then_a_call(client: AsyncOpenAI) -> None:
    response = await ask(client, input="Explain, then check the weather in Paris.", tools=[WEATHER, ADD])
    assert types(response) == ["message", "function_call"]
    assert response.output_text.strip() == "I will check the weather in Paris for you."
    assert calls(response) == [("get_weather", PARIS)]


async def test_reasoning_then_a_call_and_both_replayed(client: AsyncOpenAI) -> None:
    question = {"role": "user", "content": "Think, then check the weather in Paris."}
    called = await ask(client, input=[question], tools=[WEATHER, ADD])
    assert types(called) == ["reasoning", "function_call"]
    assert calls(called) == [("get_weather", PARIS)]
    replayed = [question, *called.output, *outputs(called, 10)]
    answered = await ask(client, input=replayed, tools=[WEATHER, ADD], max_output_tokens=50)
    assert answered.output


async def test_a_function_that_must_be_called(client: AsyncOpenAI) -> None:
    chosen = {"type": "function", "name": "get_weather"}
    response = await ask(client, input="What is the weather in Paris?", tools=[WEATHER, ADD], tool_choice=chosen)
    assert calls(response) == [("get_weather", PARIS)]


class Weather(BaseModel):
    """Less than the model says to the same question when nobody gives it a schema: it adds tags."""

    city: str
    temperature: int


async def test_a_schema_is_kept(client: AsyncOpenAI) -> None:
    unbound = await ask(client, input="Give me JSON.")
    assert list(json.loads(unbound.output_text)) == ["city", "temperature", "tags"]
    schema = Weather.model_json_schema() | {"additionalProperties": False}
    text = {"format": {"type": "json_schema", "name": "weather", "schema": schema, "strict": True}}
    bound = await ask(client, input="Give me JSON.", text=text)
    assert list(json.loads(bound.output_text)) == ["city", "temperature"]


async def test_a_parsed_answer(client: AsyncOpenAI) -> None:
    response = await client.responses.parse(
        model="tiny", input="Give me JSON.", text_format=Weather, temperature=0, max_output_tokens=100
    )
    assert isinstance(response.output_parsed, Weather)
    assert response.output_parsed.city == "Paris"


async def test_logprobs(client: AsyncOpenAI) -> None:
    response = await ask(client, input="Say hello.", include=["message.output_text.logprobs"], top_logprobs=2)
    content = response.output[0].content[0]  # type: ignore[union-attr, index]
    assert "".join(each.token for each in content.logprobs).startswith(HELLO)  # type: ignore[union-attr]
    assert all(len(each.top_logprobs) == 2 and each.logprob <= 0 for each in content.logprobs)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"input": "Tell me a story."}, "message"),
        ({"input": "Think: what is 2 + 2?"}, "reasoning"),
        ({"input": "What is the weather in Paris?", "tools": [WEATHER]}, "function_call"),
    ],
)
async def test_an_answer_cut_by_its_length(client: AsyncOpenAI, request_: Json, expected: str) -> None:
    response = await ask(client, max_output_tokens=16, **request_)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert types(response) == [expected]
    assert response.output[0].status == "incomplete"  # type: ignore[union-attr]


# Errors


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_that_is_too_long(client: AsyncOpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size") as caught:
        await client.responses.create(model="tiny", input="engine " * 6000, stream=stream)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")


async def test_a_key_that_the_engine_refuses_is_not_the_clients_fault(
    start_engine: StartEngine, start_proxy: StartProxy
) -> None:
    url = start_engine("--key=sk-right").url
    upstreams = {name: {"url": f"{url}/v1", "profile": "llamacpp", "key": f"sk-{name}"} for name in ("right", "wrong")}
    routes = [{"model": name, "upstreams": [name]} for name in upstreams]
    proxy = start_proxy(json.dumps({"upstreams": upstreams, "routes": routes}))
    async with AsyncOpenAI(base_url=proxy, api_key="any", max_retries=0, timeout=PATIENCE) as client:
        assert (await ask(client, model="right", input="Say hello.")).output_text == HELLO
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError, match="credentials") as caught:
                await client.responses.create(model="wrong", input="Say hello.", stream=stream)
            assert caught.value.status_code == 502
            assert "sk-" not in caught.value.response.text


# Connections


async def test_the_engine_closes_each_connection_and_nobody_notices(client: AsyncOpenAI) -> None:
    for _ in range(20):
        final = await streamed_by(client, model="tiny", input="Say hello.", temperature=0)
        assert final["output"][0]["content"][0]["text"] == HELLO


async def begin_endless(client: AsyncOpenAI) -> openai.AsyncStream[Any]:
    """A stream that has begun to speak and takes the engine's only slot for as long as it is open."""
    stream = await client.responses.create(model="endless", temperature=0, stream=True, **STORY)
    async for event in stream:
        if event.type == "response.output_text.delta":
            break
    return stream


async def test_in_a_full_queue_a_client_hears_something_and_gets_its_answer(
    client: AsyncOpenAI, http: aiohttp.ClientSession, eager_proxy: str
) -> None:
    first = await begin_endless(client)
    body = {"model": "tiny", "input": "Say hello.", "temperature": 0, "stream": True}
    async with http.post(f"{eager_proxy}/responses", json=body) as second:
        heard = b""
        while b"event: response.in_progress" not in heard or b"\n:" not in heard:
            heard += await second.content.readany()
        assert b"event: response.output" not in heard
        await first.close()
        final = check(parse_sse(heard + await second.read()))
    assert final["output"][0]["content"][0]["text"] == HELLO


async def test_a_client_that_leaves_in_mid_stream_frees_the_slot(client: AsyncOpenAI) -> None:
    for _ in range(3):
        await (await begin_endless(client)).close()
    assert (await ask(client, input="Say hello.")).output_text == HELLO


async def test_a_client_that_leaves_without_having_streamed_frees_the_slot(
    client: AsyncOpenAI, http: aiohttp.ClientSession, engine: Engine
) -> None:
    task = asyncio.create_task(client.responses.create(model="endless", temperature=0, **STORY))
    while not await busy(http, engine):
        assert not task.done()
    task.cancel()
    assert (await ask(client, input="Say hello.")).output_text == HELLO


async def test_a_client_that_leaves_the_queue_is_not_served(
    client: AsyncOpenAI, http: aiohttp.ClientSession, eager_proxy: str
) -> None:
    first = await begin_endless(client)
    body = {"model": "endless", "temperature": 0, "stream": True} | STORY
    async with http.post(f"{eager_proxy}/responses", json=body) as second:
        await second.content.readany()
        second.close()
    await first.close()
    assert (await ask(client, input="Say hello.")).output_text == HELLO


async def busy(http: aiohttp.ClientSession, engine: Engine) -> bool:
    async with http.get(f"{engine.url}/slots") as answer:
        return any(slot["is_processing"] for slot in await answer.json())


async def test_an_engine_killed_in_mid_stream(
    start_engine: StartEngine, start_proxy: StartProxy, http: aiohttp.ClientSession
) -> None:
    engine = start_engine("--slots=2")
    upstream = {"url": f"{engine.url}/v1", "profile": "llamacpp", "body": {"ignore_eos": True}}
    proxy = start_proxy(json.dumps({"upstreams": {"engine": upstream}}))
    body = {"model": "endless", "temperature": 0, "stream": True} | STORY
    async with AsyncOpenAI(base_url=proxy, api_key="any", max_retries=0, timeout=PATIENCE) as client:
        stream = await begin_endless(client)
        async with http.post(f"{proxy}/responses", json=body) as raw:
            heard = b""
            while b"output_text.delta" not in heard:
                heard += await raw.content.readany()
            engine.process.kill()
            final = check(parse_sse(heard + await raw.read()))
        assert (final["status"], final["error"]["code"]) == ("failed", "server_error")
        assert final["output"][0]["status"] == "incomplete"
        assert final["output"][0]["content"][0]["text"].startswith("Once")
        with pytest.raises(openai.APIError, match="broke off"):
            [event async for event in stream]
        with pytest.raises(openai.InternalServerError, match="can't be reached") as caught:
            await client.responses.create(model="tiny", input="Say hello.")
        assert caught.value.status_code == 503
