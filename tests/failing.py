"""What tests of failing upstreams share: settings, metrics, log lines."""

import logging
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from proxy.access import Line
from proxy.keys import hash_of
from tests.proxy import Client, Json
from tests.upstream import CLOSE, CUT, GONE, Head, Raw, Script, Upstream, answer, chunk, sse, text

GOOD = text("Hi")
FIRST = sse(chunk({"role": "assistant", "content": "Hel"}), done=False)
HTML = "<html><h1>Bad Gateway</h1></html>"
FAST = {"backoff": 0.001, "max_backoff": 0.002}
BOTH = pytest.mark.parametrize("stream", [False, True])


def oh(message: str) -> Json:
    return {"error": {"message": message, "type": "oh", "param": None, "code": None}}


@dataclass(frozen=True)
class Fault:
    """A fault of an upstream, and what becomes of it.

    status: the client's, when there is no other upstream. begun: the upstream's own 200 was out, so that a stream fails
    by events. outcome: in the metrics. again: the same upstream is asked again.
    """

    script: Script
    status: int
    outcome: str
    begun: bool = False
    again: bool = True
    fields: Json = field(default_factory=dict)


FAULTS = {
    "reset": Fault([Raw(b""), CUT], 502, "unreachable"),
    "closed": Fault([Raw(b""), CLOSE], 502, "unreachable"),
    "hangs before headers": Fault(
        [Raw(b""), GONE], 504, "unreachable", again=False, fields={"timeouts": {"accept": 0.05}}
    ),
    "hangs before the first token": Fault(
        [Head(), GONE], 504, "broken", begun=True, again=False, fields={"timeouts": {"idle": 0.05}}
    ),
    "cut before the first delta": Fault([Head(), b"data: {", CUT], 502, "broken", begun=True),
    "closed before the first delta": Fault([Head(), b": here\n\n", CLOSE], 502, "broken", begun=True),
    "429 with Retry-After": Fault(answer(429, oh("slow"), retry_after="0.001"), 429, "overloaded"),
    "429 with a long Retry-After": Fault(answer(429, oh("slow"), retry_after="9"), 429, "overloaded", again=False),
    "429": Fault(answer(429, oh("slow")), 429, "overloaded", again=False),
    "no money": Fault(answer(402, oh("pay")), 429, "refused", again=False),
    "no access": Fault(answer(401, oh("who?")), 502, "refused", again=False),
    "500": Fault(answer(500, oh("died")), 502, "failed"),
    "503": Fault(answer(503, oh("loading")), 503, "overloaded"),
    "503 with a long Retry-After": Fault(answer(503, oh("later"), retry_after="9"), 503, "overloaded", again=False),
    "408": Fault(answer(408, oh("slow")), 504, "failed"),
    "502 as HTML": Fault(answer(502, HTML, content_type="text/html"), 502, "failed"),
    "200 as HTML": Fault(answer(200, HTML, content_type="text/html"), 502, "broken", begun=True),
    "an error in the stream": Fault(sse(oh("died"), done=False), 502, "failed", begun=True),
}


def pool(*names: str, policy: str = "round_robin", **fields: Any) -> Json:
    """The YAML: one pool of these, for all models."""
    pools = {"p": {"upstreams": list(names), "policy": policy}}
    return {"pools": pools, "routes": [{"model": "*", "pools": ["p"]}], **fields}


def retries(attempts: int = 3, **fields: Any) -> Json:
    return {"retries": FAST | {"attempts": attempts} | fields}


def limited(upstream: Upstream, size: int = 100, seconds: float = 30, most: int = 1) -> Json:
    """An endpoint that gets so many requests at a time."""
    return {"url": upstream.url, "max_requests": most, "waiting": {"size": size, "time": seconds}}


def admin() -> Json:
    return {"admin_keys": [hash_of("sk-root")]}


async def upstreams(proxy: Client) -> dict[str, Any]:
    """What /admin/upstreams shows, by name."""
    reply = await proxy.ask("GET", "/admin/upstreams", headers={"Authorization": "Bearer sk-root"})
    return {each.pop("name"): each for each in reply.json()["upstreams"]}


@contextmanager
def no_more_files() -> Iterator[None]:
    """This process can open nothing."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def logged() -> Iterator[list[Line]]:
    """The log lines of responses, as they come."""
    lines: list[Line] = []

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = record.__dict__["fields"]
            if line.path == "/v1/responses":
                lines.append(line)

    log, notes = logging.getLogger("proxy.access"), Notes()
    before = log.level
    log.setLevel(logging.INFO)
    log.addHandler(notes)
    try:
        yield lines
    finally:
        log.removeHandler(notes)
        log.setLevel(before)


async def counted(proxy: Client, name: str, *labels: str) -> Counter[Any]:
    """A metric by the values of these labels."""
    found: Counter[Any] = Counter()
    for family in parse((await proxy.get("/metrics")).body.decode()):
        for sample in family.samples:
            if sample.name == f"responses_proxy_{name}" and sample.value:
                values = tuple(sample.labels[label] for label in labels)
                found[values if len(values) > 1 else values[0]] += int(sample.value)
    return found


async def attempts(proxy: Client) -> Counter[Any]:
    return await counted(proxy, "upstream_attempts_total", "upstream", "outcome")


async def idle(proxy: Client) -> None:
    """Returns once no upstream has anything to do; fails the test by its guard if that never comes."""
    while await counted(proxy, "upstream_requests_open", "upstream"):
        pass
