import re

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.names import flat, plain


def test_words_are_put_together_and_cleaned() -> None:
    assert flat("mcp", "my.server", "find it") == "mcp__my_server__find_it"
    assert flat(None, "get") == "get"
    assert plain("get<|channel|>commentary") == "get__channel__commentary"
    assert plain(None) == plain("") == "unknown"


@given(st.text(), st.text())
def test_a_name_is_always_legal(space: str, name: str) -> None:
    assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", flat(space, name))


def test_long_names_stay_different() -> None:
    names = {flat("space" * 12, name) for name in ("one", "two", "two_")}
    assert len(names) == 3
