"""The configuration: what a file means, and what is said about a bad one."""

from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import Check, Health, Route, Timeouts, Upstream
from proxy.core.profile import Profile
from proxy.loading import ConfigError, load, resolve_profile
from proxy.yamlfile import substitute
from tests.configuration import MINIMAL, parse, refusal, route, upstream


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    config = parse(tmp_path, MINIMAL)
    assert config.listen.host == "127.0.0.1"
    assert config.listen.port == 8080
    assert config.upstreams["main"].profile.base == "generic"
    assert config.limits.body == 64 << 20
    assert config.timeouts == Timeouts(connect=10, accept=600, idle=300, total=None)


def test_without_routes_every_model_goes_to_all_upstreams_in_order(tmp_path: Path) -> None:
    config = parse(tmp_path, "upstreams: {b: {url: 'demo:'}, a: {url: 'demo:'}}")
    assert config.routes == [Route(model="*", upstreams=["b", "a"])]


def test_an_upstreams_timeouts_replace_the_global_ones_one_by_one(tmp_path: Path) -> None:
    config = parse(tmp_path, upstream("timeouts: {idle: 5, accept: null}") + "timeouts: {idle: 60, connect: 3}")
    assert config.upstreams["main"].timeouts == Timeouts(connect=3, accept=None, idle=5, total=None)


def test_an_upstreams_health_replaces_the_global_one_one_by_one_the_check_too(tmp_path: Path) -> None:
    own = upstream("health: {max_fails: 1, check: {path: /ready}}")
    config = parse(tmp_path, own + "health: {fail_duration: 7, check: {interval: 3, path: /}}")
    expected = Health(max_fails=1, fail_duration=7, check=Check(path="/ready", interval=3))
    assert config.upstreams["main"].health == expected


def test_an_upstream_can_do_without_the_global_check(tmp_path: Path) -> None:
    config = parse(tmp_path, upstream("health: {check: null}") + "health: {check: {}}")
    assert config.health.check == Check()
    assert config.upstreams["main"].health.check is None


def test_an_upstream_can_have_a_check_where_there_is_no_global_one(tmp_path: Path) -> None:
    config = parse(tmp_path, upstream("health: {check: {status: [200, 204]}}"))
    assert config.upstreams["main"].health.check == Check(status=(200, 204))


@pytest.mark.parametrize("nothing", ["", "{}", "null", "${NOTHING:-}", "${NOTHING:-null}"])
def test_an_upstream_that_says_nothing_of_it_has_the_global_timeouts(tmp_path: Path, nothing: str) -> None:
    config = parse(tmp_path, upstream(f"timeouts: {nothing}") + "timeouts: {idle: 60}")
    assert config.upstreams["main"].timeouts.idle == 60


def test_sections_whose_entries_are_all_commented_out_are_empty(tmp_path: Path) -> None:
    config = parse(tmp_path, upstream("headers:\n    timeouts:") + "listen:\nroutes:\n")
    assert config.listen.port == 8080
    assert config.upstreams["main"].headers == {}


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    text = "upstreams:\n  a: &a {url: 'demo:', headers: {x-a: '${A}'}}\n  b: {<<: [*a, {key: '${A}'}], profile: vllm}"
    config = parse(tmp_path, text, {"A": "one"})
    assert config.upstreams["b"].headers == {"x-a": "one"}
    assert (config.upstreams["b"].key, config.upstreams["b"].profile.base) == ("one", "vllm")


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("512 KiB", 512 << 10), ("64MiB", 64 << 20), ("2 GiB", 2 << 30)])
def test_sizes_are_bytes_or_have_a_unit(tmp_path: Path, text: str, size: int) -> None:
    assert parse(tmp_path, MINIMAL + f"limits: {{body: {text}}}").limits.body == size


def test_a_slash_at_the_end_of_a_url_makes_no_difference(tmp_path: Path) -> None:
    config = parse(tmp_path, "upstreams: {main: {url: 'http://127.0.0.1:8000/v1/'}}")
    assert config.upstreams["main"].url == "http://127.0.0.1:8000/v1"


# Profiles


