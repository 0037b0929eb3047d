"""The rules that every stream of events keeps; each test's stream passes through `check`.

The rules are those of the Responses API as OpenAI, its SDKs and other clients read it. The checker knows nothing of how
the proxy makes its events: it folds them into items again and compares with what the snapshots say.
"""

import json
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

from tests.items import Items
from tests.published import check_schema, check_sdk, fold_with_sdk
from tests.snapshots import TERMINAL, Violation, check_error, check_snapshot, must

__all__ = ["Violation", "check", "check_schema", "parse_sse"]

Json = dict[str, Any]


def check(events: Sequence[Json]) -> Json:
    """The response that a whole stream ends with. Raises Violation for the first rule that is broken."""
    try:
        _order(events)
        _fold(events)
    except (KeyError, TypeError, AttributeError) as error:
        raise Violation(f"a field is missing or of another type: {error!r}") from error
    for refusal in chain(check_sdk(events), fold_with_sdk(events)):
        raise Violation(refusal)
    final: Json = events[-1]["response"]
    return final


def parse_sse(body: bytes) -> list[Json]:
    """The events of a stream as this proxy writes it: stricter than any client. Raises Violation for any other byte."""
    frame = re.compile(rb'event: ([a-z_.]+)\ndata: (\{"[^\r\n]*\})\n\n|:[^\r\n]*\n\n')
    end = b"data: [DONE]\n\n"
    must(body.endswith(end), f"the stream ends with {body[-60:]!r} and not with [DONE]")
    events: list[Json] = []
    position = 0
    while position < len(body) - len(end):
        match = frame.match(body, position)
        if match is None:
            raise Violation(f"no frame: {body[position : position + 100]!r}")
        if match[1] is not None:
            events.append(json.loads(match[2].decode("utf-8")))
            must(events[-1]["type"] == match[1].decode(), f"event: {match[1]!r} is not the type of {match[2][:80]!r}")
        position = match.end()
    return events


def _order(events: Sequence[Json]) -> None:
    """Numbers without gaps, the beginning, and exactly one end."""
    must(bool(events), "a stream without events")
    types = [event.get("type") for event in events]
    numbers = [event.get("sequence_number") for event in events]
    must(numbers == list(range(len(events))), f"the sequence numbers are {numbers}")
    must(types[0] == "response.created", f"the first event is {types[0]}")
    must(types.count("response.created") == 1, "response.created comes twice")
    second = types[1:3] if types[1:2] == ["response.queued"] else types[1:2]
    must(second[-1:] == ["response.in_progress"], f"after response.created comes {second}")
    ends = [kind for kind in types if kind in TERMINAL]
    must(len(ends) == 1 and ends[0] == types[-1], f"the terminal events are {ends}, the last event is {types[-1]}")
    errors = [number for number, kind in enumerate(types) if kind == "error"]
    failed = types[-1] == "response.failed"
    must(errors == ([len(events) - 2] if failed else []), "`error` stands before response.failed and nowhere else")
    if failed:
        check_error(events[-2], events[-1]["response"]["error"])


def _no_null_ids(value: Any) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("id", "item_id", "call_id"):
                must(isinstance(inner, str) and inner != "", f"{key} is {inner!r}")
            _no_null_ids(inner)
    elif isinstance(value, list):
        for inner in value:
            _no_null_ids(inner)


def _fold(events: Sequence[Json]) -> None:
    items = Items()
    for event in events:
        if "response" in event:
            check_snapshot(event, events[0]["response"])
        _no_null_ids(event)
        items.feed(event)
    items.close(events[-1]["response"])
