"""Oracles that others have published: types and accumulator of the `openai` package, schema of Open Responses."""

import json
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from openai import omit
from openai._models import construct_type
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from openai.types.responses.response_error import ResponseError
from pydantic import TypeAdapter, ValidationError

Json = dict[str, Any]

REFERENCE = Path(__file__).parents[2] / "shared/spec"
"""Where published documents may lie beside this repository; what is not there is not checked."""

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
CODES = get_args(ResponseError.model_fields["code"].annotation)

RENAMED = {
    "response.reasoning_text.delta": "response.reasoning.delta",
    "response.reasoning_text.done": "response.reasoning.done",
}
"""Open Responses has its own names for these two; OpenAI, LM Studio and vLLM send the left ones."""

UNKNOWN_ITEMS = ("custom_tool_call", "mcp_call", "mcp_list_tools", "mcp_approval_request")
"""Item types of OpenAI's that Open Responses leaves out."""


def check_sdk(events: Sequence[Json]) -> Iterator[str]:
    """What the types of the openai package find wrong, event by event."""
    for event in events:
        try:
            EVENT.validate_python(_typed_code(event))
        except ValidationError as error:
            yield f"the openai package refuses {event['type']}: {error}"


def fold_with_sdk(events: Sequence[Json]) -> Iterator[str]:
    """What the accumulator behind `client.responses.stream()` says to the stream."""
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    for event in events:
        try:
            state.handle_event(construct_type(type_=ResponseStreamEvent, value=event))  # type: ignore[arg-type]
        except (RuntimeError, AssertionError, LookupError, AttributeError, TypeError, ValueError) as error:
            yield f"the openai package's accumulator fails at {event['type']}: {error!r}"
            return


def check_schema(events: Sequence[Json]) -> None:
    """Holds the events against the Open Responses schema, when its OpenAPI document is there. Raises AssertionError."""
    document = openresponses()
    for event in events if document else ():
        schema = validator(_schema_of(RENAMED.get(event["type"], event["type"])))
        if schema is None or _has_unknown_item(event):
            continue
        error = best_match(schema.iter_errors(_renamed(event)))
        assert error is None, f"Open Responses refuses {event['type']}: {error.message} at {error.json_path}"


@cache
def openresponses() -> Json | None:
    """The OpenAPI document of Open Responses, where OPENRESPONSES_OPENAPI names it; None without one."""
    path = Path(os.environ.get("OPENRESPONSES_OPENAPI", REFERENCE / "openresponses.openapi.json"))
    return json.loads(path.read_bytes()) if path.exists() else None


@cache
def validator(schema: str | None) -> Draft202012Validator | None:
    """Checks against one schema of the document, by name; None when there is none of this name."""
    document = openresponses()
    if document is None or schema is None:
        return None
    return Draft202012Validator({"$ref": f"#/components/schemas/{schema}", "components": document["components"]})


@cache
def _schema_of(type: str) -> str | None:
    """The name of the schema for an event type."""
    schemas = (openresponses() or {})["components"]["schemas"]
    for name, schema in schemas.items():
        if name.endswith("StreamingEvent") and type in schema["properties"]["type"]["enum"]:
            return str(name)
    return None


def _typed_code(event: Json) -> Json:
    """error.code is a closed list in the package's types, and an open one on OpenAI's own wire."""
    error = (event.get("response") or {}).get("error")
    if not error or error.get("code") in CODES:
        return event
    return event | {"response": event["response"] | {"error": error | {"code": "server_error"}}}


def _renamed(event: Json) -> Json:
    """The event in Open Responses' words, where this proxy chose OpenAI's."""
    renamed: Json = _reworded(event)
    return renamed | {"type": RENAMED.get(event["type"], event["type"])}


def _reworded(value: Any) -> Any:
    """Without a null that OpenAI has in reasoning items; the schema of a format is null, as the document wants it."""
    if isinstance(value, list):
        return [_reworded(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    schema = {"schema": None} if value.get("type") == "json_schema" else {}
    kept = {key: inner for key, inner in value.items() if (key, inner) != ("encrypted_content", None)}
    return {key: _reworded(inner) for key, inner in (kept | schema).items()}


def _has_unknown_item(event: Json) -> bool:
    items = [event["item"]] if "item" in event else event.get("response", {}).get("output", [])
    return any(item["type"] in UNKNOWN_ITEMS for item in items)
