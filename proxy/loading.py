"""A YAML file -> the configuration, checked and filled in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from msgspec import Meta, Struct, structs

from proxy import dialects
from proxy.checks import check, check_keys
from proxy.config import Config, Key, Route, Upstream
from proxy.core.profile import Profile
from proxy.fields import read
from proxy.values import ProfileChoice
from proxy.yamlfile import FieldError, File

T = TypeVar("T", bound=Struct)
Keys = Annotated[list[Key], Meta(min_length=1)]


class ConfigError(Exception):
    """The configuration can't be used: one message with the file, the field, and what is allowed; never a key."""


def load(path: Path, env: Mapping[str, str], **listen: Any) -> Config:
    """The configuration in this file, checked, with all that it leaves out filled in. Raises ConfigError.

    The keys of `keys_file` are among its `keys`, and the paths in it are absolute.
    listen: fields of `listen` that count instead of the file's.
    """
    with _told(path) as told:
        file = told.file = File(_text(path), env)
        config = _complete(read(Config, file.data, ""), file.data, path.parent.absolute())
        if listen:
            config = structs.replace(config, listen=structs.replace(config.listen, **listen))
        check(config)
    if config.keys_file:
        more = _load_keys(Path(config.keys_file), env, config.keys)
        config = structs.replace(config, keys=[*config.keys, *more])
    return config


def _load_keys(path: Path, env: Mapping[str, str], others: list[Key]) -> list[Key]:
    with _told(path) as told:
        file = told.file = File(_text(path), env)
        # Without any key the proxy would be open, which an empty file must not bring about.
        keys = read(Keys, file.data, "")
        check_keys(keys, "", others)
        return keys


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


def _complete(config: Config, data: Any, folder: Path) -> Config:
    """The default route, each upstream with all its timeouts and its health, and paths that begin at this folder.

    data: the file, known to fit the Structs.
    """
    upstreams = {}
    for name, upstream in config.upstreams.items():
        given = data["upstreams"][name]
        upstreams[name] = structs.replace(
            _placed(upstream, folder, "socket"),
            url=upstream.url.rstrip("/"),
            timeouts=_over(config.timeouts, upstream.timeouts, given.get("timeouts")),
            health=_over(config.health, upstream.health, given.get("health")),
            tls=upstream.tls and _placed(upstream.tls, folder, "ca", "certificate", "key"),
        )
    tls = config.listen.tls
    return structs.replace(
        _placed(config, folder, "keys_file"),
        listen=structs.replace(
            _placed(config.listen, folder, "socket"),
            tls=tls and _placed(tls, folder, "certificate", "key", "client_ca"),
        ),
        upstreams=upstreams,
        routes=config.routes or [Route(model="*", upstreams=list(upstreams))],
    )


def _over(general: T, own: T, given: Any) -> T:
    """The general values, but those that are given here. given: as in the file."""
    values = {}
    for name, inner in given.items() if isinstance(given, dict) else ():
        before, value = getattr(general, name), getattr(own, name)
        values[name] = _over(before, value, inner) if isinstance(before, Struct) and value is not None else value
    return structs.replace(general, **values)


def _placed(struct: T, folder: Path, *fields: str) -> T:
    """The Struct with the paths in these fields seen from the folder; "" stays."""
    paths = {name: getattr(struct, name) for name in fields}
    return structs.replace(struct, **{name: str(folder / path) for name, path in paths.items() if path})
