"""From a request to the turn it asks for: only what the client said goes on."""

from typing import Any

import pytest
from msgspec import Raw, json

from proxy.core.turn import Format, Options, Turn, first_turn
from proxy.wire.create import Create, decode_create
from proxy.wire.items import Function, Message

TOOLS = [{"type": "function", "name": "get"}, {"type": "function", "name": "put"}]
GET, PUT = Function("get"), Function("put")


def create_of(**fields: Any) -> Create:
    return decode_create(json.encode({"model": "public", "input": "hi"} | fields))


def turn_of(**fields: Any) -> Turn:
    return first_turn(create_of(**fields), model="theirs", extra={})


def test_nothing_is_invented() -> None:
    assert turn_of() == Turn(
        model="theirs",
        instructions=None,
        items=[Message(role="user", content="hi")],
        functions=[],
        options=Options(),
    )


def test_nulls_say_nothing() -> None:
    silent = dict.fromkeys(("temperature", "top_p", "text", "reasoning", "tools", "tool_choice", "include", "user"))
    assert turn_of(**silent) == turn_of()


def test_what_was_said_goes_on() -> None:
    said = {
        "temperature": 0,
        "top_p": 0.5,
        "presence_penalty": -1,
        "frequency_penalty": 1,
        "max_output_tokens": 9,
        "parallel_tool_calls": False,
    }
    turn = turn_of(**said, instructions="be brief", reasoning={"effort": "low"})
    assert {name: getattr(turn.options, name) for name in said} == said
    assert (turn.instructions, turn.options.effort) == ("be brief", "low")


@pytest.mark.parametrize(
    ("fields", "logprobs", "top_logprobs"),
    [
        ({}, False, None),
        ({"top_logprobs": 0}, False, None),
        ({"top_logprobs": 3}, True, 3),
        ({"include": ["message.output_text.logprobs"]}, True, None),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 0}, True, 0),
        ({"include": ["reasoning.encrypted_content"]}, False, None),
    ],
)
def test_logprobs_are_asked_for_by_include_or_by_number(
    fields: dict[str, Any], logprobs: bool, top_logprobs: int | None
) -> None:
    options = turn_of(**fields).options
    assert (options.logprobs, options.top_logprobs) == (logprobs, top_logprobs)


@pytest.mark.parametrize(
    ("choice", "mode", "forced", "offered"),
    [
        (None, None, False, [GET, PUT]),
        ("none", "none", False, [GET, PUT]),
        ({"type": "function", "name": "put"}, "put", True, [GET, PUT]),
        ({"type": "allowed_tools", "mode": "required", "tools": [TOOLS[1]]}, "required", False, [PUT]),
    ],
)
def test_the_choice_is_applied(choice: Any, mode: str | None, forced: bool, offered: list[Function]) -> None:
    turn = turn_of(tools=TOOLS, tool_choice=choice)
    assert (turn.options.tool_choice, turn.options.forced, turn.functions) == (mode, forced, offered)


@pytest.mark.parametrize(
    ("sent", "format"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, Format("json_object")),
        (
            {"type": "json_schema", "name": "n", "schema": {"a": 1}, "strict": True, "description": "d"},
            Format("json_schema", "n", Raw(b'{"a":1}'), "d", True),
        ),
        ({"type": "json_schema", "name": "n", "schema": {}}, Format("json_schema", "n", Raw(b"{}"), None, None)),
    ],
)
def test_the_format_is_kept_unless_it_is_text(sent: dict[str, Any], format: Format | None) -> None:
    assert turn_of(text={"format": sent}).options.format == format


def test_hints_are_what_only_some_upstreams_know() -> None:
    hints = {
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "safety_identifier": "s",
        "user": "u",
    }
    assert turn_of(**hints, text={"verbosity": "low"}).options.hints == hints | {"verbosity": "low"}


def test_the_tier_auto_is_no_hint() -> None:
    assert turn_of(service_tier="auto").options.hints == {}


def test_unknown_fields_pass_only_when_the_operator_lets_them() -> None:
    turn = first_turn(create_of(top_k=5, seed=1), model="theirs", extra={}, passed=("top_k", "min_p"))
    assert turn.options.extra == {"top_k": Raw(b"5")}


def test_the_fields_of_the_operator_win() -> None:
    extra = {"top_k": 1, "seed": 2}
    turn = first_turn(create_of(top_k=5), model="theirs", extra=extra, passed=("top_k",))
    assert turn.options.extra == extra
