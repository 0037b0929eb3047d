"""Folds a stream's events into items again, and finds what does not fit."""

import json
from typing import Any, NamedTuple

from tests.snapshots import BEGINNING, Violation, must, same

Json = dict[str, Any]


class Text(NamedTuple):
    """A kind of text: where its parts stand in the item, what counts them, their type and the key of their text."""

    field: str
    counter: str
    part: str
    key: str
    item: str


TEXTS = {
    "response.output_text": Text("content", "content_index", "output_text", "text", "message"),
    "response.refusal": Text("content", "content_index", "refusal", "refusal", "message"),
    "response.reasoning_text": Text("content", "content_index", "reasoning_text", "text", "reasoning"),
    "response.reasoning_summary_text": Text("summary", "summary_index", "summary_text", "text", "reasoning"),
}
PARTS = {
    "response.content_part": ("content", "content_index"),
    "response.reasoning_summary_part": ("summary", "summary_index"),
}
ARGUMENTS = {
    "response.function_call_arguments": ("function_call", "arguments"),
    "response.custom_tool_call_input": ("custom_tool_call", "input"),
    "response.mcp_call_arguments": ("mcp_call", "arguments"),
    "response.code_interpreter_call_code": ("code_interpreter_call", "code"),
}
PHASES = {
    "mcp_list_tools": {"in_progress", "completed", "failed"},
    "mcp_call": {"in_progress", "completed", "failed"},
    "web_search_call": {"in_progress", "searching", "completed"},
    "file_search_call": {"in_progress", "searching", "completed"},
    "code_interpreter_call": {"in_progress", "interpreting", "completed"},
    "image_generation_call": {"in_progress", "generating", "completed"},
}
PREFIXES = {
    "message": "msg_",
    "reasoning": "rs_",
    "function_call": "fc_",
    "custom_tool_call": "ctc_",
    "mcp_call": "mcp_",
    "mcp_list_tools": "mcpl_",
    "mcp_approval_request": "mcpr_",
    "web_search_call": "ws_",
    "file_search_call": "fs_",
    "code_interpreter_call": "ci_",
    "image_generation_call": "ig_",
}
BEGUN: dict[str, Json] = {
    "message": {"status": "in_progress", "role": "assistant", "content": []},
    "reasoning": {"status": "in_progress", "summary": []},
    "function_call": {"status": "in_progress", "arguments": ""},
    "custom_tool_call": {"status": "in_progress", "input": ""},
    "mcp_call": {"arguments": ""},
}
"""What an item's fields are when it is added."""
EMPTY: dict[str, Json] = {
    "output_text": {"type": "output_text", "text": "", "annotations": [], "logprobs": []},
    "refusal": {"type": "refusal", "refusal": ""},
    "reasoning_text": {"type": "reasoning_text", "text": ""},
    "summary_text": {"type": "summary_text", "text": ""},
}
"""What a part is when it is added."""


