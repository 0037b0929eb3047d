"""What is looked at of a request that passes through, and of its answer; everything else goes on unseen."""

import json
import re
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.json import Decoder

from proxy.errors import RequestError
from proxy.wire.invalid import missing, unreadable
from proxy.wire.tools import NULL

MOST_TOKENS = 10**9
"""Of one kind in one answer: what is above is nonsense, and might be too large for a float."""

_MEMBER = re.compile(rb'\s*[{,]\s*"(?:[^"\\]|\\.)*"\s*:\s*', re.DOTALL)
_END = re.compile(rb"\s*}\s*")
_ASKS = re.compile(rb'"role"\s*:\s*"user"')
_USAGE = re.compile(r'"usage"\s*:\s*(?=\{)')

_fields = Decoder(dict[str, Raw]).decode
_string = Decoder(str).decode
_list = Decoder(list[Raw]).decode
_json = json.JSONDecoder()


def decode(body: bytes) -> dict[str, Raw]:
    """The fields of a request, each as it stands in the body. Raises RequestError."""
    try:
        return _fields(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable(str(error)) from None


def model(fields: dict[str, Raw]) -> str:
    """Raises RequestError when it is missing, or when another reader might see another one."""
    if any(name != "model" and name.lower() == "model" for name in fields):  # Go, and so Ollama, ignores the case
        raise RequestError("The field 'model' is here twice, in different cases.", param="model")
    name = _text(fields, "model")
    if not name:
        raise missing("model")
    return name


def cache_key(fields: dict[str, Raw]) -> str | None:
    return _text(fields, "prompt_cache_key")


def _text(fields: dict[str, Raw], name: str) -> str | None:
    try:
        return _string(fields.get(name, NULL))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def rename(body: bytes, fields: dict[str, Raw], model: str | None) -> bytes:
    """The body with another model, None for the same one; every other byte is as it was.

    Raises RequestError for a body that has a field twice.
    """
    if model is None:
        return body
    start = stop = at = 0
    for name, value in fields.items():
        member = _MEMBER.match(body, at)
        at = member.end() if member else len(body)
        if not body.startswith(bytes(value), at):
            break
        if name == "model":
            start, stop = at, at + len(value)
        at += len(value)
    if not _END.fullmatch(body, at):
        raise RequestError("The request body has a field twice.")
    return b"%b%b%b" % (body[:start], msgspec.json.encode(model), body[stop:])


def head(fields: dict[str, Raw], most: int) -> bytes:
    """What the requests of one conversation begin with: up to the user's first message, `most` bytes of each."""
    asked = fields.get("messages") or fields.get("prompt") or fields.get("input") or NULL
    try:
        messages = _list(asked)
    except (msgspec.DecodeError, UnicodeDecodeError):  # a text, or something odd
        return bytes(asked)[:most]
    first = next((index for index, message in enumerate(messages) if _ASKS.search(message)), 0)
    return b"".join(bytes(message)[:most] for message in messages[: first + 1])


def usage(edge: bytes) -> tuple[int, int] | None:
    """Tokens of input and output, by the last usage object in this part of an answer."""
    text = edge.decode("utf-8", "replace")
    for place in reversed(list(_USAGE.finditer(text))):
        try:
            said, _ = _json.raw_decode(text, place.end())
        except (ValueError, RecursionError):  # cut off
            continue
        asked, total = _count(said, "prompt_tokens", "input_tokens"), _count(said, "total_tokens")
        return asked, max(_count(said, "completion_tokens", "output_tokens"), total - asked)
    return None


def _count(said: dict[str, Any], *names: str) -> int:
    said_first = next((value for name in names if isinstance(value := said.get(name), int)), 0)
    return min(max(0, said_first), MOST_TOKENS)
