"""Every type of item -> what a model is told of it: the tables of RESPONSES.md 4.2, 4.10 and 4.11."""

from typing import Any

import pytest

from proxy.core.calls import NOT_EXECUTED
from proxy.core.history import build
from proxy.core.steps import Acted, Called, Step
from proxy.errors import RequestError
from proxy.wire.items import ItemReference, Other
from tests.inputs import call, items, output, says, thinks


def steps(*given: dict[str, Any]) -> list[Step]:
    return build(items(*given)).steps


SHELL_OUTPUT = [
    {"stdout": "a\n", "stderr": "b", "outcome": {"type": "exit", "exit_code": 1}},
    {"stdout": "", "stderr": "", "outcome": {"type": "timeout"}},
]
EXEC: dict[str, Any] = {
    "type": "exec",
    "command": ["ls", "-l"],
    "env": {},
    "timeout_ms": None,
    "working_directory": "/w",
}
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
        (
            [ASK, VERDICT | {"approve": False, "reason": "Too bold."}],
            Called("mcpr_1", "mcp__s__rm", "{}", "The user rejected this tool call. Too bold."),
        ),
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
)
def test_every_kind_of_call_is_a_function_call_with_its_output(given: list[dict[str, Any]], called: Called) -> None:
    assert steps(*given) == [Acted("", "", "", [called])]


def test_a_hosted_call_comes_before_what_was_said_because_of_it() -> None:
    one, two = MCP | {"output": "1"}, MCP | {"id": "mcp_2", "output": "2"}
    made = steps(one, says("One."), two, says("Two."))
    assert [(step.text, len(step.calls)) for step in made if isinstance(step, Acted)] == [
        ("", 1),
        ("One.", 1),
        ("Two.", 0),
    ]


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
    with pytest.raises(RequestError, match="No mcp_approval_request found with id mcpr_1") as caught:
        steps(VERDICT | {"approve": True})
    assert (caught.value.status, caught.value.param) == (400, "input")


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
    assert steps(call("a"), output("a", value)) == [Acted("", "", "", [Called("a", "get", "{}", text)])]


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
