"""What the fields of a request may hold (RESPONSES.md 2.1, 2.4, 2.5, 2.8), and which are not supported yet."""

from operator import attrgetter
from typing import Any

from msgspec import Raw, Struct

from proxy.wire.body import Body, Text, TextFormat
from proxy.wire.invalid import (
    above,
    below,
    empty_array,
    kind_of,
    missing,
    short,
    too_long,
    too_many,
    unsupported,
    wrong_type,
    wrong_value,
)
from proxy.wire.tools import check_name, json_object

Words = dict[str, tuple[str, ...]]

_NUMBERS: dict[str, tuple[float | None, float | None]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "top_logprobs": (0, 20),
    # OpenAI wants 16; engines take less, and clients of local models ask for less.
    "max_output_tokens": (1, None),
    "max_tool_calls": (1, None),
}
_INTEGERS = ("top_logprobs", "max_output_tokens", "max_tool_calls")

_WORDS: Words = {
    "truncation": ("auto", "disabled"),
    "service_tier": ("auto", "default", "flex", "scale", "priority", "fast", "ultrafast"),
    "prompt_cache_retention": ("in_memory", "in-memory", "24h"),
}
_REASONING_WORDS: Words = {
    "effort": ("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    "summary": ("auto", "concise", "detailed"),
    "generate_summary": ("auto", "concise", "detailed"),
    "context": ("auto", "current_turn", "all_turns"),
    "mode": ("standard", "pro"),
}
_TEXT_WORDS: Words = {"verbosity": ("low", "medium", "high")}
_FORMATS = ("text", "json_object", "json_schema")

INCLUDE = (
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.action.sources",
    "web_search_call.results",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
)

_UNSUPPORTED = {
    "previous_response_id": "No responses are stored here: send the whole history in 'input'.",
    "conversation": "No conversations are stored here: send the whole history in 'input'.",
    "background": "Leave it out, or set it to false, and keep the connection open until the response is there.",
    "prompt": "No prompts are stored here: send 'instructions' and 'input'.",
    "moderation": "This server does no moderation.",
    "context_management": "This server does no compaction: shorten 'input' yourself.",
    "stream_id": "It belongs to the WebSocket.",
}


_SELDOM = (
    *_WORDS,
    *_UNSUPPORTED,
    "reasoning",
    "text",
    "metadata",
    "safety_identifier",
    "include",
    "generate",
    "prompt_cache_options",
    "access_programs",
)
_numbers, _seldom = attrgetter(*_NUMBERS), attrgetter(*_SELDOM)  # one look for many fields
_NO_NUMBERS, _UNSENT = (None,) * len(_NUMBERS), (None,) * len(_SELDOM)


def check_body(body: Body) -> None:
    """Raises RequestError for what is missing, then for what is out of bounds, then for what is not supported."""
    _check_required(body)
    if _numbers(body) != _NO_NUMBERS:
        _check_numbers(body)
    if _seldom(body) != _UNSENT:
        _check_seldom(body)


def _check_seldom(body: Body) -> None:
    _check_words(body, _WORDS)
    if body.reasoning:
        _check_words(body.reasoning, _REASONING_WORDS, "reasoning.")
    if body.text:
        _check_words(body.text, _TEXT_WORDS, "text.")
    _check_metadata(body.metadata or {})
    if body.safety_identifier and len(body.safety_identifier) > 128:
        raise too_long("safety_identifier", len(body.safety_identifier), 128)
    for index, value in enumerate(body.include or ()):
        if value not in INCLUDE:
            raise wrong_value(f"include[{index}]", value, INCLUDE)
    _check_supported(body)


def _check_required(body: Body) -> None:
    if not body.model and not body.prompt:
        raise missing("model")
    if body.previous_response_id or body.conversation or body.prompt:
        return
    if body.input is None:
        raise missing("input")
    if body.input == []:
        raise empty_array("input")


def _check_numbers(body: Body) -> None:
    for name, (low, high) in _NUMBERS.items():
        value = getattr(body, name)
        if value is None:
            continue
        kind = "integer" if name in _INTEGERS else "decimal"
        if low is not None and value < low:
            raise below(name, value, low, kind)
        if high is not None and value > high:
            raise above(name, value, high, kind)


def _check_words(struct: Struct, allowed: Words, within: str = "") -> None:
    for name, words in allowed.items():
        value = getattr(struct, name)
        if value is not None and value not in words:
            raise wrong_value(within + name, value, words)


def _check_metadata(metadata: dict[str, Any]) -> None:
    if len(metadata) > 16:
        raise too_many("metadata", len(metadata), 16)
    for key, value in metadata.items():
        param = f"metadata.{short(key)}"
        if len(key) > 64:
            raise too_long(param, len(key), 64)
        if not isinstance(value, str):
            raise wrong_type(param, "a string", kind_of(value))
        if len(value) > 512:
            raise too_long(param, len(value), 512)


def _check_supported(body: Body) -> None:
    for name, reason in _UNSUPPORTED.items():
        if getattr(body, name):
            raise unsupported(name, reason)
    if body.generate is False:
        raise unsupported("generate", "It belongs to the WebSocket.")
    if body.prompt_cache_options and body.prompt_cache_options.prewarm:
        raise unsupported("prompt_cache_options.prewarm", "This server can't read a prompt without answering it.")
    for name, program in (body.access_programs or {}).items():
        if program not in (None, "standard"):
            raise unsupported(f"access_programs.{name}", "Supported values are: 'standard'.")


def decode_schema(text: Text | None) -> Raw | None:
    """The schema that text.format asks for, without line ends, or None. Raises RequestError for what is no format."""
    if text is None or text.format is None:
        return None
    if text.format.type is None:
        raise missing("text.format.type")
    if text.format.type not in _FORMATS:
        raise wrong_value("text.format.type", text.format.type, _FORMATS)
    return _schema(text.format) if text.format.type == "json_schema" else None


def _schema(format: TextFormat) -> Raw:
    check_name(format.name, "text.format.name", 64)
    schema = json_object(format.schema, "text.format.schema")
    if schema is None:
        raise missing("text.format.schema")
    return schema
