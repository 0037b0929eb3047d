"""How upstreams are spoken to, one module a dialect; the file name is the word in the YAML.

A dialect is pure: it turns a Turn into the bytes of a request, and the bytes of the answer into deltas.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

from proxy.core.deltas import Delta
from proxy.core.profile import Profile
from proxy.core.turn import Turn
from proxy.errors import ProxyError


class Decoder(Protocol):
    """The bytes of one answer -> deltas. Made anew for each answer.

    failure: what went wrong, once something did; the deltas that came before it have been given out.
    done: the upstream has said that this is all; what may follow is of no interest.
    notes: oddities worth a line in the log.
    """

    failure: ProxyError | None
    done: bool
    notes: list[str]

    def feed(self, data: bytes) -> list[Delta]:
        """Any cut of the bytes; what is cut waits for the rest."""

    def close(self) -> list[Delta]:
        """The answer's last byte has been fed: what is still held comes out. Sets failure if the end came too early."""


class Dialect(Protocol):
    """What a module in this room offers."""

    PATH: str
    """Where a turn is posted, below the upstream's base URL."""

    MODELS: str
    """Where the upstream lists its models, below its base URL."""

    PROFILES: dict[str, Profile]
    """The products known to speak this dialect, by the word in the YAML."""

    def encode(self, turn: Turn, profile: Profile) -> bytes:
        """The body that asks for this turn. Raises RequestError for what the dialect can't say."""

    def decoder(self, turn: Turn, profile: Profile, limit: int) -> Decoder:
        """A new decoder; an event of more than `limit` bytes is a failure."""

    def refusal(self, status: int, body: bytes, content_type: str, retry_after: str | None) -> ProxyError:
        """An answer that is no 2xx, as the error that the client gets (RESPONSES.md 7.3)."""

    def models(self, body: bytes) -> Sequence[str] | None:
        """The ids in an answer to MODELS; None when it is no list of models."""


def load(name: str) -> Dialect:
    """The dialect of this name. Raises ModuleNotFoundError when there is none."""
    return cast("Dialect", import_module(f"{__name__}.{name}"))
