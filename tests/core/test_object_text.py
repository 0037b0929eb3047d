"""The arguments of a call come in pieces; when they are whole is known at once, and cheaply."""

import json
import sys
from itertools import pairwise
from types import FrameType
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.object_text import ObjectText, is_object

SCRAPS = st.sampled_from(["{", "}", "[", "]", '"', "\\", '\\"', '"a":', '{"a":1}', "{}", "1", ",", " ", "\xa0", ""])
WORDS = st.text('{}"\\x', max_size=4)
OBJECTS = st.dictionaries(WORDS, WORDS | st.dictionaries(WORDS, WORDS, max_size=1), max_size=3)


def answers(pieces: list[str]) -> list[bool]:
    """Whether the object is whole, asked after each piece."""
    text = ObjectText()
    found = []
    for piece in pieces:
        text.pieces.append(piece)
        found.append(text.is_whole())
    return found


@given(st.lists(SCRAPS, max_size=12))
@example(['{"a":"\\', '"}', '"}'])
@example(["{}", "\xa0"])
@example(["}", "{}"])
def test_it_is_whole_when_the_parser_takes_it(pieces: list[str]) -> None:
    assert answers(pieces) == [is_object("".join(pieces[: end + 1])) for end in range(len(pieces))]


@given(OBJECTS.map(json.dumps), st.lists(st.integers(0, 40)))
def test_an_object_is_whole_with_its_last_piece(whole: str, cuts: list[int]) -> None:
    places = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
    pieces = [whole[start:end] for start, end in pairwise(places)]
    assert answers(pieces) == [False] * (len(pieces) - 1) + [True]


@pytest.mark.parametrize("pieces", [['{"a":'] * 500 + ["{}"] + ["}"] * 500, ["{}"] * 500, ["}"] * 500, ["{x}"] * 500])
def test_the_parser_is_asked_once_at_most(pieces: list[str]) -> None:
    parsed = 0

    def look(frame: FrameType, event: str, called: Any) -> None:
        nonlocal parsed
        parsed += event == "c_call" and called is msgspec.json.decode

    sys.setprofile(look)
    try:
        answers(pieces)
    finally:
        sys.setprofile(None)
    assert parsed <= 1
