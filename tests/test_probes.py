"""Active health checks, of real endpoints."""

import asyncio
from typing import Any

import pytest

from tests.failing import GOOD, admin, no_more_files, oh, retries, upstreams
from tests.proxy import Client, in_process
from tests.upstream import GONE, Head, Raw, Request, Script, Upstream, answer


def checked(upstream: Upstream, **fields: Any) -> dict[str, Any]:
    """An endpoint that is looked at 100 times a second."""
    return {"url": upstream.url, "health": {"slow_start": 0, "check": {"interval": 0.01, "fall": 1} | fields}}


class Sick:
    """An upstream's scripts: it answers well, but checks only while `well`."""

    def __init__(self, bad: Script) -> None:
        self.well = True
        self.bad = bad

    def __call__(self, request: Request) -> Script:
        if request.method == "POST":
            return GOOD
        return answer(200, "fine") if self.well else self.bad


async def shown(proxy: Client, health: str) -> dict[str, Any]:
    """What is shown of the first upstream, once its health is this."""
    while (found := (await upstreams(proxy))["u1"])["health"] != health:
        pass
    return found  # type: ignore[no-any-return]


BAD: dict[str, tuple[Script, str]] = {
    "500": (answer(500, oh("died")), "status 500 at /health"),
    "another status": (answer(204, ""), "status 204 at /health"),
    "silence": ([Raw(b""), GONE], "no answer to /health within 0.05 s"),
    "no HTTP": ([Raw(b"SSH-2.0\r\n\r\n")], "can't be reached"),
}


@pytest.mark.parametrize("name", BAD)
async def test_who_fails_its_checks_gets_nothing_until_it_passes_again(name: str) -> None:
    script, reason = BAD[name]
    sick = Sick(script)
    async with (
        Upstream(sick) as first,
        Upstream(GOOD) as second,
        in_process(checked(first, timeout=0.05), second, **admin()) as proxy,
    ):
        sick.well = False
        assert reason in (await shown(proxy, "unhealthy"))["reason"]
        assert (await proxy.post()).status == 200
        assert len(second.requests) == 1
        sick.well = True
        assert (await shown(proxy, "healthy"))["available"]
        assert (await proxy.post()).status == 200
        assert len(second.requests) == 1


async def test_who_can_not_be_reached_is_found_out_and_comes_back() -> None:
    async with Upstream(Sick([])) as upstream, in_process(checked(upstream), **admin(), **retries(1)) as proxy:
        await upstream.away()
        assert "can't be reached" in (await shown(proxy, "unhealthy"))["reason"]
        await upstream.back()
        await shown(proxy, "healthy")
        assert (await proxy.post()).status == 200


async def test_a_check_is_a_get_on_the_upstreams_host_with_its_key() -> None:
    async with Upstream(answer(204, "")) as upstream:
        endpoint = checked(upstream, path="/live?deep=1", status=[204]) | {"key": "sk-upstream"}
        async with in_process(endpoint, **admin()) as proxy:
            request = await upstream.received(2)
            assert (await upstreams(proxy))["u1"]["health"] == "healthy"
    assert (request.method, request.path) == ("GET", "/live?deep=1")
    assert request.headers["authorization"] == "Bearer sk-upstream"


async def test_it_takes_as_many_checks_in_a_row_as_configured() -> None:
    bad, good = answer(500, ""), answer(200, "")
    gate = asyncio.Event()
    scripts: list[Script] = [bad, bad, good, bad, bad, [gate, *GOOD]]  # the third in a row does not come
    async with Upstream(*scripts) as upstream, in_process(checked(upstream, fall=3), **admin()) as proxy:
        await upstream.received(6)
        assert (await upstreams(proxy))["u1"]["health"] == "healthy"


async def test_checks_end_with_the_proxy() -> None:
    async with Upstream(answer(200, "")) as upstream:
        async with in_process(checked(upstream)):
            await upstream.received(3)
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "check upstream u1"]


async def test_a_check_that_could_not_be_made_says_nothing() -> None:
    fine: Script = [Head(200, framing="close"), b"fine"]  # so that each check needs a connection
    async with Upstream(fine) as upstream, in_process(checked(upstream), **admin()) as proxy:
        await shown(proxy, "healthy")  # this connection is kept
        await upstream.received(2)
        with no_more_files():
            looks = [(await upstreams(proxy))["u1"] for _ in range(100)]
    assert {(look["health"], look["reason"]) for look in looks} == {("healthy", "")}
