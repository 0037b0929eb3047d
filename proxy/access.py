"""The access log: one line for each request, for people (text) and machines (fields)."""

import logging
import re

from msgspec import Struct

log = logging.getLogger("proxy.access")

_ODD = re.compile(r'[\s="\\]')
"""What would make several words of one, or look like quotes."""


class Line(Struct):
    """One line of the access log: how a request went, for people (text) and machines (fields).

    status: HTTP. ended: the terminal status, or why there is none: client_closed, client_stalled, error.
    key: the client's, by name. first: seconds to the first event of an item. bytes: sent to the client.
    input, output: tokens. response: its id.
    """

    method: str
    path: str
    id: str
    status: int = 0
    ended: str = ""
    model: str | None = None
    route: str | None = None
    pool: str | None = None
    upstream: str | None = None
    attempts: int | None = None
    input: int | None = None
    output: int | None = None
    first: float | None = None
    duration: float = 0
    bytes: int | None = None
    error: str | None = None
    response: str | None = None
    client_id: str | None = None
    key: str | None = None
    dropped: list[str] = []
    ignored: list[str] = []


def write(line: Line) -> None:
    if log.isEnabledFor(logging.INFO):
        log.info("%s", _Text(line), extra={"fields": line})


def printable(text: str, longest: int) -> str:
    """What others say, made fit for the log."""
    if len(text) <= longest and text.isascii() and text.isprintable():
        return text
    return "".join(sign if sign.isascii() and sign.isprintable() else "?" for sign in text[:longest])


def _word(value: object) -> str:
    """A value in the text: in quotes where it would look like something else without."""
    text = ",".join(value) if isinstance(value, list) else str(value)
    if not _ODD.search(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class _Text:
    """The line for people, made only when it is written."""

    __slots__ = ("_line",)

    def __init__(self, line: Line) -> None:
        self._line = line

    def __str__(self) -> str:
        line = self._line
        words = [line.method, _word(line.path), str(line.status), line.ended]
        if line.model is not None:
            words += [
                f"model={_word(line.model)}",
                f"route={_word(line.route)}",
                f"pool={_word(line.pool)}",
                f"upstream={_word(line.upstream)}",
                f"attempts={line.attempts}",
                f"tokens={line.input}/{line.output}",
            ]
        if line.first is not None:
            words.append(f"first={line.first:.3f}s")
        words.append(f"time={line.duration:.3f}s")
        optional = {
            "bytes": line.bytes,
            "dropped": line.dropped,
            "ignored": line.ignored,
            "key": line.key,
            "client": line.client_id,
            "error": line.error,
        }
        words += [f"{name}={_word(value)}" for name, value in optional.items() if value]
        return " ".join((*filter(None, words), line.id))
