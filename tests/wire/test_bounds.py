"""What the fields of a request may hold: each row of the tables, as code, param and message."""

from typing import Any

import pytest
from msgspec import json

from proxy.errors import RequestError
from proxy.wire.create import decode_create

REQUEST = {"model": "m", "input": "hi"}
SCHEMA = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}


def error_of(body: dict[str, Any]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode_create(json.encode(body))
    assert (caught.value.status, caught.value.type) == (400, "invalid_request_error")
    return caught.value


def accept(**fields: Any) -> None:
    decode_create(json.encode(REQUEST | fields))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "hi"}, "model"),
        ({"model": None, "input": "hi"}, "model"),
        ({"model": "", "input": "hi"}, "model"),
        ({"model": "m"}, "input"),
        ({"model": "m", "input": None}, "input"),
    ],
)
def test_what_is_missing_is_named(body: dict[str, Any], param: str) -> None:
    error = error_of(body)
    assert (error.code, error.param) == ("missing_required_parameter", param)
    assert error.message == f"Missing required parameter: '{param}'."


def test_an_empty_input_is_refused() -> None:
    error = error_of({"model": "m", "input": []})
    assert (error.code, error.param) == ("empty_array", "input")


@pytest.mark.parametrize(
    ("field", "value", "code", "bound"),
    [
        ("temperature", -0.1, "decimal_below_min_value", ">= 0"),
        ("temperature", 2.1, "decimal_above_max_value", "<= 2"),
        ("top_p", -1, "decimal_below_min_value", ">= 0"),
        ("top_p", 1.01, "decimal_above_max_value", "<= 1"),
        ("presence_penalty", -3, "decimal_below_min_value", ">= -2"),
        ("frequency_penalty", 3, "decimal_above_max_value", "<= 2"),
        ("top_logprobs", -1, "integer_below_min_value", ">= 0"),
        ("top_logprobs", 21, "integer_above_max_value", "<= 20"),
        ("max_output_tokens", 0, "integer_below_min_value", ">= 1"),
        ("max_tool_calls", 0, "integer_below_min_value", ">= 1"),
    ],
)
def test_a_number_out_of_bounds_is_refused(field: str, value: float, code: str, bound: str) -> None:
    error = error_of(REQUEST | {field: value})
    assert (error.code, error.param) == (code, field)
    assert error.message.startswith(f"Invalid '{field}': {code.partition('_')[0]} ")
    assert error.message.endswith(f"Expected a value {bound}, but got {value} instead.")


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [("temperature", 0, 2), ("top_p", 0, 1), ("top_logprobs", 0, 20), ("max_output_tokens", 1, 10**9)],
)
def test_bounds_are_inclusive(field: str, low: int, high: int) -> None:
    accept(**{field: low})
    accept(**{field: high})


