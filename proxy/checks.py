"""What is wrong with a configuration only when its fields are taken together, or with the machine."""

import re
import ssl
from collections.abc import Sequence
from importlib.util import find_spec
from ipaddress import ip_address
from pkgutil import iter_modules
from typing import Any
from urllib.parse import urlsplit

from msgspec import json
from yarl import URL

from proxy import dialects
from proxy.config import DEMO, Config, Key, Pool, Route, Upstream
from proxy.dialects import Dialect
from proxy.errors import RequestError
from proxy.fields import unknown
from proxy.values import ProfileChoice
from proxy.wire.body import Body
from proxy.wire.create import decode_create
from proxy.yamlfile import FieldError

PARAMETERS = set(Body.__struct_fields__) - {"model", "input", "stream", "stream_options", "background", "generate"}
"""What a route can give a default for, or replace."""

OWN_PATHS = ("/v1/responses", "/v1/models", "/health", "/ready", "/metrics", "/admin/upstreams")


def check(config: Config) -> None:
    """Raises FieldError."""
    if not config.upstreams:
        raise FieldError("upstreams", "there must be at least one upstream")
    if config.loop == "uvloop" and find_spec("uvloop") is None:
        raise FieldError("loop", "uvloop is not installed; install responses-proxy[fast], or use auto or asyncio")
    if config.otel is not None and find_spec("opentelemetry.sdk") is None:
        raise FieldError("otel", "OpenTelemetry is not installed; install responses-proxy[otel]")
    if not config.metrics.open and not config.admin_keys:
        raise FieldError("metrics.open", "nobody could read them: this needs `admin_keys`")
    for name, upstream in config.upstreams.items():
        _check_upstream(upstream, f"upstreams.{name}")
    for name, pool in config.pools.items():
        _check_pool(config, name, pool)
    for index, route in enumerate(config.routes):
        _check_route(config, route, f"routes[{index}]")
    check_keys(config.keys, "keys")
    _check_listen(config)


def _check_listen(config: Config) -> None:
    listen = config.listen
    if listen.socket:
        if config.workers > 1:
            raise FieldError("workers", "a unix socket is served by one process")
    elif not (config.keys or config.keys_file or config.open or _is_loopback(listen.host)):
        raise FieldError(
            "listen.host",
            f"on `{listen.host}` others could use your upstreams: name their `keys`, or say `open: true` if they may",
        )
    if tls := listen.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _check_certificate(context, tls.certificate, tls.key, "listen.tls")
        _check_authorities(context, tls.client_ca, "listen.tls.client_ca")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_certificate(context: ssl.SSLContext, certificate: str, key: str, path: str) -> None:
    def no_password() -> str:
        raise FieldError(f"{path}.key", "this key has a password; one without is needed")

    try:
        context.load_cert_chain(certificate, key or None, no_password)
    except OSError as error:  # ssl's errors are OSErrors too
        raise FieldError(
            f"{path}.certificate", f"certificate and key can't be used: {error.strerror or error}"
        ) from None


def _check_authorities(context: ssl.SSLContext, file: str, path: str) -> None:
    try:
        if file:
            context.load_verify_locations(file)
    except OSError as error:
        raise FieldError(path, f"can't be used: {error.strerror or error}") from None


def check_keys(keys: Sequence[Key], path: str) -> None:
    """Raises FieldError when two have the same name or the same hash."""
    names: set[str] = set()
    hashes: set[str] = set()
    for key in keys:
        if not key.name or key.name in names:
            raise FieldError(path, f"each key needs a name of its own; `{key.name}` is there twice")
        if key.hash in hashes:
            raise FieldError(path, f"`{key.name}` is the same key as another one")
        names.add(key.name)
        hashes.add(key.hash)


def _check_upstream(upstream: Upstream, path: str) -> None:
    _check_url(upstream.url, f"{path}.url")
    _check_headers(upstream, path)
    _check_profile(upstream.profile, _dialect(upstream.dialect, f"{path}.dialect"), f"{path}.profile")
    if upstream.proxy not in ("environment", "none") and not re.match(r"https?://\S+$", upstream.proxy):
        raise FieldError(f"{path}.proxy", "expected `environment`, `none`, or http://HOST:PORT")
    if (check := upstream.health.check) and not check.path.startswith("/"):
        raise FieldError(f"{path}.health.check.path", "expected a path that begins with /")
    if tls := upstream.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _check_authorities(context, tls.ca, f"{path}.tls.ca")
        if tls.certificate:
            _check_certificate(context, tls.certificate, tls.key, f"{path}.tls")


def _check_pool(config: Config, name: str, pool: Pool) -> None:
    path = f"pools.{name}"
    if name in config.upstreams:
        raise FieldError(path, "an upstream has this name already")
    if not pool.upstreams:
        raise FieldError(f"{path}.upstreams", f"expected at least one of {', '.join(config.upstreams)}")
    for each in pool.upstreams:
        if each not in config.upstreams:
            raise unknown(f"{path}.upstreams", "upstream", each, config.upstreams)


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
    if not all((route.model, *route.aliases)):
        raise FieldError(f"{path}.model", "expected the name of a model, or * for all")
    _check_places(config, route, path)
    for name in members(config, route):
        _check_profile(route.profile, dialects.load(config.upstreams[name].dialect), f"{path}.profile")
    for index, endpoint in enumerate(route.endpoints):
        if not re.fullmatch(r"(/[\w.-]+)+", endpoint) or endpoint in OWN_PATHS:
            raise FieldError(f"{path}.endpoints[{index}]", f"expected a path that is not one of {', '.join(OWN_PATHS)}")
    for field in ("defaults", "overrides"):
        _check_parameters(getattr(route, field), f"{path}.{field}")


def _check_places(config: Config, route: Route, path: str) -> None:
    if bool(route.upstreams) == bool(route.pools):
        known = ", ".join((*config.pools, *config.upstreams))
        raise FieldError(f"{path}.upstreams", f"expected `upstreams` or `pools`, one of the two, out of {known}")
    for index, name in enumerate(route.upstreams):
        if name not in config.upstreams:
            raise unknown(f"{path}.upstreams[{index}]", "upstream", name, config.upstreams)
    for index, name in enumerate(route.pools):
        if name not in config.pools:
            raise unknown(f"{path}.pools[{index}]", "pool", name, config.pools)
    if route.long_context and route.long_context not in config.pools:
        raise unknown(f"{path}.long_context", "pool", route.long_context, config.pools)


def members(config: Config, route: Route) -> set[str]:
    """The names of all upstreams that a route may ask."""
    pools = {*route.pools, route.long_context} & set(config.pools)
    return {*route.upstreams, *(name for pool in pools for name in config.pools[pool].upstreams)}


def _check_parameters(parameters: dict[str, Any], path: str) -> None:
    """Of requests, as the Responses API names them."""
    for name in parameters:
        if name not in PARAMETERS:
            raise unknown(f"{path}.{name}", "parameter", name, PARAMETERS)
    try:
        decode_create(json.encode({"model": "m", "input": "i"} | parameters))
    except RequestError as error:
        raise FieldError(f"{path}.{error.param or ''}", error.message) from None
