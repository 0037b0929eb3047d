"""The schema of the YAML takes what loads, and refuses what is not shaped so."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from proxy.config import Config
from proxy.loading import ConfigError, load
from proxy.schema import main, schema
from tests.configuration import HASHES, MINIMAL, parse, refusal, route, upstream
from tests.test_manual import EXAMPLES

ROOT = Path(__file__).parent.parent
SCHEMA = schema()
VALIDATOR = Draft202012Validator(SCHEMA)
PUBLISHED = (ROOT / "config" / "schema.json").read_text("utf-8")


def complaints(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(text))]


def test_the_published_schema_is_this_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    # Written by: python -m proxy schema > config/schema.json
    assert capsys.readouterr().out == PUBLISHED


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", ["proxy.yaml", "full.yaml"])
def test_the_files_that_come_with_the_program_fit_and_name_it(name: str) -> None:
    text = (ROOT / "config" / name).read_text("utf-8")
    assert complaints(text) == []
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")


def test_the_manuals_examples_fit() -> None:
    assert complaints(EXAMPLES) == []


def test_every_field_is_described() -> None:
    structs = SCHEMA["$defs"] | {"Config": SCHEMA}
    fields = [(f"{cls}.{name}", field) for cls, each in structs.items() for name, field in each["properties"].items()]
    # A section is described where it is defined.
    assert [path for path, field in fields if not {"description", "$ref"} & set(field)] == []
    assert all(each["description"] for each in structs.values())
    described = SCHEMA["$defs"]["Stream"]["properties"]["keep_alive"]
    assert described["description"] == "A comment is sent after so much silence. Load balancers often close at 60."
    assert described["default"] == 15


GOOD = [
    upstream("timeouts:\n    headers:\n    body: {a: [1, {b: null}]}") + "listen:\nroutes:\nkeys:\npools:\n",
    upstream(
        "timeouts: {idle: null, total: '${T}'}\n    max_requests: ${N:-4}\n    profile: {base: '${P}', video: true}"
    ),
    upstream("key: a-${B}-c\n    pass_key: ${PASS:-false}\n    profile: ${A}${B}"),
    MINIMAL + "limits: {body: '${SIZE}', event: 1024}\nlog: {level: '${LEVEL:-info}'}\nlisten: {port: '${PORT:-1}'}",
    MINIMAL + "pools: {a: {upstreams: [main]}, b: {upstreams: {main: '${W}'}}}",
    MINIMAL + f"keys: [{{name: a, hash: '{HASHES[1]}', streams: null}}, {{name: b, hash: '${{HASH}}'}}]",
    MINIMAL + "workers: 2.0\nlimits: {body: 1024.0}",
    route("pools:"),
    route("pools: []"),
    route("defaults: {temperature: 0.5}\n    max_input: 3 MiB\n    upstream_model: null"),
]


@pytest.mark.parametrize("text", GOOD)
def test_what_loads_fits(tmp_path: Path, text: str) -> None:
    env = {"T": "3", "N": "7", "P": "vllm", "A": "open", "B": "ai", "SIZE": "1 MiB", "W": "0.5", "HASH": HASHES[2]}
    parse(tmp_path, text, env)
    assert complaints(text) == []


BAD = [
    "upstreams: {}",
    "upstreams:",
    "upstreams: {main: {}}",
    "upstreams: {main: }",
    "listen: {}",
    MINIMAL + "lisen: {}",
    MINIMAL + "listen: {port: 65536}",
    MINIMAL + "listen: {port: true}",
    MINIMAL + "listen: {port: '1${PORT}'}",
    MINIMAL + "listen: {port: '8080'}",
    MINIMAL + "listen: {tls: {}}",
    MINIMAL + "drain: -1",
    MINIMAL + "drain:",
    MINIMAL + "strict: 1",
    MINIMAL + "strict: 'true'",
    MINIMAL + "workers: 1.5",
    MINIMAL + "workers: 1.0e+300",
    MINIMAL + "drain: .inf",
    MINIMAL + "routes: [{model: a}]",
    MINIMAL + "routes: [{model: a, upstreams: []}]",
    MINIMAL + "pools: {p: {upstreams: [main]}}\nroutes: [{model: a, upstreams: [main], pools: [p]}]",
    MINIMAL + "log: {format: jsno}",
    MINIMAL + "limits: {body: 3 MB}",
    MINIMAL + "limits: {body: 0}",
    MINIMAL + "limits: {body: 0 MiB}",
    MINIMAL + "keys: [{name: a, hash: sk-plain}]",
    MINIMAL + "keys: [{name: a}]",
    MINIMAL + "keys: {name: a}",
    MINIMAL + "admin_keys: [sk-plain]",
    MINIMAL + "health: {check: {status: []}}",
    MINIMAL + "health: {check: {status: [99]}}",
    MINIMAL + "pools: {a: {upstreams: []}}",
    MINIMAL + "pools: {a: {upstreams: {}}}",
    MINIMAL + "pools: {a: {upstreams: [main, main]}}",
    MINIMAL + "pools: {a: {upstreams: {main: 0}}}",
    MINIMAL + "pools: {a: {upstreams: main}}",
    MINIMAL + "pools: {a: {upstreams: [main], policy: random}}",
    upstream("key: 3"),
    upstream("headers: [a]"),
    upstream("dialect: chatt"),
    upstream("profile: vlm"),
    upstream("profile: {think_tag: true}"),
    upstream("profile: {think_tags: 3}"),
    upstream("profile: {base: vlm}"),
    upstream("timeouts: {idle: 0}"),
    upstream("timeouts: {idle: soon}"),
    route("defaults: {temprature: 1}"),
    route("model_name: a"),
    route("max_input: 3 MB"),
    "- a",
]


@pytest.mark.parametrize("text", BAD)
def test_what_is_not_shaped_so_is_refused_by_both(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, text, {"PORT": "1"})
    assert complaints(text)


BASE = f"""
upstreams: {{main: {{url: 'demo:', headers: {{}}, body: {{}}}}}}
pools: {{main2: {{upstreams: [main]}}}}
routes: [{{model: a, upstreams: [main]}}]
keys: [{{name: a, hash: '{HASHES[1]}'}}]
"""
NUMBERS = st.integers(-2, 700) | st.floats(-1, 2) | st.sampled_from([10**400, 2**53])
WORDS = st.sampled_from(
    ["", "a", "text", "auto", "main", "vllm", "3 MiB", "0 KiB", "/a", "http://a/v1", "low", HASHES[2]]
)
SCALARS = st.none() | st.booleans() | NUMBERS | WORDS
ODD = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.sampled_from(["a", "main", "base", "user"]), SCALARS)


def places(kind: Any, data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all fields, in mappings and lists of those entries that are there."""
    match kind:
        case msgspec.inspect.UnionType():
            for each in kind.types:
                yield from places(each, data, path)
        case msgspec.inspect.DictType() | msgspec.inspect.ListType() if data:
            inner = kind.value_type if isinstance(kind, msgspec.inspect.DictType) else kind.item_type
            for key in data if isinstance(data, dict) else range(len(data)):
                yield (*path, key)
                yield from places(inner, data[key], (*path, key))
        case msgspec.inspect.StructType() if not hasattr(kind.cls, "from_yaml"):
            for field in kind.fields:
                yield (*path, field.name)
                yield from places(field.type, (data or {}).get(field.name), (*path, field.name))


@given(place=st.sampled_from([*places(msgspec.inspect.type_info(Config), yaml.safe_load(BASE))]), value=ODD)
def test_whatever_stands_in_a_field_is_refused_or_fits(
    place: tuple[Any, ...], value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = yaml.safe_load(BASE)
    inner = data
    for name in place[:-1]:
        inner = inner[name] if isinstance(inner, list) else inner.setdefault(name, {})
    inner[place[-1]] = value
    file = tmp_path_factory.getbasetemp() / "odd.yaml"
    file.write_text(json.dumps(data))
    with suppress(ConfigError):
        load(file, {})
        assert [error.message for error in VALIDATOR.iter_errors(data)] == []
