"""Items that change what the request asks for: configuration_update (RESPONSES.md 4.2, 4.11)."""

from typing import TypeGuard

from msgspec import Struct, ValidationError, structs
from msgspec.json import Decoder, Encoder

from proxy.wire.body import Body, ReasoningOptions, Text
from proxy.wire.invalid import mismatch
from proxy.wire.items import Item, Other


class _Update(Struct, gc=False):
    reasoning: ReasoningOptions | None = None
    text: Text | None = None


_encode = Encoder().encode
_update = Decoder(_Update).decode


def take_updates(body: Body, items: list[Item]) -> list[Item]:
    """Put the newest update of each field into the body, where that says nothing itself; gives the other items.

    Raises RequestError for an update that can't be read.
    """
    updates = [(index, item) for index, item in enumerate(items) if _is_update(item)]
    for index, item in reversed(updates):
        try:
            _take(body, _update(_encode(item.fields)))
        except ValidationError as error:
            raise mismatch(error, f"input[{index}]") from None
    return [item for item in items if not _is_update(item)]


def _is_update(item: Item) -> TypeGuard[Other]:
    return isinstance(item, Other) and item.type == "configuration_update"


def _take(body: Body, update: _Update) -> None:
    effort = update.reasoning and update.reasoning.effort
    if effort and (body.reasoning is None or body.reasoning.effort is None):
        body.reasoning = structs.replace(body.reasoning or ReasoningOptions(), effort=effort)
    shape = update.text and update.text.format
    if shape and (body.text is None or body.text.format is None):
        body.text = structs.replace(body.text or Text(), format=shape)
