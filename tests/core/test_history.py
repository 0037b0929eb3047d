"""Items -> steps: every row of the tables of RESPONSES.md 4.4 and 4.5."""

from typing import Any

import pytest
from hypothesis import given, settings

from proxy.core.calls import NOT_EXECUTED
from proxy.core.history import build
from proxy.core.steps import Acted, Called, Said, Step
from proxy.errors import RequestError
from tests.inputs import call, histories, items, output, says, thinks, user


def steps(*given: dict[str, Any]) -> list[Step]:
    return build(items(*given)).steps


def got(id: str, value: str, arguments: str = "{}") -> Called:
    return Called(id, "get", arguments, value)


def refused(*given: dict[str, Any]) -> str:
    with pytest.raises(RequestError) as caught:
        build(items(*given), strict=True)
    assert caught.value.status == 400
    assert caught.value.param == "input"
    return caught.value.message


def test_thought_text_and_calls_are_one_step() -> None:
    made = steps(thinks("hm"), says("Look."), call("a"), call("b"), output("b", "2"), output("a", "1"))
    assert made == [Acted("hm", "Look.", "", [got("a", "1"), got("b", "2")])]


def test_calls_after_outputs_are_the_next_step() -> None:
    made = steps(thinks("1"), call("a"), output("a", "x"), thinks("2"), call("b"), output("b", "y"))
    assert made == [Acted("1", "", "", [got("a", "x")]), Acted("2", "", "", [got("b", "y")])]


def test_a_message_between_call_and_output_moves_behind_the_output() -> None:
    made = steps(call("a"), user("hurry"), {"role": "developer", "content": "now"}, output("a", "x"), says("Done."))
    said = [Said("user", "hurry"), Said("system", "now")]
    assert made == [Acted("", "", "", [got("a", "x")]), *said, Acted("", "Done.", "", [])]


def test_a_text_between_call_and_output_joins_the_call() -> None:
    made = steps(says("One."), call("a"), says("Two."), output("a", "x"), says("Three."))
    assert made == [Acted("", "One.\n\nTwo.", "", [got("a", "x")]), Acted("", "Three.", "", [])]


def test_a_thought_between_call_and_output_joins_the_call() -> None:
    made = steps(thinks("1"), call("a"), thinks("2"), call("b"), output("a", "x"), output("b", "y"))
    assert made == [Acted("1\n\n2", "", "", [got("a", "x"), got("b", "y")])]


def test_the_output_of_an_earlier_call_does_not_answer_a_later_one() -> None:
    made = steps(call("a"), user("b"), call("b"), output("a", "x"), says("Two."), output("b", "y"))
    first = Acted("", "", "", [got("a", "x")])
    assert made == [first, Said("user", "b"), Acted("", "Two.", "", [got("b", "y")])]


def test_texts_in_a_row_are_steps_of_their_own() -> None:
    made = steps(says("One."), says("Two."), thinks("hm"), says("Three."))
    assert made == [Acted("", "One.", "", []), Acted("", "Two.", "", []), Acted("hm", "Three.", "", [])]


def test_an_output_may_stand_before_its_call() -> None:
    made = steps(output("a", "x"), call("a"), says("Done."))
    assert made == [Acted("", "", "", [got("a", "x")]), Acted("", "Done.", "", [])]


def test_parts_of_a_message_are_lines_and_a_refusal_is_kept_apart() -> None:
    content = [
        {"type": "output_text", "text": "a"},
        {"type": "text", "text": "b"},
        {"type": "refusal", "refusal": "no"},
    ]
    assert steps({"role": "assistant", "content": content}) == [Acted("", "a\nb", "no", [])]


@pytest.mark.parametrize("content", ["", [], None, [{"type": "output_text", "text": ""}]])
def test_an_empty_assistant_message_is_nothing(content: Any) -> None:
    empty = {"type": "message", "role": "assistant", "content": content}
    assert steps(user("a"), empty, call("a"), empty, output("a", "x")) == [
        Said("user", "a"),
        Acted("", "", "", [got("a", "x")]),
    ]


