"""The translator: whatever deltas come in, the stream that goes out keeps every rule, and nothing is lost."""

import json
from collections.abc import Iterable
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.deltas import (
    Accepted,
    Annotation,
    Call,
    Delta,
    End,
    Finish,
    Reasoning,
    Refusal,
    Summary,
    Text,
    Tier,
    Usage,
)
from proxy.core.output import Shown
from proxy.core.translator import Translator
from proxy.errors import Broken
from proxy.wire.create import decode_create, echo
from proxy.wire.events import Event
from tests.checker import check
from tests.transcript import names

ECHO = echo(decode_create(b'{"model":"m","input":"Hi"}'))
BROKEN = Broken("The upstream broke off its answer.", code="server_error")
LOGPROB = {"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": []}
CITATION = {"type": "url_citation", "url": "http://a", "title": "A", "start_index": 0, "end_index": 1}

SHOWN: st.SearchStrategy[Shown] = st.sampled_from(["content", "summary", "both", "hidden"])
WORDS = st.text(min_size=1, max_size=4) | st.sampled_from(['"', "\\", "\u2028", "\x00", "😀"])
LOGPROBS = st.none() | st.just([LOGPROB])
TEXTS = st.builds(Text, WORDS, LOGPROBS) | st.just(Text("", [LOGPROB]))
CALLS = st.builds(
    Call,
    st.integers(0, 2),
    st.sampled_from(["", "call_a", "call_b", "functions.a:0", "x" * 65]),
    st.sampled_from(["", "a", "b"]),
    st.sampled_from(["", "{", "}", '{"x":1}', '{"x":', "1}", " ", "[]"]),
)
DELTAS = st.lists(
    TEXTS
    | st.builds(Reasoning, WORDS)
    | st.builds(Summary, WORDS)
    | st.builds(Refusal, WORDS)
    | CALLS
    | st.just(Annotation(CITATION))
    | st.builds(Usage, st.just(9), st.integers(0, 9), st.just(0), st.just(5), st.integers(0, 5))
    | st.builds(Tier, st.sampled_from(["flex", "default"]))
    | st.builds(Finish, st.sampled_from(["stop", "length", "content_filter"])),
    max_size=12,
)


def translator(**options: Any) -> Translator:
    return Translator(ECHO, names(), count(1).__next__, **options)


def decoded(events: Iterable[Event]) -> list[dict[str, Any]]:
    """The events as a client reads them; type and number are the same within and without."""
    values = [json.loads(event.data) for event in events]
    for event, value in zip(events, values, strict=True):
        assert (value["type"].encode(), value["sequence_number"]) == (event.type, event.seq)
    return values


def respond(deltas: list[Delta], **options: Any) -> dict[str, Any]:
    """The checked response that comes of one turn."""
    it = translator(**options)
    return check(decoded(it.feed([Accepted("u"), *deltas, End()]) + it.finish()))


@given(DELTAS, SHOWN, st.sampled_from(["end", "finish", "fail", "cancel"]))
@example([Call(0, "", "", ""), Call(1, "", "a", "")], "content", "end")
@example([Text("Hi"), Text("", [LOGPROB]), Text("!")], "content", "finish")
def test_any_deltas_make_a_well_formed_stream(deltas: list[Delta], shown: Shown, end: str) -> None:
    it = translator(reasoning=shown)
    events = it.feed([Accepted("u"), *deltas])
    if end == "end":
        events += it.feed([End()])
    events += it.fail(BROKEN) if end == "fail" else it.cancel() if end == "cancel" else it.finish()
    assert check(decoded(events)) == json.loads(it.response)


@given(DELTAS, st.lists(st.integers(0, 12)))
def test_batches_make_no_difference(deltas: list[Delta], cuts: list[int]) -> None:
    whole, cut = translator(), translator()
    deltas = [Accepted("u"), *deltas]
    events: list[Event] = []
    for start, end in pairwise(sorted({0, len(deltas), *cuts})):
        events += cut.feed(deltas[start:end])
    assert events + cut.finish() == whole.feed(deltas) + whole.finish()


@given(DELTAS, st.integers(0, 12))
def test_a_sign_of_life_may_come_at_any_time(deltas: list[Delta], place: int) -> None:
    it = translator()
    events = it.feed([Accepted("u"), *deltas[:place]]) + it.progress() + it.feed(deltas[place:]) + it.finish()
    final = check(decoded(events))
    assert final["output"] == json.loads(it.response)["output"]


VALUES = st.text('{}\\"x', max_size=4) | st.integers()
ARGUMENTS = st.dictionaries(st.text(max_size=3), VALUES, max_size=2).map(json.dumps)


