"""Whatever a client sends: a request that can be served, or a RequestError, and never another exception."""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import json

from proxy.core.turn import first_turn
from proxy.errors import RequestError
from proxy.wire.body import Body
from proxy.wire.create import decode_create, echo
from tests.requests import CODEX, REQUEST

KEYS = ("type", "role", "content", "name", "call_id", "tools", "format", "schema")
WORDS = ("user", "message", "function", "function_call", "json_schema", "auto", "required", "allowed_tools")

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text() | st.sampled_from(WORDS)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=5),
    max_leaves=20,
)
names = st.sampled_from(Body.__struct_fields__)


@given(values)
def test_any_json_is_a_request_or_a_request_error(body: Any) -> None:
    _create_or_error(json.encode(body))


@given(st.dictionaries(names | st.text(), values))
def test_any_fields_are_a_request_or_a_request_error(fields: dict[str, Any]) -> None:
    _create_or_error(json.encode(REQUEST | fields))


@given(names, values)
def test_any_value_of_a_field_is_accepted_or_named(name: str, value: Any) -> None:
    error = _create_or_error(json.encode(REQUEST | {name: value}))
    assert error is None or (error.param or "").startswith(name)


@given(st.lists(values, min_size=1), st.lists(values))
def test_any_items_and_tools_are_accepted_or_named(items: list[Any], tools: list[Any]) -> None:
    error = _create_or_error(json.encode(REQUEST | {"input": items, "tools": tools}))
    assert error is None or (error.param or "").startswith(("input[", "tools"))


@given(st.binary())
@example(b'{"model":"m","input":"\xff"}')
@example(rb'{"model":"\ud800"}')
def test_any_bytes_are_a_request_or_a_request_error(data: bytes) -> None:
    _create_or_error(data)


@given(st.binary(max_size=4), st.integers(0, len(json.encode(CODEX))), st.integers(0, 4))
def test_any_damage_is_a_request_or_a_request_error(damage: bytes, at: int, lost: int) -> None:
    whole = json.encode(CODEX)
    _create_or_error(whole[:at] + damage + whole[at + lost :])


def _create_or_error(data: bytes) -> RequestError | None:
    """The error that this body gets. A body that is accepted can be asked of an upstream, and echoed on one line."""
    try:
        create = decode_create(data)
    except RequestError as error:
        return error
    json.decode(b"{" + echo(create) + b"}")
    assert b"\n" not in echo(create)
    assert first_turn(create, model="m", extra={}).items
    return None