def test_a_profile_is_a_name_or_a_base_with_changes(tmp_path: Path) -> None:
    named = parse(tmp_path, upstream("profile: vllm")).upstreams["main"]
    changed = parse(tmp_path, upstream("profile: {base: vllm, think_tags: true}")).upstreams["main"]
    assert resolve_profile(changed) == msgspec.structs.replace(resolve_profile(named), think_tags=True)
    assert resolve_profile(named) != resolve_profile(Upstream(url="demo:"))


def test_a_routes_profile_wins_over_the_upstreams(tmp_path: Path) -> None:
    route = "routes: [{model: a, upstreams: [main], profile: llamacpp}]"
    config = parse(tmp_path, upstream("profile: {base: vllm, think_tags: true}") + route)
    plain = parse(tmp_path, upstream("profile: llamacpp"))
    assert resolve_profile(config.upstreams["main"], config.routes[0]) == resolve_profile(plain.upstreams["main"])


def test_a_routes_profile_without_a_base_changes_the_upstreams(tmp_path: Path) -> None:
    route = "routes: [{model: a, upstreams: [main], profile: {efforts: [low, high]}}]"
    config = parse(tmp_path, upstream("profile: vllm") + route)
    profile = resolve_profile(config.upstreams["main"], config.routes[0])
    assert profile == msgspec.structs.replace(resolve_profile(config.upstreams["main"]), efforts=("low", "high"))


def test_every_profile_field_can_be_set(tmp_path: Path) -> None:
    values = msgspec.to_builtins(Profile())
    text = yaml.safe_dump({"upstreams": {"main": {"url": "demo:", "profile": values}}})
    assert resolve_profile(parse(tmp_path, text).upstreams["main"]) == Profile()


@pytest.mark.parametrize(
    ("field", "complaint"),
    [
        ("efforts: [hgih]", "efforts[0]: unknown value `hgih`; did you mean `high`? Allowed: high, low, "),
        ("efforts: low", "efforts: expected a list, found text"),
        ("hints: [usr]", "hints[0]: unknown value `usr`; did you mean `user`? Allowed: "),
        ("reasoning_field: [thoughts, content]", "reasoning_field[1]: expected the name of a message's field that "),
        ("reasoning_field: ['']", "reasoning_field[0]: expected the name of a message's field that "),
        ("reasoning_field: [3]", "reasoning_field[0]: expected text, found a number"),
    ],
)
def test_a_profile_holds_no_value_that_no_server_knows(tmp_path: Path, field: str, complaint: str) -> None:
    message = refusal(tmp_path, upstream(f"profile: {{{field}}}"))
    assert message.startswith(f"F:4: upstreams.main.profile.{complaint}")


# Pools


@pytest.mark.parametrize(
    ("members", "weights"),
    [
        ("[b, a]", {"b": 1, "a": 1}),
        ("{b: 3, a: 0.5}", {"b": 3, "a": 0.5}),
        ("{b: '${W}', a: '${NONE:-2}'}", {"b": 7, "a": 2}),
        ("['${B}', a]", {"b": 1, "a": 1}),
    ],
)
def test_the_members_of_a_pool_may_have_weights(tmp_path: Path, members: str, weights: dict[str, float]) -> None:
    text = f"upstreams: {{a: {{url: 'demo:'}}, b: {{url: 'demo:'}}}}\npools: {{p: {{upstreams: {members}}}}}"
    found = parse(tmp_path, text, {"W": "7", "B": "b"}).pools["p"].upstreams
    assert (found, list(found)) == (weights, list(weights))


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ("{main: 0}", ".main: expected a number above 0 to 1000000, found `0`"),
        ("{main: true}", ".main: expected a number above 0 to 1000000, found `true`"),
        ("{main: .inf}", ".main: expected a number above 0 to 1000000, found `inf`"),
        ("{main: 1" + 400 * "0" + "}", ".main: expected a number above 0 to 1000000, found `1000"),
        ("{main: '${W}'}", ".main: expected a number above 0 to 1000000, found `heavy`"),
        ("{main: }", ".main: expected a number above 0 to 1000000, found nothing"),
        ("{1: 1}", ".1: names are text, and to YAML this is a number: put it in quotes"),
        ("[1]", "[0]: expected text, found a number: put it in quotes"),
        ("[main, main]", "[1]: `main` is here twice; a mapping gives it a weight"),
        ("main", ": expected a list of upstreams, or a mapping to weights, found text"),
        ("", ": expected a list of upstreams, or a mapping to weights, found nothing"),
    ],
)
def test_odd_members_are_refused(tmp_path: Path, members: str, complaint: str) -> None:
    message = refusal(tmp_path, MINIMAL + f"pools:\n  p:\n    upstreams: {members}", {"W": "heavy"})
    assert message.startswith(f"F:4: pools.p.upstreams{complaint}")


