"""Whether an address, a URL or a path in a configuration can be one at all."""

import os
import re
from urllib.parse import urlsplit

from yarl import URL

from proxy.config import DEMO
from proxy.yamlfile import FieldError


def check_url(url: str, path: str) -> None:
    if url == DEMO:
        return
    allowed = f"expected http://HOST:PORT/v1, https://HOST/v1 or {DEMO}"
    if not is_http(url):
        raise FieldError(path, allowed + ("" if "@" in url else f", found `{url}`"))
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise FieldError(path, "a URL holds no password here: use `key` or `headers`")
    if parts.query or parts.fragment:
        raise FieldError(path, f"{allowed}, without ? and #")
    if parts.path.endswith("/chat/completions"):
        raise FieldError(path, f"{allowed}: it ends before /chat/completions")


def is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname and (parts.port or True) and URL(url).raw_host
    except ValueError:
        return False
    return (
        bool(host and _resolvable(host)) and parts.scheme in ("http", "https") and not re.search(r"[\s\x00-\x1f]", url)
    )


def check_host(host: str, path: str) -> None:
    if not _resolvable(host):
        raise FieldError(path, "expected an address or a name; the parts of a name have 1 to 63 letters each")


def _resolvable(host: str) -> bool:
    """Whether the resolver can be asked: it encodes each name so, and raises no OSError when it can't."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return not re.search(r"[\s\x00-\x1f]", host)


def check_path(file: str, path: str) -> None:
    try:
        usable = b"\0" not in os.fsencode(file)
    except UnicodeError:
        usable = False
    if not usable:
        raise FieldError(path, "holds a character that no path can have")
