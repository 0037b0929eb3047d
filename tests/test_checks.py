"""What is refused in a configuration although each field is well-formed, and files that it names."""

import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from proxy.checks import installed
from proxy.loading import ConfigError, load
from tests.configuration import HASHES, MINIMAL, parse, refusal, route, upstream

POOLS = MINIMAL + "pools: {local: {upstreams: [main]}}\n"


def key(name: str, number: int) -> str:
    return f"- {{name: {name}, hash: '{HASHES[number]}'}}\n"


# Pools and routes


@pytest.mark.parametrize(
    ("pools", "complaint"),
    [
        ("p: {upstreams: [mian]}", "p.upstreams: unknown upstream `mian`; did you mean `main`? Allowed: main."),
        ("p: {upstreams: {mian: 2}}", "p.upstreams: unknown upstream `mian`; did you mean `main`? Allowed: main."),
        ("p: {upstreams: []}", "p.upstreams: expected at least one of main"),
        ("main: {upstreams: [main]}", "main: an upstream has this name already"),
    ],
)
def test_a_pool_has_upstreams_that_are_there(tmp_path: Path, pools: str, complaint: str) -> None:
    assert refusal(tmp_path, f"{MINIMAL}pools: {{{pools}}}") == f"F:2: pools.{complaint}"


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ("pools: [lcoal]", "pools[0]: unknown pool `lcoal`; did you mean `local`? Allowed: local."),
        ("pools: [local, main]", "pools[1]: unknown pool `main`. Allowed: local."),
        ("pools: [local], long_context: big", "long_context: unknown pool `big`. Allowed: local."),
        ("pools: []", "upstreams: expected `upstreams` or `pools`, one of the two, out of local, main"),
        (
            "pools: [local], upstreams: [main]",
            "upstreams: expected `upstreams` or `pools`, one of the two, out of local, main",
        ),
        ("pools: [local], aliases: ['']", "model: expected the name of a model, or * for all"),
        ("pools: [local], profile: vlm", "profile: unknown profile `vlm`; did you mean `vllm`? Allowed: "),
        (
            "upstreams: [main], long_context: local, profile: vlm",
            "profile: unknown profile `vlm`; did you mean `vllm`? ",
        ),
    ],
)
def test_a_route_leads_to_what_is_there(tmp_path: Path, fields: str, complaint: str) -> None:
    assert refusal(tmp_path, f"{POOLS}routes: [{{model: a, {fields}}}]").startswith(f"F:3: routes[0].{complaint}")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ("defaults: {temperature: 3}", "defaults.temperature: "),
        ("overrides: {reasoning: {effort: hgih}}", "overrides.reasoning.effort: "),
        ("overrides: {model: b}", "overrides.model: unknown parameter `model`"),
        ("defaults: [temperature]", "defaults: expected a mapping, found a list"),
        ("max_output_tokens: 5\n    defaults: {max_output_tokens: 6}", "defaults.max_output_tokens: more than this "),
        ("max_output_tokens: 5\n    overrides: {max_output_tokens: 6}", "overrides.max_output_tokens: more than this "),
        ("pass_fields: [seed, temperature]", "pass_fields[1]: `temperature` has a meaning here"),
        ("pass_fields: [messages]", "pass_fields[0]: `messages` has a meaning here"),
    ],
)
def test_a_routes_parameters_are_checked_as_a_clients_are(tmp_path: Path, fields: str, complaint: str) -> None:
    assert f": routes[0].{complaint}" in refusal(tmp_path, route(fields))


def test_a_routes_parameters_may_be_whatever_a_client_may_say(tmp_path: Path) -> None:
    fields = "defaults: {temperature: 0.5, reasoning: {effort: low}}\n    overrides: {store: false, metadata: null}"
    (found,) = parse(tmp_path, route(fields)).routes
    assert found.defaults == {"temperature": 0.5, "reasoning": {"effort": "low"}}
    assert found.overrides == {"store": False, "metadata": None}