@pytest.mark.parametrize(
    ("fields", "param", "supported"),
    [
        ({"truncation": "x"}, "truncation", "'auto' and 'disabled'"),
        (
            {"service_tier": "x"},
            "service_tier",
            "'auto', 'default', 'flex', 'scale', 'priority', 'fast', and 'ultrafast'",
        ),
        ({"prompt_cache_retention": "x"}, "prompt_cache_retention", "'in_memory', 'in-memory', and '24h'"),
        ({"text": {"verbosity": "x"}}, "text.verbosity", "'low', 'medium', and 'high'"),
        ({"text": {"format": {"type": "x"}}}, "text.format.type", "'text', 'json_object', and 'json_schema'"),
        ({"reasoning": {"summary": "x"}}, "reasoning.summary", "'auto', 'concise', and 'detailed'"),
        ({"reasoning": {"generate_summary": "x"}}, "reasoning.generate_summary", "'auto', 'concise', and 'detailed'"),
        ({"reasoning": {"context": "x"}}, "reasoning.context", "'auto', 'current_turn', and 'all_turns'"),
        ({"reasoning": {"mode": "x"}}, "reasoning.mode", "'standard' and 'pro'"),
        ({"tool_choice": "x"}, "tool_choice", "'none', 'auto', and 'required'"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_ones(fields: dict[str, Any], param: str, supported: str) -> None:
    error = error_of(REQUEST | fields)
    assert (error.code, error.param) == ("invalid_value", param)
    assert error.message == f"Invalid value: 'x'. Supported values are: {supported}."


def test_an_unknown_include_is_named_by_its_place() -> None:
    error = error_of(REQUEST | {"include": ["reasoning.encrypted_content", "everything"]})
    assert (error.code, error.param) == ("invalid_value", "include[1]")
    assert "'message.output_text.logprobs'" in error.message


@pytest.mark.parametrize(
    ("metadata", "code", "param"),
    [
        ({str(n): "" for n in range(17)}, "object_above_max_properties", "metadata"),
        ({"k": "v" * 513}, "string_above_max_length", "metadata.k"),
        ({"k" * 65: "v"}, "string_above_max_length", "metadata." + "k" * 65),
        ({"k": 1}, "invalid_type", "metadata.k"),
        ({"k": None}, "invalid_type", "metadata.k"),
    ],
)
def test_metadata_has_limits(metadata: dict[str, Any], code: str, param: str) -> None:
    error = error_of(REQUEST | {"metadata": metadata})
    assert (error.code, error.param) == (code, param)


def test_metadata_up_to_its_limits_is_accepted() -> None:
    accept(metadata={f"{n:064}": "v" * 512 for n in range(16)})


def test_a_safety_identifier_has_a_limit() -> None:
    accept(safety_identifier="s" * 128)
    error = error_of(REQUEST | {"safety_identifier": "s" * 129})
    assert (error.code, error.param) == ("string_above_max_length", "safety_identifier")
    assert error.message.endswith("maximum length 128, but got a string with length 129 instead.")


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"type": None}, "missing_required_parameter", "text.format.type"),
        ({"name": None}, "missing_required_parameter", "text.format.name"),
        ({"name": "a b"}, "invalid_value", "text.format.name"),
        ({"name": "n" * 65}, "string_above_max_length", "text.format.name"),
        ({"schema": None}, "missing_required_parameter", "text.format.schema"),
        ({"schema": "x"}, "invalid_type", "text.format.schema"),
    ],
)
def test_a_schema_needs_a_name_and_an_object(change: dict[str, Any], code: str, param: str) -> None:
    error = error_of(REQUEST | {"text": {"format": SCHEMA | change}})
    assert (error.code, error.param) == (code, param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True}, "background"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"moderation": {"model": "x"}}, "moderation"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"access_programs": {"cyber": "daybreak_blue"}}, "access_programs.cyber"),
        ({"prompt_cache_options": {"prewarm": True}}, "prompt_cache_options.prewarm"),
        ({"generate": False}, "generate"),
        ({"stream_id": "s"}, "stream_id"),
    ],
)
def test_what_is_not_there_yet_is_named(fields: dict[str, Any], param: str) -> None:
    error = error_of(REQUEST | fields)
    assert (error.code, error.param) == ("unsupported_parameter", param)
    assert error.message.startswith(f"Unsupported parameter: '{param}'. ")


@pytest.mark.parametrize("field", ["previous_response_id", "conversation"])
def test_a_chained_request_without_input_hears_about_the_chain(field: str) -> None:
    assert error_of({"model": "m", field: "x"}).param == field


def test_a_stored_prompt_may_bring_the_model_and_is_refused_all_the_same() -> None:
    assert error_of({"prompt": {"id": "pmpt_1"}}).param == "prompt"


def test_what_asks_for_nothing_is_accepted() -> None:
    accept(background=False, context_management=[], access_programs={"cyber": "standard"}, generate=True, prompt={})


def test_a_long_value_is_shortened_in_the_message() -> None:
    assert len(error_of(REQUEST | {"truncation": "x" * 5000}).message) < 200
