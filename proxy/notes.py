"""What became of a request, written down in its visit."""

import logging

from proxy.forward import Forward
from proxy.service import Running
from proxy.visit import Visit

log = logging.getLogger(__name__)
log_bodies = logging.getLogger("proxy.bodies")

BEGINNING = 4
"""Events of a message before its first delta."""


def note(visit: Visit, running: Running) -> None:
    """What became of a response."""
    line, done, translator = visit.line, visit.done, running.translator
    spent = translator.spent
    line.response, line.input, line.output = translator.id, spent.input, spent.output
    done.cached, done.reasoning = spent.cached, spent.reasoning
    if translator.ended:
        line.ended = line.ended or translator.status
        line.error = translator.error.message if translator.error else None
    elif not spent.output:  # the client left before the upstream has told: a delta is about a token
        line.output = max(0, translator.numbers.next - BEGINNING)
    for oddity in translator.notes:
        log.info("%s: %s", line.id, oddity)
    if log_bodies.isEnabledFor(logging.INFO):
        log_bodies.info("%s to the client: %s", line.id, translator.response.decode())


def note_forwarded(visit: Visit, forward: Forward) -> None:
    """What became of a request that passes through."""
    line, done, response = visit.line, visit.done, forward.response
    line.input, line.output = forward.tokens
    line.bytes, line.first = forward.written, forward.first_after
    if forward.stream:
        done.stream, done.gaps, done.streamed = True, forward.gaps, forward.streamed
    if response is not None:
        line.status = response.status
        if response.stalled:
            line.ended = "client_stalled"
        elif forward.complete:
            line.ended = "completed"
