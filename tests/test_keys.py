"""Whose key it is, what it opens, and the command that makes one."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.errors import RequestError
from proxy.keys import Grant, Keyring, hash_of, main, make_key
from proxy.values import KeyHash

ALICE, BOB, ROOT = "sk-alice-0123456789", "sk-bob-0123456789", "sk-root-0123456789"
GRANTS = [
    Grant("alice", hash_of(ALICE)),
    Grant("bob", hash_of(BOB), models=("small", "qwen-*", "v?[1]")),
]
RING = Keyring(GRANTS, [hash_of(ROOT)])
TEXT = st.text(st.characters(), max_size=40)  # lone surrogates too, which is how aiohttp decodes odd bytes


def sent(**headers: str) -> Mapping[str, str]:
    """Underscores stand for hyphens."""
    return CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})


def refusal(headers: Mapping[str, str], ring: Keyring = RING) -> RequestError:
    with pytest.raises(RequestError) as caught:
        ring.find(headers)
    return caught.value


def admin_status(headers: Mapping[str, str], ring: Keyring = RING) -> int:
    try:
        ring.admin(headers)
    except RequestError as error:
        return error.status
    return 200


# Who asks


@pytest.mark.parametrize(
    "headers",
    [
        sent(Authorization=f"Bearer {ALICE}"),
        sent(authorization=f"bearer   {ALICE} "),
        sent(X_Api_Key=ALICE),
        sent(api_key=f" {ALICE}"),
        sent(Authorization="Basic YTpi", x_api_key=ALICE),
        sent(Authorization="Bearer meant-for-the-upstream", x_api_key=ALICE),
    ],
)
def test_a_key_is_found_wherever_clients_put_it(headers: Mapping[str, str]) -> None:
    assert RING.find(headers) is GRANTS[0]


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer  ", "Basic YTpi", ALICE, f"Bearer\t{ALICE}"])
def test_who_sends_no_key_is_told_how_to(value: str) -> None:
    error = refusal(sent(Authorization=value))
    assert (error.status, error.type, error.code) == (401, "invalid_request_error", None)
    assert "Authorization: Bearer" in error.message


@pytest.mark.parametrize("key", [ALICE[:-1], ALICE + "0", ALICE.upper(), ROOT, hash_of(ALICE), "é" * 8, "\udcff"])
def test_a_wrong_key_is_refused(key: str) -> None:
    error = refusal(sent(Authorization=f"Bearer {key}"))
    assert (error.status, error.type, error.code) == (401, "invalid_request_error", "invalid_api_key")


@given(TEXT.filter(lambda text: text.strip() and text.strip() not in {ALICE, BOB}))
def test_a_refusal_says_nothing_of_the_key(key: str) -> None:
    assert refusal(sent(x_api_key=key)).detail() == refusal(sent(x_api_key="other")).detail()


@example({"Authorization": f"Bearer {ALICE}"})
@given(st.dictionaries(st.sampled_from(["Authorization", "x-api-key", "api-key"]) | TEXT, TEXT))
def test_whatever_is_sent_gives_a_grant_or_a_refusal(headers: dict[str, str]) -> None:
    try:
        found: Grant | RequestError | None = RING.find(CIMultiDict(headers))
    except RequestError as error:
        found = error
    assert found in GRANTS or (isinstance(found, RequestError) and found.status == 401)


def test_without_keys_everybody_may_ask() -> None:
    assert Keyring().find(sent()) is None
    assert Keyring(admin_hashes=[hash_of(ROOT)]).find(sent(x_api_key="any")) is None


def test_a_digest_that_is_right_in_part_is_refused() -> None:
    right = hash_of(ALICE)
    for index in (len("sha256:"), 40, len(right) - 1):
        other = right[:index] + ("0" if right[index] != "0" else "1") + right[index + 1 :]
        assert refusal(sent(x_api_key=ALICE), Keyring([Grant("other", other)])).status == 401


def test_each_of_many_keys_is_found() -> None:
    keys = [make_key() for _ in range(1000)]
    ring = Keyring([Grant(str(number), hashed) for number, (_, hashed) in enumerate(keys)])
    found = [ring.find(sent(x_api_key=key)) for key, _ in keys]
    assert [grant and grant.name for grant in found] == [str(number) for number in range(1000)]


# Which models


@pytest.mark.parametrize("model", ["small", "qwen-3", "qwen-", "qwen-a\nb", "vx[1]"])
def test_a_key_opens_its_models(model: str) -> None:
    RING.allows(GRANTS[1], model)
    RING.allows(GRANTS[0], model)


@pytest.mark.parametrize("model", ["", "smaller", "Small", "my-qwen-3", "qwen", "vx1", "v[1]", "small\n"])
def test_other_models_are_refused_by_naming_those_that_are_open(model: str) -> None:
    with pytest.raises(RequestError) as caught:
        RING.allows(GRANTS[1], model)
    error = caught.value
    assert (error.status, error.code, error.param) == (403, "model_not_found", "model")
    assert all(name in error.message for name in (repr(model), "'small'", "'qwen-*'"))


def test_a_long_name_of_a_model_is_matched_in_little_time() -> None:
    grant = Grant("g", hash_of("g"), models=("*a" * 10 + "*b",))  # would take hours by going back
    assert not Keyring([grant]).takes(grant, "a" * 10_000)


def test_a_key_without_models_opens_none() -> None:
    grant = Grant("g", hash_of("g"), models=())
    with pytest.raises(RequestError, match="Allowed are: none"):
        Keyring([grant]).allows(grant, "")


def test_a_name_of_any_length_makes_a_short_message() -> None:
    with pytest.raises(RequestError) as caught:
        RING.allows(GRANTS[1], "m" * 1_000_000)
    assert len(caught.value.message) < 300


# What goes on to others


@pytest.mark.parametrize("key", [ALICE, ROOT])
@pytest.mark.parametrize("form", ["{}", " {}\t", "Bearer {}", "token={}", "a=b; key={}; c=d", '"{}"', "x,{}"])
def test_a_header_with_a_key_is_not_there_for_others(key: str, form: str) -> None:
    assert RING.holds(form.format(key))
    view = RING.without_keys(sent(X_Any=form.format(key), X_Other="other"))
    assert ("x-any" in view, view.get("X-Any"), dict(view)) == (False, None, {"X-Other": "other"})


@given(st.text(st.characters(codec="ascii", exclude_categories=("Cc", "Zs")), min_size=1))
def test_a_key_of_any_signs_is_seen(key: str) -> None:
    ring = Keyring([], [hash_of(key)])
    assert all(ring.holds(form.format(key)) for form in ("{}", "Bearer {}", "ApiKey  {} ", "token={}", "a=b c={}"))


@pytest.mark.parametrize("value", ["", " ", "Bearer", "Bearer sk-other", ALICE[:-1], ALICE + "0"])
def test_other_headers_are_there(value: str) -> None:
    assert RING.without_keys(sent(X_Any=value))["x-any"] == value


def test_without_keys_the_headers_are_as_they_are() -> None:
    headers = sent(X_Any=ALICE)
    assert Keyring().without_keys(headers) is headers
    assert not Keyring().holds(ALICE)


# Who administers


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 401), ({"x_api_key": "x"}, 401), ({"x_api_key": BOB}, 403), ({"api_key": ROOT}, 200)]
)
def test_only_an_admin_key_opens_admin(headers: dict[str, str], status: int) -> None:
    assert admin_status(sent(**headers)) == status


def test_without_admin_keys_there_is_no_admin() -> None:
    assert admin_status(sent(x_api_key=ALICE), Keyring(GRANTS)) == 404


# The command


def test_keys_are_new_each_time_and_hard_to_guess() -> None:
    keys = {make_key()[0] for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("sk-") and len(key) == 46 for key in keys)


def test_the_command_shows_a_key_once_and_its_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    (key,) = (line for line in said.splitlines() if line.startswith("sk-"))
    assert said.count(key) == 1
    client, admin = said.split("or for /admin:")
    (entry,) = yaml.safe_load(client[client.index("keys:") :])["keys"]
    assert entry["hash"] == yaml.safe_load(admin)["admin_keys"][0] == hash_of(key)
    assert KeyHash.from_yaml(entry["hash"], "keys[0].hash") == hash_of(key)


def hashed(given: bytes) -> subprocess.CompletedProcess[bytes]:
    code = "import sys; from proxy.keys import main; sys.exit(main(['--hash']))"
    root = Path(__file__).parent.parent
    return subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, cwd=root, check=False)


def test_the_command_hashes_a_key_of_ones_own_without_showing_it() -> None:
    ran = hashed(ALICE.encode() + b"\r\n")
    assert ran.returncode == 0
    assert hash_of(ALICE) in ran.stdout.decode()
    assert b"may be guessed" in ran.stderr
    assert ALICE.encode() not in ran.stdout + ran.stderr


@pytest.mark.parametrize("key", [b"", b"\n", b"two words\n", b"\xffkey\n", "schlüssel\n".encode()])
def test_what_no_header_can_carry_is_no_key(key: bytes) -> None:
    ran = hashed(key)
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert b"visible ASCII" in ran.stderr
