"""What is looked at of requests and answers that pass through."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import RequestError
from proxy.wire import forwarded
from proxy.wire.forwarded import MOST_TOKENS

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
FIELDS = st.dictionaries(st.text().filter(lambda name: name.lower() != "model"), VALUES, max_size=4)
BLANKS = st.text(" \t\r\n", max_size=2)


def written(pairs: list[tuple[str, Any]], blanks: list[str], *, plain: bool) -> bytes:
    """The pairs as an object, with these blanks between the signs."""
    gap = iter(blanks * (len(pairs) * 4 + 3))
    members = (
        f"{next(gap)}{json.dumps(name, ensure_ascii=plain)}{next(gap)}:{next(gap)}{json.dumps(value)}{next(gap)}"
        for name, value in pairs
    )
    return f"{next(gap)}{{{','.join(members)}}}{next(gap)}".encode("utf-8", "surrogatepass")


@given(before=FIELDS, after=FIELDS, blanks=st.lists(BLANKS, min_size=1, max_size=5), plain=st.booleans())
def test_a_new_name_changes_no_other_byte(
    before: dict[str, Any], after: dict[str, Any], blanks: list[str], plain: bool
) -> None:
    rest = [(name, value) for name, value in after.items() if name not in before]

    def body(model: str) -> bytes:
        return written([*before.items(), ("model", model), *rest], blanks, plain=plain)

    assert forwarded.rename(body("m"), forwarded.decode(body("m")), "org/llama") == body("org/llama")


@pytest.mark.parametrize(
    "body", ['{"a": 1, "model": "m", "a": 2}', '{"model": "m", "model": "m"}', '{"model": "n", "model": "m"}']
)
def test_a_body_with_a_field_twice_gets_no_new_name(body: str) -> None:
    with pytest.raises(RequestError, match="twice"):
        forwarded.rename(body.encode(), forwarded.decode(body.encode()), "x")


@pytest.mark.parametrize("name", ["Model", "MODEL", "modeL"])
def test_a_name_that_some_readers_take_for_model_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="different cases"):
        forwarded.model(forwarded.decode(json.dumps({"model": "m", name: "other"}).encode()))


def head(**fields: Any) -> bytes:
    return forwarded.head(forwarded.decode(json.dumps({"model": "m"} | fields).encode()), 50)


def test_later_turns_begin_as_the_first_one() -> None:
    system, user = {"role": "system", "content": "be " * 100}, {"role": "user", "content": "hi"}
    answer = {"role": "assistant", "content": "Hello"}
    assert head(messages=[system, user]) == head(messages=[system, user, answer, user])
    assert head(messages=[system, user]) != head(messages=[system, user | {"content": "ho"}])


@pytest.mark.parametrize("field", ["messages", "prompt", "input"])
@pytest.mark.parametrize("value", ["text", ["one", "two"], [1, 2], {"a": 1}, [], None, 3])
def test_any_prompt_begins_somehow(field: str, value: Any) -> None:
    assert len(head(**{field: value})) <= 50


@pytest.mark.parametrize(
    ("said", "counted"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}, (3, 2)),
        ({"prompt_tokens": 3, "total_tokens": 3}, (3, 0)),
        ({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 9}, (3, 6)),
        ({"input_tokens": 3, "output_tokens": 2}, (3, 2)),
        ({"prompt_tokens": -1, "completion_tokens": "2"}, (0, 0)),
    ],
)
def test_usage_is_read_in_its_dialects(said: dict[str, Any], counted: tuple[int, int]) -> None:
    assert forwarded.usage(b'{"x": 1, "usage": ' + msgspec.json.encode(said) + b', "y": {}}') == counted


def test_the_last_whole_usage_counts() -> None:
    first, last = b'{"usage": {"prompt_tokens": 1}}\n', b'{"usage":{"prompt_tokens": 2}}\n{"usage": null}\n'
    assert forwarded.usage(first + last + b'{"usage": {"prompt_tok') == (2, 0)
    assert forwarded.usage(b'{"text": "\\"usage\\": {\\"prompt_tokens\\": 2}"}') is None


@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens", "total_tokens"])
@pytest.mark.parametrize("said", [10**400, 10**9 + 1, -(10**400)])
def test_absurd_numbers_are_bounded(name: str, said: int) -> None:
    counted = forwarded.usage(b'{"usage": {"%b": %d}}' % (name.encode(), said))
    assert counted is not None
    assert max(counted) == (MOST_TOKENS if said > 0 else 0)


@given(st.binary() | st.binary().map(lambda data: b'"usage":{' + data))
def test_usage_never_fails(edge: bytes) -> None:
    forwarded.usage(edge)