# Variables


def test_a_value_that_is_one_variable_becomes_what_its_field_wants(tmp_path: Path) -> None:
    main = upstream("key: ${KEY}\n    pass_key: ${PASS}\n    timeouts: {idle: '${IDLE}'}")
    env = {"PORT": "99", "KEY": "0123", "PASS": "true", "IDLE": "null"}
    config = parse(tmp_path, main + "listen: {port: '${PORT}'}", env)
    assert config.listen.port == 99
    assert config.upstreams["main"] == Upstream(
        url="http://127.0.0.1:8000/v1", key="0123", pass_key=True, timeouts=Timeouts(idle=None)
    )


def test_an_empty_variable_is_null_where_null_is_allowed(tmp_path: Path) -> None:
    config = parse(tmp_path, MINIMAL + "routes: [{model: a, upstreams: [main], upstream_model: '${NAME:-}'}]")
    assert config.routes[0].upstream_model is None


def test_an_empty_variable_is_empty_text(tmp_path: Path) -> None:
    assert parse(tmp_path, upstream("key: ${KEY:-}"), {"KEY": ""}).upstreams["main"].key == ""


def test_a_default_stands_in_for_a_variable_that_is_not_set_or_empty(tmp_path: Path) -> None:
    text = MINIMAL + "listen: {host: '${HOST:-::1}'}"
    assert parse(tmp_path, text).listen.host == "::1"
    assert parse(tmp_path, text, {"HOST": ""}).listen.host == "::1"
    assert parse(tmp_path, text, {"HOST": "localhost"}).listen.host == "localhost"


def test_variables_are_replaced_within_longer_text(tmp_path: Path) -> None:
    config = parse(tmp_path, upstream("headers: {x-a: '$$${A}-${B:-b}$'}"), {"A": "a"})
    assert config.upstreams["main"].headers == {"x-a": "$a-b$"}


def test_in_a_body_a_variable_is_a_number_unless_it_has_quotes(tmp_path: Path) -> None:
    body = "body:\n      top_k: ${K}\n      user: '${K}'\n      list: [1, '${K}']"
    config = parse(tmp_path, upstream(body), {"K": "20"})
    assert config.upstreams["main"].body == {"top_k": 20, "user": "20", "list": [1, "20"]}


@pytest.mark.parametrize("value", ["2024-13-45", "0x_", "<<", "=", "{a: b}", "- x", "*a", "!x y", "a: b", '"'])
def test_a_variable_holds_a_value_and_no_yaml(tmp_path: Path, value: str) -> None:
    config = parse(tmp_path, upstream("body:\n      a: ${A}\n    key: ${A}"), {"A": value})
    assert config.upstreams["main"].body == {"a": value}
    assert config.upstreams["main"].key == value


@given(st.text() | st.text(alphabet="${}:-A"))
def test_any_text_can_be_said_with_its_dollars_doubled(text: str) -> None:
    assert substitute(text.replace("$", "$$"), {"A": "a"}) == text


# Refusals: file, line, path, what was found, what is allowed, what was perhaps meant

