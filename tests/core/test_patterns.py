import re

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.patterns import is_pattern, pattern


@given(st.text("ab*?[]!-.\n", max_size=8), st.text("ab[]!-.\n", max_size=8))
def test_stars_and_question_marks_and_nothing_else_are_special(name: str, model: str) -> None:
    plain = re.escape(name).replace(r"\*", ".*").replace(r"\?", ".")
    assert bool(pattern(["other", name]).match(model)) is bool(re.fullmatch(plain, model, re.DOTALL))


def test_no_names_take_nothing() -> None:
    assert not pattern([]).match("")


def test_a_name_with_brackets_is_no_pattern() -> None:
    assert not is_pattern("v[1]")
    assert is_pattern("gpt-?")
