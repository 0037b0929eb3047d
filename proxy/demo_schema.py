"""The smallest value that a JSON schema allows, for the demo model's answers and arguments."""

import re
from typing import Any

DEPTH = 6
"""Below this, only what must be there is made, so that schemas that contain themselves come to an end."""

FORMATS = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "duration": "P1D",
    "email": "demo@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def instance(schema: dict[str, Any], text: str) -> Any:
    """A value that satisfies the schema; `text` stands where any string will do."""
    return _make(schema, text, schema, 0)


def _make(schema: Any, text: str, root: dict[str, Any], depth: int) -> Any:
    if not isinstance(schema, dict) or depth > 4 * DEPTH:
        return text if schema is True else None
    schema = _flat(schema, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for word in ("anyOf", "oneOf"):
        if schema.get(word):
            branches = schema[word]
            branch = branches[0 if depth < DEPTH else -1]
            return _make(_merged(_without(schema, word), branch), text, root, depth + 1)
    match _type(schema):
        case "object":
            return _object(schema, text, root, depth)
        case "array":
            return _array(schema, text, root, depth)
        case "string":
            return _string(schema, text)
        case "integer" | "number" as kind:
            return _number(schema, kind)
        case "boolean":
            return True
        case "null":
            return None
    return text


def _flat(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """The schema with its $ref and allOf taken in."""
    for _ in range(DEPTH):
        if "$ref" in schema:
            schema = _merged(_without(schema, "$ref"), _target(schema["$ref"], root))
        for part in schema.get("allOf", ()):
            schema = _merged(_without(schema, "allOf"), _flat(part, root))
    return schema


def _without(schema: dict[str, Any], word: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != word}


def _target(ref: str, root: dict[str, Any]) -> Any:
    found: Any = root
    for name in ref.removeprefix("#").split("/")[1:]:
        found = found.get(name.replace("~1", "/").replace("~0", "~"), {}) if isinstance(found, dict) else {}
    return found


def _merged(left: dict[str, Any], right: Any) -> dict[str, Any]:
    """Both schemas at once, as far as a demo needs."""
    if not isinstance(right, dict):
        return left
    both = {**left, **right}
    if "properties" in left and "properties" in right:
        both["properties"] = left["properties"] | right["properties"]
    if "required" in left and "required" in right:
        both["required"] = [*left["required"], *right["required"]]
    return both


def _type(schema: dict[str, Any]) -> str | None:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), "null")
    if kind is None:
        hints = (("properties", "object"), ("items", "array"), ("pattern", "string"), ("minimum", "number"))
        kind = next((name for word, name in hints if word in schema), None)
    return str(kind) if kind else None


def _object(schema: dict[str, Any], text: str, root: dict[str, Any], depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    names = schema.get("required", properties if depth < DEPTH else ())
    return {name: _make(properties.get(name, True), text, root, depth + 1) for name in names}


def _array(schema: dict[str, Any], text: str, root: dict[str, Any], depth: int) -> list[Any]:
    number = schema.get("minItems", min(1, schema.get("maxItems", 1)) if depth < DEPTH else 0)
    prefix = schema.get("prefixItems", [])
    kinds = [*prefix, *[schema.get("items", True)] * number][: max(number, len(prefix))]
    return [_make(kind, text, root, depth + 1) for kind in kinds]


def _string(schema: dict[str, Any], text: str) -> str:
    if schema.get("format") in FORMATS:
        return FORMATS[schema["format"]]
    if "pattern" in schema and not re.search(schema["pattern"], text):
        text = _matching(schema["pattern"])
    return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]


ATOM = re.compile(r"(\[[^\]]+\]|\\.|[^\\^$])(?:\{(\d+)(?:,\d*)?\}|([*?])|\+)?")


def _matching(pattern: str) -> str:
    """A text for a pattern of single characters, sets and their repetitions; groups and branches are beyond a demo."""
    parts = []
    for atom, times, optional in ATOM.findall(pattern):
        candidates = (atom.lstrip("\\"), *"a0A -_.")
        one = next((each for each in candidates if len(each) == 1 and re.fullmatch(atom, each)), "")
        parts.append(one * (0 if optional else int(times or 1)))
    return "".join(parts)


def _number(schema: dict[str, Any], kind: str) -> int | float:
    step = schema.get("multipleOf", 1)
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None:
        low = min(1, high) if high is not None else 1
    value = -(-low // step) * step
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        value += step
    if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
        value -= step
    if high is not None and value > high:
        value = low if kind == "number" else high
    return int(value) if kind == "integer" or value == int(value) else value