class Items:
    """Folds events into items. One item is open at a time, and one part in it."""

    def __init__(self) -> None:
        self.output: list[Json] = []
        self.item: Json | None = None
        self.part: Json | None = None
        self.said = False
        """The text of the open part, or the arguments of the open call, have had their done."""

    def feed(self, event: Json) -> None:
        """Raises Violation for an event that does not fit what came before it."""
        stem, _, verb = event["type"].rpartition(".")
        if stem in ("response", ""):
            self._lifecycle(event)
        elif stem == "response.output_item":
            _fields(event, "output_index", "item")
            self._add(event) if verb == "added" else self._end(event)
        elif stem in PARTS:
            self._open(event)
            _fields(event, "item_id", "output_index", PARTS[stem][1], "part")
            self._add_part(event, *PARTS[stem]) if verb == "added" else self._end_part(event, *PARTS[stem])
        elif stem in TEXTS:
            self._text(event, TEXTS[stem], verb)
        elif stem in ARGUMENTS:
            self._arguments(event, *ARGUMENTS[stem], verb)
        elif stem == "response.output_text.annotation":
            self._annotation(event)
        else:
            kind = stem.removeprefix("response.")
            must(verb in PHASES.get(kind, ()), f"unknown event {event['type']}")
            must(self._open(event)["type"] == kind, f"{event['type']} while another item is open")

    def close(self, final: Json) -> None:
        """Compares with the last snapshot, to the byte."""
        expected = list(self.output)
        if self.item is not None:
            must(final["status"] in ("failed", "cancelled"), f"item {len(self.output)} was never done")
            expected.append(self.item | {"status": "incomplete"})
        ids = [item["id"] for item in final["output"]]
        must(ids == [item["id"] for item in expected], f"the last snapshot has the items {ids}, the stream {expected}")
        for number, (item, folded) in enumerate(zip(final["output"], expected, strict=True)):
            if number < len(self.output):
                same(item, folded, f"item {number} of the last snapshot")
            else:
                must(_unsealed(item) == _unsealed(folded), f"the last snapshot has {item}, the stream {folded}")
        if final["status"] == "failed":
            done = [item["id"] for item in self.output if item.get("status") == "incomplete"]
            must(not done, f"failed, and the unfinished items {done} got a done all the same")
        if final["status"] == "completed":
            texts = [item for item in expected if item["type"] in ("message", "reasoning")]
            must(all(item["status"] == "completed" for item in texts), f"completed with unfinished items: {texts}")

    def _lifecycle(self, event: Json) -> None:
        if event["type"] == "error":
            _fields(event, "error", "code", "message", "param")
            return
        _fields(event, "response")
        if event["type"] in BEGINNING:
            known = [item["id"] for item in self.output] + ([self.item["id"]] if self.item else [])
            ids = [item["id"] for item in event["response"]["output"]]
            must(ids == known[: len(ids)], f"{event['type']} knows the items {ids}, the stream {known}")

    def _open(self, event: Json) -> Json:
        """The open item, which is the one that the event names."""
        if self.item is None:
            raise Violation(f"{event['type']} while no item is open")
        where = f"{event['type']} of {event['item_id']} at {event['output_index']}"
        must(event["item_id"] == self.item["id"], f"{where}, but {self.item['id']} is open")
        must(event["output_index"] == len(self.output), f"{where}, but number {len(self.output)} is open")
        return self.item

    def _add(self, event: Json) -> None:
        item: Json = json.loads(json.dumps(event["item"]))
        must(self.item is None, f"{item['id']} was added while {self.item} is open")
        must(event["output_index"] == len(self.output), f"{item['id']} has the output_index {event['output_index']}")
        must(item["id"] not in [other["id"] for other in self.output], f"two items are called {item['id']}")
        prefix = PREFIXES.get(item["type"], "")
        must(item["id"].startswith(prefix), f"the id of a {item['type']} is {item['id']}")
        for key, value in BEGUN.get(item["type"], {}).items():
            must(item.get(key) == value, f"a {item['type']} is added with the {key} {item.get(key)!r}")
        must(item.get("content", []) == [], f"{item['id']} is added with content")
        if item["type"] in ("function_call", "custom_tool_call"):
            must(bool(item["name"]), f"{item['id']} has no name")
            call_ids = [other.get("call_id") for other in self.output]
            must(item["call_id"] not in call_ids, f"two calls are called {item['call_id']}")
        self.item, self.said = item, False

    def _end(self, event: Json) -> None:
        item, folded = event["item"], self._open(event | {"item_id": event["item"]["id"]})
        must(self.part is None, f"{item['id']} is done while a part is open")
        if item["type"] in ("message", "reasoning", "function_call", "custom_tool_call"):
            must(item["status"] in ("completed", "incomplete"), f"{item['id']} is done as {item['status']}")
            streamed = _unsealed(folded) | {"status": item["status"]}
            must(_unsealed(item) == streamed, f"{item} is not what was streamed: {streamed}")
        for key in ("type", "call_id", "name"):
            must(item.get(key) == folded.get(key), f"the {key} of {item['id']} changed")
        if item["type"] == "function_call":
            must(self.said, f"{item['id']} is done before its arguments are")
            whole = item["status"] != "completed" or _is_object(item["arguments"])
            must(whole, f"a completed call with the arguments {item['arguments']!r}")
        self.output.append(item)
        self.item = None

    def _add_part(self, event: Json, field: str, counter: str) -> None:
        item = self._open(event)
        part: Json = json.loads(json.dumps(event["part"]))
        must(self.part is None, f"a part was added to {item['id']} while another one is open")
        must(event[counter] == len(item[field]), f"part {len(item[field])} is numbered {event[counter]}")
        must(part == EMPTY.get(part["type"]), f"a part is added as {part}")
        fits = {(text.field, text.part, text.item) for text in TEXTS.values()}
        place = (field, part["type"], item["type"])
        must(place in fits, f"no part for such an item: {place}")
        item[field].append(part)
        self.part, self.said = part, False

    def _end_part(self, event: Json, field: str, counter: str) -> None:
        item, part = self._open(event), self.part
        must(part is not None and event[counter] == len(item[field]) - 1, f"{event['type']}, but that part is not open")
        must(self.said, "a part is done before its text is")
        said = {key: value for key, value in event["part"].items() if key != "status"}
        must(said == part, f"{event['part']} is not what was streamed: {part}")
        self.part = None

    def _text(self, event: Json, kind: Text, verb: str) -> None:
        item, part, rich = self._open(event), self.part, kind.part == "output_text"
        value = "delta" if verb == "delta" else kind.key
        _fields(event, "item_id", "output_index", kind.counter, value, *(["logprobs"] if rich else []))
        if part is None or part["type"] != kind.part or event[kind.counter] != len(item[kind.field]) - 1:
            raise Violation(f"{event['type']}, but that part is not open")
        must(not self.said, f"{event['type']} after the text was done")
        if rich:
            _logprobs(event["logprobs"])
        if verb == "delta":
            must(event["delta"] != "" or bool(event.get("logprobs")), "an empty delta")
            part[kind.key] += event["delta"]
            part.get("logprobs", []).extend(event.get("logprobs", []))
        else:
            must(event[kind.key] == part[kind.key], f"done says {event[kind.key]!r}, the deltas {part[kind.key]!r}")
            must(event.get("logprobs") == part.get("logprobs"), "the logprobs of done are not those of the deltas")
            self.said = True

    def _annotation(self, event: Json) -> None:
        item, part = self._open(event), self.part
        _fields(event, "item_id", "output_index", "content_index", "annotation_index", "annotation")
        if part is None or part["type"] != "output_text" or event["content_index"] != len(item["content"]) - 1:
            raise Violation("an annotation without open text")
        must(not self.said, "an annotation after the text was done")
        must(event["annotation_index"] == len(part["annotations"]), f"annotation_index {event['annotation_index']}")
        part["annotations"].append(event["annotation"])

    def _arguments(self, event: Json, kind: str, field: str, verb: str) -> None:
        item = self._open(event)
        named = ["name"] if (kind, verb) == ("function_call", "done") else []
        _fields(event, "item_id", "output_index", "delta" if verb == "delta" else field, *named)
        must(item["type"] == kind, f"{event['type']} while a {item['type']} is open")
        must(not self.said, f"{event['type']} after {field} were done")
        if verb == "delta":
            must(event["delta"] != "", "an empty delta")
            item[field] += event["delta"]
        else:
            must(event[field] == item[field], f"done says {event[field]!r}, the deltas {item[field]!r}")
            must(event.get("name", item["name"]) == item["name"], "arguments.done has another name")
            self.said = True


def _fields(event: Json, *names: str) -> None:
    """Exactly these fields; obfuscation may come with a delta."""
    expected = {"type", "sequence_number", *names}
    padding = {"obfuscation"} if event["type"].endswith(".delta") else set()
    fits = expected <= set(event) <= expected | padding
    must(fits, f"{event['type']} has the fields {sorted(event)}, not {sorted(expected)}")


def _unsealed(item: Json) -> Json:
    """Sealed reasoning is known only when the item is done."""
    return {key: value for key, value in item.items() if key != "encrypted_content"}


def _logprobs(logprobs: Any) -> None:
    must(isinstance(logprobs, list), f"logprobs are {logprobs!r}")
    for entry in logprobs:
        must(set(entry) == {"token", "logprob", "bytes", "top_logprobs"}, f"a logprob has the keys {sorted(entry)}")
        for top in (entry, *entry["top_logprobs"]):
            must(isinstance(top["bytes"], list) and isinstance(top["logprob"], int | float), f"a logprob is {top}")


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
