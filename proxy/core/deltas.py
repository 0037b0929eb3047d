"""Deltas: the increments of an upstream's turn, in no dialect. Decoders make them, the translator consumes them."""

from typing import Any

from msgspec import Struct


class Accepted(Struct, frozen=True, gc=False):
    """The upstream has answered with a good status: an answer is coming."""

    upstream: str


class Text(Struct, frozen=True, gc=False):
    """A piece of the answer's text.

    text: may be "" when only logprobs came.
    logprobs: entries in the shape of the Responses API, or None.
    """

    text: str
    logprobs: list[dict[str, Any]] | None = None


class Reasoning(Struct, frozen=True, gc=False):
    """A piece of the model's raw thought."""

    text: str


class Summary(Struct, frozen=True, gc=False):
    """A piece of a summary that the upstream itself has made of its thought."""

    text: str


class Refusal(Struct, frozen=True, gc=False):
    text: str


class Call(Struct, frozen=True, gc=False):
    """A piece of a function call.

    index: which call of this turn, counted by the decoder: one number for one call, whatever the upstream numbered.
    id, name: "" where this piece doesn't tell.
    arguments: a piece of the JSON text.
    """

    index: int
    id: str
    name: str
    arguments: str


class Annotation(Struct, frozen=True, gc=False):
    """An annotation of the text so far, in the flat shape of the Responses API."""

    annotation: dict[str, Any]


class Usage(Struct, frozen=True, gc=False):
    """Tokens of this turn; each one replaces what was said before.

    cached and cache_write are part of input, reasoning of output.
    """

    input: int = 0
    cached: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input + other.input,
            self.cached + other.cached,
            self.cache_write + other.cache_write,
            self.output + other.output,
            self.reasoning + other.reasoning,
        )


class Tier(Struct, frozen=True, gc=False):
    """The service tier that was really used."""

    name: str


class Finish(Struct, frozen=True, gc=False):
    """Why the turn ends: "stop", "length" or "content_filter". More deltas may follow it."""

    reason: str


class End(Struct, frozen=True, gc=False):
    """The turn is over; nothing follows."""


Delta = Accepted | Text | Reasoning | Summary | Refusal | Call | Annotation | Usage | Tier | Finish | End
