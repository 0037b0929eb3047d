"""Configurations for tests: written into a file and loaded, or refused."""

from pathlib import Path

import pytest

from proxy.config import Config
from proxy.loading import ConfigError, load

MINIMAL = "upstreams: {main: {url: 'http://127.0.0.1:8000/v1'}}\n"
HASHES = ["sha256:" + digit * 64 for digit in "0123456789abcdef"]


def parse(folder: Path, text: str, env: dict[str, str] | None = None) -> Config:
    file = folder / "proxy.yaml"
    file.write_text(text, encoding="utf-8")
    return load(file, env or {})


def refusal(folder: Path, text: str, env: dict[str, str] | None = None) -> str:
    """The one message, with `F` for the file."""
    with pytest.raises(ConfigError) as caught:
        parse(folder, text, env)
    return str(caught.value).replace(str(folder / "proxy.yaml"), "F")


def upstream(fields: str) -> str:
    return f"upstreams:\n  main:\n    url: http://127.0.0.1:8000/v1\n    {fields}\n"


def route(fields: str) -> str:
    return f"{MINIMAL}routes:\n  - model: a\n    upstreams: [main]\n    {fields}\n"