REFUSALS = {
    "": "F: upstreams: this field is required and missing",
    "upstreams: {}": "F:1: upstreams: expected at least one entry",
    "upstreams: {main: {}}": "F:1: upstreams.main.url: this field is required and missing",
    "[1]": "F:1: expected a mapping, found a list",
    MINIMAL + "lisen: {}": "F:2: lisen: unknown field `lisen`; did you mean `listen`? Allowed: admin_keys, drain, ",
    MINIMAL + "8080: x": "F:2: 8080: names are text, and to YAML this is a number: put it in quotes",
    upstream("timeouts:\n      idel: 3"): "F:5: upstreams.main.timeouts.idel: unknown field `idel`; "
    "did you mean `idle`? Allowed: accept, connect, idle, total.",
    upstream("timeouts: {idle: -1}"): "F:4: upstreams.main.timeouts.idle: expected a number above 0 or null, "
    "found `-1`",
    upstream("timeouts: {idle: soon}"): "F:4: upstreams.main.timeouts.idle: expected a number above 0 or null, "
    "found `soon`",
    MINIMAL + "drain: .inf": "F:2: drain: expected a number from 0, found `inf`",
    MINIMAL + "drain:": "F:2: drain: expected a number from 0, found nothing",
    MINIMAL + "strict: 1": "F:2: strict: expected true or false, found `1`",
    MINIMAL + "listen: {port: 65536}": "F:2: listen.port: expected a whole number from 0 to 65535, found `65536`",
    MINIMAL + "listen: {port: true}": "F:2: listen.port: expected a whole number from 0 to 65535, found `true`",
    MINIMAL + "listen: {host: 1}": "F:2: listen.host: expected text, found a number: put it in quotes",
    MINIMAL + "log: {format: jsno}": "F:2: log.format: unknown value `jsno`; did you mean `json`? Allowed: json, text.",
    MINIMAL + "log: {format: 1}": "F:2: log.format: expected one of json, text, found `1`",
    MINIMAL + "limits: {body: 3 MB}": 'F:2: limits.body: expected a number of bytes above 0, or text such as "64 MiB", '
    "found `3 MB`",
    upstream("key: ${NO_KEY}"): "F:4: upstreams.main.key: the variable NO_KEY is not set; set it, or write a default: "
    "${NO_KEY:-...}",
    upstream("key: ${1}"): "F:4: upstreams.main.key: `${` begins no variable; allowed: ${NAME}, ${NAME:-default}, "
    "$${ for a literal ${",
    upstream("url: x"): "F:4:5: upstreams.main.url: this key is given twice",
    upstream("headers: [a]"): "F:4: upstreams.main.headers: expected a mapping, found a list",
    upstream("headers: {'a b': c}"): "F:4: upstreams.main.headers.a b: `a b` is no header name; allowed are letters, "
    "digits and - _ . among others",
    upstream("headers: {Content-Length: '3'}"): "F:4: upstreams.main.headers.Content-Length: this header is the "
    "proxy's own to write",
    upstream('headers: {a: "b\\nc"}'): "F:4: upstreams.main.headers.a: holds a character that no header can carry, "
    "perhaps a line feed",
    upstream("forward_headers: [x-a, Authorization]"): "F:4: upstreams.main.forward_headers[1]: to pass the client's "
    "key on, set `pass_key: true`",
    upstream("dialect: chatt"): "F:4: upstreams.main.dialect: unknown dialect `chatt`; did you mean `chat`? "
    "Allowed: chat.",
    upstream("dialect: chat_stream"): "F:4: upstreams.main.dialect: unknown dialect `chat_stream`. Allowed: chat.",
    upstream("profile: {think_tag: true}"): "F:4: upstreams.main.profile.think_tag: unknown field `think_tag`; "
    "did you mean `think_tags`? Allowed: ",
    upstream("profile: {think_tags: 3}"): "F:4: upstreams.main.profile.think_tags: expected true or false, found `3`",
    upstream("profile: {base: vlm, video: true}"): "F:4: upstreams.main.profile.base: unknown profile `vlm`; "
    "did you mean `vllm`? Allowed: ",
    upstream("profile: 3"): "F:4: upstreams.main.profile: expected the name of a profile, or a mapping, found a number",
    MINIMAL + "routes: [{model: a, upstreams: [mian]}]": "F:2: routes[0].upstreams[0]: unknown upstream `mian`; "
    "did you mean `main`? Allowed: main.",
    MINIMAL + "routes:\n- {model: a, upstreams: []}": "F:3: routes[0].upstreams: expected `upstreams` or `pools`, "
    "one of the two, out of main",
    MINIMAL + "routes: [{upstreams: [main]}]": "F:2: routes[0].model: this field is required and missing",
    MINIMAL + "routes: [{model: '', upstreams: [main]}]": "F:2: routes[0].model: expected the name of a model, "
    "or * for all",
    MINIMAL + "routes: [{model: a, upstreams: [main], profile: ollma}]": "F:2: routes[0].profile: unknown profile "
    "`ollma`; did you mean `ollama`? Allowed: ",
    MINIMAL + "drain: 1" + 400 * "0": f"F:2: drain: expected a number from 0, found `1{400 * '0'}`",
    MINIMAL + "health: {check: {status: [200, 2]}}": "F:2: health.check.status[1]: expected a whole number from 100 to "
    "599, found `2`",
    MINIMAL + "health: {check: {status: []}}": "F:2: health.check.status: expected at least one entry",
    MINIMAL + "workers: 0": "F:2: workers: expected a whole number from 1, found `0`",
    MINIMAL + "retries: {budget: 20%}": "F:2: retries.budget: expected a number from 0 to 1, found `20%`",
    MINIMAL + "pools: {p: {upstreams: [main], policy: weigthed}}": "F:2: pools.p.policy: unknown value `weigthed`; did "
    "you mean `weighted`? Allowed: affinity, least_loaded, round_robin, weighted.",
    upstream("body: {since: 2024-01-01}"): "F:4: upstreams.main.body.since: expected what JSON has too, found a date: "
    "put it in quotes",
    upstream("body: {a: [1, .nan]}"): "F:4: upstreams.main.body.a[1]: JSON has no number `nan`",
    upstream("body: {a: {1: b}}"): "F:4: upstreams.main.body.a.1: names are text, and to YAML this is a number: put it "
    "in quotes",
    upstream("body: {a: !!set {b}}"): "F:4: upstreams.main.body.a: expected what JSON has too, found a value of a type "
    "that only YAML has: put it in quotes",
    route("defaults: {temprature: 1}"): "F:5: routes[0].defaults.temprature: unknown parameter `temprature`; did you "
    "mean `temperature`? Allowed: ",
    MINIMAL + "routes: {model: a}": "F:2: routes: expected a list, found a mapping",
}


