"""Values that read themselves from the YAML: sizes, profiles, the members of a pool, parameters, the hash of a key."""

import re
from typing import Annotated, Any, Self

from msgspec import Meta, Struct, json, structs

from proxy.core.profile import Profile
from proxy.errors import RequestError
from proxy.fields import mapping, read, sort_of, unknown
from proxy.wire.body import Body
from proxy.wire.create import decode_create
from proxy.yamlfile import FieldError

Weight = Annotated[float, Meta(gt=0, le=1_000_000)]


class Size(int):
    """A number of bytes; in the YAML also as text: "512 KiB", "64 MiB", "1 GiB"."""

    __slots__ = ()

    @classmethod
    def from_yaml(cls, value: Any, path: str) -> Self:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        match = None if isinstance(value, bool) else re.fullmatch(r"([0-9]+) *(B|KiB|MiB|GiB)?", str(value))
        size = int(match[1]) << {None: 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30}[match[2]] if match else 0
        if not size:
            raise FieldError(path, f'expected a number of bytes above 0, or text such as "64 MiB", found `{value}`')
        return cls(size)


class ProfileChoice(Struct, frozen=True):
    """A profile by name, or as a mapping: `base` names one, every other key is a field of Profile and replaces it
    there.

    base: None leaves what was chosen before: an upstream's choice stands on `generic`, a route's on the upstream's.
    """

    base: str | None = None
    fields: dict[str, Any] = {}

    @classmethod
    def from_yaml(cls, value: Any, path: str) -> Self:
        if isinstance(value, str):
            return cls(base=value)
        if not isinstance(value, dict | None):
            raise FieldError(path, f"expected the name of a profile, or a mapping, found {sort_of(value)}")
        given = dict(mapping(value, path))
        base = given.pop("base", None)
        if not isinstance(base, str | None):
            raise FieldError(f"{path}.base", f"expected the name of a profile, found {sort_of(base)}")
        names = [field.name for field in structs.fields(Profile)]
        for name in given:
            if name not in names:
                raise unknown(f"{path}.{name}", "field", name, ["base", *names])
        profile = read(Profile, given, path)
        for index, name in enumerate(profile.reasoning_field):
            if not re.fullmatch(r"\w+", name) or name in MESSAGE:
                message = f"expected the name of a message's field that is not one of {', '.join(MESSAGE)}"
                raise FieldError(f"{path}.reasoning_field[{index}]", message)
        return cls(base=base and str(base), fields={name: getattr(profile, name) for name in given})


MESSAGE = ("role", "content", "name", "refusal", "tool_calls", "tool_call_id")
"""Fields of messages that hold something else than reasoning."""


class Members(dict[str, float]):
    """The upstreams of a pool with their weights; in the YAML a list of names, or a mapping from names to weights."""

    __slots__ = ()

    @classmethod
    def from_yaml(cls, value: Any, path: str) -> Self:
        if isinstance(value, dict):
            return cls((name, float(weight)) for name, weight in read(dict[str, Weight], value, path).items())
        if not isinstance(value, list):
            raise FieldError(path, f"expected a list of upstreams, or a mapping to weights, found {sort_of(value)}")
        names = read(list[str], value, path)
        for index, name in enumerate(names):
            if name in names[:index]:
                raise FieldError(f"{path}[{index}]", f"`{name}` is here twice; a mapping gives it a weight")
        return cls((name, 1.0) for name in names)


class Parameters(dict[str, Any]):
    """Parameters of requests, as the Responses API names them."""

    __slots__ = ()

    @classmethod
    def from_yaml(cls, value: Any, path: str) -> Self:
        given = read(dict[str, Any], value, path)
        for name in given:
            if name not in PARAMETERS:
                raise unknown(f"{path}.{name}", "parameter", name, PARAMETERS)
        try:
            decode_create(json.encode({"model": "m", "input": "i"} | given))
        except RequestError as error:
            raise FieldError(f"{path}.{error.param}" if error.param else path, error.message) from None
        return cls(given)


PARAMETERS = set(Body.__struct_fields__) - {"model", "input", "stream", "stream_options", "background", "generate"}
"""Those that a route can give a default for, or replace."""


class KeyHash(str):
    """The SHA-256 of a key, in the YAML as "sha256:" and 64 hex digits; `python -m proxy key` makes one."""

    __slots__ = ()

    @classmethod
    def from_yaml(cls, value: Any, path: str) -> Self:
        if not isinstance(value, str) or not re.fullmatch(r"sha256:[0-9a-fA-F]{64}", value):
            # The value is not shown: it may be the key itself.
            raise FieldError(path, "expected `sha256:` and 64 hex digits, as `python -m proxy key` prints them")
        return cls(value.lower())
