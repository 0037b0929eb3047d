"""A turn -> the body of a Chat Completions request, but for its messages: tools, formats, efforts, fields."""

import json
from typing import Any

import pytest
from msgspec import Raw

from proxy.core.profile import Profile
from proxy.core.turn import Format, Options, Turn
from proxy.dialects.chat_profiles import PROFILES
from proxy.dialects.chat_request import clamp, encode
from proxy.errors import RequestError
from proxy.wire.items import Function
from tests.inputs import call, items, output, says, thinks, user

GENERIC = Profile()
CITY = Raw(b'{"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}')
WEATHER = Function("get_weather", "Get the current weather.", CITY)
ADD = Function("add")
SCHEMA = Raw(b'{"type":"object"}')


def turn(*functions: Function, **options: Any) -> Turn:
    return Turn("tiny", None, items(user("Hi")), list(functions), Options(**options))


def body(asked: Turn, profile: Profile = GENERIC) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(encode(asked, profile))
    return sent


def added(asked: Turn, profile: Profile = GENERIC) -> dict[str, Any]:
    """What the request has beyond the plain one."""
    plain = body(turn(), profile)
    return {key: value for key, value in body(asked, profile).items() if key not in plain}


def test_a_plain_turn_has_nothing_that_was_not_asked_for() -> None:
    assert body(turn()) == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert "stream_options" not in body(turn(), Profile(stream_usage=False))


def test_sampling_goes_out_as_it_came() -> None:
    asked = {"temperature": 0, "top_p": 0.5, "presence_penalty": 1, "frequency_penalty": -1}
    assert added(turn(**asked, max_output_tokens=16)) == asked | {"max_tokens": 16}
    assert added(turn(max_output_tokens=16), PROFILES["openai"]) == {"max_completion_tokens": 16}


def test_logprobs() -> None:
    assert added(turn(logprobs=True)) == {"logprobs": True}
    assert added(turn(logprobs=True, top_logprobs=0)) == {"logprobs": True}
    assert added(turn(logprobs=True, top_logprobs=3)) == {"logprobs": True, "top_logprobs": 3}
    assert added(turn(top_logprobs=3)) == {}


# Tools.


def test_functions_are_nested_and_have_parameters() -> None:
    strict = Function("f", None, SCHEMA, True)
    first, second, third = added(turn(WEATHER, ADD, strict))["tools"]
    described = {
        "name": "get_weather",
        "description": "Get the current weather.",
        "parameters": json.loads(bytes(CITY)),
    }
    assert first == {"type": "function", "function": described}
    assert second["function"] == {"name": "add", "parameters": {"type": "object", "properties": {}}}
    assert third["function"] == {"name": "f", "parameters": {"type": "object"}, "strict": True}


def test_strict_is_named_when_it_can_not_be_said() -> None:
    asked = turn(Function("f", None, SCHEMA, True))
    assert "strict" not in added(asked, Profile(strict_tools=False))["tools"][0]["function"]
    assert asked.dropped == ["tools.strict"]


def test_without_tools_nothing_about_tools_is_sent() -> None:
    for choice in ("none", "auto", "required"):
        assert added(turn(tool_choice=choice, parallel_tool_calls=False)) == {}


def test_parallel_tool_calls_is_sent_only_to_forbid_them() -> None:
    assert added(turn(ADD, parallel_tool_calls=False))["parallel_tool_calls"] is False
    for said in (None, True):
        assert "parallel_tool_calls" not in added(turn(ADD, parallel_tool_calls=said))


NAMED = {"type": "function", "function": {"name": "add"}}


