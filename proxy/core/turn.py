"""A turn: what is asked of an upstream, in the words of the Responses API. Each dialect lowers it."""

from collections.abc import Collection
from operator import attrgetter
from typing import Any

from msgspec import Raw, Struct

from proxy.wire.create import Create
from proxy.wire.items import Function, Item


class Format(Struct, frozen=True, gc=False):
    """text.format: what the answer has to look like. type: json_object or json_schema; schema only with the latter."""

    type: str
    name: str | None = None
    schema: Raw | None = None
    description: str | None = None
    strict: bool | None = None


class Options(Struct, frozen=True, gc=False):
    """What the client asked for, None where it said nothing; nothing is invented toward the upstream.

    tool_choice: None, "none", "auto", "required" or the name of a function (then `forced` is True).
    hints: fields that only some upstreams know: verbosity, service_tier, prompt_cache_key, safety_identifier, user, ...
    extra: body fields of the operator's, sent as they are; they win over everything.
    """

    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_output_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    tool_choice: str | None = None
    forced: bool = False
    parallel_tool_calls: bool | None = None
    format: Format | None = None
    effort: str | None = None
    hints: dict[str, Any] = {}
    extra: dict[str, Any] = {}


class Turn(Struct, frozen=True):
    """One call of an upstream.

    model: the upstream's own name for the model.
    items: the whole effective input, oldest first.
    dropped: filled by the dialect's encode: names of parameters asked for that this upstream can't be told.
    ignored: filled by it as well: types of the items that say nothing to a model here, one entry an item.
    """

    model: str
    instructions: str | None
    items: list[Item]
    functions: list[Function]
    options: Options
    dropped: list[str] = []
    ignored: list[str] = []


_HINTS = ("service_tier", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "user")
_hinted = attrgetter(*_HINTS)
_NO_HINTS = (None,) * len(_HINTS)


def first_turn(create: Create, *, model: str, extra: dict[str, Any], passed: Collection[str] = ()) -> Turn:
    """The turn that a request asks for.

    model: the upstream's own name for the model.
    extra: body fields of the operator's. passed: names of unknown request fields that the operator lets through.
    """
    if create.unknown:
        extra = {name: create.unknown[name] for name in passed if name in create.unknown} | extra
    return Turn(
        model=model,
        instructions=create.instructions,
        items=create.items,
        functions=create.choice.offered,
        options=_options(create, extra),
    )


def _options(create: Create, extra: dict[str, Any]) -> Options:
    logprobs = bool(create.top_logprobs) or "message.output_text.logprobs" in (create.include or ())
    return Options(
        temperature=create.temperature,
        top_p=create.top_p,
        presence_penalty=create.presence_penalty,
        frequency_penalty=create.frequency_penalty,
        max_output_tokens=create.max_output_tokens,
        logprobs=logprobs,
        top_logprobs=create.top_logprobs if logprobs else None,  # pitfall 51: it needs logprobs
        tool_choice=create.choice.mode,
        forced=create.choice.forced,
        parallel_tool_calls=create.parallel_tool_calls,
        format=_format(create) if create.text else None,
        effort=create.reasoning.effort if create.reasoning else None,
        hints=_hints(create),
        extra=extra,
    )


def _format(create: Create) -> Format | None:
    asked = create.text.format if create.text else None
    if asked is None or asked.type in (None, "text"):
        return None
    if create.schema is None:
        return Format(type="json_object")
    return Format("json_schema", asked.name, create.schema, asked.description, asked.strict)


def _hints(create: Create) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    sent = _hinted(create)
    if sent != _NO_HINTS:
        hints.update((name, value) for name, value in zip(_HINTS, sent, strict=True) if value is not None)
        if create.tier == "auto":
            hints.pop("service_tier", None)
    if create.text and create.text.verbosity is not None:
        hints["verbosity"] = create.text.verbosity
    return hints
