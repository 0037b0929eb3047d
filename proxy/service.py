"""What can be done with responses: create one. Here ids are minted and clocks are read, for the pure core below."""

import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from msgspec import Raw, structs

from proxy.core.balance import affinity_key
from proxy.core.translator import Translator
from proxy.core.turn import first_turn
from proxy.errors import RequestError
from proxy.keys import Grant, Keyring
from proxy.randomness import random_hex
from proxy.router import Route, Router
from proxy.run import Events, run
from proxy.trace import Trace
from proxy.wire.create import Create, decode_create, echo, merge
from proxy.wire.invalid import above, unknown_parameter
from proxy.wire.items import CustomToolCall, FunctionCall, Item

HEAD = 2048
"""Characters of instructions and of the first item that tell conversations apart."""

_CALLS = (FunctionCall, CustomToolCall)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


class Running(NamedTuple):
    """A response that is being made.

    stream: the client wants its events. events: pulled by a sink, inside aclosing(); nothing happens before.
    """

    stream: bool
    translator: Translator
    events: Events
    trace: Trace


def mint() -> Callable[[str], str]:
    """Ids of one response: prefix and 48 hex digits, the first 16 common to all, so that a search finds them."""
    common = random_hex(8)

    def mint_one(prefix: str) -> str:
        if prefix == "call_":
            return prefix + "".join(secrets.choice(_LETTERS) for _ in range(24))
        return prefix + common + random_hex(16)

    return mint_one


class Service:
    """The operations of the API, whatever carries them.

    strict: what is not known, or can't be said to an upstream, is refused.
    """

    def __init__(self, router: Router, keyring: Keyring, *, strict: bool = False) -> None:
        self.router = router
        self.keyring = keyring
        self.strict = strict

    def create(self, body: bytes, trace: Trace, grant: Grant | None) -> Running:
        """Begin a response. body: the request, as JSON. Raises RequestError when it can't be begun."""
        create = decode_create(body)
        route = self.route(create.model, trace, grant)
        create = self._fitted(create, body, route)
        if create.unknown:
            trace.unknown = [name for name in create.unknown if name not in route.pass_fields]
        if self.strict and trace.unknown:
            raise unknown_parameter(trace.unknown[0])
        if create.truncation == "auto":  # nobody shortens anything yet
            if self.strict:
                raise _unsupported("truncation")
            trace.unknown.append("truncation")
        model = route.upstream_model or create.model
        turn = first_turn(create, model=model, extra=route.body, passed=route.pass_fields)
        key = _conversation(create, trace) if route.balances else None
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
        events = run(turn, translator, lambda: self.router.attempts(route, trace, key))
        return Running(bool(create.stream), translator, events, trace)

    def route(self, model: str, trace: Trace, grant: Grant | None) -> Route:
        """Raises RequestError for a model that is not there, or not for this key."""
        if grant is not None:
            self.keyring.allows(grant, model)
        route = self.router.route(model)
        trace.model, trace.route = model, route.name
        return route

    def _fitted(self, create: Create, body: bytes, route: Route) -> Create:
        """The request as the route wants it. Raises RequestError for one that is over the route's limits."""
        check_size(body, route)
        if route.defaults or route.overrides:
            create = decode_create(merge(body, route.defaults, route.overrides))
        if (most := route.max_output_tokens) is not None:
            if create.max_output_tokens is None:
                return structs.replace(create, max_output_tokens=most)
            if create.max_output_tokens > most:
                raise above("max_output_tokens", create.max_output_tokens, most, "integer")
        return create


def check_size(body: bytes, route: Route) -> None:
    """Raises RequestError for a request that is larger than the route allows."""
    if route.max_input is not None and len(body) > route.max_input:
        message = f"The request has {len(body)} bytes; for this model {route.max_input} are allowed."
        raise RequestError(message, code="context_length_exceeded", param="input")


def _unsupported(name: str) -> RequestError:
    message = f"Unsupported parameter: {name!r} is not supported here."
    return RequestError(message, code="unsupported_parameter", param=name)


def _conversation(create: Create, trace: Trace) -> int:
    """What the requests of one conversation have in common, so that they go where its prefix is cached."""
    if own := create.prompt_cache_key or trace.headers.get("session_id"):
        return affinity_key(own)
    first = create.input if isinstance(create.input, str) else bytes((create.input or [Raw()])[0]).decode()
    return affinity_key((create.instructions or "")[:HEAD] + first[:HEAD])


def _call_ids(items: list[Item]) -> set[str]:
    return {item.call_id for item in items if isinstance(item, _CALLS) and item.call_id}


def _padding(size: int) -> str:
    """Makes the delta events of short texts look alike: they are filled up to a multiple of 16 bytes."""
    return secrets.token_urlsafe(16)[: -size % 16]
