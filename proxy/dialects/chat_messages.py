"""Steps of a history -> messages of Chat Completions, as a profile wants them (RESPONSES.md 4.3 to 4.5)."""

from collections.abc import Iterator
from hashlib import blake2b
from itertools import count
from typing import Any, Literal

import msgspec

from proxy.core.content import MEDIA, Content, as_json, joined
from proxy.core.profile import Profile
from proxy.core.steps import Acted, Called, Said, Step
from proxy.dialects.chat_parts import is_text, lower
from proxy.errors import RequestError
from proxy.wire.items import Part

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

_object = msgspec.json.Decoder(dict[str, Any]).decode


def lower_steps(steps: list[Step], instructions: str | None, profile: Profile) -> list[dict[str, Any]]:
    """The messages; the steps are used up. Raises RequestError for what this upstream can't be told."""
    _scope_reasoning(steps, profile)
    if profile.tool_media == "next_message":
        steps = _without_tool_media(steps, profile)
    steps = _with_system(steps, instructions, profile)
    if profile.alternate_roles or profile.merge_assistant:
        steps = list(_merged(steps, profile))
    if profile.trailing_assistant == "error" and steps and isinstance(steps[-1], Acted) and not steps[-1].calls:
        message = "The input ends with an assistant message; for this upstream it must end with a user's or an output."
        raise RequestError(message, code="invalid_value", param="input")
    messages: list[dict[str, Any]] = []
    numbers = count()
    for step in steps:
        if isinstance(step, Said):
            messages.append(_said(step, profile))
        else:
            for call in step.calls:
                call.id = _call_id(call, next(numbers), profile)
            messages.append(_acted(step, profile))
            messages += [_tool(call, profile) for call in step.calls]
    return messages


def _scope_reasoning(steps: list[Step], profile: Profile) -> None:
    """Reasoning that this upstream must not see becomes None, and what it would miss becomes "" (pitfalls 28, 33)."""
    lost = "" if profile.reasoning_required else None
    in_loop = True
    for step in reversed(steps):
        if isinstance(step, Said):
            in_loop = in_loop and step.role != "user"
            continue
        scopes = {"tool_loop": in_loop, "tool_turns": bool(step.calls), "all": True, "never": False}
        step.reasoning = (step.reasoning or lost) if scopes[profile.reasoning_scope] else None


def _is_user(step: Step) -> bool:
    return isinstance(step, Said) and step.role == "user"


def _without_tool_media(steps: list[Step], profile: Profile) -> list[Step]:
    """A tool message holds text only: its images and files follow in a user message (pitfall 44)."""
    placed: list[Step] = []
    for step in steps:
        placed.append(step)
        moved: list[Part] = []
        for call in step.calls if isinstance(step, Acted) else ():
            if isinstance(call.output, str):
                continue
            if media := [part for part in call.output if not is_text(part, profile)]:
                texts = [part for part in call.output if is_text(part, profile)]
                call.output = [*texts, _text("(See the next message.)")]
                moved += [_text(f"From the output of {call.name}:"), *media]
        if moved:
            placed.append(Said("user", moved))
    return placed


def _text(text: str) -> Part:
    return Part(type="input_text", text=text)


def _with_system(steps: list[Step], instructions: str | None, profile: Profile) -> list[Step]:
    """System messages where the profile wants them; many templates know only a first one (pitfall 43)."""
    role: Literal["system", "user"] = "user" if profile.system_role == "user" else "system"
    leading = [instructions] if instructions else []
    placed: list[Step] = []
    for step in steps:
        if isinstance(step, Acted) or step.role == "user":
            placed.append(step)
            continue
        text = joined(step.content)
        if not placed and profile.system_position == "first_only":
            leading.append(text)
        elif profile.system_position == "first_only":
            placed.append(Said("user", f"<system>{text}</system>"))
        else:
            placed.append(Said(role, text))
        if not isinstance(step.content, str) and (media := [part for part in step.content if part.type in MEDIA]):
            placed.append(Said("user", media))
    return [Said(role, "\n\n".join(leading)), *placed] if leading else placed


