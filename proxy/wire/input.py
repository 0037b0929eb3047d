"""Input items as clients send them -> Items. Refuses only what makes an item unusable; the rest is lenient."""

from collections.abc import Callable
from typing import Any

from msgspec import Raw, ValidationError
from msgspec.json import Decoder

from proxy.wire.invalid import mismatch, missing, unsupported, wrong_value
from proxy.wire.items import ITEMS, CallOutput, CustomToolCall, FunctionCall, Head, Item, Message, Other, Part

ROLES = ("user", "assistant", "system", "developer")
_STORED_ROLES = ("critic", "discriminator", "tool", "unknown")
"""Roles that items of a conversation may have besides; they come back as input."""

PARTS = ("input_text", "input_image", "input_file", "input_audio", "input_video", "output_text", "refusal")
_TOLERATED_PARTS = ("text", "reasoning_text", "summary_text")

_UNSUPPORTED = {
    "item_reference": "No items are stored here: send the item itself.",
    "compaction_trigger": "This server does no compaction.",
    "additional_tools": "Send functions in 'tools'.",
    "computer_call": "This server has no computer use.",
    "computer_call_output": "This server has no computer use.",
}
"""Item types that would change the answer if they were skipped, and what the client is told."""

_head = Decoder(Head).decode
_fields = Decoder(dict[str, Any]).decode
_decoders = {name: Decoder(struct).decode for name, struct in ITEMS.items()}


def decode_input(source: str | list[Raw]) -> list[Item]:
    """The `input` of a request: a string is one user message. Raises RequestError that names the item."""
    if isinstance(source, str):
        return [Message(role="user", content=source)]
    items: list[Item] = []
    try:
        for index, raw in enumerate(source):
            items.append(_item(raw, f"input[{index}]"))
    except ValidationError as error:
        raise mismatch(error, f"input[{len(items)}]") from None
    return items


def _item(raw: Raw, param: str) -> Item:
    head = _head(raw)
    name = head.type or _type(head, param)
    if name in _UNSUPPORTED:
        raise unsupported(param, f"Items of type '{name}' are not supported. {_UNSUPPORTED[name]}")
    decode = _decoders.get(name)
    if decode is None:
        fields = _fields(raw)
        fields.pop("type", None)
        return Other(type=name, id=fields.pop("id", None), fields=fields)
    item: Item = decode(raw)
    if check := _CHECKS.get(type(item)):
        check(item, param)
    return item


def _type(head: Head, param: str) -> str:
    """Of an item that doesn't tell."""
    if head.role is not None:
        return "message"
    if head.id is not None:
        return "item_reference"
    raise missing(f"{param}.type")


def _check_message(message: Message, param: str) -> None:
    if not message.role:
        raise missing(f"{param}.role")
    if message.role not in ROLES and message.role not in _STORED_ROLES:
        raise wrong_value(f"{param}.role", message.role, ROLES)
    if isinstance(message.content, list):
        for index, part in enumerate(message.content):
            _check_part(part, f"{param}.content[{index}].type")


def _check_part(part: Part, param: str) -> None:
    if part.type is None:
        if part.text is None:
            raise missing(param)
    elif part.type not in PARTS and part.type not in _TOLERATED_PARTS:
        raise wrong_value(param, part.type, PARTS)


def _check_call(call: FunctionCall | CustomToolCall, param: str) -> None:
    for field in ("call_id", "name"):
        if not getattr(call, field):
            raise missing(f"{param}.{field}")


def _check_output(output: CallOutput, param: str) -> None:
    # That of an asynchronous tool may have a name instead, and that of a local shell an id.
    if not (output.call_id or output.name or output.id):
        raise missing(f"{param}.call_id")


_CHECKS: dict[type, Callable[[Any, str], None]] = {
    Message: _check_message,
    FunctionCall: _check_call,
    CustomToolCall: _check_call,
    CallOutput: _check_output,
}
