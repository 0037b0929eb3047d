"""Transcripts: a request, what is sent upstream for it, the bytes of the answer and the events that come of them.

A file begins with a sentence that says what is true in it. Then come sections:

    -- request --   the body of POST /v1/responses
    -- profile --   a profile's name, and fields that differ from it as JSON; without this section it is generic
    -- sent --      the body that goes upstream
    -- dropped --   parameters that this upstream can't be told, if there are any
    -- upstream --  the bytes of the answer, with or without status line and headers
    -- events --    one event a line; or the error, when the upstream refused
    -- notes --     what goes into the log, if anything does

In the upstream section ✂ is the boundary between two reads, ␍ a carriage return, ⟨e2 82⟩ are bytes that are no UTF-8
text, and ¬ at the end of a line takes its line feed away. In the events `response` shows only what changed: the first
one against SNAPSHOT, later ones against the first; finished items are named by their ids.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Self

import msgspec

from proxy.core.deltas import Accepted
from proxy.core.output import Shown
from proxy.core.profile import Profile
from proxy.core.translator import Translator
from proxy.core.turn import first_turn
from proxy.dialects import chat
from proxy.errors import ProxyError
from proxy.wire.create import decode_create, echo
from proxy.wire.events import Event
from proxy.wire.items import FunctionCall
from tests.requests import ECHO

Json = dict[str, Any]

LIMIT = 1 << 20
SNAPSHOT: Json = {
    "object": "response",
    "created_at": 1,
    "completed_at": None,
    "status": "in_progress",
    "error": None,
    "incomplete_details": None,
    "usage": None,
    "output": [],
    "service_tier": "auto",
    **ECHO,
}
"""The first snapshot for a request that asks for nothing but a model called m."""

_MARK = re.compile("⟨([0-9a-f ]+)⟩|␍|¬\n")


@dataclass
class Outcome:
    """What came of one answer. error: the refusal, when the status was none of 2xx."""

    events: list[Event] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: ProxyError | None = None

    def decoded(self) -> list[Json]:
        return [json.loads(event.data) for event in self.events]


@dataclass
class Transcript:
    """One file. Sections that a file may leave out are "" then."""

    about: str
    request: bytes
    profile: Profile
    status: int
    headers: dict[str, str]
    reads: list[bytes]
    sections: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Self:
        about, *pieces = re.split(r"^-- (\w+) --\n", path.read_text("utf-8"), flags=re.MULTILINE)
        sections = dict(zip(pieces[::2], pieces[1::2], strict=True))
        reads = [_bytes(piece) for piece in sections["upstream"].split("✂")]
        status, headers = 200, {}
        if reads[0].startswith(b"HTTP/1.1 "):
            head, _, reads[0] = reads[0].partition(b"\n\n")
            first, *lines = head.decode().split("\n")
            status = int(first.split()[1])
            headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
        profile = _profile(sections.get("profile", "generic"))
        return cls(about, sections["request"].encode(), profile, status, headers, reads, sections)

    def sent(self) -> tuple[str, str]:
        """The body that goes upstream, a line for each of its fields, and what is not in it, a line for each."""
        create = decode_create(self.request)
        turn = first_turn(create, model=create.model or "", extra={})
        body = json.loads(chat.encode(turn, self.profile))
        fields = ",\n ".join(f"{dump(name)}:{dump(value)}" for name, value in body.items())
        return "{" + fields + "}\n", "".join(f"{name}\n" for name in turn.dropped)

    def play(self, reads: Sequence[bytes]) -> Outcome:
        """The answer in these reads, through decoder and translator, as a run does it."""
        if self.status >= 300:
            kind, again = self.headers.get("content-type", ""), self.headers.get("retry-after")
            return Outcome(error=chat.refusal(self.status, b"".join(reads), kind, again))
        create = decode_create(self.request)
        turn = first_turn(create, model=create.model or "", extra={})
        taken = {item.call_id for item in create.items if isinstance(item, FunctionCall) and item.call_id}
        shown: Shown = "summary" if create.summary else "content"
        translator = Translator(
            echo(create), names(), count(1).__next__, reasoning=shown, taken=taken, tier=create.tier
        )
        return translate(translator, chat.decoder(turn, self.profile, LIMIT), reads)

    def rewrite(self, path: Path) -> None:
        """Writes down what comes out now in the place of what was expected."""
        outcome = self.play(self.reads)
        given = {name: self.sections[name] for name in ("request", "profile", "upstream") if name in self.sections}
        notes = "".join(f"{note}\n" for note in outcome.notes)
        sent, dropped = self.sent()
        written = given | {"sent": sent, "dropped": dropped, "events": show(outcome), "notes": notes}
        order = ("request", "profile", "sent", "dropped", "upstream", "events", "notes")
        body = "".join(f"-- {name} --\n{written[name]}" for name in order if written.get(name) or name == "upstream")
        path.write_text(self.about + body, "utf-8")


def names() -> Any:
    """Ids that tell what they name: resp_1, msg_1, msg_2, fc_1 ..."""
    numbers: Counter[str] = Counter()

    def name(prefix: str) -> str:
        numbers[prefix] += 1
        return f"{prefix}{numbers[prefix]}"

    return name


def translate(translator: Translator, decoder: Any, reads: Sequence[bytes]) -> Outcome:
    """The events of one answer that comes in these reads and then ends."""
    events = translator.feed([Accepted("test")])
    for data in (*reads, None):
        if decoder.done or decoder.failure is not None:
            break
        events += translator.feed(decoder.close() if data is None else decoder.feed(data))
    events += translator.fail(decoder.failure) if decoder.failure is not None else translator.finish()
    return Outcome(events, [*decoder.notes, *translator.notes])


def show(outcome: Outcome) -> str:
    """The events section."""
    if (error := outcome.error) is not None:
        fields = {"status": error.status, "retry_after": error.retry_after, **error.detail()}
        return f"{type(error).__name__} {dump({name: value for name, value in fields.items() if value is not None})}\n"
    lines, first, done = [], SNAPSHOT, {}
    for event in outcome.decoded():
        fields = {name: value for name, value in event.items() if name not in ("type", "sequence_number")}
        if event["type"] == "response.output_item.done":
            done[event["item"]["id"]] = event["item"]
        if (response := event.get("response")) is not None:
            changed = {name: value for name, value in response.items() if name not in first or first[name] != value}
            if "output" in changed:
                changed["output"] = [item["id"] if done.get(item["id"]) == item else item for item in changed["output"]]
            fields["response"] = changed
            first = response if first is SNAPSHOT else first
        lines.append(f"{event['type']} {dump(fields)}\n")
    return "".join(lines)


def dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _profile(text: str) -> Profile:
    name, _, changes = text.strip().partition(" ")
    return msgspec.structs.replace(chat.PROFILES[name], **json.loads(changes or "{}"))


def _bytes(text: str) -> bytes:
    pieces = []
    position = 0
    for mark in _MARK.finditer(text):
        pieces.append(text[position : mark.start()].encode())
        pieces.append(bytes.fromhex(mark[1]) if mark[1] else b"\r" if mark[0] == "␍" else b"")
        position = mark.end()
    return b"".join(pieces) + text[position:].encode()
