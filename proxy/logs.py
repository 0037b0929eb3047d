"""The log, on standard error: as text for people, or as one JSON object a line."""

import asyncio
import errno
import logging
import sys
import time
from functools import lru_cache
from typing import Any

import msgspec

log = logging.getLogger(__name__)


LIBRARIES = ("asyncio", "aiohttp", "opentelemetry", "urllib3")
"""Whose warnings are shown as ours are."""

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

PAUSE = 5.0
"""Seconds in which the same is said once."""


class Text(logging.Formatter):
    """2026-11-24 12:00:00 INFO message"""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """On one line, without what is not seen or turns the text around: others must not forge a line of ours."""
        line = f"{_local(int(record.created))} {record.levelname} {record.message}"
        return line if line.isprintable() else "".join(map(_seen, line))


class Json(logging.Formatter):
    """{"time", "level", "logger", "message"}, or the fields of a record that has some instead of the message."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "time": f"{_utc(int(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fields = getattr(record, "fields", None)
        if fields is None:
            said["message"] = record.getMessage()
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        line = msgspec.json.encode(said)
        if fields is not None:
            line = b"%b,%b" % (line[:-1], msgspec.json.encode(fields)[1:])
        return line.decode()


def _seen(sign: str) -> str:
    return sign if sign.isprintable() else ascii(sign)[1:-1]


@lru_cache(maxsize=1)
def _local(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))


@lru_cache(maxsize=1)
def _utc(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def set_up(format: str, level: str, *, bodies: bool) -> None:
    """format: "text" or "json". bodies: requests are logged whole, prompts included."""
    # Nobody is shown where in the code, and by which thread, a line was written: 3 of its 15 us ("Optimization" in the
    # logging HOWTO).
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json() if format == "json" else Text())
    root = logging.getLogger("proxy")
    root.handlers[:] = [handler]
    root.propagate = False
    root.setLevel(level.upper())
    for name in LIBRARIES:
        library = logging.getLogger(name)
        library.handlers[:] = [handler]
        library.setLevel(max(logging.WARNING, root.level))
    # Its only business here is requests that are no HTTP, and it quotes them, keys and prompts included.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL + 1)
    logging.getLogger("proxy.bodies").setLevel(logging.INFO if bodies else logging.CRITICAL)


class LoopErrors:
    """What goes wrong in an event loop, where nobody could be told but by the log."""

    def __init__(self) -> None:
        self._quiet_until = 0.0

    def tell(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's exception handler."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in EXHAUSTED:
            loop.default_exception_handler(context)
        elif loop.time() >= self._quiet_until:
            # asyncio (3.11 to 3.13) calls for each connection that may wait, 1024 times a second.
            self._quiet_until = loop.time() + PAUSE
            log.error("%s: %s", context["message"], error.strerror)
