"""The body as it comes: JSON or not, known and unknown fields, types."""

import msgspec
import pytest

from proxy.errors import RequestError
from proxy.wire.body import decode_body

LONE = rb'{"model":"m","input":"half \ud83d, other half \ude00, whole \ud83d\ude00, no escape \\ud83d"}'


def error_of(data: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode_body(data)
    return caught.value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{}x",
        b"model=m",
        b'{"a":01}',
        b'{"model":"\xff"}',
        b'{"tools":["\xff"]}',
        b'{"a":"\\q"}',
        b"{'a':1}",
    ],
)
def test_what_is_no_json_is_refused_without_param_and_code(data: bytes) -> None:
    error = error_of(data)
    assert (error.status, error.code, error.param) == (400, None, None)
    assert error.message.startswith("We could not parse the JSON body of your request.")


@pytest.mark.parametrize(
    ("data", "got"), [(b"[]", "an array"), (b'"x"', "a string"), (b"null", "null"), (b"1", "an integer")]
)
def test_json_that_is_no_object_is_refused(data: bytes, got: str) -> None:
    error = error_of(data)
    assert (error.code, error.param) == ("invalid_type", None)
    assert error.message == f"Invalid type for the request body: expected an object, but got {got} instead."


@pytest.mark.parametrize(
    ("data", "param", "message"),
    [
        (b'{"temperature":"x"}', "temperature", "expected a number, but got a string instead"),
        (b'{"temperature":true}', "temperature", "expected a number, but got a boolean instead"),
        (b'{"stream":1}', "stream", "expected a boolean, but got an integer instead"),
        (b'{"max_output_tokens":1.5}', "max_output_tokens", "expected an integer, but got a number instead"),
        (b'{"input":{}}', "input", "expected a string or an array, but got an object instead"),
        (b'{"tools":"x"}', "tools", "expected an array, but got a string instead"),
        (b'{"include":[null]}', "include[0]", "expected a string, but got null instead"),
        (b'{"reasoning":{"effort":1}}', "reasoning.effort", "expected a string, but got an integer instead"),
        (b'{"text":{"format":[]}}', "text.format", "expected an object, but got an array instead"),
        (
            b'{"tool_choice":{"tools":[{"name":1}]}}',
            "tool_choice.tools[0].name",
            "expected a string, but got an integer instead",
        ),
    ],
)
def test_a_wrong_type_is_named_with_its_path(data: bytes, param: str, message: str) -> None:
    error = error_of(data)
    assert (error.code, error.param) == ("invalid_type", param)
    assert error.message == f"Invalid type for '{param}': {message}."


@pytest.mark.parametrize(("field", "value"), [("temperature", b"1e400"), ("prompt", b'{"a":{"b":1e400}}')])
def test_a_number_out_of_range_is_named(field: str, value: bytes) -> None:
    error = error_of(b'{"%s":%s}' % (field.encode(), value))
    assert (error.code, error.param) == ("invalid_value", field)
    assert error.message == f"Invalid '{field}': number out of range."


def test_unknown_fields_are_kept_aside() -> None:
    body, unknown = decode_body(b'{"top_k":[1, 2],"model":"m","client_metadata":{"a":1},"items":3}')
    assert body.model == "m"
    assert unknown == {"top_k": msgspec.Raw(b"[1, 2]"), "items": msgspec.Raw(b"3")}


def test_types_are_checked_beside_unknown_fields_too() -> None:
    assert error_of(b'{"top_k":1,"stream":"yes"}').param == "stream"


def test_the_tracing_of_codex_is_known() -> None:
    _, unknown = decode_body(b'{"model":"m","client_metadata":{"session_id":"s"}}')
    assert unknown == {}


def test_half_an_emoji_becomes_a_replacement_character() -> None:
    body, _ = decode_body(LONE)
    assert body.input == "half \ufffd, other half \ufffd, whole \U0001f600, no escape \\ud83d"


def test_a_broken_body_with_half_an_emoji_is_still_broken() -> None:
    assert error_of(LONE[:-1]).code is None
