"""Input items for tests: made of dicts as a client sends them, or of anything (hypothesis)."""

import json
from typing import Any

from hypothesis import strategies as st
from msgspec import Raw

from proxy.wire.input import decode_input
from proxy.wire.items import Item

IMAGE = "data:image/png;base64,AAAA"


def items(*given: dict[str, Any]) -> list[Item]:
    return decode_input([Raw(json.dumps(item).encode()) for item in given])


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def says(text: str, **more: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "message", "role": "assistant", "content": [part], **more}


def thinks(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}], **more}


def call(id: str, arguments: str = "{}", **more: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": id, "name": "get", "arguments": arguments, **more}


def output(id: str | None, value: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": value, **more}


def _shell_output(id: str, mark: str) -> dict[str, Any]:
    entry = {"stdout": mark, "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}
    return {"type": "shell_call_output", "call_id": id, "output": [entry]}


def _parts(kind: str, mark: str) -> list[dict[str, Any]]:
    return [{"type": kind, "text": mark}, {"type": kind, "text": "and more"}]


def _media(mark: str) -> list[dict[str, Any]]:
    return [{"type": "input_text", "text": mark}, {"type": "input_image", "image_url": f"{IMAGE}{mark}"}]


_KEPT: list[Any] = [
    lambda id, mark: user(mark),
    lambda id, mark: {"role": "user", "content": _parts("input_text", mark)},
    lambda id, mark: {"role": "user", "content": _media(mark)},
    lambda id, mark: {"role": "developer", "content": mark},
    lambda id, mark: {"type": "message", "role": "system", "content": _parts("input_text", mark)},
    lambda id, mark: {"role": "developer", "content": _media(mark)},
    lambda id, mark: {"role": "tool", "content": mark},
    lambda id, mark: {"role": "assistant", "content": mark},
    lambda id, mark: says(mark),
    lambda id, mark: {"role": "assistant", "content": [{"type": "refusal", "refusal": mark}]},
    lambda id, mark: call(id, json.dumps({"mark": mark})),
    lambda id, mark: call(id, f"{{no json {mark}"),
    lambda id, mark: call(id, json.dumps({"mark": mark}), namespace="space"),
    lambda id, mark: {"type": "custom_tool_call", "call_id": id, "name": "run", "input": mark},
    lambda id, mark: {"type": "shell_call", "call_id": id, "action": {"commands": [mark]}},
    lambda id, mark: {"type": "local_shell_call", "call_id": id, "action": {"type": "exec", "command": [mark]}},
    lambda id, mark: {"type": "apply_patch_call", "call_id": id, "operation": {"type": "update_file", "diff": mark}},
    lambda id, mark: {"type": "mcp_call", "server_label": "s", "name": "n", "arguments": "{}", "output": mark},
    lambda id, mark: {"type": "mcp_call", "server_label": "s", "name": "n", "arguments": "{}", "error": mark},
    lambda id, mark: {"type": "code_interpreter_call", "code": mark, "outputs": None},
    lambda id, mark: output(id, mark),
    lambda id, mark: output(id, _parts("input_text", mark)),
    lambda id, mark: output(id, _media(mark)),
    lambda id, mark: output(None, mark, name="get"),
    lambda id, mark: {"type": "custom_tool_call_output", "call_id": id, "output": mark},
    lambda id, mark: _shell_output(id, mark),
    lambda id, mark: {"type": "apply_patch_call_output", "call_id": id, "status": "failed", "output": mark},
]

_LOST: list[Any] = [
    lambda id, mark: thinks(mark),
    lambda id, mark: {"type": "reasoning", "summary": [], "encrypted_content": mark},
    lambda id, mark: {"role": "assistant", "content": []},
    lambda id, mark: {"type": "web_search_call", "action": {"type": "search", "query": mark}},
    lambda id, mark: {"type": "mcp_list_tools", "server_label": "s", "tools": []},
    lambda id, mark: {"type": "mcp_approval_request", "server_label": "s", "name": "n", "arguments": "{}"},
    lambda id, mark: {"type": "compaction", "encrypted_content": mark},
    lambda id, mark: {"type": "magic_call", "call_id": id, "word": mark},
    lambda id, mark: {"type": "magic_call_output", "call_id": id, "output": mark},
    lambda id, mark: {"type": "ghost_snapshot", "call_id": id},
]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[str]]:
    """Items in any order, and the marks of those whose text must not be lost."""
    given, marks = [], []
    for number, make in enumerate(draw(st.lists(st.sampled_from(_KEPT + _LOST), max_size=25))):
        mark = f"[{number}]"
        given.append(make(draw(st.sampled_from(["call_a", "call_b", "call_c", "call_a_1"])), mark))
        if make in _KEPT:
            marks.append(mark)
    return given, marks
