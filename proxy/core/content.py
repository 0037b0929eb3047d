"""Content of messages and tool outputs: a text, or parts of any kind."""

from typing import Any

from msgspec import ValidationError, convert
from msgspec.json import encode

from proxy.wire.items import Part

Content = str | list[Part]

MEDIA = frozenset(
    ("input_image", "image_url", "computer_screenshot", "input_file", "input_audio", "input_video", "video_url")
)
"""Types of the parts that are no text."""

_TEXT = frozenset(("input_text", "output_text", "text", "summary_text", "reasoning_text", "refusal"))


def text_of(part: Part) -> str | None:
    """The text of a part; None for media and for what has none. A part of unknown type that has a text is a text."""
    if part.type in MEDIA:
        return None
    if part.text is not None:
        return part.text
    if part.refusal is not None:
        return part.refusal
    return "" if part.type in _TEXT else None


def joined(content: Content) -> str:
    """All text of a content, its parts joined by a line feed."""
    if isinstance(content, str):
        return content
    return "\n".join(text for part in content if (text := text_of(part)) is not None)


def told(prefix: str, content: Content) -> Content:
    """The content behind a line that says what it is."""
    if isinstance(content, str):
        return f"{prefix}\n{content}"
    return [Part(type="input_text", text=prefix), *content]


def output(value: Any) -> Content:
    """The output of a call, as a client gives it: what is neither a text nor parts becomes JSON."""
    if isinstance(value, str):
        return value
    if value is None or value == []:
        return ""
    if isinstance(value, list) and any(map(_is_part, value)):
        return [_part(entry) for entry in value]
    return as_json(value)


def as_json(value: Any) -> str:
    return encode(value).decode()


def _is_part(value: Any) -> bool:
    kind = value.get("type") if isinstance(value, dict) else None
    return isinstance(kind, str) and (kind in MEDIA or kind in _TEXT)


def _part(value: Any) -> Part:
    if _is_part(value):
        try:
            return convert(value, Part)
        except ValidationError:
            pass
    return Part(type="input_text", text=value if isinstance(value, str) else as_json(value))