def _merged(steps: list[Step], profile: Profile) -> Iterator[Step]:
    """Neighbours of one role as one step, as far as the profile wants it."""
    run: list[Step] = []
    for step in steps:
        if run and not _merge(run[-1], step, profile):
            yield _one(run)
            if profile.alternate_roles and isinstance(run[-1], Acted) and run[-1].calls and _is_user(step):
                # Mistral: 400 "Unexpected role 'user' after role 'tool'"; templates of its open models raise as well.
                yield Acted(None, "OK.", "", [])
            run = []
        run.append(step)
    if run:
        yield _one(run)


def _merge(last: Step, step: Step, profile: Profile) -> bool:
    if isinstance(last, Said) or isinstance(step, Said):
        return profile.alternate_roles and _is_user(last) and _is_user(step)
    return profile.merge_assistant and not last.calls


def _one(run: list[Step]) -> Step:
    if len(run) == 1:
        return run[0]
    said = [step.content for step in run if isinstance(step, Said)]
    if said:
        return Said("user", _joined_contents(said))
    acted = [step for step in run if isinstance(step, Acted)]
    thoughts = [step.reasoning for step in acted if step.reasoning is not None]
    return Acted(
        "\n\n".join(filter(None, thoughts)) if thoughts else None,
        "\n\n".join(step.text for step in acted if step.text),
        "\n\n".join(step.refusal for step in acted if step.refusal),
        acted[-1].calls,
    )


def _joined_contents(contents: list[Content]) -> Content:
    texts = [content for content in contents if isinstance(content, str)]
    if len(texts) == len(contents):
        return "\n\n".join(texts)
    parts: list[Part] = []
    for content in contents:
        parts += [_text(content)] if isinstance(content, str) else content
    return parts


def _said(step: Said, profile: Profile) -> dict[str, Any]:
    role = profile.system_role if step.role == "system" else "user"
    return {"role": role, "content": lower(step.content, profile)}


def _acted(step: Acted, profile: Profile) -> dict[str, Any]:
    # Always one string: many servers and templates take nothing else here (llama-cpp-python 0.3 answers 500).
    message: dict[str, Any] = {"role": "assistant"}
    text = step.text
    if step.refusal and profile.refusals == "text":
        text = f"{text}\n\n{step.refusal}" if text else step.refusal
    message["content"] = text or (None if profile.null_content else "")
    if step.refusal and profile.refusals == "field":
        message["refusal"] = step.refusal
    if step.reasoning is not None:
        message.update(dict.fromkeys(profile.reasoning_field, step.reasoning))
    if step.calls:
        message["tool_calls"] = [_call(call, profile) for call in step.calls]
    return message


def _call(call: Called, profile: Profile) -> dict[str, Any]:
    arguments = call.arguments
    if profile.args_must_be_json and not _is_object(arguments):
        arguments = as_json({"_raw": arguments})
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _is_object(arguments: str) -> bool:
    try:
        _object(arguments)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _tool(call: Called, profile: Profile) -> dict[str, Any]:
    content = lower(call.output, profile)
    if isinstance(content, list) and all(part["type"] == "text" for part in content):
        content = "\n".join(part["text"] for part in content)
    return {"role": "tool", "tool_call_id": call.id, "content": content}


def _call_id(call: Called, number: int, profile: Profile) -> str:
    """number: how many calls there are before it in the conversation."""
    match profile.call_ids:
        case "indexed":
            return f"functions.{call.name}:{number}"
        case "nine":
            return call.id if len(call.id) == 9 and call.id.isascii() and call.id.isalnum() else _nine(call.id)
    return call.id


def _nine(id: str) -> str:
    """Nine letters and digits, the same for the same id."""
    value = int.from_bytes(blake2b(id.encode(), digest_size=8).digest())
    return "".join(_BASE62[value // 62**place % 62] for place in range(9))
