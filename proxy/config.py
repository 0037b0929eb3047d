"""What can be configured: the YAML as frozen Structs. A field's docstring is its entry in the manual."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from msgspec import Meta, Struct, structs
from yarl import URL

from proxy import dialects
from proxy.core.profile import Profile
from proxy.dialects import Dialect
from proxy.fields import mapping, read, sort_of, unknown
from proxy.yamlfile import FieldError, File

DEMO = "demo:"
"""The URL of the demo model that the program itself serves."""

Seconds = Annotated[float, Meta(gt=0)]


class ConfigError(Exception):
    """The configuration can't be used: one message with the file, the field, and what is allowed; never a key."""


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


class Listen(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where clients reach the proxy."""

    host: str = "127.0.0.1"
    """Address or name to listen on.

    0.0.0.0 or :: opens it to the network: whoever gets there uses the upstreams' keys.
    """

    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """TCP port; 0 takes any free one and says which."""


class Timeouts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long to wait for an upstream, in seconds; null: for ever."""

    connect: Seconds | None = 10
    """Until the connection is there, TLS included."""

    accept: Seconds | None = 600
    """From the request until the answer's status. Engines with a full queue send nothing before the first token."""

    idle: Seconds | None = 300
    """Between two reads of the answer; comments count as life."""

    total: Seconds | None = None
    """For the whole answer. A limit here cuts long answers off, however lively they are."""


class Upstream(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint that answers. Its repr shows no secrets."""

    url: str
    """Base URL, the part before /chat/completions: http://127.0.0.1:8000/v1. `demo:` is the model in the program."""

    key: str = ""
    """Sent as `Authorization: Bearer KEY`; empty: none is sent. Better as ${VARIABLE} than in the file."""

    pass_key: bool = False
    """The client's own Authorization header goes to this upstream, instead of `key`: whoever runs it sees that key."""

    headers: dict[str, str] = {}
    """Further headers of each request to this upstream."""

    body: dict[str, Any] = {}
    """Further fields of each request body, as they are: top_k, chat_template_kwargs. They win over everything."""

    forward_headers: list[str] = []
    """Names of client headers that are passed on; all others are not."""

    dialect: str = "chat"
    """How the upstream is spoken to: a module in proxy/dialects."""

    profile: ProfileChoice = ProfileChoice(base="generic")
    """Which product it is: a name, or a mapping with `base` and the fields that differ (proxy/core/profile.py)."""

    timeouts: Timeouts = Timeouts()
    """What is given here replaces the global value; after `load` all are filled in."""

    def __repr__(self) -> str:
        return f"Upstream(url={self.url!r}, dialect={self.dialect!r}, profile={self.profile!r})"


class Route(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which upstreams serve a model name."""

    model: str
    """Exact name, or a pattern with * (any characters) and ? (one)."""

    upstreams: list[str]
    """Tried in this order until one answers."""

    upstream_model: str | None = None
    """What the upstreams call the model; null: as the client does."""

    profile: ProfileChoice = ProfileChoice()
    """As in an upstream, and wins over it; a mapping without `base` changes fields of the upstream's profile."""

    reasoning_output: Literal["auto", "content", "summary", "both", "hidden"] = "auto"
    """Where in a reasoning item the model's reasoning goes; auto: summary if the client asks for one, else content."""


class Stream(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The event stream to the client; times in seconds."""

    accept_wait: Annotated[float, Meta(ge=0)] = 10
    """So long the 200 is held back for the upstream's status. Then it goes out, and an error becomes an event."""

    keep_alive: Seconds = 15
    """A comment is sent after so much silence. Load balancers often close at 60."""

    progress: Seconds = 120
    """response.in_progress is sent again after so long without an event, for clients to whom a comment is no life."""

    send_timeout: Seconds = 120
    """A client that takes nothing for so long is dropped, and its upstream closed."""

    done: bool = True
    """`data: [DONE]` ends the stream."""


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes, in bytes or as "64 MiB"; each is memory that one request can take."""

    body: Size = Size(64 << 20)
    """A client's request, decompressed; larger ones get a 413."""

    event: Size = Size(16 << 20)
    """One event of an upstream, or an answer that is no stream; a larger one fails the response."""


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is written to standard error."""

    format: Literal["text", "json"] = "text"
    """For people, or one JSON object a line."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """info: a line per request. debug: events too, without what they say."""

    bodies: bool = False
    """Prompts and answers are logged. They may be private: not for production."""


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    upstreams: dict[str, Upstream]
    """The endpoints by a name of your choice, at least one."""

    listen: Listen = Listen()
    routes: list[Route] = []
    """Looked through in order. Without any, every model goes to all upstreams in the order of the file."""

    timeouts: Timeouts = Timeouts()
    stream: Stream = Stream()
    limits: Limits = Limits()
    log: Log = Log()
    drain: Annotated[float, Meta(ge=0)] = 30
    """Seconds that open streams have left after SIGTERM or Ctrl-C; then they end with response.failed."""

    loop: Literal["auto", "uvloop", "asyncio"] = "auto"
    """The event loop; auto: uvloop where it is installed (it takes less CPU), else asyncio."""

    strict: bool = False
    """Parameters that an upstream can't be told are refused with a 400, and not dropped and named in a header."""


def load(path: Path, env: Mapping[str, str]) -> Config:
    """The configuration in this file, checked, with routes and timeouts filled in. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from None
    file = None
    try:
        file = File(text, env)
        return _checked(_complete(read(Config, file.data, ""), file.data))
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply, or an anchor that contains itself") from None
    except FieldError as error:
        line = file.line(error.path) if file else None
        place = error.place or ((line,) if line else ())
        where = ":".join(str(each) for each in (path, *place))
        raise ConfigError(": ".join(filter(None, (where, error.path, error.message)))) from None


def resolve_profile(upstream: Upstream, route: Route | None = None) -> Profile:
    """The profile that holds for this upstream on this route."""
    profiles = dialects.load(upstream.dialect).PROFILES
    profile = Profile()
    for choice in (upstream.profile, route.profile if route else ProfileChoice()):
        profile = structs.replace(profiles[choice.base] if choice.base else profile, **choice.fields)
    return profile


def _complete(config: Config, data: Any) -> Config:
    """The default route, and each upstream with all its timeouts. data: the file, known to fit the Structs."""
    upstreams = {}
    for name, upstream in config.upstreams.items():
        given = {key: getattr(upstream.timeouts, key) for key in data["upstreams"][name].get("timeouts") or {}}
        timeouts = structs.replace(config.timeouts, **given)
        upstreams[name] = structs.replace(upstream, url=upstream.url.rstrip("/"), timeouts=timeouts)
    routes = config.routes or [Route(model="*", upstreams=list(upstreams))]
    return structs.replace(config, upstreams=upstreams, routes=routes)


def _checked(config: Config) -> Config:
    """The same again. Raises FieldError for what only shows when fields are taken together."""
    if not config.upstreams:
        raise FieldError("upstreams", "there must be at least one upstream")
    if config.loop == "uvloop" and find_spec("uvloop") is None:
        raise FieldError("loop", "uvloop is not installed; install responses-proxy[fast], or use auto or asyncio")
    for name, upstream in config.upstreams.items():
        path = f"upstreams.{name}"
        _check_url(upstream.url, f"{path}.url")
        _check_headers(upstream, path)
        _check_profile(upstream.profile, _dialect(upstream.dialect, f"{path}.dialect"), f"{path}.profile")
    for index, route in enumerate(config.routes):
        _check_route(config, route, f"routes[{index}]")
    return config


def _check_url(url: str, path: str) -> None:
    if url == DEMO:
        return
    allowed = f"expected http://HOST:PORT/v1, https://HOST/v1 or {DEMO}"
    try:
        parts = urlsplit(url)
        host = parts.hostname and (parts.port or True) and URL(url)
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or re.search(r"[\s\x00-\x1f]", url):
        raise FieldError(path, allowed + ("" if "@" in url else f", found `{url}`"))
    if "@" in parts.netloc:
        raise FieldError(path, "a URL holds no password here: use `key` or `headers`")
    if parts.query or parts.fragment:
        raise FieldError(path, f"{allowed}, without ? and #")
    if parts.path.endswith("/chat/completions"):
        raise FieldError(path, f"{allowed}: it ends before /chat/completions")


NOT_TO_SET = {"connection", "content-encoding", "content-length", "content-type", "expect", "keep-alive", "te"}
NOT_TO_SET |= {"trailer", "transfer-encoding", "upgrade"}
"""Headers that belong to one connection or to the body that the proxy itself writes."""


def _check_headers(upstream: Upstream, path: str) -> None:
    for name in upstream.headers:
        _check_header_name(name, f"{path}.headers.{name}")
    for index, name in enumerate(upstream.forward_headers):
        _check_header_name(name, f"{path}.forward_headers[{index}]")
        if name.lower() == "authorization":
            raise FieldError(f"{path}.forward_headers[{index}]", "to pass the client's key on, set `pass_key: true`")
    values = {f"headers.{name}": value for name, value in upstream.headers.items()}
    for field, value in (values | {"key": upstream.key}).items():
        if re.search(r"[^\t\x20-\x7e\x80-\xff]", value):
            raise FieldError(f"{path}.{field}", "holds a character that no header can carry, perhaps a line feed")


def _check_header_name(name: str, path: str) -> None:
    if not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII):
        raise FieldError(path, f"`{name}` is no header name; allowed are letters, digits and - _ . among others")
    if name.lower() in NOT_TO_SET:
        raise FieldError(path, "this header is the proxy's own to write")


def _dialect(name: str, path: str) -> Dialect:
    modules = [each.name for each in iter_modules(dialects.__path__)]
    if name not in modules or not _speaks(name):
        raise unknown(path, "dialect", name, filter(_speaks, modules))
    return dialects.load(name)


def _speaks(name: str) -> bool:
    """Whether the module is a dialect, and not a part of one."""
    return all(hasattr(dialects.load(name), word) for word in ("encode", "decoder", "PROFILES"))


def _check_profile(choice: ProfileChoice, dialect: Dialect, path: str) -> None:
    if choice.base is not None and choice.base not in dialect.PROFILES:
        raise unknown(f"{path}.base" if choice.fields else path, "profile", choice.base, dialect.PROFILES)


def _check_route(config: Config, route: Route, path: str) -> None:
    if not route.model:
        raise FieldError(f"{path}.model", "expected the name of a model, or * for all")
    if not route.upstreams:
        raise FieldError(f"{path}.upstreams", f"expected at least one of {', '.join(config.upstreams)}")
    for index, name in enumerate(route.upstreams):
        if name not in config.upstreams:
            raise unknown(f"{path}.upstreams[{index}]", "upstream", name, config.upstreams)
        _check_profile(route.profile, dialects.load(config.upstreams[name].dialect), f"{path}.profile")
