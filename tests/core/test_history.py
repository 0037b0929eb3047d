"""Items -> steps: every row of the tables of RESPONSES.md 4.4, 4.5 and 4.11."""

from typing import Any

import pytest
from hypothesis import given, settings

from proxy.core.calls import NOT_EXECUTED
from proxy.core.history import build
from proxy.core.steps import Acted, Called, Said, Step
from proxy.errors import RequestError
from proxy.wire.items import ItemReference, Other
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


# Kinds of items.

SHELL_OUTPUT = [
    {"stdout": "a\n", "stderr": "b", "outcome": {"type": "exit", "exit_code": 1}},
    {"stdout": "", "stderr": "", "outcome": {"type": "timeout"}},
]
EXEC = {"type": "exec", "command": ["ls", "-l"], "env": {}, "timeout_ms": None, "working_directory": "/w"}
FAILED = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": "broke"}]}
PATCH = {"type": "delete_file", "path": "a"}
MCP = {"type": "mcp_call", "id": "mcp_1", "server_label": "my.server", "name": "find", "arguments": '{"q":1}'}
ASK = {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "s", "name": "rm", "arguments": "{}"}
VERDICT = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1"}


@pytest.mark.parametrize(
    ("given", "called"),
    [
        (
            [call("a", {"k": 1}, namespace="ns"), output("a", None)],
            Called("a", "ns__get", '{"k":1}', ""),
        ),
        (
            [
                {"type": "custom_tool_call", "call_id": "a", "name": "run", "input": "ls", "id": "ctc_1"},
                {"type": "custom_tool_call_output", "call_id": "a", "output": {"code": 0}},
            ],
            Called("a", "run", '{"input":"ls"}', '{"code":0}'),
        ),
        ([MCP | {"output": "yes", "error": None}], Called("mcp_1", "mcp__my_server__find", '{"q":1}', "yes")),
        ([MCP | {"output": None, "error": FAILED}], Called("mcp_1", "mcp__my_server__find", '{"q":1}', "broke")),
        ([MCP | {"error": {"message": "gone"}}], Called("mcp_1", "mcp__my_server__find", '{"q":1}', "gone")),
        ([MCP], Called("mcp_1", "mcp__my_server__find", '{"q":1}', NOT_EXECUTED)),
        ([ASK, VERDICT | {"approve": False, "reason": "Too bold."}], Called("mcpr_1", "mcp__s__rm", "{}", "The user rejected this tool call. Too bold.")),
        ([ASK], Called("mcpr_1", "mcp__s__rm", "{}", "The tool call was not approved, and not executed.")),
        (
            [ASK, VERDICT | {"approve": True}, MCP | {"approval_request_id": "mcpr_1", "output": "yes"}],
            Called("mcp_1", "mcp__my_server__find", '{"q":1}', "yes"),
        ),
        (
            [{"type": "file_search_call", "id": "fs_1", "queries": ["q"], "results": [{"text": "t"}]}],
            Called("fs_1", "file_search", '{"queries":["q"]}', '[{"text":"t"}]'),
        ),
        (
            [{"type": "code_interpreter_call", "id": "ci_1", "code": "1", "outputs": [{"type": "logs", "logs": "2"}]}],
            Called("ci_1", "code_interpreter", '{"code":"1"}', "2"),
        ),
        (
            [
                {"type": "local_shell_call", "call_id": "a", "id": "lsh_1", "action": EXEC},
                {"type": "local_shell_call_output", "id": "lsh_1", "output": '{"ok":1}'},
            ],
            Called("a", "local_shell", '{"command":["ls","-l"],"workdir":"/w"}', '{"ok":1}'),
        ),
        (
            [
                {"type": "shell_call", "call_id": "a", "action": {"commands": ["ls"], "timeout_ms": 5}},
                {"type": "shell_call_output", "call_id": "a", "output": SHELL_OUTPUT},
            ],
            Called("a", "shell", '{"commands":["ls"],"timeout_ms":5}', "a\n\nb\n[exit code 1]\n[timed out]"),
        ),
        (
            [
                {"type": "apply_patch_call", "call_id": "a", "operation": PATCH},
                {"type": "apply_patch_call_output", "call_id": "a", "status": "failed", "output": "no such file"},
            ],
            Called("a", "apply_patch", '{"operation":{"type":"delete_file","path":"a"}}', "failed\nno such file"),
        ),
        (
            [
                {"type": "tool_search_call", "call_id": "a", "execution": "client", "arguments": {"goal": "g"}},
                {"type": "tool_search_output", "call_id": "a", "tools": [{"name": "n", "description": "d", "x": 1}]},
            ],
            Called("a", "tool_search", '{"goal":"g"}', '[{"name":"n","description":"d"}]'),
        ),
        (
            [
                {"type": "magic_call", "call_id": "a", "word": "abra", "status": "completed"},
                {"type": "magic_output", "call_id": "a", "rabbits": 2},
            ],
            Called("a", "magic", '{"word":"abra"}', '{"rabbits":2}'),
        ),
    ],
)  # fmt: skip
def test_every_kind_of_call_is_a_function_call_with_its_output(given: list[dict[str, Any]], called: Called) -> None:
    assert steps(*given) == [Acted("", "", "", [called])]


