"""POST /v1/responses: the request, and what of it every snapshot of the response repeats."""

from typing import Any

from msgspec import Raw
from msgspec.json import Encoder
from msgspec.structs import asdict

from proxy.wire.body import Body, Text, decode_body
from proxy.wire.bounds import check_body, decode_schema
from proxy.wire.input import decode_input
from proxy.wire.invalid import unreadable
from proxy.wire.items import Function, Item
from proxy.wire.tools import Choice, choose, decode_tools


class Create(Body, kw_only=True):
    """A request that has been checked: the fields as sent, None where the client said nothing, and what they come to.

    items: `input`, decoded.
    functions: `tools`, decoded; choice.offered are those that the model may call.
    schema: of text.format, when that is a json_schema.
    unknown: the fields that the API does not know, by name.
    """

    model: str
    items: list[Item]
    functions: list[Function]
    choice: Choice
    schema: Raw | None
    unknown: dict[str, Raw]

    @property
    def tier(self) -> str:
        """The service tier that is asked for."""
        return self.service_tier or "auto"

    @property
    def summary(self) -> str | None:
        """The kind of reasoning summary that is asked for, or None."""
        return (self.reasoning.summary or self.reasoning.generate_summary) if self.reasoning else None


_encode = Encoder().encode


def decode_create(data: bytes, *, strict: bool = False) -> Create:
    """Decode and check the body of a request (RESPONSES.md 2).

    Raises RequestError, a 400 that names the parameter (2.9), in the order of 2.6.
    strict: unknown fields are refused. `store: true` is accepted although nothing is stored yet; the echo says false.
    """
    try:
        body, unknown = decode_body(data, strict=strict)
        check_body(body)
        assert body.input is not None
        schema = decode_schema(body.text)
        items = decode_input(body.input)
        functions = decode_tools(body.tools or [])
        choice = choose(body.tool_choice, functions)
    except RecursionError:
        raise unreadable("it is nested too deeply") from None
    return Create(**asdict(body), items=items, functions=functions, choice=choice, schema=schema, unknown=unknown)


def echo(create: Create) -> bytes:
    """The part of a response that all its snapshots have in common (3.1), as JSON members without the braces.

    Not in it: id, object, created_at, completed_at, status, error, incomplete_details, output, usage, service_tier.
    """
    fields = {
        "background": False,
        "conversation": None,
        "instructions": create.instructions,
        "max_output_tokens": create.max_output_tokens,
        "max_tool_calls": create.max_tool_calls,
        "model": create.model,
        "moderation": None,
        "parallel_tool_calls": _or(create.parallel_tool_calls, True),
        "presence_penalty": _or(create.presence_penalty, 0),
        "frequency_penalty": _or(create.frequency_penalty, 0),
        "previous_response_id": create.previous_response_id,
        "prompt_cache_key": create.prompt_cache_key,
        "prompt_cache_retention": create.prompt_cache_retention,
        "reasoning": _reasoning(create),
        "safety_identifier": create.safety_identifier,
        "store": False,
        "temperature": _or(create.temperature, 1),
        "text": _text(create),
        "tool_choice": _or(create.tool_choice, "auto"),
        "tools": [_tool(function) for function in create.functions],
        "top_logprobs": _or(create.top_logprobs, 0),
        "top_p": _or(create.top_p, 1),
        "truncation": _or(create.truncation, "disabled"),
        "user": create.user,
        "metadata": _or(create.metadata, {}),
    }
    if cache := create.prompt_cache_options:
        fields["prompt_cache_options"] = {"mode": cache.mode, "ttl": cache.ttl}
    return _encode(fields)[1:-1]


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _reasoning(create: Create) -> dict[str, str | None]:
    sent = create.reasoning
    if sent is None:
        return {"effort": None, "summary": None}
    rest = {"context": sent.context, "mode": sent.mode}
    return {"effort": sent.effort, "summary": create.summary} | {name: value for name, value in rest.items() if value}


def _text(create: Create) -> dict[str, Any]:
    text = create.text or Text()
    shape: dict[str, Any] = {"type": text.format.type if text.format else "text"}
    if text.format and create.schema is not None:
        shape |= {
            "name": text.format.name,
            "description": text.format.description,
            "schema": create.schema,
            "strict": bool(text.format.strict),
        }
    return {"format": shape, "verbosity": text.verbosity or "medium"}


def _tool(function: Function) -> dict[str, Any]:
    return {
        "type": "function",
        "name": function.name,
        "description": function.description,
        "parameters": function.parameters,
        "strict": function.strict,
    }
