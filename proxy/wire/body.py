"""The body of POST /v1/responses as it comes (RESPONSES.md 2.1): types are checked here, values elsewhere.

Every field may be absent or null, which is the same. Fields that the API does not know are kept aside.
"""

import re
from typing import Any

from msgspec import Raw, Struct, ValidationError
from msgspec.json import Decoder

from proxy.wire.invalid import mismatch, unreadable
from proxy.wire.tools import NULL, ToolChoice


class TextFormat(Struct, gc=False):
    """text.format; all but `type` belongs to json_schema."""

    type: str | None = None
    name: str | None = None
    schema: Raw = NULL
    description: str | None = None
    strict: bool | None = None


class Text(Struct, gc=False):
    format: TextFormat | None = None
    verbosity: str | None = None


class ReasoningOptions(Struct, gc=False):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None
    """The old name of `summary`."""
    context: str | None = None
    mode: str | None = None


class StreamOptions(Struct, gc=False):
    include_obfuscation: bool | None = None


class PromptCacheOptions(Struct, gc=False):
    mode: str | None = None
    ttl: str | None = None
    prewarm: bool | None = None


class Body(Struct, gc=False, forbid_unknown_fields=True):
    model: str | None = None
    input: str | list[Raw] | None = None
    """As sent; each Raw is the JSON of one item."""
    stream: bool | None = None
    instructions: str | None = None
    tools: list[Raw] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningOptions | None = None
    store: bool | None = None
    include: list[str] | None = None
    prompt_cache_key: str | None = None
    text: Text | None = None
    temperature: int | float | None = None
    top_p: int | float | None = None
    presence_penalty: int | float | None = None
    frequency_penalty: int | float | None = None
    top_logprobs: int | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    stream_options: StreamOptions | None = None
    truncation: str | None = None
    metadata: dict[str, Any] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: PromptCacheOptions | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    background: bool | None = None
    background_options: dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    moderation: dict[str, Any] | None = None
    context_management: list[Any] | None = None
    access_programs: dict[str, Any] | None = None
    image: dict[str, Any] | None = None
    generate: bool | None = None
    stream_id: str | None = None
    client_metadata: Raw = NULL
    """Codex's own tracing."""


class _OpenBody(Body, forbid_unknown_fields=False):
    pass


_exact = Decoder(Body).decode
_lenient = Decoder(_OpenBody).decode
_object = Decoder(dict[str, Raw]).decode

# JavaScript clients that cut a text in the middle of an emoji send half of it as an escape.
_surrogate = re.compile(rb"\\u[dD][89a-fA-F]")
_lone = re.compile(
    rb"(?<!\\)((?:\\\\)*)(?:\\u[dD][89abAB]..(?!\\u[dD][c-fC-F]..)|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]..)", re.DOTALL
)
_MOST = 1000
"""Halves that are replaced in one body; more of them are no accident."""


def decode_body(data: bytes) -> tuple[Body, dict[str, Raw]]:
    """The known fields, and the JSON of the unknown ones by name. Raises RequestError."""
    try:
        if not data.isascii():
            data.decode()  # msgspec does not look into the strings of a Raw
        return _decode(data)
    except ValidationError as error:
        raise mismatch(error) from None
    except ValueError as error:
        whole, replaced = _lone.subn(rb"\1\\ufffd", data, _MOST) if _surrogate.search(data) else (data, 0)
        if not 0 < replaced < _MOST:
            raise unreadable(str(error)) from None
        return decode_body(whole)


def _decode(data: bytes) -> tuple[Body, dict[str, Raw]]:
    try:
        return _exact(data), {}
    except ValidationError as error:
        if not str(error).startswith("Object contains unknown field"):
            raise
    unknown = {name: raw for name, raw in _object(data).items() if name not in Body.__struct_fields__}
    return _lenient(data), unknown
