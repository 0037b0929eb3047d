"""Calls and their outputs, of whatever item type, as a model sees them: a function, its arguments, and what came back.

The tables OWN and FOREIGN say which types there are; RESPONSES.md 4.7 to 4.11 say what becomes of each.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from proxy.core.content import Content, as_json, joined, output
from proxy.core.names import flat, plain
from proxy.wire.items import CallOutput, CustomToolCall, FunctionCall, McpCall, Other

NOT_EXECUTED = '{"error":"tool call was not executed"}'
"""What the model is told of a call whose output is lost."""


class Call(Struct, gc=False):
    """A call.

    id: the call_id. item_id: the item's own id, which outputs may name instead.
    arguments: JSON text, as far as the model wrote it well.
    output: what came back; None until it is found.
    unanswered: what the model is told when nothing came back; None where that is a defect of the history.
    unknown: the item's type, when it means something only together with its output.
    cut: the model was cut off inside the arguments; the call is to be forgotten, and its output too.
    settled: the output stands in the call, or before it.
    group: number of the group it stands in, for those who group.
    """

    id: str | None
    name: str
    arguments: str
    item_id: str | None = None
    output: Content | None = None
    unanswered: str | None = None
    unknown: str | None = None
    cut: bool = False
    settled: bool = False
    group: int = -1


class Answer(Struct, gc=False):
    """The output of a call, that stands somewhere else than the call.

    call_id: which call it belongs to; item_id: the output's own id, which may be the call's.
    name: of the function, if known.
    unknown: see Call. approval: an mcp_approval_response; what it answers to must be there.
    call: the call, once found. late: that call has another output already.
    """

    call_id: str | None
    content: Content
    item_id: str | None = None
    name: str | None = None
    unknown: str | None = None
    approval: bool = False
    call: Call | None = None
    late: bool = False


def arguments(value: Any) -> str:
    """Arguments as JSON text: clients send the text or the object. Nothing means no arguments (pitfall 46)."""
    if isinstance(value, str):
        return value if value.strip() else "{}"
    return "{}" if value is None else as_json(value)


def is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _function_call(item: FunctionCall) -> Call:
    cut = item.status == "incomplete" and not (isinstance(item.arguments, dict) or is_json(item.arguments or ""))
    return Call(item.call_id, _name(item.namespace, item.name), arguments(item.arguments), item.id, cut=cut)


def _custom_tool_call(item: CustomToolCall) -> Call:
    text = item.input if isinstance(item.input, str) else as_json(item.input or "")
    return Call(item.call_id, _name(item.namespace, item.name), as_json({"input": text}), item.id)


def _mcp_call(item: McpCall) -> Call:
    name = flat("mcp", item.server_label, item.name)
    call = Call(item.id, name, arguments(item.arguments), item.id, unanswered=NOT_EXECUTED)
    if item.error is not None:
        call.output = _error(item.error)
    elif item.output is not None:
        call.output = output(item.output)
    return call


def _error(error: Any) -> str:
    if not isinstance(error, dict):
        return error if isinstance(error, str) else as_json(error)
    return joined(output(error.get("content"))) or str(error.get("message") or as_json(error))


def _call_output(item: CallOutput) -> Answer:
    name = _name(item.namespace, item.name) if item.name else None
    return Answer(item.call_id, output(item.output), item.id, name)


def _name(namespace: str | None, name: str | None) -> str:
    return flat(namespace, name) if namespace else plain(name)


OWN: dict[type, Callable[[Any], Call | Answer]] = {
    FunctionCall: _function_call,
    CustomToolCall: _custom_tool_call,
    McpCall: _mcp_call,
    CallOutput: _call_output,
}
"""Items with a struct of their own -> Call or Answer."""


def _made(item: Other, name: str, arguments: Any, output: Content | None = None) -> Call:
    """arguments: those that are null are left out."""
    given = {key: value for key, value in arguments.items() if value is not None}
    return Call(text_field(item, "call_id") or item.id, name, as_json(given), item.id, output=output)


def _answer(item: Other, content: Content) -> Answer:
    return Answer(text_field(item, "call_id"), content, item.id)


def text_field(item: Other, field: str) -> str | None:
    """The field's text; None when it has none or is of another type."""
    value = item.fields.get(field)
    return value if isinstance(value, str) and value else None


def _object(item: Other, field: str) -> dict[str, Any]:
    value = item.fields.get(field)
    return value if isinstance(value, dict) else {}


