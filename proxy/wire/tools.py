"""Tools, and the choice among them, as clients send them. Of the tool types only `function` is supported yet."""

import re

from msgspec import Raw, Struct, ValidationError
from msgspec.json import Decoder
from msgspec.json import format as reformat

from proxy.errors import RequestError
from proxy.wire.invalid import mismatch, missing, short, too_long, unsupported, wrong_pattern, wrong_type, wrong_value
from proxy.wire.items import Function

NULL = Raw(b"null")

_PATTERN = "^[a-zA-Z0-9_-]+$"
_matches = re.compile("[a-zA-Z0-9_-]+").fullmatch


class ToolName(Struct, gc=False, omit_defaults=True):
    """A tool named in tool_choice.tools."""

    type: str | None = None
    name: str | None = None


class ToolChoice(Struct, gc=False, omit_defaults=True):
    """tool_choice as an object; `type` tells which of the fields mean something."""

    type: str | None = None
    name: str | None = None
    mode: str | None = None
    tools: list[ToolName] | None = None


class Choice(Struct, frozen=True, gc=False):
    """What a tool_choice comes to.

    mode: None, "none", "auto", "required" or the name of a function; then `forced` is True.
    offered: the functions that the model may call.
    """

    mode: str | None
    forced: bool
    offered: list[Function]


class _Type(Struct, gc=False):
    type: str | None = None


class _Tool(Struct, gc=False):
    name: str | None = None
    description: str | None = None
    parameters: Raw = NULL
    strict: bool | None = None


_type = Decoder(_Type).decode
_tool = Decoder(_Tool).decode


def decode_tools(raws: list[Raw]) -> list[Function]:
    """The `tools` of a request. Raises RequestError that names the tool."""
    functions: list[Function] = []
    try:
        for index, raw in enumerate(raws):
            functions.append(_function(raw, f"tools[{index}]"))
    except ValidationError as error:
        raise mismatch(error, f"tools[{len(functions)}]") from None
    _check_unique([function.name for function in functions])
    return functions


def _function(raw: Raw, param: str) -> Function:
    kind = _type(raw).type
    if kind is None:
        raise missing(f"{param}.type")
    if kind != "function":
        reason = f"Tools of type '{short(kind)}' are not supported. Supported types are: 'function'."
        raise unsupported(f"{param}.type", reason)
    tool = _tool(raw)
    check_name(tool.name, f"{param}.name", 128)
    return Function(tool.name, tool.description, json_object(tool.parameters, f"{param}.parameters"), tool.strict)


def _check_unique(names: list[str | None]) -> None:
    if len(set(names)) == len(names):
        return
    seen: set[str | None] = set()
    for index, name in enumerate(names):
        if name in seen:
            raise RequestError(
                f"Invalid 'tools': 'tools[{names.index(name)}]' and 'tools[{index}]' have the same name, '{name}'.",
                code="invalid_value",
                param="tools",
            )
        seen.add(name)


def check_name(name: str | None, param: str, limit: int) -> None:
    """Raises RequestError unless it is 1 to `limit` letters, digits, _ and -."""
    if name is None:
        raise missing(param)
    if not _matches(name):
        raise wrong_pattern(param, _PATTERN)
    if len(name) > limit:
        raise too_long(param, len(name), limit)


def json_object(raw: Raw, param: str) -> Raw | None:
    """The object, without line ends because it is echoed in events; None for null. Raises RequestError otherwise."""
    data = bytes(raw)
    if data == b"null":
        return None
    if data[:1] != b"{":
        kinds = {b"[": "an array", b'"': "a string", b"t": "a boolean", b"f": "a boolean"}
        raise wrong_type(param, "an object", kinds.get(data[:1], "a number"))
    return Raw(reformat(data, indent=-1)) if b"\n" in data or b"\r" in data else raw


def choose(choice: str | ToolChoice | None, functions: list[Function]) -> Choice:
    """Apply `tool_choice` to the functions (RESPONSES.md 2.3). Raises RequestError when they can't meet it."""
    match choice:
        case None | "none" | "auto":
            return Choice(choice, False, functions)
        case "required":
            if not functions:
                raise _impossible("Tool choice 'required' must be specified with 'tools' parameter.")
            return Choice(choice, False, functions)
        case str():
            raise wrong_value("tool_choice", choice, ("none", "auto", "required"))
    match choice.type:
        case None:
            raise missing("tool_choice.type")
        case "function":
            return Choice(_named(choice.name, functions, "tool_choice.name").name, True, functions)
        case "allowed_tools":
            return Choice(_mode(choice.mode), False, _allowed(choice.tools, functions))
    raise _unsupported("tool_choice.type", choice.type, "'function' and 'allowed_tools'")


def _named(name: str | None, functions: list[Function], param: str) -> Function:
    if name is None:
        raise missing(param)
    for function in functions:
        if function.name == name:
            return function
    raise _impossible(f"Tool choice '{short(name)}' not found in 'tools' parameter.")


def _mode(mode: str | None) -> str:
    if mode is None:
        raise missing("tool_choice.mode")
    if mode not in ("auto", "required"):
        raise wrong_value("tool_choice.mode", mode, ("auto", "required"))
    return mode


def _allowed(tools: list[ToolName] | None, functions: list[Function]) -> list[Function]:
    if not tools:
        raise missing("tool_choice.tools")
    names = set()
    for index, tool in enumerate(tools):
        param = f"tool_choice.tools[{index}]"
        if tool.type is None:
            raise missing(f"{param}.type")
        if tool.type != "function":
            raise _unsupported(f"{param}.type", tool.type, "'function'")
        names.add(_named(tool.name, functions, f"{param}.name").name)
    return [function for function in functions if function.name in names]


def _unsupported(param: str, kind: str, supported: str) -> RequestError:
    reason = f"A tool choice of type '{short(kind)}' is not supported. Supported types are: {supported}."
    return unsupported(param, reason)


def _impossible(message: str) -> RequestError:
    return RequestError(message, code="invalid_value", param="tool_choice")
