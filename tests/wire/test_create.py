"""Requests as real clients send them, and what of them is echoed."""

from typing import Any

import pytest
from msgspec import Raw, json
from openai.types.responses import Response

from proxy.core.turn import first_turn
from proxy.errors import RequestError
from proxy.wire.body import Body
from proxy.wire.create import Create, decode_create, echo
from proxy.wire.items import CallOutput, FunctionCall, Message, Reasoning
from tests.requests import CLIENTS, CODEX, CODEX_SCHEMA, ECHO, REQUEST, SCHEMA, function


def create_of(body: Any) -> Create:
    return decode_create(json.encode(body))


def snapshot(create: Create) -> dict[str, Any]:
    """The echo, completed with what is not in it."""
    rest = json.encode(
        {
            "id": "resp_1",
            "object": "response",
            "created_at": 1793000000,
            "completed_at": None,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "output": [],
            "usage": None,
            "service_tier": create.tier,
        }
    )
    whole: dict[str, Any] = json.decode(rest[:-1] + b"," + echo(create) + b"}")
    return whole


def test_codex_is_understood() -> None:
    create = create_of(CODEX)
    assert [type(item) for item in create.items] == [Message, Message, Message, Reasoning, FunctionCall, CallOutput]
    assert [tool.name for tool in create.functions] == ["exec_command", "write_stdin"]
    assert (create.stream, create.store, create.summary, create.unknown) == (True, False, "auto", {})


@pytest.mark.parametrize("body", CLIENTS.values(), ids=CLIENTS.keys())
def test_the_echo_is_what_the_official_client_expects(body: dict[str, Any]) -> None:
    whole = snapshot(create_of(body))
    response = Response.model_validate(whole)
    assert response.model == body["model"]
    assert response.model_dump(mode="json", exclude_unset=True, by_alias=True) == whole


@pytest.mark.parametrize("body", CLIENTS.values(), ids=CLIENTS.keys())
def test_each_client_gets_its_turn(body: dict[str, Any]) -> None:
    assert first_turn(create_of(body), model="m", extra={}).items


def test_an_empty_text_is_a_message_too() -> None:
    assert create_of(REQUEST | {"input": ""}).items == [Message(role="user", content="")]


def test_null_is_the_same_as_absent() -> None:
    nulls = create_of(dict.fromkeys(Body.__struct_fields__) | REQUEST)
    assert nulls == create_of(REQUEST)


def test_the_echo_of_a_plain_request_has_every_default() -> None:
    assert json.decode(b"{" + echo(create_of(REQUEST)) + b"}") == ECHO


def test_the_echo_repeats_what_was_sent() -> None:
    sent = {
        "instructions": "be brief",
        "max_output_tokens": 7,
        "max_tool_calls": 3,
        "parallel_tool_calls": False,
        "presence_penalty": -1.5,
        "frequency_penalty": 0.5,
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "prompt_cache_options": {"mode": "explicit", "ttl": "30m"},
        "reasoning": {"effort": "low", "summary": "detailed", "mode": "pro"},
        "safety_identifier": "s",
        "temperature": 0,
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "get"}]},
        "tools": [function("get", strict=True), function("put", strict=None)],
        "top_logprobs": 2,
        "top_p": 0.5,
        "truncation": "auto",
        "user": "u",
        "metadata": {"a": "b"},
    }
    echoed = json.decode(b"{" + echo(create_of(REQUEST | sent)) + b"}")
    assert {name: echoed[name] for name in sent} == sent


def test_a_function_is_echoed_with_every_key() -> None:
    create = create_of(REQUEST | {"tools": [{"type": "function", "name": "get", "defer_loading": True}]})
    assert snapshot(create)["tools"] == [
        {"type": "function", "name": "get", "description": None, "parameters": None, "strict": None}
    ]


def test_a_schema_is_echoed_with_every_key() -> None:
    sent = {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}
    assert snapshot(create_of(REQUEST | {"text": sent}))["text"]["format"] == {
        "type": "json_schema", "name": "n", "description": None, "schema": SCHEMA, "strict": False
    }  # fmt: skip


def test_the_echo_of_an_indented_body_is_one_line() -> None:
    body = CODEX_SCHEMA | {"tools": CODEX["tools"], "metadata": {"a": "b\n"}}
    indented = json.format(json.encode(body), indent=2).replace(b"\n", b"\r\n")
    assert not {b"\n"[0], b"\r"[0]} & set(echo(decode_create(indented)))
    assert snapshot(decode_create(indented)) == snapshot(create_of(body))


def test_the_old_name_of_the_summary_counts() -> None:
    create = create_of(REQUEST | {"reasoning": {"generate_summary": "auto"}})
    assert create.summary == "auto"
    assert snapshot(create)["reasoning"] == {"effort": None, "summary": "auto"}


def test_the_tier_is_auto_unless_asked_for() -> None:
    assert create_of(REQUEST).tier == "auto"
    assert create_of(REQUEST | {"service_tier": "flex"}).tier == "flex"


def test_items_are_kept_as_sent_too() -> None:
    create = decode_create(b'{"model":"m","input":[{"role": "user", "new": 1}]}')
    assert create.input == [Raw(b'{"role": "user", "new": 1}')]


def test_storing_is_accepted_and_the_echo_tells_that_nothing_is_stored() -> None:
    assert snapshot(create_of(REQUEST | {"store": True}))["store"] is False


def test_schema_errors_come_before_what_is_not_supported() -> None:
    with pytest.raises(RequestError) as caught:
        create_of(REQUEST | {"background": True, "top_p": 3})
    assert caught.value.param == "top_p"


def test_a_body_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(RequestError, match="nested too deeply"):
        decode_create(b'{"model":"m","input":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}")
