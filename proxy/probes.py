"""Active health checks: whether an upstream answers when nobody asks it for anything."""

import asyncio
import random
import time
from collections.abc import Iterable

from proxy.errors import ProxyError, Unreachable
from proxy.pools import Check, Member
from proxy.tasks import spawn


class Probes:
    """Checks of all upstreams that want some, one task for each, until they are closed."""

    def __init__(self, members: Iterable[Member]) -> None:
        wanted = {member.state: (member, check) for member in members if (check := member.state.terms.check)}
        self._tasks = [spawn(_look(*each), f"check upstream {each[0].name}") for each in wanted.values()]

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


async def _look(member: Member, check: Check) -> None:
    """Never returns."""
    now = time.monotonic
    while True:
        if (reason := await _ask(member, check)) is not None:
            member.state.checked(now(), reason)
        await asyncio.sleep(check.interval * random.uniform(0.9, 1.1))  # noqa: S311 - so that they do not come together


async def _ask(member: Member, check: Check) -> str | None:
    """Why the check failed, "" when it passed, None when it could not be made."""
    try:
        async with asyncio.timeout(check.timeout):
            status = await member.upstream.probe(check.path)
    except TimeoutError:
        return f"no answer to {check.path} within {check.timeout:g} s"
    except ProxyError as error:
        return None if isinstance(error, Unreachable) and error.ours else error.message
    return "" if status in check.status else f"status {status} at {check.path}"
