"""The decoder takes whatever a server sends: deltas or a failure come of it, never an exception, at any cut."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.deltas import Call, Delta, End, Finish, Text
from proxy.core.profile import Profile
from proxy.dialects.chat_stream import ChatDecoder
from tests.upstream import chunk, sse

LIMIT = 1 << 16
THINKING = Profile(think_tags=True)
CUTS = st.lists(st.integers(0))

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
WORDS = st.sampled_from(["", "Hi", "<think>", "</think>", "<th", "ink>", " ", "é", "😀", "{", "}", '{"x":1}', "\ud83d"])


def some(always: dict[str, st.SearchStrategy[Any]] | None = None, **values: st.SearchStrategy[Any]) -> Any:
    """An object with some of these keys; now and then null stands for a value."""
    nullable = {key: st.one_of(value, value, st.none()) for key, value in values.items()}
    return st.fixed_dictionaries(always or {}, optional=nullable)


@st.composite
def spoiled(draw: st.DrawFn, chunks: st.SearchStrategy[Any]) -> Any:
    """A chunk in which something else stands in one place."""
    chunk = place = draw(chunks)
    while place:
        key = draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        if not place[key] or not isinstance(place[key], dict | list) or draw(st.booleans()):
            place[key] = draw(JUNK)
            break
        place = place[key]
    return chunk


FUNCTIONS = some(name=st.sampled_from(["a", "b", ""]), arguments=WORDS)
CALLS = some(index=st.integers(0, 2), id=st.sampled_from(["x", "y", ""]), function=FUNCTIONS)
PARTS = some(type=st.sampled_from(["text", "thinking"]), text=WORDS, thinking=WORDS)
DELTAS = some(
    role=st.just("assistant"),
    content=WORDS | st.lists(PARTS, max_size=2),
    reasoning_content=WORDS,
    reasoning=WORDS,
    reasoning_details=st.lists(some(type=st.just("reasoning.text"), text=WORDS), max_size=2),
    refusal=WORDS,
    tool_calls=st.lists(CALLS, max_size=2),
    function_call=FUNCTIONS,
    annotations=st.lists(some(type=st.just("url_citation"), url_citation=some(url=WORDS)), max_size=2),
    audio=some(transcript=WORDS),
)
LOGPROBS = some(content=st.lists(some(token=WORDS, logprob=st.floats(-9, 0), bytes=st.none()), max_size=2))
CHOICES = some(
    {"delta": DELTAS},
    index=st.sampled_from([0, 0, 1]),
    logprobs=LOGPROBS,
    finish_reason=st.sampled_from(["stop", "length", "tool_calls", "content_filter", "refusal", "odd"]),
)
TOKENS = st.integers(0, 99)
USAGES = some(prompt_tokens=TOKENS, completion_tokens=TOKENS, prompt_tokens_details=some(cached_tokens=TOKENS))
CHUNKS = some({"choices": st.lists(CHOICES, min_size=1, max_size=2)}, usage=USAGES, service_tier=st.just("default"))
GOOD = CHUNKS.map(lambda value: b"data: " + json.dumps(value).encode() + b"\n\n")
SPOILED = spoiled(CHUNKS).map(lambda value: b"data: " + json.dumps(value).encode() + b"\n\n")
SCRAPS = st.sampled_from([b": ping\n\n", b'data: {"error":"busy"}\n\n', b"\r\n", b"{}", b"[", b"data:", b"\xff"])
LAST = st.sampled_from([b"", b"data: [DONE]\n\n", b"data: [DONE]", b"data: [DO"])
BODIES = st.tuples(st.lists(GOOD, max_size=8).map(b"".join), SCRAPS | SPOILED | GOOD, LAST).map(b"".join)


Decoded = tuple[list[Delta], str, list[str]]


def decode(body: bytes, cuts: Sequence[int] = (), profile: Profile | None = None) -> Decoded:
    """The deltas of a body that comes in pieces, the failure's message or "", and the notes."""
    decoder = ChatDecoder(profile or Profile(), LIMIT)
    deltas: list[Delta] = []
    for start, end in pairwise(sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})):
        deltas += decoder.feed(body[start:end])
    deltas += decoder.close()
    assert decoder.done != (decoder.failure is not None)
    return deltas, decoder.failure.message if decoder.failure else "", decoder.notes


