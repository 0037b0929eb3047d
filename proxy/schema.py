"""The JSON Schema of the YAML, for editors: from the Structs, their bounds and their docstrings."""

import argparse
import ast
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from inspect import getsource
from itertools import pairwise
from types import ModuleType
from typing import Any, cast

from msgspec import NODEFAULT, Struct, inspect

from proxy import config, dialects
from proxy.checks import known_dialects
from proxy.core import profile
from proxy.fields import LARGEST
from proxy.values import PARAMETERS, KeyHash, Members, Parameters, ProfileChoice, Size, Weight

VARIABLE = r"^\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}$"
"""What may stand where no text is wanted; where text is, a part of it may be a variable."""

PART = r"\$\{"


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the schema. Returns the exit status."""
    about = "Prints the JSON Schema of the configuration, for editors."
    argparse.ArgumentParser(prog="responses-proxy schema", description=about).parse_args(argv)
    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
    return 0


def schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12, of a file before its variables are replaced.

    What it refuses `load` refuses too, but not the other way round: names that are not there, files, URLs, and `.nan`,
    which is no JSON.
    """
    definitions: dict[str, Any] = {}
    for struct, docs in _structs(config), _structs(profile):
        for cls in struct:
            definitions[cls.__name__] = _struct(cls, docs)
    base = _words(_profiles()) | {"description": "The profile that these fields change."}
    definitions["Profile"]["properties"]["base"] = base
    definitions["Route"]["oneOf"] = [_given("upstreams"), _given("pools")]
    definitions["Upstream"]["properties"]["dialect"] |= _words(known_dialects())
    whole = definitions.pop("Config")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "responses-proxy",
        **whole,
        "$defs": definitions,
    }


def _profiles() -> list[str]:
    return sorted({name for dialect in known_dialects() for name in dialects.load(dialect).PROFILES})


def _structs(module: ModuleType) -> tuple[list[type[Struct]], dict[tuple[str, str], str]]:
    """The Structs that the module defines, and the docstrings of their fields."""
    docs = {}
    classes = [each for each in ast.parse(getsource(module)).body if isinstance(each, ast.ClassDef)]
    for each in classes:
        for field, doc in pairwise(each.body):
            match field, doc:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(str(text))):
                    docs[each.name, name] = " ".join(text.split())
    return [getattr(module, each.name) for each in classes], docs


def _struct(cls: type[Struct], docs: dict[tuple[str, str], str]) -> dict[str, Any]:
    properties = {}
    fields = cast("inspect.StructType", inspect.type_info(cls)).fields
    for field in fields:
        properties[field.name] = about = _kind(field.type)
        if text := docs.get((cls.__name__, field.name)):
            about["description"] = text
        if (default := _default(field)) is not NODEFAULT:
            about["default"] = default
    required = [field.name for field in fields if field.required]
    return {
        "description": " ".join((cls.__doc__ or "").split()),
        "type": "object" if required else ["object", "null"],
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _default(field: inspect.Field) -> Any:
    """The default in the words of the YAML; NODEFAULT where there is none, or it is a section."""
    default = field.default
    if isinstance(default, ProfileChoice):
        return default.base or NODEFAULT
    if isinstance(default, Struct):
        return NODEFAULT
    return list(default) if isinstance(default, tuple) else default


def _kind(kind: inspect.Type) -> dict[str, Any]:
    """What may stand in a field of this type; as in fields.py, which reads it."""
    if getattr(kind, "cls", None) in CUSTOM:
        return CUSTOM[kind.cls]()  # type: ignore[attr-defined]
    match kind:
        case inspect.UnionType():
            (inner,) = (each for each in kind.types if not isinstance(each, inspect.NoneType))
            return _nullable(_kind(inner))
        case inspect.StructType():
            return {"$ref": f"#/$defs/{kind.cls.__name__}"}
        case inspect.DictType():
            section = _section("object", "minProperties", kind.min_length)
            return section | {"additionalProperties": _kind(kind.value_type)}
        case inspect.ListType() | inspect.VarTupleType():
            return _section("array", "minItems", kind.min_length) | {"items": _kind(kind.item_type)}
        case inspect.LiteralType():
            return _words(str(each) for each in kind.values)
        case inspect.IntType() | inspect.FloatType():
            return _number(kind)
        case inspect.BoolType():
            return {"type": ["boolean", "string"], "pattern": VARIABLE}
        case inspect.StrType():
            return {"type": "string"}
    return {}


def _nullable(inner: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in inner:
        return {"anyOf": [inner, {"type": "null"}]}
    kinds = inner["type"]
    return inner | {"type": [*([kinds] if isinstance(kinds, str) else kinds), "null"]}


def _section(kind: str, word: str, least: int | None) -> dict[str, Any]:
    """One whose entries are all commented out is null, and empty."""
    return {"type": kind, word: least} if least else {"type": [kind, "null"]}


def _number(kind: inspect.IntType | inspect.FloatType) -> dict[str, Any]:
    most = LARGEST if kind.le is None else kind.le
    bounds = {"minimum": kind.ge, "exclusiveMinimum": kind.gt, "maximum": most}
    name = "integer" if isinstance(kind, inspect.IntType) else "number"
    return {"type": [name, "string"], "pattern": VARIABLE} | {
        word: bound for word, bound in bounds.items() if bound is not None
    }


def _given(field: str) -> dict[str, Any]:
    """That a list of at least one entry is there."""
    return {"required": [field], "properties": {field: {"type": "array", "minItems": 1}}}


def _words(words: Iterable[str]) -> dict[str, Any]:
    return {"anyOf": [{"enum": list(words)}, {"type": "string", "pattern": PART}]}


def _size() -> dict[str, Any]:
    return {"type": ["integer", "string"], "minimum": 1, "pattern": rf"^0*[1-9][0-9]* *(B|KiB|MiB|GiB)?$|{PART}"}


def _key_hash() -> dict[str, Any]:
    return {"type": "string", "pattern": rf"^sha256:[0-9a-fA-F]{{64}}$|{PART}"}


def _members() -> dict[str, Any]:
    names = {"items": {"type": "string"}, "minItems": 1, "uniqueItems": True}
    weights = {"additionalProperties": _kind(inspect.type_info(Weight)), "minProperties": 1}
    return {"type": ["array", "object"]} | names | weights


def _parameters() -> dict[str, Any]:
    properties: dict[str, Any] = {name: {} for name in sorted(PARAMETERS)}
    return _section("object", "minProperties", None) | {"properties": properties, "additionalProperties": False}


def _profile_choice() -> dict[str, Any]:
    return {"anyOf": [*_words(_profiles())["anyOf"], {"$ref": "#/$defs/Profile"}]}


CUSTOM: dict[type, Callable[[], dict[str, Any]]] = {
    Size: _size,
    KeyHash: _key_hash,
    Members: _members,
    Parameters: _parameters,
    ProfileChoice: _profile_choice,
}
