"""The official client, against the proxy in this process: what it makes of answers, streams, tools and errors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.proxy import in_process
from tests.upstream import CUT, Request, Script, Upstream, answer, chunk, sse, text

HELLO = text("Hel", "lo")
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
WEATHER = sse(
    chunk({"role": "assistant", "reasoning_content": "They ask for the weather."}),
    chunk({"tool_calls": [CALL]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"Oslo"}'}}]}),
    chunk(finish="tool_calls"),
)
TOOL: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}


class Person(BaseModel):
    name: str
    age: int


@asynccontextmanager
async def client(*upstreams: Upstream, retries: int = 0, **fields: Any) -> AsyncIterator[AsyncOpenAI]:
    async with (
        in_process(*upstreams, **fields) as proxy,
        AsyncOpenAI(base_url=proxy.url, api_key="k", max_retries=retries) as made,
    ):
        yield made


async def test_create() -> None:
    async with Upstream(HELLO) as upstream, client(upstream) as ai:
        response = await ai.responses.create(model="m", input="hi")
    assert (response.output_text, response.status) == ("Hello", "completed")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (5, 2, 7)


async def test_a_stream_is_iterated_over() -> None:
    async with Upstream(HELLO) as upstream, client(upstream) as ai:
        events = [event async for event in await ai.responses.create(model="m", input="hi", stream=True)]
    assert [event.delta for event in events if event.type == "response.output_text.delta"] == ["Hel", "lo"]
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "Hello"


async def test_the_stream_helper_ends_with_the_whole_response() -> None:
    async with (
        Upstream(HELLO) as upstream,
        client(upstream) as ai,
        ai.responses.stream(model="m", input="hi") as stream,
    ):
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert (kinds[0], kinds[-1], final.output_text) == ("response.created", "response.completed", "Hello")


async def test_the_client_without_async_does_the_same() -> None:
    def use(url: str) -> list[str]:
        with OpenAI(base_url=url, api_key="k") as ai:
            texts = [ai.responses.create(model="m", input="hi").output_text]
            with ai.responses.create(model="m", input="hi", stream=True) as events:
                texts.append("".join(event.delta for event in events if event.type == "response.output_text.delta"))
            with ai.responses.stream(model="m", input="hi") as stream:
                texts.append(stream.get_final_response().output_text)
        return texts

    async with Upstream(HELLO) as upstream, in_process(upstream) as proxy:
        assert await asyncio.to_thread(use, proxy.url) == ["Hello"] * 3


async def test_a_type_is_parsed() -> None:
    async with Upstream(text('{"name": "Ada",', ' "age": 36}')) as upstream, client(upstream) as ai:
        response = await ai.responses.parse(model="m", input="who?", text_format=Person)
        asked = upstream.requests[0].json()["response_format"]
    assert response.output_parsed == Person(name="Ada", age=36)
    assert (asked["type"], asked["json_schema"]["name"]) == ("json_schema", "Person")
    assert set(asked["json_schema"]["schema"]["properties"]) == {"name", "age"}


async def test_a_type_is_parsed_from_a_stream() -> None:
    async with (
        Upstream(text('{"name": "Ada",', ' "age": 36}')) as upstream,
        client(upstream) as ai,
        ai.responses.stream(model="m", input="who?", text_format=Person) as stream,
    ):
        final = await stream.get_final_response()
    assert final.output_parsed == Person(name="Ada", age=36)


async def test_a_call_and_its_result_make_two_turns() -> None:
    async with Upstream(WEATHER, text("Rain.")) as upstream, client(upstream) as ai:
        first = await ai.responses.create(model="m", input="Weather in Oslo?", tools=[TOOL])
        output: list[Any] = list(first.output)
        thought, call = output
        assert (thought.type, call.type) == ("reasoning", "function_call")
        assert (call.name, call.arguments) == ("weather", '{"city":"Oslo"}')
        result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
        asked: Any = {"role": "user", "content": "Weather in Oslo?"}
        second = await ai.responses.create(model="m", input=[asked, *output, result], tools=[TOOL])
        messages = upstream.requests[1].json()["messages"]
    assert second.output_text == "Rain."
    assert [message["role"] for message in messages] == ["user", "assistant", "tool"]
    assert messages[1]["reasoning_content"] == "They ask for the weather."
    assert messages[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city":"Oslo"}'}
    assert (messages[2]["tool_call_id"], messages[2]["content"]) == (messages[1]["tool_calls"][0]["id"], "rain")


async def test_a_call_is_streamed() -> None:
    async with (
        Upstream(WEATHER) as upstream,
        client(upstream) as ai,
        ai.responses.stream(model="m", input="Weather?", tools=[TOOL]) as stream,
    ):
        events = [event async for event in stream]
        final = await stream.get_final_response()
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == '{"city":"Oslo"}'
    assert [item.type for item in final.output] == ["reasoning", "function_call"]


async def test_reasoning_is_shown_as_the_client_asks() -> None:
    async with Upstream(WEATHER) as upstream, client(upstream) as ai:
        plain = await ai.responses.create(model="m", input="hi", tools=[TOOL])
        summed = await ai.responses.create(model="m", input="hi", tools=[TOOL], reasoning={"summary": "auto"})
    first: Any = plain.output[0]
    second: Any = summed.output[0]
    assert (first.type, second.type) == ("reasoning", "reasoning")
    assert first.content[0].text == second.summary[0].text == "They ask for the weather."


async def test_models_are_listed() -> None:
    async with Upstream(answer(200, {"data": [{"id": "llama"}]})) as upstream, client(upstream) as ai:
        assert [model.id async for model in ai.models.list()] == ["llama"]
        assert (await ai.models.retrieve("llama")).object == "model"
        with pytest.raises(openai.NotFoundError):
            await ai.models.retrieve("other")


# Errors


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.InternalServerError),  # the proxy's key, and not the client's
        (404, openai.InternalServerError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
async def test_a_status_raises_its_class(status: int, error: type[openai.APIStatusError], stream: bool) -> None:
    async with Upstream(answer(status, {"error": {"message": "oh"}})) as upstream, client(upstream) as ai:
        with pytest.raises(error) as raised:
            await ai.responses.create(model="m", input="hi", stream=stream)
    assert raised.value.request_id is not None
    assert isinstance(raised.value.body, dict)
    assert set(raised.value.body) == {"message", "type", "param", "code"}


async def test_a_context_that_is_too_long_has_its_code() -> None:
    error = answer(400, {"error": {"message": "This model's maximum context length is 8 tokens."}})
    async with Upstream(error) as upstream, client(upstream) as ai:
        with pytest.raises(openai.BadRequestError) as raised:
            await ai.responses.create(model="m", input="hi")
    assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "input")


@pytest.mark.parametrize("status", [429, 503])
async def test_a_rate_limit_is_waited_for(status: int) -> None:
    busy = answer(status, {"error": {"message": "slow"}}, retry_after="0.01")
    async with Upstream(busy, HELLO) as upstream, client(upstream, retries=1) as ai:
        assert (await ai.responses.create(model="m", input="hi")).output_text == "Hello"
        assert len(upstream.requests) == 2


async def test_a_rate_limit_that_stays_is_raised_with_the_time_to_wait() -> None:
    busy = answer(429, {"error": {"message": "slow"}}, retry_after="0.01")
    async with Upstream(busy) as upstream, client(upstream, retries=2) as ai:
        with pytest.raises(openai.RateLimitError) as raised:
            await ai.responses.create(model="m", input="hi")
        assert len(upstream.requests) == 3
    assert raised.value.code == "rate_limit_exceeded"
    assert int(raised.value.response.headers["retry-after"]) >= 1


async def test_nobody_tries_again_without_money() -> None:
    async with Upstream(answer(402, {"error": {"message": "pay"}})) as upstream, client(upstream, retries=2) as ai:
        with pytest.raises(openai.RateLimitError):
            await ai.responses.create(model="m", input="hi")
        assert len(upstream.requests) == 1


BROKEN: list[Script] = [
    [*HELLO[:2], CUT],
    [*HELLO[:2], *sse({"error": {"message": "died", "code": 500}})],
]


@pytest.mark.parametrize("script", BROKEN)
async def test_a_failure_in_the_stream_raises(script: Script) -> None:
    async with Upstream(script) as upstream, client(upstream) as ai:
        stream = await ai.responses.create(model="m", input="hi", stream=True)
        kinds = [(await anext(stream)).type for _ in range(5)]
        with pytest.raises(openai.APIError) as raised:
            await anext(stream)
    assert not isinstance(raised.value, openai.APIStatusError)
    assert (kinds[-1], raised.value.code) == ("response.output_text.delta", "server_error")


@pytest.mark.parametrize("script", BROKEN)
async def test_a_failure_without_a_stream_raises(script: Script) -> None:
    async with Upstream(script) as upstream, client(upstream) as ai:
        with pytest.raises(openai.InternalServerError):
            await ai.responses.create(model="m", input="hi")


async def test_leaving_a_stream_early_closes_the_upstream() -> None:
    go = asyncio.Event()
    async with Upstream([*HELLO[:2], go, *HELLO[2:]]) as upstream, client(upstream) as ai:
        async with await ai.responses.create(model="m", input="hi", stream=True) as stream:
            async for event in stream:
                if event.type == "response.output_text.delta":
                    break
        request: Request = await upstream.received(1)
        await request.gone.wait()
