"""Items -> messages, under every profile: order, roles, reasoning, ids."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from pydantic import TypeAdapter

from proxy.core.profile import Profile
from proxy.dialects.chat_profiles import PROFILES
from proxy.errors import RequestError
from tests.inputs import IMAGE, call, histories, output, says, text, thinks, user
from tests.lowering import GENERIC, function, messages, tool

OPENAI = TypeAdapter(CompletionCreateParamsStreaming)


def contents(
    *given: dict[str, Any], profile: Profile = GENERIC, instructions: str | None = None
) -> list[tuple[str, Any]]:
    return [(m["role"], m["content"]) for m in messages(*given, profile=profile, instructions=instructions)]


def replayed(profile: Profile, *given: dict[str, Any]) -> list[Any]:
    """The reasoning_content of each assistant message; "-" where there is none."""
    sent = messages(*given, profile=profile)
    return [m.get("reasoning_content", "-") for m in sent if m["role"] == "assistant"]


HISTORY: list[dict[str, Any]] = [
    {"role": "developer", "content": "be brief"},
    {"role": "user", "content": [text("compare"), {"type": "input_image", "image_url": IMAGE}]},
    thinks("need both", id="rs_1"),
    says("Checking."),
    call("call_a", '{"k":1}'),
    {"type": "custom_tool_call", "call_id": "call_b", "name": "run", "input": "ls"},
    user("hurry"),
    {"type": "custom_tool_call_output", "call_id": "call_b", "output": "x"},
    output("call_a", "1"),
    says("Done.", id="msg_9"),
    user("thanks"),
]


def test_a_whole_history() -> None:
    image = {"type": "image_url", "image_url": {"url": IMAGE}}
    calls = [function("call_a", "get", '{"k":1}'), function("call_b", "run", '{"input":"ls"}')]
    checking = {"role": "assistant", "content": "Checking.", "reasoning_content": "need both", "tool_calls": calls}
    assert messages(*HISTORY, instructions="You are X", profile=Profile(reasoning_scope="tool_turns")) == [
        {"role": "system", "content": "You are X\n\nbe brief"},
        {"role": "user", "content": [{"type": "text", "text": "compare"}, image]},
        checking,
        tool("call_a", "1"),
        tool("call_b", "x"),
        {"role": "user", "content": "hurry"},
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "thanks"},
    ]


# Roles.


def test_a_late_system_message_is_a_users_in_tags() -> None:
    given = {"role": "system", "content": "a"}, user("b"), {"role": "developer", "content": [text("c"), text("d")]}
    assert contents(*given, instructions="x") == [
        ("system", "x\n\na"),
        ("user", "b"),
        ("user", "<system>c\nd</system>"),
    ]


def test_system_messages_may_stand_anywhere() -> None:
    given = {"role": "system", "content": "a"}, user("b"), {"role": "developer", "content": "c"}
    assert contents(*given, instructions="x", profile=Profile(system_position="anywhere", system_role="developer")) == [
        ("developer", "x"),
        ("developer", "a"),
        ("user", "b"),
        ("developer", "c"),
    ]


def test_a_model_without_system_role_hears_the_user() -> None:
    profile = Profile(system_role="user", alternate_roles=True)
    assert contents(user("b"), instructions="x", profile=profile) == [("user", "x\n\nb")]
    assert contents(user("b"), instructions="x", profile=Profile(system_role="user")) == [("user", "x"), ("user", "b")]


def test_an_empty_system_message_is_none() -> None:
    assert contents({"role": "system", "content": ""}, user("a"), instructions="") == [("user", "a")]


def test_media_of_a_system_message_are_a_users() -> None:
    sent = contents({"role": "developer", "content": [text("a"), {"type": "input_image", "image_url": IMAGE}]})
    assert sent == [("system", "a"), ("user", [{"type": "image_url", "image_url": {"url": IMAGE}}])]


def test_neighbouring_users_become_one() -> None:
    picture = {"role": "user", "content": [text("c"), {"type": "input_image", "image_url": IMAGE}]}
    image = {"type": "image_url", "image_url": {"url": IMAGE}}
    profile = Profile(alternate_roles=True)
    assert contents(user("a"), user("b"), says("x"), user("b"), picture, profile=profile) == [
        ("user", "a\n\nb"),
        ("assistant", "x"),
        ("user", [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}, image]),
    ]


def test_between_a_tool_and_a_user_the_assistant_has_a_word() -> None:
    given = call("a"), output("a", "x"), user("b")
    roles = [role for role, _ in contents(*given, profile=Profile(alternate_roles=True))]
    assert roles == ["assistant", "tool", "assistant", "user"]
    assert [role for role, _ in contents(*given)] == ["assistant", "tool", "user"]


def test_neighbouring_assistants_become_one() -> None:
    given = says("a"), thinks("1"), says("b"), thinks("2"), call("a"), output("a", "x"), says("c"), user("d")
    sent = messages(*given, profile=Profile(merge_assistant=True, reasoning_scope="all"))
    calls = [function("a", "get", "{}")]
    assert sent == [
        {"role": "assistant", "content": "a\n\nb", "reasoning_content": "1\n\n2", "tool_calls": calls},
        tool("a", "x"),
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
    ]


def test_a_last_assistant_message_may_be_refused() -> None:
    assert contents(user("a"), says("b"))[-1] == ("assistant", "b")
    profile = Profile(trailing_assistant="error")
    assert contents(user("a"), call("a"), output("a", "x"), profile=profile)[-1] == ("tool", "x")
    with pytest.raises(RequestError, match="ends with an assistant message") as caught:
        messages(user("a"), says("b"), profile=profile)
    assert caught.value.param == "input"


# What an assistant message holds.


LOOP = [thinks("1"), says("a"), user("b"), thinks("2"), call("x"), output("x", "1"), user("c"), call("y")]
LOOP += [output("y", "2"), thinks("3"), says("d")]


@pytest.mark.parametrize(
    ("scope", "required", "expected"),
    [
        ("never", False, ["-", "-", "-", "-"]),
        ("never", True, ["-", "-", "-", "-"]),
        ("all", False, ["1", "2", "-", "3"]),
        ("all", True, ["1", "2", "", "3"]),
        ("tool_loop", False, ["-", "-", "-", "3"]),
        ("tool_loop", True, ["-", "-", "", "3"]),
        ("tool_turns", False, ["-", "2", "-", "-"]),
        ("tool_turns", True, ["-", "2", "", "-"]),
    ],
)
def test_reasoning_goes_back_as_far_as_the_profile_says(scope: Any, required: bool, expected: list[str]) -> None:
    assert replayed(Profile(reasoning_scope=scope, reasoning_required=required), *LOOP) == expected


def test_reasoning_goes_back_in_every_field_of_the_profile() -> None:
    [first, *_] = messages(thinks("1"), call("a"), output("a", "x"), profile=PROFILES["vllm"])
    assert (first["reasoning"], first["reasoning_content"]) == ("1", "1")
    assert messages(thinks("1"), says("a"), profile=Profile(reasoning_field=())) == [
        {"role": "assistant", "content": "a"}
    ]


@pytest.mark.parametrize(("null", "empty"), [(True, None), (False, "")])
def test_content_of_a_message_with_only_calls(null: bool, empty: str | None) -> None:
    assert messages(call("a"), output("a", "x"), profile=Profile(null_content=null))[0]["content"] == empty


def test_a_refusal_is_text_or_a_field() -> None:
    no = {
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Hm."}, {"type": "refusal", "refusal": "No."}],
    }
    assert messages(no) == [{"role": "assistant", "content": "Hm.\n\nNo."}]
    assert messages(no, profile=PROFILES["openai"]) == [{"role": "assistant", "content": "Hm.", "refusal": "No."}]
    only = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    assert messages(only) == [{"role": "assistant", "content": "No."}]
    assert messages(only, profile=PROFILES["openai"]) == [{"role": "assistant", "content": None, "refusal": "No."}]


@pytest.mark.parametrize("arguments", ["{no json", "[1]", '"text"', '{"a":' * 100_000])
def test_arguments_that_are_no_object_are_wrapped(arguments: str) -> None:
    [first, _] = messages(call("a", arguments), output("a", "x"))
    assert json.loads(first["tool_calls"][0]["function"]["arguments"]) == {"_raw": arguments}
    [first, _] = messages(call("a", arguments), output("a", "x"), profile=PROFILES["openai"])
    assert first["tool_calls"][0]["function"]["arguments"] == arguments


def test_call_ids_take_the_form_that_the_product_wants() -> None:
    given = (
        call("call_1"),
        call("abcDEF123"),
        output("call_1", "x"),
        output("abcDEF123", "y"),
        call("call_1"),
        user("a"),
    )
    nine, kept, other = [
        m["tool_call_id"] for m in messages(*given, profile=Profile(call_ids="nine")) if m["role"] == "tool"
    ]
    assert kept == "abcDEF123"
    assert all(len(made) == 9 and made.isascii() and made.isalnum() for made in (nine, other))
    assert nine != other
    indexed = [m["tool_call_id"] for m in messages(*given, profile=Profile(call_ids="indexed")) if m["role"] == "tool"]
    assert indexed == ["functions.get:0", "functions.get:1", "functions.get:2"]


# Tool messages.


def test_media_of_outputs_follow_in_a_users_message() -> None:
    media = [text("two pictures"), {"type": "input_image", "image_url": IMAGE, "detail": "original"}]
    sent = messages(call("a"), call("b"), output("a", media), output("b", "plain"))
    assert sent[1:3] == [tool("a", "two pictures\n(See the next message.)"), tool("b", "plain")]
    image = {"type": "image_url", "image_url": {"url": IMAGE, "detail": "high"}}
    assert sent[3:] == [{"role": "user", "content": [{"type": "text", "text": "From the output of get:"}, image]}]


def test_media_of_outputs_may_stay_there() -> None:
    media = [text("a picture"), {"type": "input_image", "image_url": IMAGE}]
    sent = messages(call("a"), output("a", media), profile=Profile(tool_media="inline"))
    image = {"type": "image_url", "image_url": {"url": IMAGE}}
    assert sent[1]["content"] == [{"type": "text", "text": "a picture"}, image]


def test_texts_of_an_output_are_one_string() -> None:
    for mode in ("inline", "next_message"):
        sent = messages(call("a"), output("a", [text("1"), text("2")]), profile=Profile(tool_media=mode))
        assert sent[1:] == [tool("a", "1\n2")]


# Any history, every product.


def check(sent: list[dict[str, Any]], profile: Profile) -> None:
    """Tool messages directly behind their calls and in their order, ids once, roles as the profile wants them."""
    ids: list[str] = []
    waiting: list[str] = []
    for message in sent:
        role = message["role"]
        if role == "tool":
            assert message["tool_call_id"] == waiting.pop(0)
        else:
            assert not waiting
        if role == "assistant":
            waiting = [called["id"] for called in message.get("tool_calls", [])]
            ids += waiting
            assert message["content"] or waiting or message.get("refusal")
    assert not waiting
    assert len(set(ids)) == len(ids)
    check_roles([message["role"] for message in sent], profile)


def check_roles(roles: list[str], profile: Profile) -> None:
    assert {*roles} <= {profile.system_role, "user", "assistant", "tool"}
    if profile.system_position == "first_only" and profile.system_role != "user":
        assert profile.system_role not in roles[1:]
    if profile.alternate_roles:
        assert not {("user", "user"), ("tool", "user")} & {*pairwise(roles)}
    if profile.merge_assistant:
        assert ("assistant", "assistant") not in pairwise(roles)


OTHERS = {
    "no system": Profile(system_role="user", alternate_roles=True, merge_assistant=True, reasoning_required=True),
    "inline": Profile(tool_media="inline", content_parts=False, reasoning_scope="all", call_ids="indexed"),
}


@pytest.mark.parametrize("profile", [pytest.param(p, id=name) for name, p in (PROFILES | OTHERS).items()])
@settings(deadline=None, max_examples=60)
@given(history=histories())
def test_any_history_becomes_legal_messages_and_nothing_is_lost(
    profile: Profile, history: tuple[list[dict[str, Any]], list[str]]
) -> None:
    given, marks = history
    sent = messages(*given, user("[last]"), profile=profile, instructions="[first]")
    check(sent, profile)
    OPENAI.validate_python({"model": "m", "messages": sent, "stream": True})
    told = json.dumps(sent)
    assert [mark for mark in [*marks, "[first]", "[last]"] if mark not in told] == []


RICH: list[dict[str, Any]] = [
    thinks("why", id="rs_1", encrypted_content=None, status="completed"),
    says("Look.", id="msg_1", status="completed", phase=None),
    call("call_1", '{"k":1}', id="fc_1", status="completed", namespace=None),
    output("call_1", "x", id=None, status=None),
    says("Done.", id="msg_2", status="completed"),
]


def without(keys: set[str], value: Any) -> Any:
    if isinstance(value, list):
        return [without(keys, entry) for entry in value]
    if isinstance(value, dict):
        return {key: without(keys, entry) for key, entry in value.items() if key not in keys}
    return value


def test_output_items_come_back_the_same_in_every_form() -> None:
    whole = messages(*RICH, user("a"))
    bare = without({"id", "status", "phase", "namespace", "annotations", "logprobs", "encrypted_content"}, RICH)
    nulls = [{"id": None, "status": None, "phase": None, **item, "extra": None} for item in bare]
    plain = [item | {"content": item["content"][0]["text"]} if item["type"] == "message" else item for item in bare]
    for form in (bare, nulls, plain):
        assert messages(*form, user("a")) == whole
