"""The turns of one response: READ THIS FIRST.

A turn's deltas are pulled from an upstream, the translator makes events of them, whoever pulls here sends them on.
Nothing is queued: who does not pull stops the upstream, who leaves (aclose, cancellation) closes its connection.
"""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from proxy.attempts import Attempts
from proxy.core.deltas import Accepted
from proxy.core.translator import Translator
from proxy.core.turn import Turn
from proxy.errors import ProxyError, internal
from proxy.wire.events import Event

log = logging.getLogger(__name__)
Events = AsyncGenerator[list[Event], None]  # non-empty batches, one for each read; always used inside aclosing()


async def run(turn: Turn, translator: Translator, tries: Callable[[], Attempts]) -> Events:
    """The events of one response, the terminal one last. Raises ProxyError only before the first one."""
    failure = None
    try:
        async for attempt in tries():
            with attempt:
                async with aclosing(attempt.ask(turn)) as answer:
                    async for deltas in answer:
                        attempt.spoke = attempt.spoke or not isinstance(deltas[-1], Accepted)
                        events = translator.feed(deltas)
                        deltas.clear()
                        if translator.turn_over:
                            events += translator.finish()
                        if events:
                            yield events
                break
    except ProxyError as error:
        if not translator.started:
            raise
        failure = error.with_traceback(None)  # whose frames hold the request
    except Exception as error:
        log.exception("response %s failed by a bug", translator.id)
        if not translator.started:
            raise internal() from error
    if not translator.ended:
        yield translator.fail(failure or internal())
