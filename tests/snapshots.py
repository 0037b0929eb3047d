"""The rules for the response object inside an event, and for the pair that ends a failed stream."""

import json
from typing import Any

Json = dict[str, Any]


KEYS = {
    "id",
    "object",
    "created_at",
    "completed_at",
    "status",
    "error",
    "incomplete_details",
    "model",
    "output",
    "usage",
    "instructions",
    "previous_response_id",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "max_output_tokens",
    "max_tool_calls",
    "text",
    "reasoning",
    "truncation",
    "store",
    "background",
    "service_tier",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "user",
    "prompt_cache_retention",
    "moderation",
}
CHANGING = {"status", "output", "usage", "error", "incomplete_details", "completed_at", "service_tier"}
TERMINAL = {
    "response.completed": ("completed",),
    "response.incomplete": ("incomplete", "cancelled"),
    "response.failed": ("failed",),
}
BEGINNING = {
    "response.created": ("in_progress", "queued"),
    "response.queued": ("queued",),
    "response.in_progress": ("in_progress",),
}
REASONS = ("max_output_tokens", "content_filter", "max_messages", "steered")


class Violation(AssertionError):
    """A stream breaks a rule."""


def must(true: bool, otherwise: str) -> None:
    """Raises Violation(otherwise) when it is not true."""
    if not true:
        raise Violation(otherwise)


def same(left: Any, right: Any, where: str) -> None:
    """Equal to the byte, key order included."""
    must(json.dumps(left) == json.dumps(right), f"{where}: {json.dumps(left)} is not {json.dumps(right)}")


def check_error(event: Json, failure: Json | None) -> None:
    """Nested and flat, and what the failed response says is the same."""
    nested = event["error"]
    must(set(nested) == {"type", "code", "message", "param"}, f"the nested error has the keys {sorted(nested)}")
    for key in ("code", "message", "param"):
        same(event[key], nested[key], f"the flat {key} of the error event")
    if failure is None or not isinstance(failure.get("code"), str):
        raise Violation(f"response.failed has the error {failure}")
    must(failure["message"] == nested["message"], "error and response.failed have two messages")
    must(nested["code"] in (None, failure["code"]), "error and response.failed have two codes")
    must("Traceback" not in nested["message"], "the message leaks internals")


def check_snapshot(event: Json, first: Json) -> None:
    """One response object, by the event that carries it; what does not change is compared with the first one."""
    kind, response = event["type"], event["response"]
    must(set(response) >= KEYS, f"{kind} lacks {sorted(KEYS - set(response))}")
    must("output_text" not in response, "output_text is a helper of the SDKs and no field")
    allowed = (TERMINAL | BEGINNING)[kind]
    status = response["status"]
    must(status in allowed, f"{kind} has the status {status}")
    must(response["object"] == "response" and response["id"].startswith("resp_"), f"{kind} has the id {response['id']}")
    must(isinstance(response["created_at"], int), "created_at is no integer")
    for key in (set(response) | set(first)) - CHANGING:
        same(response.get(key), first.get(key), f"{key} in {kind}")
    must((response["error"] is not None) == (status == "failed"), f"{status} with the error {response['error']}")
    completed_at = response["completed_at"]
    timed = isinstance(completed_at, int) if status == "completed" else completed_at is None
    must(timed, f"{status}, completed at {completed_at}")
    reason = (response["incomplete_details"] or {}).get("reason")
    must(reason in REASONS if status == "incomplete" else reason is None, f"incomplete_details of {status}: {reason}")
    _usage(response["usage"], status)


def _usage(usage: Json | None, status: str) -> None:
    if usage is None:
        must(status not in ("completed", "incomplete"), f"{status} without usage")
        return
    must(status not in ("queued", "in_progress"), f"usage of {status}")
    cached = usage["input_tokens_details"]["cached_tokens"]
    written = usage["input_tokens_details"]["cache_write_tokens"]
    reasoning = usage["output_tokens_details"]["reasoning_tokens"]
    read, output, total = usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]
    for tokens in (cached, written, reasoning, read, output, total):
        must(type(tokens) is int and tokens >= 0, f"tokens that are no integer: {usage}")
    must(len(usage) == 5, f"usage has the keys {sorted(usage)}")
    must(total == read + output and cached <= read and reasoning <= output, f"usage does not add up: {usage}")
