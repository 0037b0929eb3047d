"""A YAML file -> the configuration, checked and filled in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from msgspec import Struct, structs

from proxy import dialects
from proxy.checks import check, check_keys
from proxy.config import Config, Key, Route, Upstream
from proxy.core.profile import Profile
from proxy.fields import read, read_list
from proxy.values import ProfileChoice
from proxy.yamlfile import FieldError, File

T = TypeVar("T", bound=Struct)


class ConfigError(Exception):
    """The configuration can't be used: one message with the file, the field, and what is allowed; never a key."""


def load(path: Path, env: Mapping[str, str], **listen: Any) -> Config:
    """The configuration in this file, checked, with all that it leaves out filled in. Raises ConfigError.

    listen: fields of `listen` that count instead of the file's.
    """
    with _told(path) as told:
        file = told.file = File(_text(path), env)
        config = _complete(read(Config, file.data, ""), file.data)
        if listen:
            config = structs.replace(config, listen=structs.replace(config.listen, **listen))
        check(config)
    if config.keys_file:
        # Beside the configuration, wherever the process was started.
        more = _load_keys(path.parent / config.keys_file, env)
        with _told(path):
            config = structs.replace(config, keys=[*config.keys, *more])
            check_keys(config.keys, "keys_file")
    return config


def _load_keys(path: Path, env: Mapping[str, str]) -> list[Key]:
    with _told(path) as told:
        file = told.file = File(_text(path), env)
        return read_list(Key, file.data, "keys")


class _told:  # noqa: N801 - used as a function
    """Makes ConfigErrors of what goes wrong inside. file: set by the caller once it has been read."""

    file: File | None = None

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        match error:
            case OSError():
                raise ConfigError(f"{self.path}: can't be read: {error.strerror}") from None
            case UnicodeDecodeError():
                raise ConfigError(f"{self.path}: not UTF-8 at byte {error.start}") from None
            case RecursionError():
                raise ConfigError(f"{self.path}: nested too deeply, or an anchor that contains itself") from None
            case FieldError():
                line = self.file.line(error.path) if self.file else None
                place = error.place or ((line,) if line else ())
                where = ":".join(str(each) for each in (self.path, *place))
                raise ConfigError(": ".join(filter(None, (where, error.path, error.message)))) from None


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig")


def resolve_profile(upstream: Upstream, route: Route | None = None) -> Profile:
    """The profile that holds for this upstream on this route."""
    profiles = dialects.load(upstream.dialect).PROFILES
    profile = Profile()
    for choice in (upstream.profile, route.profile if route else ProfileChoice()):
        profile = structs.replace(profiles[choice.base] if choice.base else profile, **choice.fields)
    return profile


def _complete(config: Config, data: Any) -> Config:
    """The default route, and each upstream with all its timeouts and its health.

    data: the file, known to fit the Structs.
    """
    upstreams = {}
    for name, upstream in config.upstreams.items():
        given = data["upstreams"][name]
        upstreams[name] = structs.replace(
            upstream,
            url=upstream.url.rstrip("/"),
            timeouts=_over(config.timeouts, upstream.timeouts, given.get("timeouts")),
            health=_over(config.health, upstream.health, given.get("health")),
        )
    routes = config.routes or [Route(model="*", upstreams=list(upstreams))]
    return structs.replace(config, upstreams=upstreams, routes=routes)


def _over(general: T, own: T, given: dict[str, Any] | None) -> T:
    """The general values, but those that are given here. given: as in the file."""
    return structs.replace(general, **{name: getattr(own, name) for name in given or {}})