@given(BODIES)
@settings(max_examples=300)
def test_anything_gives_deltas_or_a_failure(body: bytes) -> None:
    deltas, failure, _ = decode(body)
    assert bool(failure) != (deltas[-1:] == [End()])
    assert End() not in deltas[:-1]


@given(BODIES, CUTS, st.sampled_from([Profile(), THINKING]))
@settings(max_examples=300)
def test_reads_may_be_cut_anywhere(body: bytes, cuts: list[int], profile: Profile) -> None:
    assert decode(body, cuts, profile) == decode(body, (), profile)


@given(st.lists(st.text(min_size=1), min_size=1))
def test_every_word_comes_through(words: list[str]) -> None:
    body = b"".join(sse(*(chunk({"content": word}) for word in words), chunk(finish="stop")))
    assert decode(body)[0] == [*map(Text, words), Finish("stop"), End()]


@given(st.text(st.sampled_from("<>/thinkab \n"), max_size=40), CUTS)
def test_think_tags_lose_nothing_but_the_tags(text: str, cuts: list[int]) -> None:
    """Wherever the text is cut into chunks, thought and text are the same."""

    def split(places: Sequence[int]) -> list[str]:
        pieces = [text[start:end] for start, end in pairwise(sorted({0, len(text), *places}))]
        body = b"".join(sse(*(chunk({"content": piece}) for piece in pieces), chunk(finish="stop")))
        said = [""] * 2
        for delta in decode(body, (), THINKING)[0][:-2]:
            said[isinstance(delta, Text)] += delta.text  # type: ignore[union-attr]
        return said

    assert split([cut % (len(text) + 1) for cut in cuts]) == split([])


@given(st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_calls_are_told_apart(names: list[str], with_index: bool, with_id: bool) -> None:
    """Whole calls with an index or an id of their own are as many calls as were sent."""
    pieces: list[dict[str, Any]] = [{"function": {"name": name, "arguments": '{"x":1}'}} for name in names]
    for number, piece in enumerate(pieces):
        piece.update({"index": number} if with_index else {}, **({"id": f"id{number}"} if with_id else {}))
    body = b"".join(sse(*(chunk({"tool_calls": [piece]}) for piece in pieces), chunk(finish="tool_calls")))
    calls = [delta for delta in decode(body)[0] if isinstance(delta, Call)]
    assert [call.index for call in calls] == list(range(len(names)))
    assert [call.name for call in calls] == names


@pytest.mark.parametrize("body", [b"data: " + b"x" * LIMIT + b"\n\n", b"x" * (LIMIT + 1), b"{" + b" " * LIMIT])
def test_an_event_past_the_limit_is_a_failure(body: bytes) -> None:
    assert "more than 65536 bytes" in decode(body)[1]


def test_an_event_of_a_limit_of_many_megabytes_is_read() -> None:
    decoder = ChatDecoder(Profile(), 16 << 20)
    word = "x" * (15 << 20)
    body = b"".join(sse(chunk({"content": word}, finish="stop")))
    deltas = [delta for start in range(0, len(body), 16384) for delta in decoder.feed(body[start : start + 16384])]
    assert deltas == [Text(word), Finish("stop"), End()]


def test_nothing_is_read_behind_the_end() -> None:
    decoder = ChatDecoder(Profile(), LIMIT)
    decoder.feed(b"".join(sse(chunk({"content": "Hi"}, finish="stop"))))
    assert decoder.feed(b"data: rubbish\n\n") == decoder.close() == []
    assert decoder.done


def test_nothing_is_read_behind_a_failure() -> None:
    body = b"".join(sse(chunk({"content": "Hi"}), chunk({"content": "!"}, finish="error"), chunk({"content": "more"})))
    deltas, failure, _ = decode(body)
    assert (deltas, failure) == ([Text("Hi"), Text("!")], "The upstream gave up: finish_reason 'error'.")