def _entries(item: Other, field: str) -> list[dict[str, Any]]:
    value = item.fields.get(field)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _local_shell_call(item: Other) -> Call:
    action = _object(item, "action")
    sent = {name: action.get(name) for name in ("command", "timeout_ms")}
    sent |= {"workdir": action.get("working_directory"), "env": action.get("env") or None}
    return _made(item, "local_shell", sent)


def _shell_call(item: Other) -> Call:
    action = _object(item, "action")
    return _made(item, "shell", {name: action.get(name) for name in ("commands", "timeout_ms", "max_output_length")})


def _shell_call_output(item: Other) -> Answer:
    entries = _entries(item, "output")
    return _answer(item, "\n".join(map(_shell_result, entries)) if entries else output(item.fields.get("output")))


def _shell_result(entry: dict[str, Any]) -> str:
    outcome = entry.get("outcome")
    end = "timed out"
    if not isinstance(outcome, dict) or outcome.get("type") != "timeout":
        end = f"exit code {outcome.get('exit_code') if isinstance(outcome, dict) else 'unknown'}"
    written = (entry.get("stdout"), entry.get("stderr"))
    return "\n".join([str(text) for text in written if text] + [f"[{end}]"])


def _apply_patch_call(item: Other) -> Call:
    return _made(item, "apply_patch", {"operation": item.fields.get("operation")})


def _apply_patch_call_output(item: Other) -> Answer:
    status = text_field(item, "status") or "completed"
    text = joined(output(item.fields.get("output")))
    return _answer(item, f"{status}\n{text}" if text else status)


def _file_search_call(item: Other) -> Call | None:
    results = item.fields.get("results")
    if results is None:
        return None
    return _made(item, "file_search", {"queries": item.fields.get("queries")}, output=as_json(results))


def _code_interpreter_call(item: Other) -> Call:
    logs = "\n".join(str(entry["logs"]) for entry in _entries(item, "outputs") if entry.get("logs"))
    return _made(item, "code_interpreter", {"code": item.fields.get("code")}, output=logs)


def _tool_search_call(item: Other) -> Call | None:
    """None for a search that the server did: only the tools it found matter."""
    if not text_field(item, "call_id"):
        return None
    return Call(text_field(item, "call_id"), "tool_search", arguments(item.fields.get("arguments")), item.id)


def _tool_search_output(item: Other) -> Answer | None:
    if not text_field(item, "call_id"):
        return None
    shown = ("name", "description")
    found = [{key: tool[key] for key in shown if tool.get(key)} for tool in _entries(item, "tools")]
    return _answer(item, as_json(found))


def _mcp_approval_request(item: Other) -> Call:
    name = flat("mcp", text_field(item, "server_label"), text_field(item, "name"))
    sent = arguments(item.fields.get("arguments"))
    return Call(item.id, name, sent, item.id, unanswered="The tool call was not approved, and not executed.")


def _mcp_approval_response(item: Other) -> Answer:
    reason = text_field(item, "reason")
    verdict = "The user rejected this tool call."
    if item.fields.get("approve") is True:
        verdict = "The user approved this tool call. It was not executed."
    return Answer(text_field(item, "approval_request_id"), f"{verdict} {reason}" if reason else verdict, approval=True)


FOREIGN: dict[str, Callable[[Other], Call | Answer | None]] = {
    "local_shell_call": _local_shell_call,
    "shell_call": _shell_call,
    "shell_call_output": _shell_call_output,
    "apply_patch_call": _apply_patch_call,
    "apply_patch_call_output": _apply_patch_call_output,
    "file_search_call": _file_search_call,
    "code_interpreter_call": _code_interpreter_call,
    "tool_search_call": _tool_search_call,
    "tool_search_output": _tool_search_output,
    "mcp_approval_request": _mcp_approval_request,
    "mcp_approval_response": _mcp_approval_response,
}
"""Type of an Other -> Call or Answer; None where there is nothing to say."""


def unknown(item: Other) -> Call | Answer | None:
    """A type nobody here knows: a call and its output when named so and when they share a call_id; None otherwise."""
    call_id = text_field(item, "call_id")
    fields = {key: value for key, value in item.fields.items() if key not in ("call_id", "status")}
    if call_id and item.type.endswith("_call"):
        return Call(call_id, plain(item.type.removesuffix("_call")), as_json(fields), item.id, unknown=item.type)
    if call_id and item.type.endswith("_output"):
        return Answer(call_id, output(fields.get("output", fields)), item.id, unknown=item.type)
    return None
