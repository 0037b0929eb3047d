"""The demo model: what it says, and that it says it as a Chat Completions server does."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import pytest
from aiohttp import ClientPayloadError, ClientSession
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI, BadRequestError
from openai.types.chat import ChatCompletion

from proxy import demo
from proxy.demo_schema import instance

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 3}, "unit": {}},
            "required": ["city", "days"],
        },
    },
}
TIME = {"type": "function", "function": {"name": "get_time"}}


@pytest.fixture
async def url() -> AsyncIterator[str]:
    server = await demo.start(pace=0)
    yield server.url
    await server.close()


@pytest.fixture
async def client(url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


async def ask(client: AsyncOpenAI, *messages: Any, **fields: Any) -> ChatCompletion:
    asked = [{"role": "user", "content": each} if isinstance(each, str) else each for each in messages]
    return await client.chat.completions.create(model="any", messages=asked, **fields)


async def test_it_says_what_it_is_and_what_it_was_told(client: AsyncOpenAI) -> None:
    completion = await ask(client, "Say hello.")
    assert completion.choices[0].message.content == (
        "Hello from the demo model, which is built into this proxy and only repeats. "
        "You said: “Say hello.”. Name a real endpoint to talk to a real model."
    )
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == "any"


async def test_it_streams_word_by_word_what_it_says_at_once(client: AsyncOpenAI) -> None:
    whole = await ask(client, "Say hello.")
    words, usage = [], None
    async for chunk in await ask(client, "Say hello.", stream=True, stream_options={"include_usage": True}):
        words += [choice.delta.content for choice in chunk.choices if choice.delta.content]
        usage = chunk.usage or usage
    assert "".join(words) == whole.choices[0].message.content
    assert len(words) > 20
    assert usage == whole.usage
    assert usage.completion_tokens == len(words)


async def test_without_include_usage_a_stream_has_none(client: AsyncOpenAI) -> None:
    chunks = [chunk async for chunk in await ask(client, "Say hello.", stream=True)]
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("prompt", "fields", "thinks"),
    [
        ("Hello", {}, False),
        ("Think: what is 2 + 2?", {}, True),
        ("I rethink it", {}, False),
        ("Hello", {"reasoning_effort": "low"}, True),
        ("Think.", {"reasoning_effort": "none"}, False),
        ("Hello", {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}}, True),
        ("Think.", {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}, False),
    ],
)
async def test_it_thinks_when_asked_to(client: AsyncOpenAI, prompt: str, fields: Any, thinks: bool) -> None:
    completion = await ask(client, prompt, **fields)
    message: Any = completion.choices[0].message
    assert hasattr(message, "reasoning_content") == thinks
    assert bool(completion.usage.completion_tokens_details.reasoning_tokens) == thinks
    assert message.content.startswith("Hello")


async def test_it_calls_the_first_tool_with_arguments_that_fit(client: AsyncOpenAI) -> None:
    completion = await ask(client, "Weather in Paris?", tools=[WEATHER, TIME])
    choice = completion.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Weather in Paris?", "days": 3}


@pytest.mark.parametrize(
    ("prompt", "fields", "names"),
    [
        ("Both, please.", {}, ["get_weather", "get_time"]),
        ("In parallel", {"parallel_tool_calls": False}, ["get_weather"]),
        ("Hello", {"tool_choice": {"type": "function", "function": {"name": "get_time"}}}, ["get_time"]),
        ("Hello", {"tool_choice": "required"}, ["get_weather"]),
        ("Hello", {"tool_choice": "none"}, []),
    ],
)
async def test_it_calls_what_it_may_call(client: AsyncOpenAI, prompt: str, fields: Any, names: list[str]) -> None:
    completion = await ask(client, prompt, tools=[WEATHER, TIME], **fields)
    calls = completion.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls] == names
    assert len({call.id for call in calls}) == len(calls)
    assert completion.choices[0].finish_reason == ("tool_calls" if names else "stop")


async def test_streamed_calls_add_up_to_the_whole_ones(client: AsyncOpenAI) -> None:
    whole = await ask(client, "Both, please.", tools=[WEATHER, TIME])
    stream = client.chat.completions.stream(
        model="any", messages=[{"role": "user", "content": "Both, please."}], tools=[WEATHER, TIME]
    )
    async with stream as events:
        completion = await events.get_final_completion()
    streamed, at_once = (each.choices[0].message.tool_calls for each in (completion, whole))
    assert [(call.id, call.function.arguments) for call in streamed] == [
        (call.id, call.function.arguments) for call in at_once
    ]


async def test_after_a_tools_output_it_quotes_it(client: AsyncOpenAI) -> None:
    first = await ask(client, "Weather?", tools=[WEATHER])
    call = first.choices[0].message.tool_calls[0]
    output = {"role": "tool", "tool_call_id": call.id, "content": "10 degrees"}
    second = await ask(client, "Weather?", first.choices[0].message.model_dump(), output, tools=[WEATHER])
    assert second.choices[0].message.content == "I am the demo model. The tool says: “10 degrees”."
    third = await ask(client, "Weather?", first.choices[0].message.model_dump(), output, "And now?", tools=[WEATHER])
    assert third.choices[0].message.tool_calls[0].id != call.id


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
async def test_it_stops_at_the_limit(client: AsyncOpenAI, limit: str) -> None:
    completion = await ask(client, "Say hello.", **{limit: 3})
    assert completion.choices[0].message.content == "Hello from the"
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 3


async def test_logprobs_are_one_a_word_and_come_with_alternatives(client: AsyncOpenAI) -> None:
    completion = await ask(client, "Say hello.", logprobs=True, top_logprobs=2)
    entries = completion.choices[0].logprobs.content
    assert "".join(entry.token for entry in entries) == completion.choices[0].message.content
    for entry in entries:
        first, second = entry.top_logprobs
        assert (first.token, first.logprob) == (entry.token, entry.logprob)
        assert second.logprob < first.logprob <= 0
    assert (await ask(client, "Say hello.")).choices[0].logprobs is None


async def test_json_is_answered_when_json_is_wanted(client: AsyncOpenAI) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    schema |= {"required": ["name", "age"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}}
    completion = await ask(client, "Anna", response_format=form)
    assert json.loads(completion.choices[0].message.content) == {"name": "Anna", "age": 1}
    completion = await ask(client, "Anna", response_format={"type": "json_object"})
    assert json.loads(completion.choices[0].message.content) == {"demo": True, "you_said": "Anna"}


async def test_content_in_parts_is_understood(client: AsyncOpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    completion = await ask(client, {"role": "user", "content": [{"type": "text", "text": "Look:"}, image]})
    assert "You said: “Look: [image_url]”." in completion.choices[0].message.content


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"messages": []}', b'{"messages": "hi"}', b'{"a":"\xff"}'])
async def test_a_bad_request_gets_openais_error(url: str, body: bytes) -> None:
    async with ClientSession() as session, session.post(f"{url}/chat/completions", data=body) as answer:
        error = (await answer.json())["error"]
    assert answer.status == 400
    assert error["type"] == "invalid_request_error"
    assert error["message"]


async def test_the_official_client_knows_a_bad_request(client: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError):
        await ask(client)


async def test_it_lists_one_model(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["demo"]


async def test_it_stops_when_the_client_goes() -> None:
    server = await demo.start(pace=3600)  # it sleeps for an hour after the first piece
    before = asyncio.all_tasks()
    body = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "stream": True}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.split(":")[2].split("/")[0]))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: demo\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await reader.readuntil(b"data: ")
    serving = asyncio.all_tasks() - before
    writer.close()
    _, pending = await asyncio.wait(serving, timeout=30)
    assert not pending
    await server.close()


async def test_closing_ends_open_streams() -> None:
    server = await demo.start(pace=3600)
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True}
    async with ClientSession() as session, session.post(f"{server.url}/chat/completions", json=body) as answer:
        await answer.content.readline()
        await server.close()
        with pytest.raises(ClientPayloadError):
            await answer.read()


# The smallest value that a schema allows

SCHEMAS: list[Any] = [
    {},
    {"type": "string", "minLength": 20},
    {"type": "string", "maxLength": 3},
    *({"type": "string", "format": name} for name in ("date-time", "date", "time", "email", "uri", "uuid", "ipv4")),
    {"type": "string", "pattern": "^[A-Z]{3}-\\d+$"},
    {"type": "string", "pattern": "^\\w+@[a-z]+\\.com?$"},
    {"type": "string", "pattern": "o+"},
    {"enum": ["red", "green"]},
    {"const": {"a": [1]}},
    {"type": ["null", "integer"], "minimum": 7},
    {"type": "integer", "exclusiveMinimum": 7, "multipleOf": 5},
    {"type": "integer", "exclusiveMinimum": 10, "multipleOf": 5},
    {"type": "number", "minimum": 0.25, "maximum": 0.5},
    {"type": "number", "exclusiveMaximum": 0},
    {"type": "integer", "maximum": -3},
    {"type": "boolean"},
    {"type": "null"},
    {"type": "array", "items": {"type": "integer"}, "minItems": 3},
    {"type": "array", "items": {"type": "integer"}, "maxItems": 0},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": False},
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": True}, "required": ["a", "c"]},
    {"properties": {"a": {"type": "integer"}}},
    {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    {"oneOf": [{"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}, {"type": "null"}]},
    {"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"required": ["b"]}]},
    {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}},
    {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["value", "next"],
    },
    {
        "$ref": "#/$defs/tree",
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
                "required": ["children"],
            }
        },
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_the_instance_of_a_schema_is_valid(schema: Any) -> None:
    draft = jsonschema.Draft202012Validator
    checker = draft(schema, format_checker=draft.FORMAT_CHECKER)
    checker.validate(json.loads(json.dumps(instance(schema, "Say hello."))))


BOUNDS = st.integers(-1000, 1000)


@given(low=BOUNDS, width=st.integers(0, 50), kind=st.sampled_from(["integer", "number"]))
def test_a_number_is_within_its_bounds(low: int, width: int, kind: str) -> None:
    schema = {"type": kind, "minimum": low, "maximum": low + width}
    jsonschema.validate(instance(schema, ""), schema)


def test_a_schema_without_an_end_comes_to_one() -> None:
    schema: Any = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    assert json.dumps(instance(schema, ""))
