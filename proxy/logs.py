"""The log, on standard error: as text for people, or as one JSON object a line."""

import logging
import re
import sys
import time
from typing import Any

import msgspec

_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029]")


class Text(logging.Formatter):
    """2026-11-24 12:00:00 INFO message"""

    default_msec_format = ""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """On one line, without control characters: what others say must not look like a line of ours."""
        return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], super().formatMessage(record))


class Json(logging.Formatter):
    """{"time", "level", "logger", "message"}, or the fields of a record that has some instead of the message."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fields = getattr(record, "fields", None)
        said |= {"message": record.getMessage()} if fields is None else msgspec.to_builtins(fields)
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(said).decode()


def set_up(format: str, level: str, *, bodies: bool) -> None:
    """format: "text" or "json". bodies: requests are logged whole, prompts included."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json() if format == "json" else Text())
    root = logging.getLogger("proxy")
    root.handlers[:] = [handler]
    root.propagate = False
    root.setLevel(level.upper())
    # Its only business here is requests that are no HTTP, and it quotes them, keys and prompts included.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL + 1)
    logging.getLogger("asyncio").handlers[:] = [handler]
    logging.getLogger("proxy.bodies").setLevel(logging.INFO if bodies else logging.CRITICAL)