@pytest.mark.parametrize("text", REFUSALS)
def test_a_bad_file_gets_one_message_that_says_where_what_and_what_else(tmp_path: Path, text: str) -> None:
    message = refusal(tmp_path, text)
    assert message == REFUSALS[text] or (REFUSALS[text].endswith(" ") and message.startswith(REFUSALS[text]))
    assert "\n" not in message


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000/v1",
        "ftp://a/v1",
        "http://a:99999/v1",
        "http://a b/v1",
        "http:///v1",
        "htp://a/v1",
        "http://a..b/v1",
    ],
)
def test_a_url_that_cannot_be_asked_is_refused(tmp_path: Path, url: str) -> None:
    message = refusal(tmp_path, f"upstreams: {{main: {{url: '{url}'}}}}")
    allowed = "expected http://HOST:PORT/v1, https://HOST/v1 or demo:"
    assert message == f"F:1: upstreams.main.url: {allowed}, found `{url}`"


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://a/v1/chat/completions", "it ends before /chat/completions"),
        ("http://a/v1/chat/completions/", "it ends before /chat/completions"),
        ("http://a/v1?b=c", "without ? and #"),
        ("http://u:hush@a/v1", "a URL holds no password here: use `key` or `headers`"),
        ("u:hush@a/v1", "expected http://HOST:PORT/v1, https://HOST/v1 or demo:"),
    ],
)
def test_a_url_that_would_not_do_what_was_meant_is_refused(tmp_path: Path, url: str, complaint: str) -> None:
    message = refusal(tmp_path, f"upstreams: {{main: {{url: '{url}'}}}}")
    assert message.endswith(complaint)
    assert "hush" not in message


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [1", "F:2:1: not YAML: "),
        ("a: 1\nb: c: d", "F:2:5: not YAML: "),
        ("a: *none", "F:1:4: not YAML: "),
        ("a: !none x", "F:1:4: not YAML: "),
        ("a: 1\n---\nb: 2", "F:2:1: not YAML: "),
        ("a: 1\nb: \x01", "F:2:4: not YAML: "),
        ("a: 2024-13-45", "F:1: a: this has the look or the tag of a YAML timestamp and is none; "),
    ],
)
def test_what_is_no_yaml_is_shown_by_line_and_column(tmp_path: Path, text: str, place: str) -> None:
    assert refusal(tmp_path, text).startswith(place)


