"""What Chat Completions servers say when they fail -> our errors (RESPONSES 7.3).

Every server has its own shape and its own idea of codes.
"""

import re
from typing import Any

import msgspec

from proxy.errors import Failed, Overloaded, ProxyError, Refused, RequestError, UpstreamError

_TOO_LONG = re.compile(
    r"maximum context length|context window|context length|available context size|context size|prompt is too long"
    r"|context_length_exceeded|exceed_context_size|input is too long|too many tokens in",
    re.IGNORECASE,
)
_QUOTA = re.compile(
    r"insufficient_quota|exceeded your current quota|credit balance|insufficient credits|billing", re.IGNORECASE
)
_TEMPLATE = re.compile(
    r"chat template|jinja|roles must alternate|unexpected message role|system message must be", re.IGNORECASE
)
_MODEL = re.compile(r"\bmodel\b", re.IGNORECASE)
_FIELDS = {  # our name for a field of theirs, by which a 400 is translated; the longer names first
    "response_format": "text.format",
    "json_schema": "text.format",
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "parallel_tool_calls": "parallel_tool_calls",
    "tool_choice": "tool_choice",
    "tools": "tools",
    "top_logprobs": "top_logprobs",
    "messages": "input",
    "temperature": "temperature",
    "top_p": "top_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "verbosity": "text.verbosity",
    "service_tier": "service_tier",
}
_LONGEST = 1000  # characters of an upstream's message that are passed on
_AGAIN = 2  # seconds: the Retry-After of an upstream that names none


class Said(msgspec.Struct):
    """What an upstream says of its failure. number: an HTTP status that stands in the body, or None."""

    message: str = ""
    type: str = ""
    code: str | None = None
    param: str | None = None
    number: int | None = None


