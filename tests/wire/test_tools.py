"""Tools and the choice among them."""

from typing import Any

import pytest
from msgspec import Raw, convert, json

from proxy.errors import RequestError
from proxy.wire.items import Function
from proxy.wire.tools import Choice, ToolChoice, choose, decode_tools

GET, PUT = Function("get"), Function("put")


def tools_of(*tools: Any) -> list[Function]:
    return decode_tools([Raw(json.encode(tool)) for tool in tools])


def tool_error(*tools: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        tools_of(*tools)
    return caught.value


def choice_error(choice: Any, functions: list[Function]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        choose(convert(choice, str | ToolChoice | None), functions)
    return caught.value


def test_a_function_keeps_what_was_said_and_nothing_is_invented() -> None:
    full = {"type": "function", "name": "get", "description": "d", "parameters": {"type": "object"}, "strict": False}
    assert tools_of(full, {"type": "function", "name": "put", "parameters": None}) == [
        Function("get", "d", Raw(b'{"type":"object"}'), False),
        PUT,
    ]


def test_parameters_fit_on_one_line() -> None:
    pretty = b'{"type":"function","name":"get","parameters":{\r\n  "description": "a\\nb"\n}}'
    assert decode_tools([Raw(pretty)])[0].parameters == Raw(b'{"description":"a\\nb"}')


@pytest.mark.parametrize(
    ("tool", "code", "param"),
    [
        ({"name": "f"}, "missing_required_parameter", "tools[1].type"),
        ({"type": "function"}, "missing_required_parameter", "tools[1].name"),
        ({"type": "function", "function": {"name": "f"}}, "missing_required_parameter", "tools[1].name"),
        ({"type": "function", "name": ""}, "invalid_value", "tools[1].name"),
        ({"type": "function", "name": "a b"}, "invalid_value", "tools[1].name"),
        ({"type": "function", "name": "f\n"}, "invalid_value", "tools[1].name"),
        ({"type": "function", "name": "f" * 129}, "string_above_max_length", "tools[1].name"),
        ({"type": "function", "name": 1}, "invalid_type", "tools[1].name"),
        ({"type": "function", "name": "f", "parameters": "x"}, "invalid_type", "tools[1].parameters"),
        ({"type": "function", "name": "f", "parameters": [1]}, "invalid_type", "tools[1].parameters"),
        ({"type": "function", "name": "f", "strict": "yes"}, "invalid_type", "tools[1].strict"),
        ("f", "invalid_type", "tools[1]"),
        ({"type": "function", "name": "get"}, "invalid_value", "tools"),
    ],
)
def test_a_function_that_is_none_is_named(tool: Any, code: str, param: str) -> None:
    error = tool_error({"type": "function", "name": "get"}, tool)
    assert (error.code, error.param) == (code, param)


def test_a_wrong_name_is_answered_with_the_pattern() -> None:
    assert tool_error({"type": "function", "name": "a b"}).message == (
        "Invalid 'tools[0].name': string does not match pattern. "
        "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
    )


@pytest.mark.parametrize(
    "kind",
    [
        "custom",
        "namespace",
        "mcp",
        "web_search",
        "file_search",
        "code_interpreter",
        "image_generation",
        "local_shell",
        "x",
    ],
)
def test_other_tools_are_answered_with_the_supported_type(kind: str) -> None:
    error = tool_error({"type": "function", "name": "f"}, {"type": kind, "name": 5})
    assert (error.code, error.param) == ("unsupported_parameter", "tools[1].type")
    assert f"'{kind}'" in error.message
    assert error.message.endswith("Supported types are: 'function'.")


@pytest.mark.parametrize("choice", [None, "none", "auto", "required"])
def test_a_choice_in_one_word_offers_every_function(choice: str | None) -> None:
    assert choose(choice, [GET, PUT]) == Choice(choice, False, [GET, PUT])


@pytest.mark.parametrize("choice", [None, "none", "auto"])
def test_a_choice_among_no_tools_is_no_error(choice: str | None) -> None:
    assert choose(choice, []) == Choice(choice, False, [])


def test_a_named_function_is_forced() -> None:
    assert choose(ToolChoice(type="function", name="put"), [GET, PUT]) == Choice("put", True, [GET, PUT])


def test_allowed_tools_offer_a_subset_in_the_order_of_the_tools() -> None:
    allowed = [{"type": "function", "name": name} for name in ("put", "get", "put")]
    choice = convert({"type": "allowed_tools", "mode": "required", "tools": allowed}, ToolChoice)
    assert choose(choice, [GET, Function("other"), PUT]) == Choice("required", False, [GET, PUT])


@pytest.mark.parametrize(
    ("choice", "code", "param"),
    [
        ("always", "invalid_value", "tool_choice"),
        ({"name": "get"}, "missing_required_parameter", "tool_choice.type"),
        ({"type": "function"}, "missing_required_parameter", "tool_choice.name"),
        ({"type": "function", "name": "x"}, "invalid_value", "tool_choice"),
        ({"type": "mcp", "server_label": "s"}, "unsupported_parameter", "tool_choice.type"),
        (
            {"type": "allowed_tools", "tools": [{"type": "function", "name": "get"}]},
            "missing_required_parameter",
            "tool_choice.mode",
        ),
        ({"type": "allowed_tools", "mode": "none", "tools": []}, "invalid_value", "tool_choice.mode"),
        ({"type": "allowed_tools", "mode": "auto", "tools": []}, "missing_required_parameter", "tool_choice.tools"),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{}]},
            "missing_required_parameter",
            "tool_choice.tools[0].type",
        ),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]},
            "unsupported_parameter",
            "tool_choice.tools[0].type",
        ),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "x"}]},
            "invalid_value",
            "tool_choice",
        ),
    ],
)
def test_a_choice_that_is_none_is_named(choice: Any, code: str, param: str) -> None:
    error = choice_error(choice, [GET])
    assert (error.code, error.param) == (code, param)


def test_a_choice_that_can_not_be_met_says_why() -> None:
    assert (
        choice_error({"type": "function", "name": "x"}, [GET]).message
        == "Tool choice 'x' not found in 'tools' parameter."
    )
    assert choice_error("required", []).message == "Tool choice 'required' must be specified with 'tools' parameter."