def test_hosted_calls_come_before_what_was_said_because_of_them() -> None:
    made = steps(MCP | {"output": "1"}, says("One."), MCP | {"id": "mcp_2", "output": "2"}, says("Two."))
    assert [(step.text, len(step.calls)) for step in made if isinstance(step, Acted)] == [("", 1), ("One.", 0), ("", 1), ("Two.", 0)]  # fmt: skip


def test_a_generated_image_is_mentioned() -> None:
    made = steps({"type": "image_generation_call", "result": "AAAA", "revised_prompt": "a cat"})
    assert made == [Acted("", "[image generated: a cat]", "", [])]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "web_search_call", "action": {"type": "search", "query": "q"}},
        {"type": "mcp_list_tools", "server_label": "s", "tools": []},
    ],
)
def test_some_items_say_nothing_and_are_not_missed(item: dict[str, Any]) -> None:
    history = build(items(item))
    assert (history.steps, history.ignored) == ([], [])


@pytest.mark.parametrize(
    "item",
    [
        {"type": "compaction", "encrypted_content": "x"},
        {"type": "configuration_update", "reasoning": {"effort": "low"}},
        {"type": "file_search_call", "queries": ["q"], "results": None},
        {"type": "tool_search_call", "call_id": None, "execution": "server", "arguments": {}},
        {"type": "tool_search_output", "call_id": None, "execution": "server", "tools": []},
        {"type": "program", "call_id": "a", "code": "1"},
        {"type": "program_output", "call_id": "a", "result": "1"},
        {"type": "agent_message", "content": "a"},
        {"type": "multi_agent_call", "call_id": "a"},
        {"type": "ghost_snapshot"},
        {"type": "magic_call", "call_id": "a"},
        {"type": "magic_call"},
        {"type": "magic_call_output", "call_id": "a", "output": "x"},
    ],
)
def test_what_means_nothing_to_a_model_is_counted(item: dict[str, Any]) -> None:
    history = build(items(item), strict=True)
    assert (history.steps, history.ignored) == ([], [item["type"]])


@pytest.mark.parametrize("type", ["computer_call", "computer_call_output"])
def test_computer_use_is_refused(type: str) -> None:
    with pytest.raises(RequestError, match=type):
        build([Other(type, None, {})])


def test_a_reference_that_nobody_resolved_is_not_found() -> None:
    with pytest.raises(RequestError, match="Item with id 'msg_1' not found") as caught:
        build([ItemReference("msg_1")])
    assert caught.value.status == 404


def test_an_approval_of_nothing_is_refused() -> None:
    assert refused(VERDICT | {"approve": True}) == "No mcp_approval_request found with id mcpr_1."


def test_media_in_an_assistant_message_are_refused() -> None:
    with pytest.raises(RequestError, match="'input_image'"):
        steps({"role": "assistant", "content": [{"type": "input_image", "image_url": "x"}]})


def test_thought_is_read_from_the_summary_only_if_there_is_no_content() -> None:
    summary = [{"type": "summary_text", "text": "short"}, {"type": "summary_text", "text": "and good"}]
    whole, short = thinks("raw", summary=summary), {"type": "reasoning", "content": None, "summary": summary}
    assert steps(whole, says("a"), short, says("b")) == [
        Acted("raw", "a", "", []),
        Acted("short\n\nand good", "b", "", []),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [([], ""), ({"a": 1}, '{"a":1}'), ([1, "b"], '[1,"b"]'), ([{"type": "new"}], '[{"type":"new"}]'), (7, "7")],
)
def test_an_output_of_any_other_form_is_json(value: Any, text: str) -> None:
    assert steps(call("a"), output("a", value)) == [Acted("", "", "", [got("a", text)])]


def test_a_part_of_unknown_type_in_an_output_is_json() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "new", "x": 1}, "b", {"type": "input_text", "text": 5}]
    [step] = steps(call("a"), output("a", parts))
    assert isinstance(step, Acted)
    assert [part.text for part in step.calls[0].output if not isinstance(part, str)] == [
        "a",
        '{"type":"new","x":1}',
        "b",
        '{"type":"input_text","text":5}',
    ]


@settings(deadline=None, max_examples=300)
@given(histories())
def test_no_history_has_an_empty_step_or_an_id_twice(history: tuple[list[dict[str, Any]], list[str]]) -> None:
    made = steps(*history[0])
    acted = [step for step in made if isinstance(step, Acted)]
    ids = [called.id for step in acted for called in step.calls]
    assert all(step.text or step.refusal or step.calls for step in acted)
    assert len(set(ids)) == len(ids)
