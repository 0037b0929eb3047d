"""The files that come with the program: they load, and full.yaml is a manual of every field."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
import yaml

from proxy.config import Check, Config, Key, Otel, Pool, UpstreamTls
from proxy.loading import load
from proxy.schema import schema
from proxy.values import Members
from tests.configuration import HASHES

CONFIGS = Path(__file__).parent.parent / "config"
FULL = (CONFIGS / "full.yaml").read_text("utf-8")
EXAMPLES = re.sub(r"^( *)#(?=[^ #\n])", r"\1", FULL, flags=re.MULTILINE)
"""The manual with its examples switched on."""


@pytest.mark.parametrize("name", ["proxy.yaml", "full.yaml"])
def test_the_files_that_come_with_the_program_load_and_are_the_same(name: str) -> None:
    config = load(CONFIGS / name, {})
    assert config.upstreams["main"].url == "demo:"
    assert config == load(CONFIGS / "proxy.yaml", {})


@pytest.mark.parametrize("name", ["proxy.yaml", "full.yaml"])
def test_the_environment_names_the_endpoint(name: str) -> None:
    env = {"UPSTREAM": "http://a/v1", "UPSTREAM_KEY": "7", "PROFILE": "vllm", "HOST": "::", "PORT": "1", "OPEN": "true"}
    config = load(CONFIGS / name, env)
    main = config.upstreams["main"]
    assert (main.url, main.key, main.profile.base) == ("http://a/v1", "7", "vllm")
    assert (config.listen.host, config.listen.port, config.open) == ("::", 1, True)


def test_the_manuals_examples_work(tmp_path: Path) -> None:
    ca, folder = trustme.CA(), tmp_path / "tls"
    folder.mkdir()
    issued = ca.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(folder / "server.pem")
    issued.private_key_pem.write_to_path(folder / "server.key")
    ca.cert_pem.write_to_path(folder / "company.pem")
    (tmp_path / "keys.yaml").write_text(f"[{{name: other, hash: '{HASHES[0]}'}}]")
    (tmp_path / "full.yaml").write_text(EXAMPLES.replace('keys_file: ""', "keys_file: keys.yaml"))
    config = load(tmp_path / "full.yaml", {"OPENAI_API_KEY": "sk"})
    assert list(config.upstreams) == ["main", "second", "cloud"]
    assert config.routes[0].pools == list(config.pools)
    assert [key.name for key in config.keys] == ["search", "other"]
    # What an example does not have to say is the default.
    assert config.keys[0] == Key(name="search", hash=config.keys[0].hash)
    assert config.pools["local"] == Pool(upstreams=Members(main=1, second=1))
    assert config.upstreams["cloud"].tls == UpstreamTls(ca=str(folder / "company.pem"))
    assert config.health.check == Check()
    assert config.otel == Otel(endpoint="http://127.0.0.1:4318/v1/traces")


def sections(kind: Any, data: Any) -> Iterator[tuple[type[msgspec.Struct], dict[str, Any]]]:
    """Each mapping in the data that is a Struct, with the Struct."""
    match kind:
        case msgspec.inspect.UnionType():
            for each in kind.types:
                yield from sections(each, data)
        case msgspec.inspect.DictType():
            for item in (data or {}).values():
                yield from sections(kind.value_type, item)
        case msgspec.inspect.ListType():
            for item in data or []:
                yield from sections(kind.item_type, item)
        case msgspec.inspect.StructType() if isinstance(data, dict) and not hasattr(kind.cls, "from_yaml"):
            yield kind.cls, data
            for field in kind.fields:
                yield from sections(field.type, data.get(field.name))


def test_full_yaml_has_every_field() -> None:
    data = yaml.safe_load(EXAMPLES)
    shown = {(cls.__name__, name) for cls, each in sections(msgspec.inspect.type_info(Config), data) for name in each}
    described = schema()
    every = {("Config", name) for name in described["properties"]}
    every |= {(cls, name) for cls, each in described["$defs"].items() for name in each["properties"]}
    assert {(cls, name) for cls, name in every - shown if cls != "Profile"} == set()


def test_every_field_of_the_manual_has_its_comment() -> None:
    lines = FULL.splitlines()
    assert [line for before, line in pairwise(lines) if line and "#" not in before + line] == ["  main:"]