@st.composite
def interleaved(draw: st.DrawFn) -> tuple[list[Delta], list[str]]:
    """Text and whole calls in pieces, mixed in any way; and the arguments of the calls."""
    arguments = draw(st.lists(ARGUMENTS, max_size=3))
    tracks: list[list[Delta]] = [[Text(word) for word in draw(st.lists(WORDS, max_size=4))]]
    for index, whole in enumerate(arguments):
        places = sorted({0, len(whole), *draw(st.lists(st.integers(0, len(whole)), max_size=3))})
        pieces = [whole[start:end] for start, end in pairwise(places)]
        tracks.append([Call(index, f"call_{index}", "f", piece) for piece in pieces])
    deltas: list[Delta] = []
    while any(tracks):
        deltas.append(draw(st.sampled_from([track for track in tracks if track])).pop(0))
    return deltas, arguments


@given(interleaved())
def test_nothing_is_lost_in_interleaving(mixed: tuple[list[Delta], list[str]]) -> None:
    deltas, arguments = mixed
    output = respond(deltas)["output"]
    calls = {item["call_id"]: item["arguments"] for item in output if item["type"] == "function_call"}
    text = "".join(item["content"][0]["text"] for item in output if item["type"] == "message")
    assert calls == {f"call_{index}": whole for index, whole in enumerate(arguments)}
    assert text == "".join(delta.text for delta in deltas if isinstance(delta, Text))


def test_both_shows_the_thought_as_content_and_as_summary() -> None:
    item = respond([Reasoning("H"), Reasoning("m"), Text("Hi")], reasoning="both")["output"][0]
    assert item["content"] == [{"type": "reasoning_text", "text": "Hm"}]
    assert item["summary"] == [{"type": "summary_text", "text": "Hm"}]


def test_hidden_shows_that_there_was_thought_and_nothing_of_it() -> None:
    item = respond([Reasoning("Hm"), Text("Hi")], reasoning="hidden")["output"][0]
    assert (item["type"], item["content"], item["summary"]) == ("reasoning", [], [])


def test_a_call_id_of_the_conversation_is_not_used_again() -> None:
    output = respond([Call(0, "call_0", "f", "{}"), Call(1, "other", "f", "{}")], taken={"call_0"})["output"]
    assert [item["call_id"] for item in output] == ["call_1", "other"]


def test_the_usage_of_all_turns_is_added() -> None:
    it = translator()
    events = it.feed([Accepted("u"), Usage(10, 1, 2, 5, 3), Finish("stop"), End()])
    events += it.feed([Accepted("u"), Text("Hi"), Usage(20, 4, 0, 7, 0), Finish("stop"), End()]) + it.finish()
    usage = check(decoded(events))["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (30, 12, 42)
    assert usage["input_tokens_details"] == {"cached_tokens": 5, "cache_write_tokens": 2}
    assert usage["output_tokens_details"] == {"reasoning_tokens": 3}


def test_obfuscation_is_made_for_the_size_of_each_delta() -> None:
    it = translator(pad=lambda size: "x" * size)
    deltas: list[Delta] = [Accepted("u"), Text("Hi"), Reasoning("Hm!"), Call(0, "call_a", "f", "{}"), End()]
    events = decoded(it.feed(deltas) + it.finish())
    check(events)
    assert [event["obfuscation"] for event in events if "obfuscation" in event] == ["x" * 4, "x" * 5, "x" * 4]


def test_numbers_go_on_past_any_table() -> None:
    it = translator()
    events = it.feed([Accepted("u"), *[Text("x")] * 5000, Finish("stop"), End()]) + it.finish()
    assert [json.loads(event.data)["sequence_number"] for event in events] == list(range(len(events)))


@pytest.mark.parametrize("end", ["finish", "fail", "cancel"])
def test_nothing_comes_after_the_end(end: str) -> None:
    it = translator()
    it.finish() if end == "finish" else it.cancel() if end == "cancel" else it.fail(BROKEN)
    assert it.ended
    assert it.start() == it.finish() == it.fail(BROKEN) == it.cancel() == it.progress() == []


def test_a_response_can_fail_before_it_began() -> None:
    it = translator()
    final = check(decoded(it.fail(BROKEN)))
    assert (final["status"], final["output"], final["usage"]) == ("failed", [], None)
    assert it.error is BROKEN


def test_a_cancelled_response_ends_its_open_item() -> None:
    it = translator()
    final = check(decoded(it.feed([Accepted("u"), Text("Hi")]) + it.cancel()))
    assert (final["status"], final["incomplete_details"]) == ("cancelled", None)
    assert final["output"][0]["status"] == "incomplete"
