"""Values that read themselves from the YAML: sizes, profiles, the members of a pool, the hash of a key."""

import re
from typing import Any, Self

from msgspec import Struct, structs

from proxy.core.profile import Profile
from proxy.fields import mapping, read, sort_of, unknown
from proxy.yamlfile import FieldError, Variable


class Size(int):
    """A number of bytes; in the YAML also as text: "512 KiB", "64 MiB", "1 GiB"."""

    __slots__ = ()

    @classmethod
    def from_yaml(cls, value: Any, path: str) -> Self:
        match = None if isinstance(value, bool) else re.fullmatch(r"(\d+) *(B|KiB|MiB|GiB)?", str(value))
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
        names = structs.fields(Profile)
        for name in given:
            if name not in {field.name for field in names}:
                raise unknown(f"{path}.{name}", "field", name, ["base", *(field.name for field in names)])
        profile = read(Profile, given, path)
        return cls(base=base and str(base), fields={name: getattr(profile, name) for name in given})


class Members(dict[str, float]):
    """The upstreams of a pool with their weights; in the YAML a list of names, or a mapping from names to weights."""

    __slots__ = ()

    @classmethod
    def from_yaml(cls, value: Any, path: str) -> Self:
        if isinstance(value, list):
            for index, name in enumerate(value):
                if not isinstance(name, str):
                    raise FieldError(f"{path}[{index}]", f"expected the name of an upstream, found {sort_of(name)}")
                if name in value[:index]:
                    raise FieldError(f"{path}[{index}]", f"`{name}` is here twice; a mapping gives it a weight")
            return cls((str(name), 1.0) for name in value)
        if not isinstance(value, dict):
            raise FieldError(path, f"expected a list of upstreams, or a mapping to weights, found {sort_of(value)}")
        weights = {name: each.scalar() if isinstance(each, Variable) else each for name, each in value.items()}
        for name, weight in mapping(weights, path).items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
                raise FieldError(f"{path}.{name}", "expected a weight, a number above 0")
        return cls((str(name), float(weight)) for name, weight in weights.items())


class KeyHash(str):
    """The SHA-256 of a key, in the YAML as "sha256:" and 64 hex digits; `python -m proxy key` makes one."""

    __slots__ = ()

    @classmethod
    def from_yaml(cls, value: Any, path: str) -> Self:
        if not isinstance(value, str) or not re.fullmatch(r"sha256:[0-9a-fA-F]{64}", value):
            # The value is not shown: it may be the key itself.
            raise FieldError(path, "expected `sha256:` and 64 hex digits, as `python -m proxy key` prints them")
        return cls(value.lower())
