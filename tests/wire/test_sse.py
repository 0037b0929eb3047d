"""The splitter reads event streams at any cut of their bytes."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.core.numbers import Numbers
from proxy.wire.sse import BOM, COMMENT, DONE, Splitter, frames
from tests.checker import parse_sse

LIMIT = 1 << 20
LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1).map(str.encode)
PIECES = [b"data:", b"data: ", b"data: 1\n\n", b"\n", b"\n\n", b"\r", b"\r\n", b":", b"{", b"}", b"12345678", BOM]
SCRAPS = st.lists(st.sampled_from(PIECES) | st.binary()).map(b"".join)
NOISE = st.sampled_from([b":", b": keep-alive", b"event: message", b"id: 7", b"retry: 3000", b"unknown", b""])


def split(body: bytes, cuts: Sequence[int] = (), limit: int = LIMIT) -> tuple[list[bytes], bool]:
    """The payloads of a body that comes in pieces, without the blanks before them, and whether one was too long."""
    splitter = Splitter(limit)
    payloads: list[bytes] = []
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    for start, end in pairwise(places):
        payloads += splitter.feed(body[start:end])
        if splitter.overflow:
            break
    else:
        payloads += splitter.close()
    return [payload.lstrip(b" ") for payload in payloads], splitter.overflow


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A stream in all the ways there are to write one, and the payloads in it."""
    end = draw(LINE_ENDS)
    lines, payloads = [], []
    for said in draw(st.lists(st.lists(LINES, min_size=1, max_size=2), max_size=5)):
        lines += draw(st.lists(NOISE, max_size=2))
        lines += [b"data:" + line for line in said] + [b""]
        if draw(st.booleans()) and len(said) == 1:
            lines[-2] = b"data: " + said[0]
        payloads.append(b"\n".join(said).lstrip(b" "))
    body = end.join(lines) + end * draw(st.integers(0, 2)) if lines else b""
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + body, payloads


@given(streams(), st.lists(st.integers(0)))
def test_reads_may_be_cut_anywhere(stream: tuple[bytes, list[bytes]], cuts: list[int]) -> None:
    body, payloads = stream
    assert split(body, cuts) == (payloads, False)


@settings(max_examples=300)
@given(SCRAPS, st.lists(st.integers(0)), st.integers(1, 100))
@example(b"data: 1\n\n{\n", [1], 9)
@example(b"data:data:data:data:data:data:\n\ndata: 1\n\n", [12], 29)
@example(b"data: 123456789\ndata: 123456789\n\ndata: 1\n\n", [20], 20)
def test_garbage_may_be_cut_anywhere(body: bytes, cuts: list[int], limit: int) -> None:
    assert split(body, cuts, limit) == split(body, (), limit)


def test_data_over_several_lines_is_one_payload() -> None:
    assert split(b'data: {"a":\ndata: 1}\n\n') == ([b'{"a":\n 1}'], False)


def test_an_object_without_a_field_name_is_a_payload() -> None:
    assert split(b'data: 1\n\n{"error": "busy"}\n') == ([b"1", b'{"error": "busy"}'], False)


def test_unicode_line_separators_end_no_line() -> None:
    payload = "a\u2028b\u2029c\x85d\x0be\x0cf".encode()
    assert split(b"data: " + payload + b"\n\n") == ([payload], False)


def test_an_event_within_the_limit_is_read_and_a_longer_one_is_not() -> None:
    fitting, longer = Splitter(100), Splitter(100)
    assert fitting.feed(b"data:" + b"x" * 95 + b"\n\n") == [b"x" * 95]
    assert longer.feed(b"data:" + b"x" * 96 + b"\n\n") == []
    assert (fitting.overflow, longer.overflow) == (False, True)


def test_a_line_without_end_is_not_kept_past_the_limit() -> None:
    splitter = Splitter(100)
    for _ in range(11):
        assert splitter.feed(b"x" * 10) == []
    assert splitter.overflow


def test_many_events_together_may_be_longer_than_the_limit() -> None:
    splitter = Splitter(100)
    assert len(splitter.feed(b"data: 12345678\n\n" * 50)) == 50
    assert not splitter.overflow


def test_frames_are_what_the_strict_parser_takes() -> None:
    event = Numbers().event("response.created", response={})
    assert event.data == b'{"type":"response.created","sequence_number":0,"response":{}}'
    body = COMMENT + frames([event, event]) + COMMENT + DONE
    assert parse_sse(body) == [{"type": "response.created", "sequence_number": 0, "response": {}}] * 2


def test_a_line_end_may_be_cut_in_two() -> None:
    body = b"data:a\r\ndata:b\r\n\r\ndata:c\r\n\r\n"
    assert [split(body, [cut]) for cut in range(len(body))] == [([b"a\nb", b"c"], False)] * len(body)