@pytest.mark.parametrize("path", ["v1/embeddings", "/", "/v1/responses", "/metrics", "/v1/{x}", "/v1//a", ""])
def test_an_endpoint_is_a_path_that_is_not_the_proxys_own(tmp_path: Path, path: str) -> None:
    message = refusal(tmp_path, route(f"endpoints: [/v1/rerank, '{path}']"))
    assert message.startswith("F:5: routes[0].endpoints[1]: expected a path that is not one of /v1/responses, ")


# Keys


def test_the_keys_of_the_file_come_after_those_here(tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text(key("b", 2) + key("c", 3))
    config = parse(tmp_path, MINIMAL + "keys_file: keys.yaml\nkeys:\n" + key("a", 1))
    assert [(each.name, each.hash) for each in config.keys] == [("a", HASHES[1]), ("b", HASHES[2]), ("c", HASHES[3])]


def test_a_hash_may_have_capital_digits(tmp_path: Path) -> None:
    (found,) = parse(tmp_path, f"{MINIMAL}keys: [{{name: a, hash: 'sha256:{64 * 'A'}'}}]").keys
    assert found.hash == HASHES[10]


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        (key("a", 1) + key("a", 2), "F:4: keys[1].name: another key is called `a` too"),
        (key("a", 1) + key("b", 1), "F:4: keys[1].hash: `a` has the same key"),
        (key("'a b'", 1), "F:3: keys[0].name: expected a name without spaces, for logs and metrics"),
        (key("''", 1), "F:3: keys[0].name: expected a name without spaces, for logs and metrics"),
        ("- {name: a}", "F:3: keys[0].hash: this field is required and missing"),
        (f"- {{name: a, hash: '{HASHES[0][:-1]}'}}", "F:3: keys[0].hash: expected `sha256:` and 64 hex digits, as "),
        (key("a", 1).replace("}", ", streams: 0}"), "F:3: keys[0].streams: expected a whole number from 1 or null"),
    ],
)
def test_each_key_is_one_of_its_own(tmp_path: Path, keys: str, complaint: str) -> None:
    assert refusal(tmp_path, MINIMAL + "keys:\n" + keys).startswith(complaint)


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        (key("b", 2) + "- {name: c, hash: sk-hush}", "K:2: [1].hash: expected `sha256:` and 64 hex digits, as "),
        (key("b", 2) + key("a", 3), "K:2: [1].name: another key is called `a` too"),
        (key("b", 1), "K:1: [0].hash: `a` has the same key"),
        ("sk-hush", "K:1: expected a list, found text"),
        ("sk-hush: [", "K:2:1: not YAML: "),
        ("keys: []", "K:1: expected a list, found a mapping"),
        # Without a key the proxy would serve everybody.
        ("", "K: expected at least one entry"),
        ("[]", "K:1: expected at least one entry"),
    ],
)
def test_what_is_wrong_in_the_keys_file_is_shown_there(tmp_path: Path, keys: str, complaint: str) -> None:
    (tmp_path / "keys.yaml").write_text(keys)
    message = refusal(tmp_path, MINIMAL + "keys_file: keys.yaml\nkeys:\n" + key("a", 1))
    assert message.replace(str(tmp_path / "keys.yaml"), "K").startswith(complaint)
    assert "sk-hush" not in message


def test_a_keys_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    message = refusal(tmp_path, MINIMAL + "keys_file: keys.yaml")
    assert message == f"{tmp_path / 'keys.yaml'}: can't be read: No such file or directory"


# Who may reach it


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_without_keys_this_machine_is_served(tmp_path: Path, host: str) -> None:
    assert parse(tmp_path, MINIMAL + f"listen: {{host: '{host}'}}").listen.host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example", ""])
def test_without_keys_nobody_else_is_served_unless_it_is_said(tmp_path: Path, host: str) -> None:
    listen = MINIMAL + f"listen: {{host: '{host}'}}\n"
    assert refusal(tmp_path, listen) == (
        f"F:2: listen.host: on `{host}` others could use your upstreams: name their `keys`, or say `open: true` if "
        "they may"
    )
    assert refusal(tmp_path, listen + f"admin_keys: ['{HASHES[0]}']").startswith("F:2: listen.host: ")
    for permission in ("open: true", "keys:\n" + key("a", 1)):
        assert parse(tmp_path, listen + permission).listen.host == host


