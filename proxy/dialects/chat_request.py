"""A turn -> the body of a Chat Completions request (RESPONSES.md 6.1).

Nothing is sent that was not asked for: unknown and empty fields make servers answer 400 and 422. What was asked for and
can't be said is named in the turn's `dropped`.
"""

from typing import Any

import msgspec
from msgspec import Raw

from proxy.core.history import build
from proxy.core.profile import Profile
from proxy.core.turn import Format, Options, Turn
from proxy.dialects.chat_messages import lower_steps
from proxy.dialects.chat_parts import Unsayable
from proxy.errors import RequestError
from proxy.wire.items import Function, Item, Message, Part

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

_MATTERS = {"service_tier": ("auto", "default"), "verbosity": ("medium",)}
"""Hints that are missed when dropped, with the values that ask for nothing. The others serve caches and statistics."""

_NO_PARAMETERS = Raw(b'{"type":"object","properties":{}}')

_encode = msgspec.json.Encoder().encode


def encode(turn: Turn, profile: Profile) -> bytes:
    """See proxy.dialects.Dialect. Fills turn.dropped and turn.ignored, from the start each time."""
    history = build(turn.items, strict=profile.history_repair == "strict")
    turn.ignored[:] = history.ignored
    turn.dropped.clear()
    try:
        messages = lower_steps(history.steps, _instructions(turn, profile), profile)
    except Unsayable as error:
        error.param = _place(turn.items, error.part, error.field)
        raise
    if not messages:
        raise RequestError(
            "Invalid 'input': it holds nothing to be said to a model.", code="invalid_value", param="input"
        )
    body: dict[str, Any] = {"model": turn.model, "messages": messages, "stream": True}
    if profile.stream_usage:
        body["stream_options"] = {"include_usage": True}
    options = turn.options
    _sample(body, options, profile)
    if turn.functions:
        body |= _tools(turn, profile)
    if options.format is not None:
        body |= _response_format(options.format, turn, profile)
    if options.effort is not None:
        body |= _effort(options.effort, turn, profile)
    if options.hints:
        body |= _hints(turn, profile)
    for name, value in options.extra.items():
        ours = body.get(name)
        body[name] = ours | value if isinstance(ours, dict) and isinstance(value, dict) else value
    return _encode(body)


def _place(items: list[Item], part: Part, field: str) -> str:
    """Where in the request the part stands."""
    for index, item in enumerate(items):
        if isinstance(item, Message) and isinstance(item.content, list):
            for number, candidate in enumerate(item.content):
                if candidate is part:
                    return f"input[{index}].content[{number}].{field}"
    return "input"  # in the output of a call


def _instructions(turn: Turn, profile: Profile) -> str | None:
    form = turn.options.format
    if form is None or form.schema is None or profile.json_schema != "prompt":
        return turn.instructions
    schema = f"Answer with one JSON object that satisfies this JSON schema:\n{bytes(form.schema).decode()}"
    return f"{turn.instructions}\n\n{schema}" if turn.instructions else schema


def _sample(body: dict[str, Any], options: Options, profile: Profile) -> None:
    if options.temperature is not None:
        body["temperature"] = options.temperature
    if options.top_p is not None:
        body["top_p"] = options.top_p
    if options.presence_penalty is not None:
        body["presence_penalty"] = options.presence_penalty
    if options.frequency_penalty is not None:
        body["frequency_penalty"] = options.frequency_penalty
    if options.max_output_tokens is not None:
        body[profile.max_tokens] = options.max_output_tokens
    if options.logprobs:
        body["logprobs"] = True
        if options.top_logprobs:
            body["top_logprobs"] = options.top_logprobs


def _tools(turn: Turn, profile: Profile) -> dict[str, Any]:
    """Neither tools nor what belongs to them when there are none: vLLM answers 400 (pitfall 51)."""
    options = turn.options
    functions, choice = _choose(turn, profile)
    if not functions:
        return {}
    sent: dict[str, Any] = {"tools": [_tool(function, profile) for function in functions]}
    if not profile.strict_tools and any(function.strict for function in functions):
        turn.dropped.append("tools.strict")
    if choice is not None:
        sent["tool_choice"] = choice
    if options.parallel_tool_calls is False:
        sent["parallel_tool_calls"] = False
    return sent


def _choose(turn: Turn, profile: Profile) -> tuple[list[Function], Any]:
    """The functions to offer and the tool_choice to send, None for none."""
    functions, choice = turn.functions, turn.options.tool_choice
    if not functions or choice is None:
        return functions, None
    if turn.options.forced:
        named = [function for function in functions if function.name == choice]
        if not named:
            message = f"Tool choice '{choice}' not found in 'tools' parameter."
            raise RequestError(message, code="invalid_value", param="tool_choice")
        if profile.tool_choice == "full":
            return functions, {"type": "function", "function": {"name": choice}}
        functions, choice = named, "required"
    if profile.tool_choice != "auto_only":
        return functions, choice
    if choice == "none":
        return [], None
    if choice == "required":
        turn.dropped.append("tool_choice")
    return functions, None


def _tool(function: Function, profile: Profile) -> dict[str, Any]:
    inner: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        inner["description"] = function.description
    inner["parameters"] = _NO_PARAMETERS if function.parameters is None else function.parameters
    if function.strict is not None and profile.strict_tools:
        inner["strict"] = function.strict
    return {"type": "function", "function": inner}


def _response_format(form: Format, turn: Turn, profile: Profile) -> dict[str, Any]:
    if profile.json_schema == "none":
        turn.dropped.append("text.format")
        return {}
    sent: dict[str, Any] = {"type": "json_object"}
    if form.schema is not None and profile.json_schema == "json_schema":
        sent = {"type": "json_schema", "json_schema": _schema(form)}
    elif form.schema is not None and profile.json_schema == "json_object":
        sent["schema"] = form.schema
    return {"response_format": sent}


def _schema(form: Format) -> dict[str, Any]:
    sent: dict[str, Any] = {"name": form.name, "schema": form.schema}
    if form.description is not None:
        sent["description"] = form.description
    if form.strict is not None:
        sent["strict"] = form.strict
    return sent


def _effort(effort: str, turn: Turn, profile: Profile) -> dict[str, Any]:
    match profile.effort:
        case "reasoning_effort":
            return {"reasoning_effort": clamp(effort, profile.efforts)}
        case "reasoning":
            return {"reasoning": {"effort": clamp(effort, profile.efforts)}}
        case "enable_thinking":
            return {"chat_template_kwargs": {"enable_thinking": effort != "none"}}
        case "thinking":
            return {"thinking": {"type": "disabled" if effort == "none" else "enabled"}}
    turn.dropped.append("reasoning.effort")
    return {}


def clamp(effort: str, known: tuple[str, ...]) -> str:
    """The nearest known step below, else the lowest known; never "none", which would end all thinking."""
    if effort in known or effort not in _EFFORTS:
        return effort
    steps = [step for step in _EFFORTS if step in known and step != "none"]
    lower = [step for step in steps if _EFFORTS.index(step) < _EFFORTS.index(effort)]
    return lower[-1] if lower else steps[0] if steps else effort


def _hints(turn: Turn, profile: Profile) -> dict[str, Any]:
    sent: dict[str, Any] = {}
    for name, value in turn.options.hints.items():
        if name in profile.hints:
            sent[name] = value
        elif name in _MATTERS and value not in _MATTERS[name]:
            turn.dropped.append("text.verbosity" if name == "verbosity" else name)
    return sent
