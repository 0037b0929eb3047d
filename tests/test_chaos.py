"""2,000 requests over five upstreams whose faults change under way: every stream ends well, and nothing is lost."""

import asyncio
import re
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from functools import partial
from itertools import cycle
from random import Random

from tests.failing import FIRST, GOOD, HTML, admin, idle, oh, upstreams
from tests.proxy import REQUEST, Client, Json, Reply, in_process
from tests.upstream import CLOSE, CUT, GONE, Head, Raw, Request, Script, Upstream, answer, sse

REQUESTS = 2000
TOGETHER = 40  # requests under way
CHANGE = 10  # requests after which one upstream's fault changes
MOST = 12  # requests that an upstream may get at a time

AWAY = "away"  # its port is closed
HANGS: dict[str, Script] = {"hangs before headers": [Raw(b""), GONE], "hangs before the first token": [Head(), GONE]}
LATE: dict[str, Script] = {
    "cut after the first delta": [*FIRST, CUT],
    "closed after the first delta": [*FIRST, CLOSE],
    "fails after the first delta": [*FIRST, *sse(oh("died"), done=False)],
}
SCRIPTS: dict[str, Script] = {
    "": GOOD,
    AWAY: GOOD,  # for what had come before
    "reset": [Raw(b""), CUT],
    "closed": [Raw(b""), CLOSE],
    "cut before the first delta": [Head(), b"data: {", CUT],
    "429": answer(429, oh("slow")),
    "429 with Retry-After": answer(429, oh("slow"), retry_after="0.05"),
    "408": answer(408, oh("slow")),
    "500": answer(500, oh("died")),
    "503": answer(503, oh("loading")),
    "HTML": answer(502, HTML, content_type="text/html"),
    "an error in the stream": sse(oh("died"), done=False),
    **HANGS,
    **LATE,
}
SETTINGS: Json = {
    "pools": {
        "p": {"upstreams": ["u1", "u2", "u3"], "policy": "least_loaded"},
        "q": {"upstreams": ["u4", "u5"], "policy": "affinity"},
    },
    "routes": [{"model": "*", "pools": ["p", "q"]}],
    "retries": {"attempts": 25, "backoff": 0.01, "max_backoff": 0.1, "budget": 1, "reserve": REQUESTS},
    "health": {"max_fails": 3, "fail_duration": 0.02, "slow_start": 0.02},
    "timeouts": {"accept": 2, "idle": 2},
    **admin(),
}


class Chaos:
    """Five upstreams. At any time two of them at least are well, and one at most hangs.

    played: what each request met with, by its id, in order.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self._deck = cycle(random.sample(sorted(SCRIPTS), len(SCRIPTS)))
        self.faults = [""] * 5
        self.upstreams = [Upstream(partial(self._script, at)) for at in range(5)]
        self.played: defaultdict[str, list[tuple[str, Request]]] = defaultdict(list)
        self._changing = asyncio.Lock()

    def _script(self, at: int, request: Request) -> Script:
        fault = self.faults[at]
        self.played[request.headers["x-request-id"]].append((fault, request))
        return SCRIPTS[fault]

    async def change(self) -> None:
        """One of them gets another fault, or none."""
        async with self._changing:
            at = self.random.randrange(5)
            if self.faults[at] == AWAY:
                await self.upstreams[at].back()
            others = self.faults[:at] + self.faults[at + 1 :]
            self.faults[at] = self._draw(hanging=not HANGS.keys().isdisjoint(others)) if others.count("") > 1 else ""
            if self.faults[at] == AWAY:
                await self.upstreams[at].away()

    def _draw(self, *, hanging: bool) -> str:
        """The next fault, each in its turn."""
        return next(fault for fault in self._deck if not (hanging and fault in HANGS))

    def finished(self, name: str) -> int:
        """How many upstreams have answered this request to the end."""
        return sum(SCRIPTS[fault] is GOOD and request.played.is_set() for fault, request in self.played[name])

    def begun(self, name: str) -> bool:
        """Whether one of them has failed after its first delta."""
        return any(fault in LATE for fault, _ in self.played[name])


def leaves(number: int) -> bool:
    """Whether the client of this request does not wait for its end."""
    return number % 41 == 1


async def ask(proxy: Client, number: int) -> Reply:
    """Three of four are streams."""
    body = REQUEST | {"stream": number % 4 > 0, "input": f"conversation {number % 50}"}
    headers = {"X-Request-Id": f"r{number}"}
    async with proxy.session.post(f"{proxy.url}/responses", json=body, headers=headers) as reply:
        if leaves(number):
            reply.close()
        return Reply(reply.status, reply.headers, b"" if leaves(number) else await reply.read())


async def ask_all(proxy: Client, chaos: Chaos) -> dict[int, Reply]:
    numbers, replies = iter(range(REQUESTS)), {}

    async def client() -> None:
        for number in numbers:
            if number % CHANGE == 0:
                await chaos.change()
            replies[number] = await ask(proxy, number)

    await asyncio.gather(*(client() for _ in range(TOGETHER)))
    return replies


class Streams:
    """Checks streams; a second one that differs only in its ids and its time is as good as the first."""

    def __init__(self) -> None:
        self._known: dict[bytes, Json] = {}

    def final(self, reply: Reply) -> Json:
        names: dict[bytes, bytes] = {}
        alike = re.sub(rb"[a-z]+_[0-9a-f]{48}", lambda name: names.setdefault(name[0], b"%d" % len(names)), reply.body)
        alike = re.sub(rb'_at":[0-9]+', b"", alike)
        if alike not in self._known:
            self._known[alike] = reply.final()
        return self._known[alike]


async def test_nothing_is_lost_and_nothing_is_paid_twice() -> None:
    chaos, streams = Chaos(Random(7)), Streams()
    async with AsyncExitStack() as stack:
        for upstream in chaos.upstreams:
            await stack.enter_async_context(upstream)
        endpoints = [{"url": upstream.url, "max_requests": MOST} for upstream in chaos.upstreams]
        proxy = await stack.enter_async_context(in_process(*endpoints, **SETTINGS))
        replies = await ask_all(proxy, chaos)
        await idle(proxy)
        assert not any(shown["requests"] + shown["waiting"] for shown in (await upstreams(proxy)).values())
    ends = Counter[str]()
    for number, reply in replies.items():
        name = f"r{number}"
        assert chaos.finished(name) <= 1
        if leaves(number):
            continue
        if number % 4:
            status = streams.final(reply)["status"]
            assert status == "completed" or b"output_text.delta" in reply.body
        else:
            status = "completed" if reply.status == 200 else "failed"
        ends[status] += 1
        assert status != "completed" or b'"text":"Hi"' in reply.body  # of one upstream, and not of two
        assert chaos.finished(name) == (status == "completed"), name
        assert chaos.begun(name) or status == "completed", name
    met = Counter(fault for played in chaos.played.values() for fault, _ in played)
    print(f"{dict(ends)}, after {met.total()} attempts: {dict(met)}")  # noqa: T201
    assert len(replies) == REQUESTS
    assert len(met) > 12
