"""POST /v1/responses: the request, and what of it every snapshot of the response repeats."""

from typing import Any

from msgspec import Raw
from msgspec.json import Decoder, Encoder
from msgspec.structs import astuple

from proxy.wire.body import Body, ReasoningOptions, Text, decode_body
from proxy.wire.bounds import check_body, decode_schema
from proxy.wire.input import decode_input
from proxy.wire.invalid import unreadable
from proxy.wire.items import Function, Item
from proxy.wire.tools import NULL, Choice, choose, decode_tools
from proxy.wire.updates import take_updates


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
_fields = Decoder(dict[str, Raw]).decode


def decode_create(data: bytes) -> Create:
    """Decode and check the body of a request (RESPONSES.md 2).

    Raises RequestError, a 400 that names the parameter (2.9), in the order of 2.6.
    `store: true` is accepted although nothing is stored yet; the echo says false.
    """
    try:
        body, unknown = decode_body(data)
        check_body(body)
        assert body.input is not None
        schema = decode_schema(body.text)
        items = decode_input(body.input)
        if b"configuration_update" in data:
            items = take_updates(body, items)
            check_body(body)
            schema = decode_schema(body.text)
        functions = decode_tools(body.tools) if body.tools else []
        choice = choose(body.tool_choice, functions)
    except RecursionError:
        raise unreadable("it is nested too deeply") from None
    model, *fields = astuple(body)
    return Create(*fields, model=model, items=items, functions=functions, choice=choice, schema=schema, unknown=unknown)


def merge(data: bytes, defaults: dict[str, Any], overrides: dict[str, Any]) -> bytes:
    """The body with what the client left out, and what it has no say in. Members of objects count one by one.

    data: a body that decode_create has taken.
    """
    fields: dict[str, Any] = _fields(data)
    for values, wins in ((defaults, False), (overrides, True)):
        for name, value in values.items():
            sent = fields.get(name, NULL)
            if isinstance(value, dict) and bytes(sent)[:1] == b"{":
                sent = _fields(sent)
                fields[name] = Raw(_encode(sent | value if wins else value | sent))
            elif wins or sent == NULL:
                fields[name] = Raw(_encode(value))
    return _encode(fields)


def echo(create: Create) -> bytes:
    """The part of a response that all its snapshots have in common (3.1), as JSON members without the braces.

    Not in it: id, object, created_at, completed_at, status, error, incomplete_details, output, usage, service_tier.
    """
    temperature, top_p, choice = create.temperature, create.top_p, create.tool_choice
    presence, frequency = create.presence_penalty, create.frequency_penalty
    fields = {
        "background": False,
        "conversation": None,
        "instructions": create.instructions,
        "max_output_tokens": create.max_output_tokens,
        "max_tool_calls": create.max_tool_calls,
        "model": create.model,
        "moderation": None,
        "parallel_tool_calls": create.parallel_tool_calls is not False,
        "presence_penalty": 0 if presence is None else presence,
        "frequency_penalty": 0 if frequency is None else frequency,
        "previous_response_id": create.previous_response_id,
        "prompt_cache_key": create.prompt_cache_key,
        "prompt_cache_retention": create.prompt_cache_retention,
        "reasoning": _reasoning(create.reasoning) if create.reasoning else _NO_REASONING,
        "safety_identifier": create.safety_identifier,
        "store": False,
        "temperature": 1 if temperature is None else temperature,
        "text": _text(create.text, create.schema) if create.text else _ANY_TEXT,
        "tool_choice": choice or "auto",
        "tools": create.functions,
        "top_logprobs": create.top_logprobs or 0,
        "top_p": 1 if top_p is None else top_p,
        "truncation": create.truncation or "disabled",
        "user": create.user,
        "metadata": create.metadata or {},
    }
    if cache := create.prompt_cache_options:
        fields["prompt_cache_options"] = {"mode": cache.mode, "ttl": cache.ttl}
    return _encode(fields)[1:-1]


_NO_REASONING = {"effort": None, "summary": None}
_ANY_TEXT = {"format": {"type": "text"}, "verbosity": "medium"}


def _reasoning(sent: ReasoningOptions) -> dict[str, str | None]:
    fields = {"effort": sent.effort, "summary": sent.summary or sent.generate_summary}
    rest = {"context": sent.context, "mode": sent.mode}
    return fields | {name: value for name, value in rest.items() if value}


def _text(sent: Text, schema: Raw | None) -> dict[str, Any]:
    shape: dict[str, Any] = {"type": sent.format.type if sent.format else "text"}
    if sent.format and schema is not None:
        shape |= {
            "name": sent.format.name,
            "description": sent.format.description,
            "schema": schema,
            "strict": bool(sent.format.strict),
        }
    return {"format": shape, "verbosity": sent.verbosity or "medium"}
