"""Input items as clients send them -> Items. Refuses only what makes an item unusable; the rest is lenient."""

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
    name = _type(_head(raw), param)
    if name in _UNSUPPORTED:
        raise unsupported(param, f"Items of type '{name}' are not supported. {_UNSUPPORTED[name]}")
    decode = _decoders.get(name)
    if decode is None:
        fields = _fields(raw)
        fields.pop("type", None)
        return Other(type=name, id=fields.pop("id", None), fields=fields)
    item: Item = decode(raw)
    _check(item, param)
    return item


def _type(head: Head, param: str) -> str:
    if head.type:
        return head.type
    if head.role is not None:
        return "message"
    if head.id is not None:
        return "item_reference"
    raise missing(f"{param}.type")


def _check(item: Item, param: str) -> None:
    if isinstance(item, Message):
        _check_message(item, param)
    elif isinstance(item, FunctionCall | CustomToolCall):
        for field in ("call_id", "name"):
            if not getattr(item, field):
                raise missing(f"{param}.{field}")
    # The output of an asynchronous tool may have a name instead, and that of a local shell an id.
    elif isinstance(item, CallOutput) and not (item.call_id or item.name or item.id):
        raise missing(f"{param}.call_id")


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