@pytest.mark.parametrize(
    ("profile", "choice", "forced", "offered", "sent", "dropped"),
    [
        ("full", None, False, ["get_weather", "add"], None, []),
        ("full", "auto", False, ["get_weather", "add"], "auto", []),
        ("full", "none", False, ["get_weather", "add"], "none", []),
        ("full", "required", False, ["get_weather", "add"], "required", []),
        ("full", "add", True, ["get_weather", "add"], NAMED, []),
        ("no_named", "auto", False, ["get_weather", "add"], "auto", []),
        ("no_named", "required", False, ["get_weather", "add"], "required", []),
        ("no_named", "add", True, ["add"], "required", []),
        ("auto_only", "auto", False, ["get_weather", "add"], None, []),
        ("auto_only", "none", False, [], None, []),
        ("auto_only", "required", False, ["get_weather", "add"], None, ["tool_choice"]),
        ("auto_only", "add", True, ["add"], None, ["tool_choice"]),
    ],
)
def test_tool_choice(
    profile: Any, choice: str | None, forced: bool, offered: list[str], sent: Any, dropped: list[str]
) -> None:
    asked = turn(WEATHER, ADD, tool_choice=choice, forced=forced)
    got = added(asked, Profile(tool_choice=profile))
    assert [tool["function"]["name"] for tool in got.get("tools", [])] == offered
    assert got.get("tool_choice") == sent
    assert asked.dropped == dropped


@pytest.mark.parametrize("mode", ["full", "no_named", "auto_only"])
def test_a_function_that_does_not_exist_can_not_be_forced(mode: Any) -> None:
    with pytest.raises(RequestError, match="Tool choice 'sub' not found") as caught:
        encode(turn(ADD, tool_choice="sub", forced=True), Profile(tool_choice=mode))
    assert caught.value.param == "tool_choice"


# The form of the answer.


@pytest.mark.parametrize(
    ("mode", "sent", "dropped"),
    [
        ("json_schema", {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}, []),
        ("json_object", {"type": "json_object", "schema": {"type": "object"}}, []),
        ("prompt", {"type": "json_object"}, []),
        ("none", None, ["text.format"]),
    ],
)
def test_a_schema(mode: Any, sent: Any, dropped: list[str]) -> None:
    asked = turn(format=Format("json_schema", "n", SCHEMA))
    assert added(asked, Profile(json_schema=mode)).get("response_format") == sent
    assert asked.dropped == dropped


def test_all_of_a_schema_is_said() -> None:
    sent = added(turn(format=Format("json_schema", "n", SCHEMA, "d", False)))["response_format"]["json_schema"]
    assert sent == {"name": "n", "schema": {"type": "object"}, "description": "d", "strict": False}


def test_a_schema_in_the_prompt_stands_behind_the_instructions() -> None:
    asked = Turn("m", "Be kind.", items(user("Hi")), [], Options(format=Format("json_schema", "n", SCHEMA)))
    first = body(asked, Profile(json_schema="prompt"))["messages"][0]
    assert first["role"] == "system"
    assert first["content"].startswith("Be kind.\n\n")
    assert first["content"].endswith('JSON schema:\n{"type":"object"}')


@pytest.mark.parametrize("mode", ["json_schema", "json_object", "prompt"])
def test_any_json(mode: Any) -> None:
    sent = body(turn(format=Format("json_object")), Profile(json_schema=mode))
    assert sent["response_format"] == {"type": "json_object"}
    assert len(sent["messages"]) == 1


# Effort, hints, extra fields.


@pytest.mark.parametrize(
    ("style", "effort", "sent"),
    [
        ("reasoning_effort", "high", {"reasoning_effort": "high"}),
        ("reasoning", "high", {"reasoning": {"effort": "high"}}),
        ("enable_thinking", "low", {"chat_template_kwargs": {"enable_thinking": True}}),
        ("enable_thinking", "none", {"chat_template_kwargs": {"enable_thinking": False}}),
        ("thinking", "low", {"thinking": {"type": "enabled"}}),
        ("thinking", "none", {"thinking": {"type": "disabled"}}),
        ("none", "low", {}),
    ],
)
def test_effort(style: Any, effort: str, sent: dict[str, Any]) -> None:
    asked = turn(effort=effort)
    assert added(asked, Profile(effort=style)) == sent
    assert asked.dropped == (["reasoning.effort"] if style == "none" else [])


