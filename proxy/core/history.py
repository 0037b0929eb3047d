"""The effective input -> steps, in no dialect (RESPONSES.md 4.4): read items, pair calls and outputs, write steps."""

from collections import deque
from collections.abc import Callable, Container
from typing import Any

from msgspec import Struct

from proxy.core.calls import FOREIGN, OWN, Answer, Call, text_field, unknown
from proxy.core.content import MEDIA, Content, joined, text_of
from proxy.core.steps import Entry, Said, Spoken, Step, Thought, Writer, complain
from proxy.errors import RequestError
from proxy.wire.items import Item, ItemReference, McpCall, Message, Other, Reasoning


class History(Struct, gc=False):
    """ignored: types of the items that say nothing to the model, one entry an item."""

    steps: list[Step]
    ignored: list[str]


_SILENT = frozenset(("mcp_list_tools", "web_search_call"))
"""Types that need no mention when they are left out: a list for the proxy, and a search whose find is in the answer."""

_SKIPPED = frozenset(("program", "program_output", "agent_message", "multi_agent_call", "multi_agent_call_output"))


def build(items: list[Item], *, strict: bool = False) -> History:
    """The steps that these items amount to. strict: a defect that could be mended is a RequestError, as with OpenAI."""
    entries, ignored = _read(items, strict)
    _pair(entries)
    writer = Writer(strict)
    for entry in entries:
        writer.write(entry)
    writer.end_group()
    return History(writer.steps, ignored + writer.ignored)


def _read(items: list[Item], strict: bool) -> tuple[list[Entry], list[str]]:
    entries: list[Entry] = []
    ignored: list[str] = []
    executed = {item.approval_request_id for item in items if type(item) is McpCall and item.approval_request_id}
    seen: set[tuple[object, str]] = set()
    for item in items:
        if item.id:
            # An output may have the id of its call.
            key = (item.type if type(item) is Other else type(item), item.id)
            if key in seen:
                found = f"Duplicate item found with id {item.id}."
                complain(strict, f"{found} Remove duplicate items from your input and try again.")
                continue
            seen.add(key)
        if type(item) is Other:
            if not _was_approved(item, executed):
                _read_other(item, entries, ignored)
        elif (entry := _ENTRIES[type(item)](item)) is not None:
            entries.append(entry)
    return entries, ignored


def _was_approved(item: Other, executed: set[str]) -> bool:
    """The request, or its approval, of a call that was then made: the call says it all."""
    if item.type == "mcp_approval_request":
        return item.id in executed
    return item.type == "mcp_approval_response" and text_field(item, "approval_request_id") in executed


def _read_other(item: Other, entries: list[Entry], ignored: list[str]) -> None:
    if item.type in ("computer_call", "computer_call_output"):
        message = f"Items of type '{item.type}' are not supported: this upstream has no computer use."
        raise RequestError(message, param="input", code="unsupported_value")
    if item.type == "image_generation_call":
        prompt = item.fields.get("revised_prompt")
        entries.append(Spoken(f"[image generated: {prompt}]" if prompt else "[image generated]", ""))
        return
    if item.type in _SILENT:
        return
    read = FOREIGN.get(item.type, unknown)
    entry = None if item.type in _SKIPPED else read(item)
    if entry is None:
        ignored.append(item.type)
    else:
        entries.append(entry)


def _message(item: Message) -> Said | Spoken | None:
    content = item.content or ""
    if item.role == "assistant":
        return _spoken(content)
    if item.role in ("system", "developer"):
        return Said("system", content) if content else None
    return Said("user", content)


def _spoken(content: Content) -> Spoken | None:
    """None for a message without any text."""
    if isinstance(content, str):
        return Spoken(content, "") if content else None
    for part in content:
        if part.type in MEDIA:
            message = f"Invalid value: '{part.type}'. Supported values are: 'output_text' and 'refusal'."
            raise RequestError(message, param="input", code="invalid_value")
    text = joined([part for part in content if part.type != "refusal"])
    refusal = joined([part for part in content if part.type == "refusal"])
    return Spoken(text, refusal) if text or refusal else None


def _thought(item: Reasoning) -> Thought:
    """The raw thought; its summary where there is nothing else."""
    for parts in (item.content, item.summary):
        if texts := [text for part in parts or () if (text := text_of(part))]:
            return Thought(item.id, "\n\n".join(texts))
    return Thought(item.id, "")


def _reference(item: ItemReference) -> Entry:
    raise RequestError(f"Item with id '{item.id}' not found.", param="input", status=404)


_ENTRIES: dict[type, Callable[[Any], Entry | None]] = {
    Message: _message,
    Reasoning: _thought,
    ItemReference: _reference,
    **OWN,
}
"""Items with a struct of their own -> what they say; None for nothing."""


def _pair(entries: list[Entry]) -> None:
    """Give each call its output. Of several calls with one id the first open one of the latest turn gets it."""
    turn = 0
    waiting: dict[str, deque[tuple[int, Call]]] = {}
    early: dict[str, deque[Answer]] = {}
    ids: dict[str, str] = {}
    for entry in entries:
        if type(entry) is Said:
            turn += 1
        elif type(entry) is Call and entry.output is not None:
            entry.settled = True
        elif type(entry) is Call and entry.id:
            calls = waiting.setdefault(entry.id, deque())
            if calls and calls[-1][0] != turn:
                calls.clear()
            if entry.item_id:
                ids[entry.item_id] = entry.id
            if early.get(entry.id):
                _join(entry, early[entry.id].popleft())
                entry.settled = True
            else:
                calls.append((turn, entry))
        elif type(entry) is Answer:
            key = _key(entry, waiting, ids)
            if key not in waiting:
                early.setdefault(key, deque()).append(entry)
            elif waiting[key]:
                _join(waiting[key].popleft()[1], entry)
            else:
                entry.late = True


def _key(answer: Answer, call_ids: Container[str], ids: dict[str, str]) -> str:
    """The call_id; without one, the output's own id is the call_id or else the id of the call's item."""
    if answer.call_id:
        return answer.call_id
    own = answer.item_id or ""
    return own if own in call_ids else ids.get(own, own)


def _join(call: Call, answer: Answer) -> None:
    call.output = answer.content
    answer.call = call
