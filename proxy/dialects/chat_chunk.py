"""The chunks of a Chat Completions stream as data, each server's oddities included (RESPONSES 6.2)."""

import re
from typing import Any, Literal

import msgspec
from msgspec import Struct

from proxy.core.deltas import Usage
from proxy.wire.forwarded import MOST_TOKENS


class Function(Struct, gc=False):
    name: str | None = None
    arguments: Any = None
    """A piece of JSON text; Ollama and TGI send the object itself."""


class ToolCall(Struct, gc=False):
    index: int | None = None
    id: str | int | None = None
    function: Function | None = None


class Delta(Struct, gc=False):
    """A delta, or the message of an answer that is no stream."""

    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | ToolCall | None = None
    function_call: Function | None = None
    reasoning_details: list[Any] | None = None
    thinking_blocks: list[Any] | None = None
    annotations: list[Any] | None = None
    audio: Any = None


class PromptDetails(Struct, gc=False):
    cached_tokens: int | float | None = None
    cache_write_tokens: int | float | None = None


class CompletionDetails(Struct, gc=False):
    reasoning_tokens: int | float | None = None


class ChatUsage(Struct, gc=False):
    prompt_tokens: int | float | None = None
    completion_tokens: int | float | None = None
    total_tokens: int | float | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    prompt_cache_hit_tokens: int | float | None = None  # DeepSeek
    cached_tokens: int | float | None = None  # Moonshot
    cache_creation_input_tokens: int | float | None = None  # Anthropic behind a gateway
    reasoning_tokens: int | float | None = None


class Logprobs(Struct, gc=False):
    content: list[Any] | None = None


class Choice(Struct, gc=False):
    index: int | None = None
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    usage: ChatUsage | None = None  # Moonshot
    error: Any = None  # OpenRouter


class Groq(Struct, gc=False):
    usage: ChatUsage | None = None
    error: Any = None


class Chunk(Struct, gc=False):
    """A chunk, a whole answer, or an error in the place of one."""

    choices: list[Choice] | None = None
    usage: ChatUsage | None = None
    error: Any = None
    service_tier: str | None = None
    x_groq: Groq | None = None
    object: Any = None
    detail: Any = None
    message: Any = None


class PlainDelta(Struct, gc=False):
    content: str | None = None
    reasoning_content: None = None
    reasoning: None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None
    reasoning_details: None = None
    thinking_blocks: None = None
    annotations: None = None
    audio: None = None


class PlainChoice(Struct, gc=False):
    delta: PlainDelta
    index: Literal[0] = 0
    finish_reason: str | None = None
    logprobs: None = None
    usage: None = None
    error: None = None


class PlainChunk(Struct, gc=False):
    """A chunk that holds a piece of text or the reason of the end, and nothing else of interest."""

    choices: tuple[PlainChoice]
    usage: None = None
    error: None = None
    service_tier: None = None
    x_groq: None = None


decode = msgspec.json.Decoder(Chunk).decode
decode_plain = msgspec.json.Decoder(PlainChunk).decode
_LONE_SURROGATE = re.compile(
    r"(?<!\\)((?:\\\\)*)(?:\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)


def decode_leniently(payload: bytes) -> Chunk:
    """A chunk that the fast decoder refused: half characters are replaced (pitfall 60), odd types bent.

    Raises msgspec.DecodeError (ValidationError is one) when it is no JSON object, or none that can be understood.
    """
    text = payload.decode("utf-8", "replace")
    if "\\u" in text:
        text = _LONE_SURROGATE.sub(r"\1\\ufffd", text)
    value = msgspec.json.decode(text)
    if isinstance(value, dict):
        return msgspec.convert(value, Chunk, strict=False)
    if isinstance(value, list) and value and isinstance(value[0], dict):  # Gemini: [{"error": ...}]
        return msgspec.convert(value[0], Chunk, strict=False)
    raise msgspec.ValidationError(f"expected an object, got {type(value).__name__}")


def usage(said: ChatUsage) -> Usage | None:
    """Tokens in our words (RESPONSES 6.4); None when it says nothing."""
    if said.prompt_tokens is None and said.completion_tokens is None:
        return None
    prompt, completion = said.prompt_tokens_details, said.completion_tokens_details
    cached, written = said.prompt_cache_hit_tokens or said.cached_tokens, said.cache_creation_input_tokens
    reasoning = said.reasoning_tokens
    if prompt is not None:
        cached, written = prompt.cached_tokens or cached, prompt.cache_write_tokens or written
    if completion is not None:
        reasoning = completion.reasoning_tokens or reasoning
    asked, answered, thought = _count(said.prompt_tokens), _count(said.completion_tokens), _count(reasoning)
    if thought and said.total_tokens == asked + answered + thought:
        answered += thought  # pitfall 83: xAI and Gemini don't count it in
    return Usage(asked, min(_count(cached), asked), _count(written), answered, min(thought, answered))


def _count(said: float | None) -> int:
    return int(min(max(0, said), MOST_TOKENS)) if said else 0


def logprobs(entries: list[Any]) -> list[dict[str, Any]] | None:
    """Entries in the shape of the Responses API, whose clients want each key (RESPONSES 6.5); None for none."""
    return [_entry(entry) | {"top_logprobs": _tops(entry)} for entry in entries if isinstance(entry, dict)] or None


def _tops(entry: dict[str, Any]) -> list[dict[str, Any]]:
    tops = entry.get("top_logprobs")
    return [_entry(top) for top in tops if isinstance(top, dict)] if isinstance(tops, list) else []


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    token = str(entry.get("token") or "")
    spelled, logprob = entry.get("bytes"), entry.get("logprob")
    if not isinstance(spelled, list) or not all(isinstance(byte, int) for byte in spelled):
        spelled = list(token.encode("utf-8", "replace"))
    return {"token": token, "logprob": logprob if isinstance(logprob, int | float) else 0.0, "bytes": spelled}


def annotation(said: Any) -> dict[str, Any] | None:
    """Chat Completions nests what the Responses API has flat; None when it is no annotation."""
    if not isinstance(said, dict) or not isinstance(said.get("type"), str):
        return None
    nested = said.get(said["type"])
    flat = {
        "type": said["type"],
        **(nested if isinstance(nested, dict) else {k: v for k, v in said.items() if k != "type"}),
    }
    if flat["type"] != "url_citation":
        return flat
    defaults = {"start_index": 0, "end_index": 0, "title": "", "url": ""}
    return flat | {key: flat.get(key) or default for key, default in defaults.items()}
