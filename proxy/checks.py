"""What is wrong with a configuration only when its fields are taken together, or with the machine."""

import re
import ssl
from collections.abc import Sequence
from importlib.util import find_spec
from ipaddress import ip_address
from math import inf
from pathlib import Path
from pkgutil import iter_modules

from proxy import dialects
from proxy.addresses import check_host, check_path, check_url, is_http
from proxy.config import Config, Health, Key, Otel, Pool, Route, Upstream, UpstreamTls
from proxy.dialects import Dialect
from proxy.fields import unknown
from proxy.values import ProfileChoice
from proxy.wire.body import Body
from proxy.yamlfile import FieldError

TAKEN = {*Body.__struct_fields__, "messages"}
"""Fields that requests to this proxy or to upstreams have in any case."""

OWN_PATHS = ("/v1/responses", "/v1/models", "/health", "/ready", "/metrics", "/admin/upstreams")


def check(config: Config) -> None:
    """Raises FieldError."""
    if config.loop == "uvloop" and not installed("uvloop"):
        raise FieldError("loop", "uvloop is not installed; install responses-proxy[fast], or use auto or asyncio")
    if config.metrics.enabled and not config.metrics.open and not config.admin_keys:
        raise FieldError("metrics.open", "nobody could read them: this needs `admin_keys`")
    if config.otel is not None:
        _check_otel(config.otel)
    _check_health(config.health, "health")
    for name, upstream in config.upstreams.items():
        _check_upstream(upstream, f"upstreams.{name}")
    for name, pool in config.pools.items():
        _check_pool(config, name, pool)
    for index, route in enumerate(config.routes):
        _check_route(config, route, f"routes[{index}]")
    check_keys(config.keys, "keys")
    check_path(config.keys_file, "keys_file")
    _check_listen(config)