def refusal(status: int, body: bytes, content_type: str, retry_after: str | None) -> ProxyError:
    """An answer that is no 2xx. retry_after: the header, if any."""
    try:
        said = understand(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = Said()
        if "html" not in content_type.lower() and body.lstrip()[:1] != b"<":
            said.message = _short(body.decode("utf-8", "replace"))
    return error(status, said, seconds(retry_after))


def understand(value: Any) -> Said:
    """The error in a decoded body or event, whatever its shape."""
    while isinstance(value, list):  # Gemini: [{"error": ...}]
        value = value[0] if value else None
    if isinstance(value, dict) and value.get("error"):
        value = value["error"]
    if isinstance(value, str):
        return Said(message=_short(value))
    if not isinstance(value, dict):
        return Said()
    said = Said(message=_message(value), type=_str(value.get("type") or value.get("status") or value.get("error_type")))
    code = value.get("code")
    if isinstance(code, str) and re.fullmatch("[1-5][0-9]{2}", code):
        code = int(code)
    if isinstance(code, int | float) and 100 <= code < 600:
        said.number = int(code)
    elif isinstance(code, str) and code:
        said.code = code
    said.param = _str(value.get("param")) or None
    return said


def error(status: int, said: Said, retry_after: float | None = None) -> ProxyError:
    """The table of RESPONSES 7.3. status: of the answer, or what stands for it when the error came within a stream."""
    text = f"{said.message} {said.type} {said.code or ''}"
    if status == 402 or (status in (429, 403) and _QUOTA.search(text)):
        return Refused(
            said.message or "The upstream says that its quota is used up.",
            code="insufficient_quota",
            type="insufficient_quota",
            status=429,
            should_retry=False,
            retry_after=retry_after or _AGAIN,
        )
    if status in (401, 403):
        # Never 401, since the client's own key is fine, and never the upstream's words, which may quote its key.
        return Refused(
            "The upstream refused the proxy's credentials: upstream authentication failed.", code="server_error"
        )
    if status == 429:
        return _overloaded(said, retry_after)
    if status in (400, 404, 413, 422) or (status == 500 and (_TEMPLATE.search(text) or _TOO_LONG.search(text))):
        return _bad_request(status, said, text)
    if status in (409, 425, 503, 529):
        busy = Overloaded(
            said.message or f"The upstream is overloaded (status {status}).",
            code="server_is_overloaded",
            retry_after=retry_after or _AGAIN,
        )
        busy.asked = retry_after
        return busy
    if status in (408, 504):
        return Failed(said.message or f"The upstream timed out (status {status}).", code="server_error", status=504)
    if status < 500:  # redirections too: they are not followed
        return Refused(said.message or f"The upstream refused the request with status {status}.", code="server_error")
    return Failed(said.message or f"The upstream answered with status {status}.", code="server_error")


def in_stream(value: Any) -> UpstreamError | RequestError:
    """An error object that came as an event, or as the body of a 200 (pitfall 5)."""
    said = understand(value)
    said.message = said.message or "The upstream reported an error without a message."
    status = said.number or _status_of(said)
    failure = error(status if 400 <= status < 600 else 502, said)
    assert isinstance(failure, UpstreamError | RequestError)
    return failure


def seconds(retry_after: str | None) -> float | None:
    """The header Retry-After as seconds; None when it is absent, a date or nonsense.

    A date needs a clock, and this is pure.
    """
    try:
        value = float(retry_after or "")
    except ValueError:
        return None
    return value if 0 < value < 86400 else None


def _status_of(said: Said) -> int:
    """A status for an error that names none, by its type and code."""
    text = f"{said.type} {said.code or ''}".lower()
    if _TOO_LONG.search(f"{text} {said.message}"):
        return 400
    for words, status in (
        (("quota",), 402),
        (("rate_limit", "too_many", "resource_exhausted"), 429),
        (("overloaded", "unavailable"), 503),
        (("invalid_request", "badrequest", "bad request", "invalid_argument", "validation"), 400),
    ):
        if any(word in text for word in words):
            return status
    return 502


def _bad_request(status: int, said: Said, text: str) -> ProxyError:
    message = said.message or f"The upstream refused the request with status {status}."
    if _TOO_LONG.search(text):
        return RequestError(message, code="context_length_exceeded", param="input")
    if status == 413:
        return RequestError(message, code="request_too_large", status=413)
    if status == 404:
        if _MODEL.search(text):
            return RequestError(message, code="model_not_found", param="model")
        return Refused(
            f"The upstream knows no such URL: is the base URL right? It said: {message}", code="server_error"
        )
    if status == 500:
        return RequestError(message, code="invalid_prompt", param="input")
    return RequestError(message, code=said.code, param=_param(said))


def _param(said: Said) -> str | None:
    for text in (said.param or "", said.message):
        for theirs, ours in _FIELDS.items():
            if theirs in text:
                return ours
    return said.param


def _overloaded(said: Said, retry_after: float | None) -> Overloaded:
    again = retry_after or _AGAIN
    message = said.message or "The upstream's rate limit is reached."
    if "try again in" not in message.lower():  # Codex waits for as long as these words say
        message = f"{message.rstrip('. ')}. Please try again in {again:g}s."
    kind = said.type if said.type in ("requests", "tokens") else "rate_limit_error"
    code = said.code if said.code == "slow_down" else "rate_limit_exceeded"
    failure = Overloaded(message, code=code, type=kind, status=429, retry_after=again)
    failure.asked = retry_after
    failure.here = retry_after is not None  # when it does not say how long, its limit may be one of the day
    return failure


def _message(value: dict[str, Any]) -> str:
    """FastAPI says `detail`, and a list of them for a validation error; Mistral nests that in `message`."""
    said = value.get("message") or value.get("detail") or value.get("error_description") or ""
    if isinstance(said, dict):
        said = said.get("detail") or said
    if isinstance(said, list):
        said = "; ".join(_line(line) for line in said)
    raw = value.get("metadata", {}).get("raw") if isinstance(value.get("metadata"), dict) else None
    if isinstance(raw, str) and raw and raw not in str(said):  # OpenRouter: what its provider said
        said = f"{said}: {raw}"
    return _short(said if isinstance(said, str) else _json(said))


def _line(line: Any) -> str:
    if not isinstance(line, dict):
        return str(line)
    where = (
        ".".join(str(step) for step in line.get("loc", []) if step != "body")
        if isinstance(line.get("loc"), list)
        else ""
    )
    return f"{where}: {line.get('msg', '')}" if where else _str(line.get("msg")) or _json(line)


def _short(text: str) -> str:
    """Without stack traces, and not endless."""
    text = text.split("Traceback (most recent call last)", maxsplit=1)[0].strip()
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _str(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
