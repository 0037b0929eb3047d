"""Plain data into frozen Structs, by their annotations, with messages that say where, what and what else.

Annotations may be Structs, dict[str, X], list[X] and tuple[X, ...] with min_length, Literal, str, int, float and bool
with the bounds of msgspec.Meta, X | None, Any, and classes that have a `from_yaml(value, path)`. Messages quote the
values of numbers, switches and enumerations only: a text may be a key.
"""

import difflib
import math
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any, TypeVar, cast

from msgspec import inspect

from proxy.yamlfile import FieldError, Variable, join, plain

T = TypeVar("T")

LARGEST = 2**53
"""Of the numbers, either way: up to here each whole one is one for JSON and for floating point too."""


def unknown(path: str, what: str, word: str, allowed: Iterable[str]) -> FieldError:
    """The error for a word that is not among those allowed, with the one that was probably meant."""
    words = sorted(allowed)
    near = difflib.get_close_matches(word, words, 1)
    hint = f"; did you mean `{near[0]}`?" if near else "."
    return FieldError(path, f"unknown {what} `{word}`{hint} Allowed: {', '.join(words)}.")


def read(kind: type[T], value: Any, path: str) -> T:
    """The value as what the annotation says. Raises FieldError."""
    return cast("T", _read(inspect.type_info(kind), value, path))


def _read(kind: inspect.Type, value: Any, path: str) -> Any:
    nullable = isinstance(kind, inspect.UnionType)
    if isinstance(kind, inspect.UnionType):
        (kind,) = (each for each in kind.types if not isinstance(each, inspect.NoneType))
    if isinstance(value, Variable):
        value = _resolve(value, kind, nullable)
    if value is None and nullable:
        return None
    if isinstance(kind, inspect.IntType) and isinstance(value, float) and value.is_integer():
        value = int(value)  # 2.0 is a whole number in JSON Schema too
    if reader := _read_custom if _reads_itself(kind) else READERS.get(type(kind)):
        return reader(kind, value, path)
    if not _fits(kind, value):
        allowed = _expected(kind) + (" or null" if nullable else "")
        raise FieldError(path, f"expected {allowed}, found {_found(kind, value)}")
    return value


def _resolve(variable: Variable, kind: inspect.Type, nullable: bool) -> Any:
    """What the variable is in a field of this kind: a key of digits stays text, a port becomes a number."""
    if isinstance(kind, inspect.AnyType):
        return variable
    scalar = variable.scalar()
    if scalar is None and nullable:
        return None
    return str(variable) if isinstance(kind, inspect.StrType | inspect.LiteralType) or _reads_itself(kind) else scalar


def _reads_itself(kind: inspect.Type) -> bool:
    return hasattr(getattr(kind, "cls", None), "from_yaml")


def _read_struct(kind: Any, value: Any, path: str) -> Any:
    fields = {field.name: field for field in kind.fields}
    given = mapping(value, path)
    for name in given:
        if name not in fields:
            raise unknown(join(path, name), "field", name, fields)
    for name, field in fields.items():
        if field.required and name not in given:
            raise FieldError(join(path, name), "this field is required and missing")
    return kind.cls(**{name: _read(fields[name].type, each, join(path, name)) for name, each in given.items()})


def _read_mapping(kind: Any, value: Any, path: str) -> dict[str, Any]:
    given = mapping(value, path)
    _check_length(kind, given, path)
    return {name: _read(kind.value_type, each, join(path, name)) for name, each in given.items()}


def _read_list(kind: Any, value: Any, path: str) -> Any:
    if value is not None and not isinstance(value, list):
        raise FieldError(path, f"expected a list, found {sort_of(value)}")
    given = value or []
    _check_length(kind, given, path)
    items = [_read(kind.item_type, each, f"{path}[{index}]") for index, each in enumerate(given)]
    return tuple(items) if isinstance(kind, inspect.VarTupleType) else items


def _check_length(kind: Any, given: Any, path: str) -> None:
    if len(given) < (kind.min_length or 0):
        raise FieldError(path, "expected at least one entry")


def _read_word(kind: Any, value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise FieldError(path, f"expected one of {', '.join(kind.values)}, found {_found(kind, value)}")
    if value not in kind.values:
        raise unknown(path, "value", value, kind.values)
    return value


def _read_custom(kind: Any, value: Any, path: str) -> Any:
    return kind.cls.from_yaml(value, path)


def _read_any(_kind: Any, value: Any, path: str) -> Any:
    value = plain(value)
    _check_json(value, path)
    return value


def _check_json(value: Any, path: str) -> None:
    """What may stand anywhere becomes a part of requests, and these are JSON."""
    match value:
        case dict():
            for name, each in mapping(value, path).items():
                _check_json(each, join(path, name))
        case list():
            for index, each in enumerate(value):
                _check_json(each, f"{path}[{index}]")
        case float() if not math.isfinite(value):
            raise FieldError(path, f"JSON has no number `{value}`")
        case None | bool() | int() | float() | str():
            pass
        case _:
            raise FieldError(path, f"expected what JSON has too, found {sort_of(value)}: put it in quotes")


READERS: dict[type[inspect.Type], Callable[[Any, Any, str], Any]] = {
    inspect.StructType: _read_struct,
    inspect.DictType: _read_mapping,
    inspect.ListType: _read_list,
    inspect.VarTupleType: _read_list,
    inspect.LiteralType: _read_word,
    inspect.AnyType: _read_any,
}


def mapping(value: Any, path: str) -> dict[str, Any]:
    """A mapping whose keys are text; one whose entries are all commented out is empty. Raises FieldError."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FieldError(path, f"expected a mapping, found {sort_of(value)}")
    for name in value:
        if not isinstance(name, str):
            message = f"names are text, and to YAML this is {sort_of(name)}: put it in quotes"
            raise FieldError(join(path, str(name)), message)
    return value


def _fits(kind: inspect.Type, value: Any) -> bool:
    match kind:
        case inspect.StrType():
            return isinstance(value, str)
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType() | inspect.FloatType():
            number = int if isinstance(kind, inspect.IntType) else int | float
            return isinstance(value, number) and not isinstance(value, bool) and _within(kind, value)
    raise TypeError(f"fields of {kind} can't be read")


def _within(kind: inspect.IntType | inspect.FloatType, value: float) -> bool:
    above = (kind.gt is None or value > kind.gt) and (kind.ge is None or value >= kind.ge)
    # Whole numbers have no limit in YAML, but those that are waited for and counted with do.
    return above and abs(value) <= LARGEST and (kind.le is None or value <= kind.le)


def _expected(kind: inspect.Type) -> str:
    match kind:
        case inspect.IntType() | inspect.FloatType():
            words = ["a whole number" if isinstance(kind, inspect.IntType) else "a number"]
            bounds = (("above", kind.gt), ("from", kind.ge), ("to", kind.le))
            return " ".join(words + [f"{word} {bound}" for word, bound in bounds if bound is not None])
        case inspect.BoolType():
            return "true or false"
    return "text"


def _found(kind: inspect.Type, value: Any) -> str:
    """What stands where something else was expected: its sort where the field may hold a key, or else the value."""
    if isinstance(kind, inspect.StrType):
        return sort_of(value) + (": put it in quotes" if isinstance(value, int | float) else "")
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    return f"`{value}`" if isinstance(value, str | int | float) else sort_of(value)


def sort_of(value: Any) -> str:
    """The sort of a value, in words."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case date():
            return "a date"
    return "a value of a type that only YAML has"
