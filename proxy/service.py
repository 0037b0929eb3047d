"""What can be done with responses: create one. Here ids are minted and clocks are read, for the pure core below."""

import os
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from proxy.core.translator import Translator
from proxy.core.turn import first_turn
from proxy.router import Router
from proxy.run import Events, run
from proxy.trace import Trace
from proxy.wire.create import Create, echo
from proxy.wire.items import CustomToolCall, FunctionCall, Item

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


class Running(NamedTuple):
    """A response that is being made. events: pulled by a sink, inside aclosing(); nothing happens before."""

    translator: Translator
    events: Events
    trace: Trace


def mint() -> Callable[[str], str]:
    """Ids of one response: prefix and 48 hex digits, the first 16 common to all, so that a search finds them."""
    common = os.urandom(8).hex()

    def mint_one(prefix: str) -> str:
        if prefix == "call_":
            return prefix + "".join(secrets.choice(_LETTERS) for _ in range(24))
        return prefix + common + os.urandom(16).hex()

    return mint_one


class Service:
    """The operations of the API, whatever carries them."""

    def __init__(self, router: Router) -> None:
        self.router = router

    def create(self, create: Create, trace: Trace) -> Running:
        """Begin a response. Raises RequestError when it can't be begun."""
        route = self.router.route(create.model)
        trace.model, trace.route, trace.unknown = create.model, route.model, list(create.unknown)
        if create.truncation == "auto":  # nobody shortens anything yet
            trace.unknown.append("truncation")
        turn = first_turn(create, model=route.upstream_model or create.model, extra={})
        obfuscated = create.stream_options is not None and create.stream_options.include_obfuscation
        translator = Translator(
            echo(create),
            mint(),
            lambda: int(time.time()),
            reasoning=route.reasoning or ("summary" if create.summary else "content"),
            taken=_call_ids(create.items),
            tier=create.tier,
            pad=_padding if obfuscated else None,
        )
        return Running(translator, run(turn, translator, lambda turn: self.router.ask(route, turn, trace)), trace)


def _call_ids(items: list[Item]) -> set[str]:
    return {item.call_id for item in items if isinstance(item, FunctionCall | CustomToolCall) and item.call_id}


def _padding(size: int) -> str:
    """Makes the delta events of short texts look alike: they are filled up to a multiple of 16 bytes."""
    return secrets.token_urlsafe(16)[: -size % 16]
