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


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def text(value: str) -> dict[str, Any]:
    return {"type": "input_text", "text": value}


def says(words: str, **more: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": words, "annotations": [], "logprobs": []}
    return {"type": "message", "role": "assistant", "content": [part], **more}


def thinks(thought: str, **more: Any) -> dict[str, Any]:
    return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": thought}], **more}


def call(call_id: str, arguments: Any = "{}", **more: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "get", "arguments": arguments, **more}


def output(call_id: str | None, value: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": value, **more}


def _media(mark: str) -> list[dict[str, Any]]:
    return [text(mark), {"type": "input_image", "image_url": f"{IMAGE}{mark}"}]


_TWO_TEXTS = [text("@mark"), text("and more")]
_MCP = {"type": "mcp_call", "server_label": "s", "name": "n", "arguments": "{}"}

_KEPT: list[dict[str, Any]] = [
    user("@mark"),
    {"role": "user", "content": _TWO_TEXTS},
    {"role": "user", "content": _media("@mark")},
    {"role": "developer", "content": "@mark"},
    {"type": "message", "role": "system", "content": _TWO_TEXTS},
    {"role": "developer", "content": _media("@mark")},
    {"role": "tool", "content": "@mark"},
    {"role": "assistant", "content": "@mark"},
    says("@mark"),
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "@mark"}]},
    call("@id", '{"k":"@mark"}'),
    call("@id", "{no json @mark"),
    call("@id", '{"k":"@mark"}', namespace="space"),
    {"type": "custom_tool_call", "call_id": "@id", "name": "run", "input": "@mark"},
    {"type": "shell_call", "call_id": "@id", "action": {"commands": ["@mark"]}},
    {"type": "local_shell_call", "call_id": "@id", "action": {"type": "exec", "command": ["@mark"]}},
    {"type": "apply_patch_call", "call_id": "@id", "operation": {"type": "update_file", "diff": "@mark"}},
    _MCP | {"output": "@mark"},
    _MCP | {"error": "@mark"},
    {"type": "code_interpreter_call", "code": "@mark", "outputs": None},
    output("@id", "@mark"),
    output("@id", _TWO_TEXTS),
    output("@id", _media("@mark")),
    output(None, "@mark", name="get"),
    {"type": "custom_tool_call_output", "call_id": "@id", "output": "@mark"},
    {"type": "shell_call_output", "call_id": "@id", "output": [{"stdout": "@mark", "outcome": {"type": "timeout"}}]},
    {"type": "apply_patch_call_output", "call_id": "@id", "status": "failed", "output": "@mark"},
]
"""Items whose text a model must see. @id and @mark are filled in."""

_LOST: list[dict[str, Any]] = [
    thinks("@mark"),
    {"type": "reasoning", "summary": [], "encrypted_content": "@mark"},
    {"role": "assistant", "content": []},
    {"type": "web_search_call", "action": {"type": "search", "query": "@mark"}},
    {"type": "mcp_list_tools", "server_label": "s", "tools": []},
    {"type": "mcp_approval_request", "server_label": "s", "name": "n", "arguments": "{}"},
    {"type": "compaction", "encrypted_content": "@mark"},
    {"type": "magic_call", "call_id": "@id", "word": "@mark"},
    {"type": "magic_call_output", "call_id": "@id", "output": "@mark"},
    {"type": "ghost_snapshot", "call_id": "@id"},
]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[str]]:
    """Items in any order, and the marks of those whose text must not be lost."""
    given, marks = [], []
    for number, form in enumerate(draw(st.lists(st.sampled_from(_KEPT + _LOST), max_size=25))):
        call_id = draw(st.sampled_from(["call_a", "call_b", "call_c", "call_a_1"]))
        given.append(json.loads(json.dumps(form).replace("@id", call_id).replace("@mark", f"[{number}]")))
        if form in _KEPT:
            marks.append(f"[{number}]")
    return given, marks
