"""Requests as real clients send them."""

from typing import Any

REQUEST = {"model": "m", "input": "hi"}
ECHO: dict[str, Any] = {
    "background": False,
    "conversation": None,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "model": "m",
    "moderation": None,
    "parallel_tool_calls": True,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "store": False,
    "temperature": 1,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}
"""What every snapshot of the response to REQUEST repeats."""

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


def text(role: str, words: str) -> dict[str, Any]:
    return {"type": "message", "id": "msg_1", "role": role, "content": [{"type": "input_text", "text": words}]}


def function(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "name": name, "description": "d", "parameters": SCHEMA} | fields


CODEX = {
    "model": "my-model",
    "stream": True,
    "input": [
        text("developer", "You are a coding agent"),
        text("developer", "<permissions instructions>"),
        text("user", "make hello"),
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "s"}],
            "content": None,
            "encrypted_content": "gAAAA",
        },
        {
            "type": "function_call",
            "status": "completed",
            "id": "fc_1",
            "name": "exec_command",
            "arguments": '{"cmd": "ls"}',
            "call_id": "call_1",
        },
        {"type": "function_call_output", "id": "fco_1", "call_id": "call_1", "output": "Chunk ID: 0eda00\nExit 0\n"},
    ],
    "tools": [function("exec_command", strict=False), function("write_stdin", strict=False)],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"summary": "auto"},
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "3f0c2ab1-9d7e-6350",
    "client_metadata": {"session_id": "s", "x-codex-turn-metadata": "{}"},
}
CODEX_SCHEMA = CODEX | {
    "text": {
        "verbosity": "low",
        "format": {"type": "json_schema", "strict": True, "name": "codex_output_schema", "schema": SCHEMA},
    },
    "reasoning": {"effort": "low", "context": "all_turns"},
    "parallel_tool_calls": False,
    "tools": [],
}
LLAMA_INDEX = {
    "model": "m",
    "input": [{"role": "user", "content": "hi"}],
    "include": None,
    "instructions": None,
    "max_output_tokens": None,
    "metadata": None,
    "previous_response_id": None,
    "user": None,
    "store": False,
    "temperature": 0.1,
    "tools": [],
    "truncation": "disabled",
}
AI_SDK = {
    "model": "m",
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
    "tools": [
        function("get", strict=False, parameters=SCHEMA | {"$schema": "http://json-schema.org/draft-07/schema#"})
    ],
    "tool_choice": "auto",
    "stream": True,
}
AGENTS = {
    "model": "m",
    "instructions": "be brief",
    "include": [],
    "tools": [],
    "input": [
        {"role": "user", "content": "hi"},
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "a", "annotations": [], "logprobs": []}],
        },
        {"role": "user", "content": "go on"},
    ],
}
LITELLM = REQUEST | {
    "tools": [function("get", strict=None, description=None)],
    "tool_choice": {"type": "function", "name": "get"},
}
LLM = CODEX | {"tools": [function("get", strict=False)], "text": {"format": {"type": "json_object"}}}
CLIENTS = {
    "codex": CODEX,
    "codex with a schema": CODEX_SCHEMA,
    "llama index": LLAMA_INDEX,
    "ai sdk": AI_SDK,
    "ai sdk without tools": REQUEST | {"tool_choice": "auto"},
    "agents": AGENTS,
    "litellm": LITELLM,
    "llm": LLM,
    "plain": REQUEST,
}