def installed(module: str) -> bool:
    """Whether it can be imported; nothing of it is, but for the packages around it."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _check_otel(otel: Otel) -> None:
    if not all(map(installed, ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"))):
        raise FieldError("otel", "OpenTelemetry is not installed; install responses-proxy[otel]")
    if not is_http(otel.endpoint):
        raise FieldError("otel.endpoint", "expected http://HOST:PORT/v1/traces, or https")
    _check_headers(otel.headers, "otel.headers")


def _check_listen(config: Config) -> None:
    listen = config.listen
    check_host(listen.host, "listen.host")
    check_path(listen.socket, "listen.socket")
    if listen.socket:
        if config.workers > 1:
            raise FieldError("workers", "a unix socket is served by one process")
    elif not (config.keys or config.keys_file or config.open or is_loopback(listen.host)):
        raise FieldError(
            "listen.host",
            f"on `{listen.host}` others could use your upstreams: name their `keys`, or say `open: true` if they may",
        )
    if tls := listen.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _check_certificate(context, tls.certificate, tls.key, "listen.tls")
        _check_authorities(context, tls.client_ca, "listen.tls.client_ca")


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_certificate(context: ssl.SSLContext, certificate: str, key: str, path: str) -> None:
    def no_password() -> str:
        raise FieldError(f"{path}.key", "this key has a password; one without is needed")

    for field, file in (("certificate", certificate), ("key", key or certificate)):
        _check_readable(file, f"{path}.{field}")
    try:
        context.load_cert_chain(certificate, key or None, no_password)
    except ssl.SSLError as error:
        pair = "KEY_VALUES_MISMATCH" in str(error)
        reason = "the key is another certificate's" if pair else "expected a certificate and its private key, PEM"
        raise FieldError(f"{path}.key" if pair else f"{path}.certificate", reason) from None


def _check_authorities(context: ssl.SSLContext, file: str, path: str) -> None:
    if file:
        _check_readable(file, path)
        try:
            context.load_verify_locations(file)
        except ssl.SSLError:
            raise FieldError(path, f"expected certificates, PEM, found none in {file}") from None


def _check_readable(file: str, path: str) -> None:
    check_path(file, path)
    try:
        with Path(file).open("rb"):
            pass
    except OSError as error:
        raise FieldError(path, f"{file} can't be read: {error.strerror}") from None


def check_keys(keys: Sequence[Key], path: str, others: Sequence[Key] = ()) -> None:
    """Raises FieldError when two have the same name or the same hash.

    others: keys from elsewhere, which are unlike each other.
    """
    names = {key.name for key in others}
    hashes = {key.hash: key.name for key in others}
    for index, key in enumerate(keys):
        if not re.fullmatch(r"[^\s\x00-\x1f\x7f]+", key.name):
            raise FieldError(f"{path}[{index}].name", "expected a name without spaces, for logs and metrics")
        if key.name in names:
            raise FieldError(f"{path}[{index}].name", f"another key is called `{key.name}` too")
        if key.hash in hashes:
            raise FieldError(f"{path}[{index}].hash", f"`{hashes[key.hash]}` has the same key")
        names.add(key.name)
        hashes[key.hash] = key.name


def _check_upstream(upstream: Upstream, path: str) -> None:
    check_url(upstream.url, f"{path}.url")
    check_path(upstream.socket, f"{path}.socket")
    _check_header_value(upstream.key, f"{path}.key")
    _check_headers(upstream.headers, f"{path}.headers")
    _check_forwarded(upstream.forward_headers, f"{path}.forward_headers")
    _check_profile(upstream.profile, _dialect(upstream.dialect, f"{path}.dialect"), f"{path}.profile")
    _check_health(upstream.health, f"{path}.health")
    if upstream.proxy not in ("environment", "none") and not is_http(upstream.proxy):
        raise FieldError(f"{path}.proxy", "expected `environment`, `none`, or http://HOST:PORT")
    if upstream.tls:
        _check_tls(upstream.tls, f"{path}.tls")
        if not upstream.url.startswith("https:"):
            raise FieldError(f"{path}.tls", "this is for https, and `url` is not")


def _check_health(health: Health, path: str) -> None:
    if health.check and not health.check.path.startswith("/"):
        raise FieldError(f"{path}.check.path", "expected a path that begins with /")


def _check_tls(tls: UpstreamTls, path: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _check_authorities(context, tls.ca, f"{path}.ca")
    if tls.certificate:
        _check_certificate(context, tls.certificate, tls.key, path)
    elif tls.key:
        raise FieldError(f"{path}.key", "this needs `certificate` too")


def _check_pool(config: Config, name: str, pool: Pool) -> None:
    path = f"pools.{name}"
    if name in config.upstreams:
        raise FieldError(path, "an upstream has this name already")
    if not pool.upstreams:
        raise FieldError(f"{path}.upstreams", f"expected at least one of {', '.join(config.upstreams)}")
    for each in pool.upstreams:
        if each not in config.upstreams:
            raise unknown(f"{path}.upstreams", "upstream", each, config.upstreams)


NOT_TO_SET = {"connection", "content-encoding", "content-length", "content-type", "expect", "keep-alive", "te"}
NOT_TO_SET |= {"trailer", "transfer-encoding", "upgrade"}
"""Headers that belong to one connection or to the body that the proxy itself writes."""


def _check_headers(headers: dict[str, str], path: str) -> None:
    for name, value in headers.items():
        _check_header_name(name, f"{path}.{name}")
        _check_header_value(value, f"{path}.{name}")


def _check_header_value(value: str, path: str) -> None:
    if re.search(r"[^\t\x20-\x7e\x80-\xff]", value):
        raise FieldError(path, "holds a character that no header can carry, perhaps a line feed")


def _check_forwarded(names: list[str], path: str) -> None:
    for index, name in enumerate(names):
        _check_header_name(name, f"{path}[{index}]")
        if name.lower() == "authorization":
            raise FieldError(f"{path}[{index}]", "to pass the client's key on, set `pass_key: true`")


def _check_header_name(name: str, path: str) -> None:
    if not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII):
        raise FieldError(path, f"`{name}` is no header name; allowed are letters, digits and - _ . among others")
    if name.lower() in NOT_TO_SET:
        raise FieldError(path, "this header is the proxy's own to write")


def _dialect(name: str, path: str) -> Dialect:
    known = known_dialects()
    if name not in known:
        raise unknown(path, "dialect", name, known)
    return dialects.load(name)


def known_dialects() -> list[str]:
    """The words that `dialect` may be: modules that are a dialect, and not a part of one."""
    return [name for _, name, _ in iter_modules(dialects.__path__) if _speaks(name)]


def _speaks(name: str) -> bool:
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
    for index, name in enumerate(route.pass_fields):
        if name in TAKEN:
            raise FieldError(f"{path}.pass_fields[{index}]", f"`{name}` has a meaning here, and is not passed through")
    for field, given in (("defaults", route.defaults), ("overrides", route.overrides)):
        if (given.get("max_output_tokens") or 0) > (route.max_output_tokens or inf):
            message = f"more than this route's `max_output_tokens`, {route.max_output_tokens}"
            raise FieldError(f"{path}.{field}.max_output_tokens", message)


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
