"""Items and content parts of the Responses API as clients send them.

Lenient: every optional field may be absent or null, fields that are not listed are skipped, `type` may be missing on
messages. The table ITEMS says which struct an item type is decoded with.
"""

from typing import Any

from msgspec import Raw, Struct


class Part(Struct, gc=False):
    """A content part of any kind; `type` tells which of the fields mean something."""

    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    image_url: Any = None
    """A URL or data URL; some clients nest it as in Chat Completions: {"url": ...}."""
    file_id: str | None = None
    detail: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    input_audio: dict[str, Any] | None = None
    video_url: Any = None
    annotations: list[Any] | None = None


class Message(Struct, gc=False):
    role: str | None = None
    content: str | list[Part] | None = None
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class FunctionCall(Struct, gc=False):
    name: str | None = None
    call_id: str | None = None
    arguments: Any = None
    """A JSON string; some clients send the object itself."""
    id: str | None = None
    status: str | None = None
    namespace: str | None = None


class CustomToolCall(Struct, gc=False):
    name: str | None = None
    call_id: str | None = None
    input: Any = None
    id: str | None = None
    status: str | None = None
    namespace: str | None = None


class CallOutput(Struct, gc=False):
    """What came back for a function_call, custom_tool_call or local_shell_call."""

    call_id: str | None = None
    output: Any = None
    """A string or a list of content parts."""
    id: str | None = None
    name: str | None = None
    namespace: str | None = None
    status: str | None = None


class Reasoning(Struct, gc=False):
    summary: list[Part] | None = None
    content: list[Part] | None = None
    encrypted_content: str | None = None
    id: str | None = None
    status: str | None = None


class ItemReference(Struct, gc=False):
    id: str | None = None


class McpCall(Struct, gc=False):
    server_label: str | None = None
    name: str | None = None
    arguments: Any = None
    output: Any = None
    error: Any = None
    approval_request_id: str | None = None
    id: str | None = None


class Other(Struct, gc=False):
    """An item of any other type, known or not, as it came.

    fields: the whole object but for `type` and `id`.
    """

    type: str
    id: str | None
    fields: dict[str, Any]


Item = Message | FunctionCall | CustomToolCall | CallOutput | Reasoning | ItemReference | McpCall | Other

ITEMS: dict[str, Any] = {
    "message": Message,
    "function_call": FunctionCall,
    "function_call_output": CallOutput,
    "custom_tool_call": CustomToolCall,
    "custom_tool_call_output": CallOutput,
    "local_shell_call_output": CallOutput,
    "reasoning": Reasoning,
    "item_reference": ItemReference,
    "mcp_call": McpCall,
}
"""Item type -> struct. Whatever is not here is an Other."""


class Head(Struct, gc=False):
    """What tells an item's type; enough to choose from ITEMS."""

    type: str | None = None
    role: Any = None
    id: str | None = None


class Function(Struct, gc=False, tag_field="type", tag="function"):
    """A tool of type function, as the client defines it, and as it is echoed."""

    name: str | None = None
    description: str | None = None
    parameters: Raw | None = None
    strict: bool | None = None
