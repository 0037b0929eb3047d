"""Content parts -> what a Chat Completions message holds (RESPONSES.md 4.3.1)."""

from base64 import b64decode
from binascii import Error as NotBase64
from typing import Any
from urllib.parse import unquote_to_bytes

from proxy.core.content import Content, text_of
from proxy.core.profile import Profile
from proxy.errors import RequestError
from proxy.wire.items import Part

_DETAIL = {"low": "low", "high": "high", "original": "high"}
"""Ours -> theirs; `auto` is what they do anyway."""

_MIME = {"pdf": "application/pdf", "txt": "text/plain", "csv": "text/csv", "json": "application/json"}
"""Ending of the file name -> media type, for files that come as bare base64."""


class Unsayable(RequestError):
    """A part that this upstream can't be given. field: which field of the part is to blame."""

    def __init__(self, part: Part, field: str, message: str, code: str = "unsupported_value") -> None:
        super().__init__(message, code=code, param="input")
        self.part = part
        self.field = field


def lower(content: Content, profile: Profile) -> str | list[dict[str, Any]]:
    """A string for what is one text; text parts in a row stay parts when the profile allows it."""
    if isinstance(content, str):
        return content
    parts = [_part(part, profile) for part in content]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    if len(texts) == len(parts) and (len(texts) < 2 or not profile.content_parts):
        return "\n".join(texts)
    return parts


def is_text(part: Part, profile: Profile) -> bool:
    """Whether it becomes a text for this upstream."""
    return text_of(part) is not None or (part.type == "input_file" and profile.files == "inline_text")


def _part(part: Part, profile: Profile) -> dict[str, Any]:
    text = text_of(part)
    if text is not None:
        return {"type": "text", "text": text}
    match part.type:
        case "input_image" | "image_url" | "computer_screenshot":
            return _image(part)
        case "input_file":
            return _file(part, profile)
        case "input_audio":
            return _audio(part)
        case "input_video" | "video_url":
            return _video(part, profile)
    message = f"Content parts of type '{part.type}' can't be sent to this upstream."
    raise Unsayable(part, "type", message, "invalid_value")


def _url(value: Any) -> str | None:
    """Some clients nest it, as Chat Completions does."""
    url = value.get("url") if isinstance(value, dict) else value
    return url if isinstance(url, str) and url else None


def _image(part: Part) -> dict[str, Any]:
    url = _url(part.image_url)
    if url is None:
        raise _not_here(part, "image_url", "an image as image_url (a URL or a data URL)")
    nested = part.image_url.get("detail") if isinstance(part.image_url, dict) else None
    image = {"url": url}
    if detail := _DETAIL.get(part.detail or nested or ""):
        image["detail"] = detail
    return {"type": "image_url", "image_url": image}


def _not_here(part: Part, field: str, expected: str) -> Unsayable:
    """The part has not got what its kind needs."""
    if part.file_id:
        return Unsayable(part, "file_id", f"Files can't be had by id here ('{part.file_id}'). Send {expected}.")
    code = "missing_required_parameter"
    return Unsayable(part, field, f"A content part of type '{part.type}' lacks '{field}'. Send {expected}.", code)


def _audio(part: Part) -> dict[str, Any]:
    audio = part.input_audio or {}
    if not audio.get("data") or not audio.get("format"):
        raise _not_here(part, "input_audio", "input_audio with data (base64) and format ('mp3' or 'wav')")
    return {"type": "input_audio", "input_audio": {"data": audio["data"], "format": audio["format"]}}


def _video(part: Part, profile: Profile) -> dict[str, Any]:
    if not profile.video:
        raise Unsayable(part, "type", "This upstream takes no video. It takes text and, if the model does, images.")
    url = _url(part.video_url)
    if url is None:
        raise _not_here(part, "video_url", "a video as video_url (a URL or a data URL)")
    return {"type": "video_url", "video_url": {"url": url}}


def _file(part: Part, profile: Profile) -> dict[str, Any]:
    if not part.file_data:
        if part.file_url and not part.file_id:
            message = "Files are not fetched from a URL here. Send the file as file_data (base64 or a data URL)."
            raise Unsayable(part, "file_url", message)
        raise _not_here(part, "file_data", "the file as file_data (base64 or a data URL)")
    if profile.files == "inline_text":
        return {"type": "text", "text": _inlined(part, part.file_data)}
    data = part.file_data
    if not data.startswith("data:"):
        ending = (part.filename or "").rpartition(".")[2].lower()
        data = f"data:{_MIME.get(ending, 'application/octet-stream')};base64,{data}"
    file = {"file_data": data}
    if part.filename:
        file["filename"] = part.filename
    return {"type": "file", "file": file}


def _inlined(part: Part, data: str) -> str:
    """A text file as text, under a line that names it."""
    raw = _bytes(part, data)
    name = part.filename or "without a name"
    try:
        if b"\0" in raw or raw.startswith(b"%PDF-"):
            raise ValueError(name)
        return f"File: {name}\n{raw.decode('utf-8-sig')}"
    except ValueError:
        message = f"The file '{name}' is no text in UTF-8. This upstream can be given text files only."
        raise Unsayable(part, "file_data", message) from None


def _bytes(part: Part, data: str) -> bytes:
    head = ";base64"
    if data.startswith("data:"):
        head, _, data = data.partition(",")
    if not head.endswith(";base64"):
        return unquote_to_bytes(data)
    try:
        return b64decode("".join(data.split()), validate=True)
    except (NotBase64, ValueError):
        message = f"The file_data of '{part.filename}' is no base64. Send base64, or a data URL."
        raise Unsayable(part, "file_data", message, "invalid_base64") from None