@pytest.mark.parametrize(
    ("effort", "known", "said"),
    [
        ("max", ("low", "medium", "high"), "high"),
        ("xhigh", ("low", "high", "max"), "high"),
        ("minimal", ("none", "low", "high"), "low"),
        ("none", ("low", "high"), "low"),
        ("none", ("none", "low"), "none"),
        ("medium", ("none",), "medium"),
        ("turbo", ("low",), "turbo"),
    ],
)
def test_an_effort_that_is_not_known_is_clamped(effort: str, known: tuple[str, ...], said: str) -> None:
    assert clamp(effort, known) == said


def test_hints_go_where_they_are_known_and_are_named_where_they_are_missed() -> None:
    hints = {"verbosity": "low", "service_tier": "flex", "prompt_cache_key": "k", "user": "u"}
    asked = turn(hints=hints)
    assert added(asked, PROFILES["openai"]) == hints
    assert asked.dropped == []
    assert added(asked, Profile(hints=("user",))) == {"user": "u"}
    assert asked.dropped == ["text.verbosity", "service_tier"]


def test_hints_that_ask_for_nothing_are_not_missed() -> None:
    asked = turn(hints={"verbosity": "medium", "service_tier": "default", "safety_identifier": "s"})
    assert added(asked) == {}
    assert asked.dropped == []


def test_the_operators_fields_win() -> None:
    extra = {"top_k": 5, "temperature": 0.1, "chat_template_kwargs": {"keep": 1, "enable_thinking": False}}
    asked = turn(temperature=1, effort="high", extra=extra)
    assert added(asked, Profile(effort="enable_thinking")) == extra
    kept = turn(effort="high", extra={"chat_template_kwargs": {"keep": 1}})
    assert added(kept, Profile(effort="enable_thinking")) == {
        "chat_template_kwargs": {"enable_thinking": True, "keep": 1}
    }


def test_encoding_again_says_the_same() -> None:
    asked = Turn("m", None, items({"type": "compaction"}, user("Hi")), [ADD], Options(tool_choice="required"))
    profile = Profile(tool_choice="auto_only")
    assert encode(asked, profile) == encode(asked, profile)
    assert (asked.dropped, asked.ignored) == (["tool_choice"], ["compaction"])


# Requests that real servers have taken, as they were recorded.

TOOL = '"tools": [{"type": "function", "function": {"name": "get_weather", "description": "Get the current weather.", "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}}}]'  # noqa: E501


def test_the_second_turn_of_a_tool_loop_as_vllm_and_llama_cpp_take_it() -> None:
    arguments = '{"location": "Paris"}'
    given = items(
        user("What is the weather in Paris?"),
        call("call_1", arguments) | {"name": "get_weather"},
        output("call_1", '{"temperature": 10}'),
    )
    asked = Turn("tiny", None, given, [WEATHER], Options(temperature=0, max_output_tokens=200))
    recorded = """{"model": "tiny", "messages": [{"role": "user", "content": "What is the weather in Paris?"},
    {"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", "type": "function",
    "function": {"name": "get_weather", "arguments": "{\\"location\\": \\"Paris\\"}"}}]},
    {"role": "tool", "tool_call_id": "call_1", "content": "{\\"temperature\\": 10}"}], "temperature": 0, "stream": true,
    "stream_options": {"include_usage": true}, "max_tokens": 200, """
    expected = json.loads(f"{recorded}{TOOL}}}")
    assert body(asked, Profile(null_content=True)) == expected
    expected["messages"][1]["content"] = ""  # llama-cpp-python answers 500 to null
    assert body(asked) == expected


def test_earlier_thought_as_every_engine_takes_it() -> None:
    given = items(user("Think: what is 2 + 2?"), thinks("First I look."), says("2 + 2 is 4."), user("Thanks."))
    asked = Turn("tiny", None, given, [], Options(temperature=0, max_output_tokens=200))
    assert body(asked, Profile(reasoning_scope="all")) == json.loads(
        """{"model": "tiny", "messages": [{"role": "user", "content": "Think: what is 2 + 2?"}, {"role": "assistant",
        "content": "2 + 2 is 4.", "reasoning_content": "First I look."}, {"role": "user", "content": "Thanks."}],
        "temperature": 0, "stream": true, "stream_options": {"include_usage": true}, "max_tokens": 200}"""
    )