@pytest.mark.parametrize("value", ["!!bool a", "!!int ''", "!!float ''", "!!float _", "!!timestamp a", "0x_"])
def test_what_is_not_what_its_tag_says_is_shown_by_its_field(tmp_path: Path, value: str) -> None:
    message = refusal(tmp_path, f"{MINIMAL}health:\n  slow_start: {value}")
    assert message.startswith("F:3: health.slow_start: this has the look or the tag of a YAML ")
    assert refusal(tmp_path, f"{MINIMAL}health:\n  ? {value}\n  : 1").startswith("F:3: health.")


def test_a_variable_that_only_looks_like_a_number_is_text(tmp_path: Path) -> None:
    values = {"A": "0x_", "B": ":".join("1" * 200) + ".0"}
    body = parse(tmp_path, upstream("body:\n      a: ${A}\n      b: ${B}"), values).upstreams["main"].body
    assert body == {"a": values["A"], "b": values["B"]}


def test_aliases_of_aliases_are_refused_before_they_are_many(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    message = refusal(tmp_path, MINIMAL + "\n".join(lines))
    assert message == "F:8: a6: more than 1,000,000 values, when aliases are replaced"


def test_whole_numbers_may_have_a_point(tmp_path: Path) -> None:
    config = parse(tmp_path, MINIMAL + "workers: 2.0\nlimits: {body: 1024.0}")
    assert (repr(config.workers), repr(config.limits.body)) == ("2", "1024")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: can't be read: No such file or directory$"):
        load(tmp_path / "none.yaml", {})
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(ConfigError, match=r"latin\.yaml: not UTF-8 at byte 3$"):
        load(tmp_path / "latin.yaml", {})


SECRET = "sk-hush"  # what a bad file must not tell


@pytest.mark.parametrize(
    "fields",
    [
        "key: [sk-hush]",
        "key: {sk-hush: 1}",
        'key: "sk-hush\\n"',
        "key: *sk-hush",
        "key: !sk-hush",
        "key: sk-hush: 1",
        "key: 'sk-hush",
        "headers: sk-hush",
        'headers: {authorization: "sk-hush\\x07"}',
        "body: sk-hush",
        "timeouts: sk-hush",
        "profile: {base: [sk-hush]}",
        "headers: {a: b}\nkeys: [{name: a, hash: sk-hush}]",
        "headers: {a: b}\nkeys: [{name: a, hash: 'sha256:sk-hush'}]",
        "headers: {a: b}\nkeys: [sk-hush]",
        "headers: {a: b}\nkeys: sk-hush",
        "headers: {a: b}\nadmin_keys: [sk-hush]",
        "headers: {a: b}\notel: {endpoint: 'http://127.0.0.1', headers: {a: \"sk-hush\\n\"}}",
        "proxy: 'http://u:sk-hush@a:x'",
    ],
)
def test_no_message_holds_a_key(tmp_path: Path, fields: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(tmp_path, upstream(fields))
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


def test_no_repr_holds_a_key(tmp_path: Path) -> None:
    own = upstream(
        "key: sk-hush\n    headers: {x-key: sk-hush}\n    body: {key: sk-hush}\n    proxy: http://u:sk-hush@a"
    )
    config = parse(tmp_path, own + "otel: {endpoint: 'http://127.0.0.1/v1/traces', headers: {x-key: sk-hush}}")
    assert config.upstreams["main"].key == SECRET
    assert SECRET not in repr(config)
