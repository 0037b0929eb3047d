"""Input items: what is decoded as what, and what makes an item unusable."""

from typing import Any

import pytest
from msgspec import Raw, json

from proxy.errors import RequestError
from proxy.wire.input import decode_input
from proxy.wire.items import CallOutput, FunctionCall, Item, Message, Other, Part, Reasoning


def items_of(*objects: Any) -> list[Item]:
    return decode_input([Raw(json.encode(item)) for item in objects])


def error_of(*objects: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        items_of(*objects)
    return caught.value


def test_a_string_is_one_user_message() -> None:
    assert decode_input("hi") == [Message(role="user", content="hi")]


def test_a_message_may_lack_its_type() -> None:
    assert items_of({"role": "user", "content": "hi"}) == items_of({"type": "message", "role": "user", "content": "hi"})


def test_parts_keep_what_they_hold() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "high"}
    message = items_of({"role": "user", "content": [{"type": "input_text", "text": "see"}, image]})[0]
    assert isinstance(message, Message)
    assert message.content == [
        Part(type="input_text", text="see"),
        Part(type="input_image", image_url="data:image/png;base64,AA==", detail="high"),
    ]


def test_unknown_keys_and_nulls_are_skipped() -> None:
    call = {"type": "function_call", "id": None, "call_id": "c", "name": "f", "arguments": "{}", "status": None}
    replayed = call | {
        "parsed_arguments": {"a": 1},
        "internal_chat_message_metadata_passthrough": {},
        "namespace": None,
    }
    assert items_of(replayed) == [FunctionCall(name="f", call_id="c", arguments="{}")]


def test_reasoning_may_have_null_content() -> None:
    item = items_of({"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": "x"})[0]
    assert item == Reasoning(summary=[], encrypted_content="x", id="rs_1")


@pytest.mark.parametrize("kind", ["web_search_call", "ghost_snapshot", "compaction", "something_from_2031"])
def test_other_items_are_kept_whole(kind: str) -> None:
    assert items_of({"type": kind, "id": "x_1", "status": "completed", "action": {"a": [1]}}) == [
        Other(type=kind, id="x_1", fields={"status": "completed", "action": {"a": [1]}})
    ]


@pytest.mark.parametrize("identity", [{"call_id": "c"}, {"call_id": None, "name": "f"}, {"id": "lsh_1"}])
def test_an_output_is_known_by_call_id_or_name_or_id(identity: dict[str, Any]) -> None:
    assert isinstance(items_of({"type": "local_shell_call_output", "output": "x"} | identity)[0], CallOutput)


@pytest.mark.parametrize(
    "role", ["user", "assistant", "system", "developer", "critic", "discriminator", "tool", "unknown"]
)
def test_the_roles_of_conversations_are_accepted(role: str) -> None:
    assert items_of({"role": role, "content": "x"}) == [Message(role=role, content="x")]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"content": "hi"}, "input[1].type"),
        ({"type": "message", "content": "hi"}, "input[1].role"),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, "input[1].call_id"),
        ({"type": "function_call", "call_id": "c", "arguments": "{}"}, "input[1].name"),
        ({"type": "custom_tool_call", "name": "f", "call_id": ""}, "input[1].call_id"),
        ({"type": "function_call_output", "output": "x"}, "input[1].call_id"),
        ({"role": "user", "content": [{"type": "input_text", "text": "a"}, {"x": 1}]}, "input[1].content[1].type"),
    ],
)
def test_what_an_item_lacks_is_named_with_its_place(item: dict[str, Any], param: str) -> None:
    error = error_of({"role": "user", "content": "hi"}, item)
    assert (error.code, error.param) == ("missing_required_parameter", param)


@pytest.mark.parametrize(
    ("item", "param", "message"),
    [
        ("hi", "input[1]", "expected an object, but got a string instead"),
        (None, "input[1]", "expected an object, but got null instead"),
        ({"type": 5}, "input[1].type", "expected a string, but got an integer instead"),
        ({"role": 5}, "input[1].role", "expected a string, but got an integer instead"),
        (
            {"role": "user", "content": 5},
            "input[1].content",
            "expected a string or an array, but got an integer instead",
        ),
        ({"role": "user", "content": ["x"]}, "input[1].content[0]", "expected an object, but got a string instead"),
        (
            {"role": "user", "content": [{"type": 1}]},
            "input[1].content[0].type",
            "expected a string, but got an integer instead",
        ),
        (
            {"type": "reasoning", "summary": [{"text": []}]},
            "input[1].summary[0].text",
            "expected a string, but got an array instead",
        ),
    ],
)
def test_a_wrong_type_is_named_with_its_place(item: Any, param: str, message: str) -> None:
    error = error_of({"role": "user", "content": "hi"}, item)
    assert (error.code, error.param) == ("invalid_type", param)
    assert error.message == f"Invalid type for '{param}': {message}."


def test_a_number_out_of_range_is_named_with_its_item() -> None:
    with pytest.raises(RequestError) as caught:
        decode_input([Raw(b'{"type":"web_search_call","action":{"n":1e400}}')])
    assert (caught.value.code, caught.value.param) == ("invalid_value", "input[0]")


def test_an_unknown_role_is_answered_with_the_usual_ones() -> None:
    error = error_of({"role": "boss", "content": "x"})
    assert (error.code, error.param) == ("invalid_value", "input[0].role")
    assert (
        error.message == "Invalid value: 'boss'. Supported values are: 'user', 'assistant', 'system', and 'developer'."
    )


def test_an_unknown_part_is_answered_with_the_known_ones() -> None:
    error = error_of({"role": "user", "content": [{"type": "x", "text": "a"}]})
    assert (error.code, error.param) == ("invalid_value", "input[0].content[0].type")
    assert error.message.startswith("Invalid value: 'x'. Supported values are: 'input_text', 'input_image', ")


@pytest.mark.parametrize(
    "item",
    [
        {"type": "item_reference", "id": "rs_1"},
        {"type": None, "id": "rs_1"},
        {"id": "rs_1"},
        {"type": "compaction_trigger"},
        {"type": "additional_tools", "role": "developer", "tools": []},
        {"type": "computer_call", "call_id": "c"},
    ],
)
def test_items_that_are_not_supported_are_named_by_their_place(item: dict[str, Any]) -> None:
    error = error_of({"role": "user", "content": "hi"}, item)
    assert (error.code, error.param) == ("unsupported_parameter", "input[1]")
