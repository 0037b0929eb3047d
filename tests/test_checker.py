"""The checker can fail: each stream here is broken in one way, and each is refused for that."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.checker import Violation, check, check_schema, parse_sse
from tests.published import REFERENCE

Json = dict[str, Any]
Break = Callable[[list[Json]], object]

TEXT = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
LOGPROB = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
CITATION = {"type": "url_citation", "url": "http://a", "title": "A", "start_index": 0, "end_index": 2}
USAGE = {
    "input_tokens": 5,
    "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
    "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 8,
}
FAILURE = {"type": "server_error", "code": "server_error", "message": "The upstream closed the stream.", "param": None}


def snapshot(status: str, **changes: Any) -> Json:
    fixed = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "instructions": None, "tools": []}
    numbers = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0, "top_logprobs": 0}
    names = "previous_response_id max_output_tokens max_tool_calls safety_identifier prompt_cache_key user moderation"
    absent = dict.fromkeys([*names.split(), "prompt_cache_retention", "completed_at", "error", "incomplete_details"])
    choices = {"tool_choice": "auto", "parallel_tool_calls": True, "truncation": "disabled", "service_tier": "auto"}
    text = {"text": {"format": {"type": "text"}}, "reasoning": {"effort": None, "summary": None}, "metadata": {}}
    flags = {"store": False, "background": False}
    state: Json = {"status": status, "output": [], "usage": None}
    return fixed | numbers | absent | choices | text | flags | state | changes


def numbered(*events: Json) -> list[Json]:
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def lifecycle(kind: str, status: str, **changes: Any) -> Json:
    return {"type": f"response.{kind}", "response": snapshot(status, **changes)}


def item(verb: str, index: int, **fields: Any) -> Json:
    return {"type": f"response.output_item.{verb}", "output_index": index, "item": fields}


def event(kind: str, id: str, index: int, **fields: Any) -> Json:
    return {"type": f"response.{kind}", "item_id": id, "output_index": index, **fields}


def thought() -> list[Json]:
    head: Json = {"id": "rs_1", "type": "reasoning", "summary": [], "content": [], "encrypted_content": None}
    whole = {"type": "reasoning_text", "text": "Hm"}
    return [
        item("added", 0, **head, status="in_progress"),
        event("content_part.added", "rs_1", 0, content_index=0, part={"type": "reasoning_text", "text": ""}),
        event("reasoning_text.delta", "rs_1", 0, content_index=0, delta="Hm"),
        event("reasoning_text.done", "rs_1", 0, content_index=0, text="Hm"),
        event("content_part.done", "rs_1", 0, content_index=0, part=whole),
        item("done", 0, **head | {"content": [whole]}, status="completed"),
    ]


def message() -> list[Json]:
    head = {"id": "msg_1", "type": "message", "role": "assistant"}
    whole = TEXT | {"text": "Hi!", "annotations": [CITATION], "logprobs": [LOGPROB]}
    return [
        item("added", 1, **head, content=[], status="in_progress"),
        event("content_part.added", "msg_1", 1, content_index=0, part=TEXT),
        event("output_text.delta", "msg_1", 1, content_index=0, delta="Hi", logprobs=[LOGPROB]),
        event("output_text.delta", "msg_1", 1, content_index=0, delta="!", logprobs=[]),
        event("output_text.annotation.added", "msg_1", 1, content_index=0, annotation_index=0, annotation=CITATION),
        event("output_text.done", "msg_1", 1, content_index=0, text="Hi!", logprobs=[LOGPROB]),
        event("content_part.done", "msg_1", 1, content_index=0, part=whole),
        item("done", 1, **head, content=[whole], status="completed"),
    ]


def call() -> list[Json]:
    head = {"id": "fc_1", "type": "function_call", "call_id": "call_a", "name": "f"}
    return [
        item("added", 2, **head, arguments="", status="in_progress"),
        event("function_call_arguments.delta", "fc_1", 2, delta="{}"),
        event("function_call_arguments.done", "fc_1", 2, arguments="{}", name="f"),
        item("done", 2, **head, arguments="{}", status="completed"),
    ]


def completed() -> list[Json]:
    """Thought, text with an annotation and a logprob, and a call."""
    items = [*thought(), *message(), *call()]
    output = [event["item"] for event in items if event["type"] == "response.output_item.done"]
    beginning = [lifecycle("created", "in_progress"), lifecycle("in_progress", "in_progress")]
    end = lifecycle("completed", "completed", output=output, usage=USAGE, completed_at=2, service_tier="default")
    return separate(numbered(*beginning, *items, end))


def failed() -> list[Json]:
    """Cut off in the middle of the text."""
    begun = [*thought(), *message()[:4]]
    text = {"id": "msg_1", "type": "message", "role": "assistant", "status": "incomplete"}
    output = [begun[5]["item"], text | {"content": [TEXT | {"text": "Hi!", "logprobs": [LOGPROB]}]}]
    beginning = [lifecycle("created", "in_progress"), lifecycle("in_progress", "in_progress")]
    flat = {key: FAILURE[key] for key in ("code", "message", "param")}
    end = lifecycle("failed", "failed", output=output, error=FAILURE)
    return separate(numbered(*beginning, *begun, {"type": "error", "error": FAILURE, **flat}, end))


def separate(events: list[Json]) -> list[Json]:
    """A copy in which no two events share an object."""
    copy: list[Json] = json.loads(json.dumps(events))
    return copy


def of(events: list[Json], kind: str) -> Json:
    """The first event of a kind."""
    return next(event for event in events if event["type"].endswith(kind))


def drop(kind: str) -> Break:
    """Leaves out the first event of a kind; the numbers stay contiguous."""

    def without(events: list[Json]) -> None:
        events.remove(of(events, kind))
        events[:] = numbered(*events)

    return without


def repeat(kind: str) -> Break:
    """Sends the first event of a kind twice in a row."""

    def twice(events: list[Json]) -> None:
        place = events.index(of(events, kind))
        events[:] = numbered(*events[: place + 1], *events[place:])

    return twice


def swap(first: str, second: str) -> Break:
    def swapped(events: list[Json]) -> None:
        one, other = events.index(of(events, first)), events.index(of(events, second))
        events[one], events[other] = events[other], events[one]
        events[:] = numbered(*events)

    return swapped


def put(kind: str, *path: str | int, value: Any) -> Break:
    """Writes a value into the first event of a kind."""

    def written(events: list[Json]) -> None:
        place: Any = of(events, kind)
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return written


def take(kind: str, *path: str | int) -> Break:
    """Takes a key out of the first event of a kind."""

    def taken(events: list[Json]) -> None:
        place: Any = of(events, kind)
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]

    return taken


def everywhere(events: list[Json], key: str, value: Any) -> None:
    """The same wrong value in all that is said of the call."""
    for event in events:
        for place in (event, event.get("item", {}), *event.get("response", {}).get("output", [])):
            if key in place and (place.get("type") == "function_call" or "function_call" in event["type"]):
                place[key] = value


def argue(events: list[Json], arguments: str) -> None:
    """Other arguments, from the first delta to the last snapshot."""
    everywhere(events, "arguments", arguments)
    next(event for event in events if event.get("item", {}).get("name"))["item"]["arguments"] = ""
    of(events, "function_call_arguments.delta")["delta"] = arguments


def say(events: list[Json], message: str) -> None:
    for place in (events[-2], events[-2]["error"], events[-1]["response"]["error"]):
        place["message"] = message


R = "response"
BROKEN: list[tuple[str, Break]] = [
    # frames
    ("sequence numbers", lambda events: events.pop(4)),
    ("sequence numbers", put("output_text.delta", "sequence_number", value=3)),
    ("first event", drop("response.created")),
    ("after response.created", drop("response.in_progress")),
    ("comes twice", repeat("response.created")),
    ("terminal events", drop("response.completed")),
    ("terminal events", repeat("response.completed")),
    ("terminal events", swap("response.completed", "function_call_arguments.done")),
    ("unknown event", put("output_text.delta", "type", value="response.output_sound.delta")),
    ("has the fields", put("output_text.delta", "token_ids", value=[1])),
    ("has the fields", put("output_item.done", "usage", value=None)),
    # snapshots
    ("lacks .'truncation'", take("response.in_progress", R, "truncation")),
    ("lacks .'usage'", take("response.created", R, "usage")),
    ("output_text", put("response.completed", R, "output_text", value="Hi!")),
    ("id in response.completed", put("response.completed", R, "id", value="resp_2")),
    ("model in response.completed", put("response.completed", R, "model", value="other")),
    ("created_at in", put("response.in_progress", R, "created_at", value=2)),
    ("created_at", put("response.created", R, "created_at", value="1")),
    ("the id", put("response.created", R, "id", value="chatcmpl-1")),
    ("status", put("response.completed", R, "status", value="in_progress")),
    ("status", put("response.created", R, "status", value="completed")),
    ("completed with the error", put("response.completed", R, "error", value=FAILURE)),
    ("completed at None", put("response.completed", R, "completed_at", value=None)),
    ("completed at 2", put("response.created", R, "completed_at", value=2)),
    ("incomplete_details", put("response.completed", R, "incomplete_details", value={"reason": "max_output_tokens"})),
    ("without usage", put("response.completed", R, "usage", value=None)),
    ("usage of in_progress", put("response.in_progress", R, "usage", value=USAGE)),
    ("no integer", put("response.completed", R, "usage", "input_tokens", value=5.0)),
    ("no integer", put("response.completed", R, "usage", "input_tokens_details", "cached_tokens", value=None)),
    ("missing", take("response.completed", R, "usage", "output_tokens_details")),
    ("usage has the keys", put("response.completed", R, "usage", "prompt_tokens", value=5)),
    ("add up", put("response.completed", R, "usage", "total_tokens", value=9)),
    ("add up", put("response.completed", R, "usage", "output_tokens_details", "reasoning_tokens", value=4)),
    ("add up", put("response.completed", R, "usage", "input_tokens_details", "cached_tokens", value=6)),
    # items
    ("while no item is open", drop("output_item.added")),
    ("is open", drop("output_item.done")),
    ("is open", repeat("output_item.added")),
    ("no item is open", repeat("output_item.done")),
    ("output_index", put("output_item.added", "output_index", value=1)),
    ("number 0 is open", put("output_item.done", "output_index", value=1)),
    ("number 0 is open", put("reasoning_text.delta", "output_index", value=1)),
    ("rs_1 is open", put("reasoning_text.done", "item_id", value="rs_2")),
    ("rs_1 is open", put("output_item.done", "item", "id", value="rs_2")),
    ("item_id is None", put("reasoning_text.delta", "item_id", value=None)),
    ("id is ''", put("output_item.added", "item", "id", value="")),
    ("the id of a reasoning", put("output_item.added", "item", "id", value="msg_0")),
    ("summary None", put("output_item.added", "item", "summary", value=None)),
    ("status 'completed'", put("output_item.added", "item", "status", value="completed")),
    ("not what was streamed", put("output_item.done", "item", "content", 0, "text", value="Hm!")),
    ("missing", take("output_item.done", "item", "status")),
    ("last snapshot has the items", lambda events: events[-1]["response"]["output"].pop()),
    ("item 1 of the last", put("response.completed", R, "output", 1, "content", 0, "text", value="Hi")),
    ("item 0 of the last", put("response.completed", R, "output", 0, "encrypted_content", value="sealed")),
    ("item 2 of the last", put("response.completed", R, "output", 2, "call_id", value="call_b")),
    ("knows the items", put("response.in_progress", R, "output", value=[{"id": "msg_9"}])),
    # parts
    ("part is not open", drop("content_part.added")),
    ("another one is open", repeat("content_part.added")),
    ("a part is open", drop("content_part.done")),
    ("part is not open", repeat("content_part.done")),
    ("part is not open", put("content_part.done", "content_index", value=1)),
    ("part 0 is numbered", put("content_part.added", "content_index", value=1)),
    ("part is not open", put("reasoning_text.delta", "content_index", value=1)),
    ("a part is added as", put("content_part.added", "part", "text", value="Hm")),
    ("no part for such", put("content_part.added", "part", value=TEXT)),
    ("before its text is", drop("reasoning_text.done")),
    ("after the text was done", repeat("reasoning_text.done")),
    ("done says", swap("reasoning_text.delta", "reasoning_text.done")),
    ("done says", put("reasoning_text.done", "text", value="H")),
    ("done says", drop("reasoning_text.delta")),
    ("not what was streamed", put("content_part.done", "part", "text", value="H")),
    ("an empty delta", put("reasoning_text.delta", "delta", value="")),
    # text
    ("logprobs are None", put("output_text.delta", "logprobs", value=None)),
    ("has the fields", take("output_text.done", "logprobs")),
    ("logprobs of done", put("output_text.done", "logprobs", value=[])),
    ("a logprob has the keys", take("output_text.delta", "logprobs", 0, "top_logprobs")),
    ("a logprob is", put("output_text.delta", "logprobs", 0, "bytes", value=None)),
    ("annotation_index", put("annotation.added", "annotation_index", value=1)),
    ("after the text was done", swap("annotation.added", "output_text.done")),
    ("not what was streamed", drop("annotation.added")),
    # calls
    ("has no name", lambda events: everywhere(events, "name", "")),
    ("call_id is None", lambda events: everywhere(events, "call_id", None)),
    ("arguments '{}'", lambda events: everywhere(events, "arguments", "{}")),
    ("arguments were done", repeat("function_call_arguments.done")),
    ("done says", drop("function_call_arguments.delta")),
    ("before its arguments", drop("function_call_arguments.done")),
    ("another name", put("function_call_arguments.done", "name", value="g")),
    ("a completed call with", lambda events: argue(events, "[1]")),
    ("a completed call with", lambda events: argue(events, '{"a":')),
]


FAILED: list[tuple[str, Break]] = [
    ("`error` stands", drop("error")),
    ("`error` stands", repeat("error")),
    ("terminal events", drop("response.failed")),
    ("failed with the error None|has the error None", put("response.failed", R, "error", value=None)),
    ("two messages", put("response.failed", R, "error", "message", value="Something else.")),
    ("two codes", put("response.failed", R, "error", "code", value="rate_limit_exceeded")),
    ("flat message", put("error", "message", value="Something else.")),
    ("missing", take("error", "code")),
    ("nested error has the keys", take("error", "error", "param")),
    ("completed at 2", put("response.failed", R, "completed_at", value=2)),
    ("the last snapshot has", put("response.failed", R, "output", 1, "content", 0, "text", value="Hi")),
    ("the last snapshot has", put("response.failed", R, "output", 1, "status", value="completed")),
    ("the last snapshot has the items", lambda events: events[-1]["response"]["output"].pop()),
    ("internals", lambda events: say(events, "Traceback (most recent call last)")),
]


@pytest.mark.parametrize("events", [completed(), failed()], ids=["completed", "failed"])
def test_a_whole_stream_is_accepted(events: list[Json]) -> None:
    assert check(events) is events[-1]["response"]
    check_schema(events)


def test_signs_of_life_may_stand_anywhere() -> None:
    events = completed()
    sign = events[1]
    assert check(numbered(*events[:6], sign, *events[6:9], sign, *events[9:]))["id"] == "resp_1"


@pytest.mark.parametrize(("why", "how"), BROKEN, ids=lambda value: value if isinstance(value, str) else "")
def test_one_broken_rule_is_found(why: str, how: Break) -> None:
    events = completed()
    how(events)
    with pytest.raises(Violation, match=why):
        check(events)


@pytest.mark.parametrize(("why", "how"), FAILED, ids=lambda value: value if isinstance(value, str) else "")
def test_one_broken_rule_of_a_failed_stream_is_found(why: str, how: Break) -> None:
    events = failed()
    how(events)
    with pytest.raises(Violation, match=why):
        check(events)


def test_overlapping_items_are_found() -> None:
    """The first item's end and the second one's beginning in the wrong order."""
    events = completed()
    events[7], events[8] = events[8], events[7]
    with pytest.raises(Violation, match="was added while"):
        check(numbered(*events))


def test_the_types_of_the_openai_package_are_asked() -> None:
    events = completed()
    for event in (events[0], events[1], events[-1]):
        event["response"]["parallel_tool_calls"] = "perhaps"
    with pytest.raises(Violation, match="openai package refuses"):
        check(events)


@pytest.mark.skipif(not (REFERENCE / "openresponses.openapi.json").exists(), reason="no Open Responses document")
def test_the_open_responses_schema_is_asked() -> None:
    events = completed()
    events[0]["response"]["truncation"] = "never"
    with pytest.raises(AssertionError, match=r"Open Responses refuses response\.created"):
        check_schema(events)


@pytest.mark.skipif(not (REFERENCE / "transcripts.jsonl").exists(), reason="no published transcripts")
def test_published_transcripts_are_accepted() -> None:
    streams: dict[str, list[Json]] = {}
    for line in (REFERENCE / "transcripts.jsonl").read_text().splitlines():
        entry = json.loads(line)
        streams.setdefault(entry["transcript"], []).append(entry["event"])
    for events in streams.values():
        check(events)
        check_schema(events)
    assert len(streams) == 16


FRAME = b'event: response.created\ndata: {"type":"response.created","sequence_number":0}\n\n'
DONE = b"data: [DONE]\n\n"


def test_frames_are_parsed() -> None:
    event = {"type": "response.created", "sequence_number": 0}
    assert parse_sse(b": keepalive\n\n" + FRAME + b":\n\n" + FRAME + DONE) == [event, event]


@pytest.mark.parametrize(
    "body",
    [
        FRAME,
        DONE + FRAME,
        FRAME + DONE + DONE,
        FRAME.replace(b"\n", b"\r\n") + DONE,
        FRAME.replace(b"event: response.created\n", b"") + DONE,
        FRAME.replace(b"event: response.created", b"event: response.failed") + DONE,
        FRAME.replace(b"data: ", b"data:") + DONE,
        FRAME[:-1] + FRAME + DONE,
        b"id: 1\n" + FRAME + DONE,
        FRAME.replace(b"0}", b"0}\ndata: {}") + DONE,
        b": cut" + FRAME + DONE,
    ],
)
def test_any_other_byte_is_refused(body: bytes) -> None:
    with pytest.raises(Violation):
        parse_sse(body)