@pytest.mark.parametrize("role", ["user", "critic", "discriminator", "unknown", "tool"])
def test_roles_of_conversations_are_users(role: str) -> None:
    assert steps({"role": role, "content": "a"}) == [Said("user", "a")]


# Defects and their repair.


def test_a_call_without_output_gets_a_placeholder() -> None:
    assert steps(call("a"), user("go on")) == [Acted("", "", "", [got("a", NOT_EXECUTED)]), Said("user", "go on")]
    assert refused(call("a"), user("go on")) == "No tool output found for function call a."


def test_an_output_without_call_but_with_a_name_gets_a_call() -> None:
    given = user("a"), output("x", "late", name="get")
    assert steps(*given) == [Said("user", "a"), Acted("", "", "", [got("x", "late")])]
    assert refused(*given) == "No tool call found for function call output with call_id x."


def test_the_output_of_an_asynchronous_tool_may_have_only_a_name() -> None:
    assert steps(output(None, "late", name="get")) == [Acted("", "", "", [got("call_1", "late")])]


def test_an_output_without_call_and_name_becomes_a_users_word() -> None:
    assert steps(call("a"), output("x", "lost"), output("a", "1")) == [
        Acted("", "", "", [got("a", "1")]),
        Said("user", "Output of x:\nlost"),
    ]
    assert refused(output("x", "lost")) == "No tool call found for function call output with call_id x."


def test_a_second_output_becomes_a_users_word() -> None:
    given = call("a"), call("b"), output("a", "1"), output("a", "2"), output("b", "3"), says("Done.")
    assert steps(*given) == [
        Acted("", "", "", [got("a", "1"), got("b", "3")]),
        Said("user", "Additional output of a:\n2"),
        Acted("", "Done.", "", []),
    ]


def test_calls_with_the_same_id_get_their_own_outputs_and_new_ids() -> None:
    made = steps(call("a"), call("a"), output("a", "1"), output("a", "2"), call("a_1"), output("a_1", "3"))
    assert made == [Acted("", "", "", [got("a", "1"), got("a_1", "2")]), Acted("", "", "", [got("a_1_1", "3")])]


def test_an_id_used_again_in_a_later_turn_belongs_to_the_later_call() -> None:
    made = steps(call("a"), user("again"), call("a"), output("a", "2"))
    again = [Said("user", "again"), Acted("", "", "", [got("a_1", "2")])]
    assert made == [Acted("", "", "", [got("a", NOT_EXECUTED)]), *again]


def test_a_thought_without_anything_behind_it_is_dropped() -> None:
    given = thinks("hm", id="rs_1"), user("a")
    assert steps(*given) == [Said("user", "a")]
    assert refused(*given) == "Item 'rs_1' of type 'reasoning' was provided without its required following item."


def test_a_call_cut_off_in_its_arguments_is_dropped_with_its_output() -> None:
    cut, whole = call("a", '{"x":', status="incomplete"), call("b", '{"x":1}', status="incomplete")
    made = build(items(cut, output("a", "1"), whole, output("b", "2")), strict=True).steps
    assert made == [Acted("", "", "", [got("b", "2", '{"x":1}')])]


def test_of_items_with_one_id_the_first_is_kept() -> None:
    given = says("One.", id="msg_1"), says("Two.", id="msg_1")
    assert steps(*given) == [Acted("", "One.", "", [])]
    assert refused(*given).startswith("Duplicate item found with id msg_1.")


@pytest.mark.parametrize("arguments", ["", " ", None, {}])
def test_no_arguments_are_an_empty_object(arguments: Any) -> None:
    assert steps(call("a", arguments), output("a", "x")) == [Acted("", "", "", [got("a", "x")])]


@settings(deadline=None, max_examples=300)
@given(histories())
def test_no_history_has_an_empty_step_or_an_id_twice(history: tuple[list[dict[str, Any]], list[str]]) -> None:
    made = steps(*history[0])
    acted = [step for step in made if isinstance(step, Acted)]
    ids = [called.id for step in acted for called in step.calls]
    assert all(step.text or step.refusal or step.calls for step in acted)
    assert len(set(ids)) == len(ids)
