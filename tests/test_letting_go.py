"""What a request needed is let go with its end, and does not wait for the cyclic collector."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from proxy.core.translator import Translator
from tests.failing import FAULTS, GOOD, retries
from tests.proxy import Client, in_process
from tests.upstream import GONE, Upstream, answer, chunk, sse


@contextmanager
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def alive() -> int:
    return sum(isinstance(each, Translator) for each in gc.get_objects())


async def ended(proxy: Client) -> None:
    """Returns when all requests have ended, with one that has nothing to do with the others."""
    while "requests_open{" in (metrics := (await proxy.get("/metrics")).body.decode()):
        if all(line.endswith(" 0.0") for line in metrics.splitlines() if "_requests_open{" in line and line[0] != "#"):
            return


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["reset", "500", "cut before the first delta", "hangs before headers", "400"])
async def test_a_failed_request_leaves_nothing(fault: str, stream: bool) -> None:
    script = answer(400, {"error": {"message": "no"}}) if fault == "400" else FAULTS[fault].script
    fields = {} if fault == "400" else FAULTS[fault].fields
    async with Upstream(*[script] * 9) as upstream, in_process(upstream, **retries(3), **fields) as proxy:
        with without_collector():
            await proxy.post(stream=stream)
            await ended(proxy)
            assert alive() == 0


async def test_a_request_that_fails_under_way_leaves_nothing() -> None:
    script = [*sse(chunk({"content": "Hel"}), done=False), *FAULTS["cut before the first delta"].script[1:]]
    async with Upstream(script) as upstream, in_process(upstream) as proxy:
        with without_collector():
            assert (await proxy.post(stream=True)).final()["status"] == "failed"
            await ended(proxy)
            assert alive() == 0


async def test_a_good_request_leaves_nothing() -> None:
    async with Upstream(GOOD, GOOD) as upstream, in_process(upstream) as proxy:
        with without_collector():
            await proxy.both()
            await ended(proxy)
            assert alive() == 0


async def test_a_client_that_leaves_leaves_nothing() -> None:
    script = [*sse(chunk({"content": "Hel"}), done=False), GONE]
    async with Upstream(script) as upstream, in_process(upstream) as proxy:
        with without_collector():
            async with proxy.stream() as stream:
                await stream.until("output_text.delta")
            await upstream.requests[0].gone.wait()
            await ended(proxy)
            assert alive() == 0