def test_where_the_command_line_says_to_listen_is_checked_too(tmp_path: Path) -> None:
    parse(tmp_path, MINIMAL)
    with pytest.raises(ConfigError, match=r"listen\.host: on `::` others could use"):
        load(tmp_path / "proxy.yaml", {}, host="::")
    assert load(tmp_path / "proxy.yaml", {}, port=7).listen.port == 7


def test_a_socket_needs_no_keys_and_one_process(tmp_path: Path) -> None:
    text = MINIMAL + "listen: {host: '::', socket: proxy.sock}\n"
    assert parse(tmp_path, text).listen.socket == str(tmp_path / "proxy.sock")
    assert refusal(tmp_path, text + "workers: 2") == "F:3: workers: a unix socket is served by one process"


def test_metrics_that_nobody_could_read_are_refused(tmp_path: Path) -> None:
    text = MINIMAL + "metrics: {open: false}\n"
    assert refusal(tmp_path, text) == "F:2: metrics.open: nobody could read them: this needs `admin_keys`"
    assert not parse(tmp_path, text + f"admin_keys: ['{HASHES[0]}']").metrics.open


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, and with a.pem, a.key, b.pem, b.key, both.pem (a's); hush.key is a's with a password."""
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("a", "b"):
        issued = ca.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
    (folder / "both.pem").write_bytes((folder / "a.key").read_bytes() + (folder / "a.pem").read_bytes())
    secret = serialization.load_pem_private_key((folder / "a.key").read_bytes(), None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"hush")
    )
    (folder / "hush.key").write_bytes(secret)
    return folder


def test_the_files_of_tls_are_beside_the_configuration(certificates: Path) -> None:
    secure = upstream("tls: {ca: ca.pem, certificate: both.pem}").replace("http:", "https:")
    config = parse(certificates, secure + "listen: {tls: {certificate: a.pem, key: a.key, client_ca: ca.pem}}")
    tls, own = config.listen.tls, config.upstreams["main"].tls
    assert tls
    assert own
    assert (tls.certificate, tls.key) == (str(certificates / "a.pem"), str(certificates / "a.key"))
    assert (own.ca, own.certificate, own.key) == (str(certificates / "ca.pem"), str(certificates / "both.pem"), "")


@pytest.mark.parametrize(
    ("tls", "complaint"),
    [
        ("certificate: none.pem, key: a.key", "certificate: D/none.pem can't be read: No such file or directory"),
        ("certificate: a.pem, key: none.key", "key: D/none.key can't be read: No such file or directory"),
        ("certificate: a.pem, key: b.key", "key: the key is another certificate's"),
        ("certificate: a.pem, key: hush.key", "key: this key has a password; one without is needed"),
        ("certificate: a.key, key: a.key", "certificate: expected a certificate and its private key, PEM"),
        ("certificate: a.pem, key: a.pem", "certificate: expected a certificate and its private key, PEM"),
        ("certificate: a.pem", "key: this field is required and missing"),
        (
            "certificate: a.pem, key: a.key, client_ca: a.key",
            "client_ca: expected certificates, PEM, ",
        ),
        (
            "certificate: a.pem, key: a.key, client_ca: n.pem",
            "client_ca: D/n.pem can't be read: No such file or directory",
        ),
    ],
)
def test_a_certificate_that_cannot_be_used_is_refused(certificates: Path, tls: str, complaint: str) -> None:
    message = refusal(certificates, MINIMAL + f"listen:\n  tls: {{{tls}}}")
    assert message.replace(str(certificates), "D").startswith(f"F:3: listen.tls.{complaint}")


@pytest.mark.parametrize(
    ("url", "tls", "complaint"),
    [
        ("https:", "ca: none.pem", ".ca: D/none.pem can't be read: No such file or directory"),
        ("https:", "certificate: a.pem", ".certificate: expected a certificate and its private key, PEM"),
        ("https:", "key: a.key", ".key: this needs `certificate` too"),
        ("http:", "ca: ca.pem", ": this is for https, and `url` is not"),
    ],
)
def test_an_upstreams_tls_that_cannot_be_used_is_refused(
    certificates: Path, url: str, tls: str, complaint: str
) -> None:
    message = refusal(certificates, upstream(f"tls: {{{tls}}}").replace("http:", url))
    assert message.replace(str(certificates), "D") == f"F:4: upstreams.main.tls{complaint}"


# Ways and means


@pytest.mark.parametrize("host", ["a..b", "a" * 300, "a\\0b", "a b", "\\u00df" * 64])
def test_a_name_that_can_not_be_looked_up_is_refused(tmp_path: Path, host: str) -> None:
    message = refusal(tmp_path, MINIMAL + f'open: true\nlisten: {{host: "{host}"}}')
    assert message.startswith("F:3: listen.host: expected an address or a name")


@pytest.mark.parametrize("host", ["", "::", "::1", "fe80::1%lo", "localhost", "b\\u00fccher.example", "a.example."])
def test_others_are_not(tmp_path: Path, host: str) -> None:
    parse(tmp_path, MINIMAL + f'open: true\nlisten: {{host: "{host}"}}')


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ('keys_file: "a\\0b"', "keys_file"),
        ('listen: {socket: "a\\0b"}', "listen.socket"),
        ('listen: {tls: {certificate: "a\\0b", key: a}}', "listen.tls.certificate"),
        ('    socket: "a\\0b"', "upstreams.main.socket"),
        ('    tls: {ca: "a\\0b"}', "upstreams.main.tls.ca"),
    ],
)
def test_a_path_that_can_not_be_is_refused(tmp_path: Path, fields: str, field: str) -> None:
    message = refusal(tmp_path, upstream("").replace("http:", "https:").rstrip(" ") + fields)
    assert message == f"F:5: {field}: holds a character that no path can have"


@pytest.mark.parametrize("proxy", ["environment", "none", "http://127.0.0.1:3128", "http://u:p@proxy.example"])
def test_a_proxy_is_a_url_or_a_word(tmp_path: Path, proxy: str) -> None:
    assert parse(tmp_path, upstream(f"proxy: {proxy}")).upstreams["main"].proxy == proxy


@pytest.mark.parametrize("proxy", ["", "env", "127.0.0.1:3128", "socks5://a:1", "http://", "http://a:b", "http://a b"])
def test_other_proxies_are_refused(tmp_path: Path, proxy: str) -> None:
    message = refusal(tmp_path, upstream(f"proxy: '{proxy}'"))
    assert message == "F:4: upstreams.main.proxy: expected `environment`, `none`, or http://HOST:PORT"


def test_the_path_of_a_check_begins_with_a_slash(tmp_path: Path) -> None:
    complaint = "health.check.path: expected a path that begins with /"
    assert refusal(tmp_path, upstream("health: {check: {path: ok}}")) == f"F:4: upstreams.main.{complaint}"
    assert refusal(tmp_path, MINIMAL + "health: {check: {path: ok}}") == f"F:2: {complaint}"


@pytest.mark.parametrize("endpoint", ["", "127.0.0.1:4318", "grpc://127.0.0.1:4317"])
def test_traces_go_to_a_url(tmp_path: Path, endpoint: str) -> None:
    message = refusal(tmp_path, MINIMAL + f"otel: {{endpoint: '{endpoint}'}}")
    assert message == "F:2: otel.endpoint: expected http://HOST:PORT/v1/traces, or https"


def test_traces_need_their_package(tmp_path: Path) -> None:
    file = tmp_path / "proxy.yaml"
    file.write_text(MINIMAL + "otel: {endpoint: 'http://127.0.0.1:4318/v1/traces'}")
    # As where it is not installed: importing it fails.
    program = "import sys; sys.modules['opentelemetry'] = None; from proxy.__main__ import main; main(sys.argv[1:])"
    run = [sys.executable, "-c", program, "--check", str(file)]
    result = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    complaint = "OpenTelemetry is not installed; install responses-proxy[otel]"
    assert result.stderr == f"{file}:2: otel: {complaint}\n"


def test_a_package_that_is_not_there_is_not_installed() -> None:
    assert installed("aiohttp.web")
    assert not installed("aiohttp.no_such_module")
    assert not installed("no_such_package.module")
