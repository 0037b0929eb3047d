"""The 400s of a request that is not as it should be (RESPONSES.md 2.9); the caller raises them.

param: where, as a path without a body name: `input[0].content[0].type`.
"""

import re
from collections.abc import Sequence

from msgspec import ValidationError

from proxy.errors import RequestError

_KINDS = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "array": "an array",
    "list": "an array",
    "object": "an object",
    "dict": "an object",
    "null": "null",
    "NoneType": "null",
}
"""What JSON calls the types that msgspec and Python name."""

_MISMATCH = re.compile(r"Expected `(?P<expected>[^`]*)`, got `(?P<got>[^`]*)`")
_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*?)(?:\[\.\.\.\][^`]*)?`$")  # [...] is any key of a dict


def unreadable(reason: str) -> RequestError:
    """The body is no JSON."""
    return RequestError(f"We could not parse the JSON body of your request. Expected an object in UTF-8: {reason}.")


def missing(param: str) -> RequestError:
    return RequestError(f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)


def unknown_parameter(param: str) -> RequestError:
    return RequestError(f"Unknown parameter: '{short(param)}'.", code="unknown_parameter", param=short(param))


def unsupported(param: str, reason: str) -> RequestError:
    """A parameter that the API has and this server has not. reason: a sentence that says what to do instead."""
    return RequestError(f"Unsupported parameter: '{param}'. {reason}", code="unsupported_parameter", param=param)


def wrong_type(param: str, expected: str, got: str) -> RequestError:
    """expected, got: as in "a string". param: "" for the whole body."""
    where = f"'{param}'" if param else "the request body"
    message = f"Invalid type for {where}: expected {expected}, but got {got} instead."
    return RequestError(message, code="invalid_type", param=param or None)


def wrong_value(param: str, value: str, allowed: Sequence[str]) -> RequestError:
    """allowed: at least two."""
    *others, last = (f"'{word}'" for word in allowed)
    supported = f"{', '.join(others)}{',' if len(others) > 1 else ''} and {last}"
    message = f"Invalid value: '{short(value)}'. Supported values are: {supported}."
    return RequestError(message, code="invalid_value", param=param)


def wrong_pattern(param: str, pattern: str) -> RequestError:
    expected = f"a string that matches the pattern '{pattern}'"
    return _invalid(param, "string does not match pattern", expected, "invalid_value")


def below(param: str, value: float, low: float, kind: str) -> RequestError:
    """kind: "integer" or "decimal"."""
    expected = f"a value >= {low}, but got {value} instead"
    return _invalid(param, f"{kind} below minimum value", expected, f"{kind}_below_min_value")


def above(param: str, value: float, high: float, kind: str) -> RequestError:
    """kind: "integer" or "decimal"."""
    expected = f"a value <= {high}, but got {value} instead"
    return _invalid(param, f"{kind} above maximum value", expected, f"{kind}_above_max_value")


def too_long(param: str, length: int, limit: int) -> RequestError:
    expected = f"a string with maximum length {limit}, but got a string with length {length} instead"
    return _invalid(param, "string too long", expected, "string_above_max_length")


def too_many(param: str, count: int, limit: int) -> RequestError:
    expected = f"an object with at most {limit} properties, but got an object with {count} properties instead"
    return _invalid(param, "object has too many properties", expected, "object_above_max_properties")


def empty_array(param: str) -> RequestError:
    expected = "an array with minimum length 1, but got an empty array instead"
    return _invalid(param, "empty array", expected, "empty_array")


def _invalid(param: str, wrong: str, expected: str, code: str) -> RequestError:
    return RequestError(f"Invalid '{param}': {wrong}. Expected {expected}.", code=code, param=param)


def short(value: str) -> str:
    """What a client sent, as it may stand in a message."""
    return value if len(value) <= 100 else f"{value[:100]}..."


def kind_of(value: object) -> str:
    """What JSON calls this value: "a string"."""
    return _KINDS[type(value).__name__]


def mismatch(error: ValidationError, within: str = "") -> RequestError:
    """What msgspec found, in the API's words. within: the path of the value that was decoded."""
    text = str(error)
    found = _PATH.search(text)
    path = found["path"] if found else ""
    param = f"{within}.{path}" if within and path else within or path
    types = _MISMATCH.match(text)
    if types is None:
        reason = _PATH.sub("", text)
        return RequestError(f"Invalid '{param}': {reason[0].lower()}{reason[1:]}.", code="invalid_value", param=param)
    return wrong_type(param, _either(types["expected"]), _KINDS[types["got"]])


def _either(expected: str) -> str:
    kinds = [_KINDS[name] for name in expected.split(" | ") if name != "null"]
    if "a number" in kinds:
        kinds.remove("an integer")
    return " or ".join(kinds)
