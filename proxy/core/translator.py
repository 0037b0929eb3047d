"""The translator: deltas of an upstream -> events of one response. Pure; ids and time are given to it.

It owns numbers and the end: whatever comes in, the stream that goes out is well formed (RESPONSES 5.1). The items
between the first and the last event are core.output's.
"""

from collections.abc import Callable
from typing import Any

from proxy.core.deltas import Accepted, Delta, End, Finish, Tier, Usage
from proxy.core.numbers import Numbers
from proxy.core.output import Output, Shown
from proxy.core.snapshot import Snapshot, usage_json
from proxy.errors import ProxyError
from proxy.wire.events import Event

_TERMINAL = {
    "completed": b"response.completed",
    "incomplete": b"response.incomplete",
    "failed": b"response.failed",
    "cancelled": b"response.incomplete",
}
"""The last event of a response, by its status."""

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class Translator:
    """One response.

    echo: the constant part of every snapshot, from wire.create.echo.
    ids: makes an id from a prefix. clock: seconds since 1970.
    reasoning: how the model's thought is shown (RESPONSES 4.3.2).
    taken: call ids that the conversation has already; a new call never gets one of them.

    id: of the response. started, ended: whether the first and the terminal event have been made.
    turn_over: the upstream's turn has ended. error: why the response failed, or None.
    """

    def __init__(
        self,
        echo: bytes,
        ids: Callable[[str], str],
        clock: Callable[[], int],
        *,
        reasoning: Shown = "content",
        taken: set[str] | None = None,
        tier: str = "auto",
        pad: Callable[[int], str] | None = None,
    ) -> None:
        self.clock = clock
        self.numbers = Numbers(pad)
        self.id = ids("resp_")
        self.snapshot = Snapshot(self.id, clock(), echo, tier)
        self.error: ProxyError | None = None
        self.started = False
        self.ended = False
        self.turn_over = False
        self.output = Output(self.numbers, ids, reasoning, set(taken or ()))
        self._finish = "stop"
        self._usage: Usage | None = None  # of this turn, as far as it is known
        self._spent: Usage | None = None  # by the turns that have ended

    @property
    def notes(self) -> list[str]:
        """Oddities worth a line in the log."""
        return self.output.notes

    @property
    def response(self) -> bytes:
        """The response as it stands; at the end, what the terminal event carried."""
        return self.snapshot.json()

    @property
    def status(self) -> str:
        return self.snapshot.status

    @property
    def spent(self) -> Usage:
        """The tokens of all turns, as far as the upstreams have said."""
        return self._total() or Usage()

    def start(self) -> list[Event]:
        """The two events that begin the stream; [] when it has begun."""
        if self.started:
            return []
        self.started = True
        members = b'"response":' + self.snapshot.json()
        written = self.numbers.written
        return [written(b"response.created", members), written(b"response.in_progress", members)]

    def progress(self) -> list[Event]:
        """A sign of life for clients that count events only."""
        if not self.started or self.ended:
            return []
        self.snapshot.output = self.output.items(b"in_progress")
        return [self._lifecycle(b"response.in_progress")]

    def feed(self, deltas: list[Delta]) -> list[Event]:
        """The events of these deltas, in order."""
        events: list[Event] = []
        texts: list[str] = []  # of a run of plain deltas, which all go to one part
        output = self.output
        for delta in deltas:
            if delta.__class__ is output.live_class and getattr(delta, "logprobs", None) is None:
                texts.append(delta.text)  # type: ignore[union-attr]
            else:
                if texts:
                    events += output.write_plain(texts)
                    texts = []
                self._step(delta, events)
        return events + output.write_plain(texts) if texts else events

    def finish(self) -> list[Event]:
        """The end of a response whose last turn has ended."""
        if self.ended:
            return []
        events = [] if self.started else self.start()
        if not self.turn_over:
            self._end_turn(events)
        if self._finish == "stop":
            if self.output.is_empty:
                self.output.add_empty_message(events)
            return [*events, self._end("completed", completed_at=self.clock())]
        return [*events, self._end("incomplete", reason=_INCOMPLETE[self._finish])]

    def fail(self, error: ProxyError) -> list[Event]:
        """The end of a response that can't go on: `error`, then `response.failed`.

        Open items get no done events (5.4.9).
        """
        if self.ended:
            return []
        self.error = error
        events = self.start()
        detail = error.detail() | {"code": error.code or ("server_error" if error.status >= 500 else "invalid_prompt")}
        flat = {key: detail[key] for key in ("code", "message", "param")}
        events.append(self.numbers.event("error", error=detail, **flat))
        events.append(self._end("failed", error=detail))
        return events

    def cancel(self) -> list[Event]:
        """The end of a response that somebody asked to stop (RESPONSES 0.2, D25)."""
        if self.ended:
            return []
        events = self.start()
        self.output.close(cut=True, events=events)
        return [*events, self._end("cancelled")]

    def _step(self, delta: Delta, events: list[Event]) -> None:
        match delta:
            case Usage():
                self._usage = delta
            case Finish():
                self._finish = delta.reason
            case Tier():
                self.snapshot.used = delta.name
            case Accepted():
                events += self.start()
                if self.turn_over:
                    self.turn_over, self._finish = False, "stop"
                    self.output.begin_turn()
            case End():
                self._end_turn(events)
            case _:
                self.output.write(delta, events)

    def _end_turn(self, events: list[Event]) -> None:
        self.output.end_turn(cut=self._finish != "stop", events=events)
        self._spent = self._total() or Usage()
        self._usage = None
        self.turn_over = True

    def _total(self) -> Usage | None:
        """The usage of all turns together; None when nothing is known of it."""
        if self._spent is None or self._usage is None:
            return self._spent or self._usage
        return self._spent + self._usage

    def _lifecycle(self, type: bytes) -> Event:
        return self.numbers.written(type, b'"response":' + self.snapshot.json())

    def _end(self, status: str, **fields: Any) -> Event:
        self.ended = True
        self.snapshot.output = self.output.items(b"incomplete")
        usage = self._total() or (None if status == "failed" else Usage())
        self.snapshot.end(status, usage=b"null" if usage is None else usage_json(usage), **fields)
        return self._lifecycle(_TERMINAL[status])
