"""What becomes of an upstream's failures, and when the next one is asked."""

import asyncio
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.proxy import in_process
from tests.upstream import (
    CLOSE,
    CUT,
    EVENT_STREAM,
    GONE,
    Forever,
    Head,
    Raw,
    Script,
    Step,
    Upstream,
    answer,
    chunk,
    sse,
    text,
)

REFUSED = {"url": "http://127.0.0.1:1/v1"}
NO_HOST = {"url": "http://no-such-host.invalid/v1"}
GOOD = text("Hi")
FIRST = sse(chunk({"role": "assistant", "content": "Hel"}), done=False)


# Before the 200: a status


def oh(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "oh", "param": None, "code": None} | fields}


LONG = "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens."
VLLM = {"object": "error", "message": LONG, "code": 400}
STATUSES: list[tuple[int, Any, int, str, str | None, str | None]] = [
    (400, oh(LONG, code=400), 400, "invalid_request_error", "context_length_exceeded", "input"),
    (400, VLLM, 400, "invalid_request_error", "context_length_exceeded", "input"),
    (400, oh("bad response_format"), 400, "invalid_request_error", None, "text.format"),
    (400, oh("max_tokens is too large"), 400, "invalid_request_error", None, "max_output_tokens"),
    (400, oh("no", code="odd"), 400, "invalid_request_error", "odd", None),
    (422, {"detail": [{"loc": ["body", "tools"], "msg": "bad"}]}, 400, "invalid_request_error", None, "tools"),
    (401, oh("bad key"), 502, "server_error", "server_error", None),
    (403, oh("not you"), 502, "server_error", "server_error", None),
    (402, oh("pay"), 429, "insufficient_quota", "insufficient_quota", None),
    (404, oh("The model `m` does not exist."), 400, "invalid_request_error", "model_not_found", "model"),
    (404, {"detail": "Not Found"}, 502, "server_error", "server_error", None),
    (408, oh("slow"), 504, "server_error", "server_error", None),
    (409, oh("busy"), 503, "server_error", "server_is_overloaded", None),
    (413, oh("big"), 413, "invalid_request_error", "request_too_large", None),
    (425, oh("early"), 503, "server_error", "server_is_overloaded", None),
    (429, oh("slow down", type="tokens"), 429, "tokens", "rate_limit_exceeded", None),
    (429, oh("quota", code="insufficient_quota"), 429, "insufficient_quota", "insufficient_quota", None),
    (500, oh("engine died"), 502, "server_error", "server_error", None),
    (500, oh("Conversation roles must alternate"), 400, "invalid_request_error", "invalid_prompt", "input"),
    (500, "Traceback (most recent call last):\n secret", 502, "server_error", "server_error", None),
    (502, "<html><h1>Bad Gateway</h1></html>", 502, "server_error", "server_error", None),
    (503, oh("loading"), 503, "server_error", "server_is_overloaded", None),
    (503, b"", 503, "server_error", "server_is_overloaded", None),
    (504, "", 504, "server_error", "server_error", None),
    (301, "", 502, "server_error", "server_error", None),
]


@pytest.mark.parametrize(("given", "body", "status", "kind", "code", "param"), STATUSES)
async def test_an_upstreams_status_becomes_ours(
    given: int, body: Any, status: int, kind: str, code: str | None, param: str | None
) -> None:
    async with Upstream(answer(given, body)) as upstream, in_process(upstream) as proxy:
        for reply in await proxy.both():
            error = reply.error()
            assert (reply.status, error["type"], error["code"], error["param"]) == (status, kind, code, param)
            assert not re.search(r"Traceback|secret|<html>", error["message"])
        assert len(upstream.requests) == 2


async def test_an_upstreams_own_words_are_kept() -> None:
    async with Upstream(answer(400, oh("temperature: not so hot"))) as upstream, in_process(upstream) as proxy:
        error = (await proxy.post()).error()
    assert (error["message"], error["param"]) == ("temperature: not so hot", "temperature")


async def test_an_html_page_is_no_answer() -> None:
    page: Script = [Head(200, {"content-type": "text/html"}, "length"), b"<html>Welcome</html>"]
    async with Upstream(page) as upstream, in_process(upstream) as proxy:
        whole, stream = await proxy.both()
    assert (whole.status, whole.error()["type"]) == (502, "server_error")
    assert stream.failure()["code"] == "server_error"


async def test_an_empty_body_is_no_answer() -> None:
    async with Upstream([Head(200, framing="length")]) as upstream, in_process(upstream) as proxy:
        whole, stream = await proxy.both()
    assert whole.status == 502
    assert stream.failure()["code"] == "server_error"


@pytest.mark.parametrize("endpoint", [REFUSED, NO_HOST])
async def test_an_upstream_that_is_not_there_is_a_503(endpoint: dict[str, str]) -> None:
    async with in_process(endpoint) as proxy:
        for reply in await proxy.both():
            assert (reply.status, reply.error()["code"]) == (503, "server_is_overloaded")
            assert int(reply.headers["retry-after"]) >= 1


@pytest.mark.parametrize("script", [[Raw(b"SSH-2.0-OpenSSH\r\n\r\n")], [Raw(b""), CUT], [Raw(b""), CLOSE]])
async def test_an_upstream_that_speaks_no_http_is_a_502(script: Script) -> None:
    async with Upstream(script) as upstream, in_process(upstream) as proxy:
        for reply in await proxy.both():
            assert (reply.status, reply.error()["type"]) == (502, "server_error")


# Retry-After


async def test_a_retry_after_is_passed_on() -> None:
    async with Upstream(answer(429, oh("slow"), retry_after="7")) as upstream, in_process(upstream) as proxy:
        for reply in await proxy.both():
            assert (reply.status, reply.headers["retry-after"], reply.headers["retry-after-ms"]) == (429, "7", "7000")
            assert "try again in 7s" in reply.error()["message"]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("header", [{}, {"retry_after": "soon"}])
async def test_without_a_retry_after_there_is_one(status: int, header: dict[str, str]) -> None:
    async with Upstream(answer(status, oh("slow"), **header)) as upstream, in_process(upstream) as proxy:
        reply = await proxy.post(stream=True)
    assert (reply.status, int(reply.headers["retry-after"]) >= 1) == (status, True)


async def test_nobody_is_told_to_try_again_without_money() -> None:
    async with Upstream(answer(402, oh("pay"))) as upstream, in_process(upstream) as proxy:
        assert (await proxy.post()).headers["x-should-retry"] == "false"


# Rate limits


async def test_the_rate_limits_of_an_only_upstream_are_passed_on() -> None:
    limits = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-tokens": "149", "x-ratelimit-odd": "1"}
    good: Script = [Head(headers=EVENT_STREAM | limits), *GOOD]
    slow: Script = [Head(429, {"content-type": "application/json"} | limits, "length"), b"{}"]
    async with Upstream(good, good, slow) as upstream, in_process(upstream, retries={"attempts": 1}) as proxy:
        for reply in (*await proxy.both(), await proxy.post()):
            told = {name: value for name, value in reply.headers.items() if "ratelimit" in name}
            assert told == {name: limits[name] for name in list(limits)[:2]}


# The next upstream


BEFORE: dict[str, Script] = {
    "503": answer(503, oh("loading")),
    "429": answer(429, oh("slow")),
    "500": answer(500, oh("died")),
    "reset before headers": [Raw(b""), CUT],
    "closed before headers": [Raw(b""), CLOSE],
    "reset after headers": [Head(), CUT],
    "closed after headers": [Head(), CLOSE],
    "reset after a comment": [b": processing\n\n", CUT],
    "reset after a chunk that says nothing": [*sse(chunk({"role": "assistant", "content": ""}), done=False), CUT],
    "empty": [Head(framing="length")],
    "an error in the stream": sse(oh("overloaded", code=503), done=False),
}


@pytest.mark.parametrize("name", BEFORE)
async def test_until_the_first_delta_the_next_upstream_is_asked(name: str) -> None:
    async with Upstream(BEFORE[name]) as first, Upstream(GOOD) as second, in_process(first, second) as proxy:
        whole, stream = await proxy.both()
        assert (len(first.requests), len(second.requests)) == (2, 2)
    assert (whole.status, whole.json()["status"], stream.final()["status"]) == (200, "completed", "completed")


@pytest.mark.parametrize("endpoint", [REFUSED, NO_HOST])
async def test_an_upstream_that_is_not_there_is_passed_over(endpoint: dict[str, str]) -> None:
    async with Upstream(GOOD) as second, in_process(endpoint, second) as proxy:
        assert [reply.status for reply in await proxy.both()] == [200, 200]


async def test_a_bad_request_is_bad_everywhere() -> None:
    async with Upstream(answer(400, oh("bad"))) as first, Upstream(GOOD) as second:
        async with in_process(first, second) as proxy:
            assert [reply.status for reply in await proxy.both()] == [400, 400]
        assert second.requests == []


async def test_after_the_first_delta_no_other_is_asked() -> None:
    async with Upstream([*FIRST, CUT]) as first, Upstream(GOOD) as second, in_process(first, second) as proxy:
        whole, stream = await proxy.both()
        assert second.requests == []
    assert whole.status == 502
    assert stream.failure()["code"] == "server_error"


async def test_when_all_fail_the_last_one_is_told_of() -> None:
    async with (
        Upstream(answer(500, oh("died"))) as first,
        Upstream(answer(429, oh("slow"))) as second,
        in_process(first, second) as proxy,
    ):
        assert [reply.status for reply in await proxy.both()] == [429, 429]


# Connections


async def test_an_idle_connection_that_has_died_is_no_failure() -> None:
    async with Upstream(GOOD, [Raw(b""), CUT], GOOD) as upstream, in_process(upstream) as proxy:
        assert [(await proxy.post()).status for _ in range(2)] == [200, 200]
        assert [request.connection for request in upstream.requests] == [1, 1, 2]


async def test_it_is_tried_once_more_and_not_again() -> None:
    async with Upstream(GOOD, [Raw(b""), CUT]) as upstream, in_process(upstream) as proxy:
        assert [(await proxy.post()).status for _ in range(2)] == [200, 502]
        assert len(upstream.requests) == 3


async def test_a_new_connection_that_dies_is_a_failure() -> None:
    async with Upstream([Raw(b""), CUT], GOOD) as upstream, in_process(upstream) as proxy:
        assert (await proxy.post()).status == 502
        assert len(upstream.requests) == 1


async def test_a_failed_answer_leaves_no_connection_open() -> None:
    bad = sse(chunk({"content": "x"}), b"data: {oh\n\n", done=False)
    async with Upstream([*bad, GONE]) as upstream, in_process(upstream) as proxy:
        assert (await proxy.post(stream=True)).failure()["code"] == "server_error"
        await upstream.requests[0].gone.wait()


# After the 200: events


@pytest.mark.parametrize("pieces", range(len(GOOD)))
@pytest.mark.parametrize("end", [CUT, CLOSE])
async def test_a_stream_may_break_anywhere(pieces: int, end: Step) -> None:
    async with Upstream([Head(), *GOOD[:pieces], end]) as upstream, in_process(upstream) as proxy:
        whole, stream = await proxy.both()
    final = stream.final()
    assert final["status"] == ("completed" if whole.status == 200 else "failed")
    finished = pieces >= 3  # the finish_reason is out
    assert finished or (whole.status, final["error"]["code"]) == (502, "server_error")


async def test_what_came_before_the_break_is_there() -> None:
    async with Upstream([*FIRST, CUT]) as upstream, in_process(upstream) as proxy:
        events = (await proxy.post(stream=True)).events()
    assert [event["type"] for event in events[-3:]] == ["response.output_text.delta", "error", "response.failed"]
    assert events[-3]["delta"] == "Hel"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (oh("died"), 502, "server_error"),
        (oh("died", code=500), 502, "server_error"),
        (oh("busy", code=503), 503, "server_is_overloaded"),
        (oh("slow", code="rate_limit_exceeded", type="tokens"), 429, "rate_limit_exceeded"),
        (oh(LONG), 400, "context_length_exceeded"),
        ({"error": "died"}, 502, "server_error"),
    ],
)
@pytest.mark.parametrize("before", [[], FIRST])
async def test_an_error_in_the_stream_ends_it(error: Any, status: int, code: str, before: list[bytes]) -> None:
    async with Upstream([*before, *sse(error)]) as upstream, in_process(upstream) as proxy:
        whole, stream = await proxy.both()
    assert (whole.status, whole.error()["code"]) == (status, code)
    if stream.status == 200:
        assert stream.failure()["code"] == code
    else:
        assert (stream.status, stream.error()["code"], before) == (status, code, [])


async def test_garbage_in_the_stream_ends_it() -> None:
    async with Upstream([*FIRST, b"data: {oh\n\n", *GOOD]) as upstream, in_process(upstream) as proxy:
        whole, stream = await proxy.both()
    assert (whole.status, stream.failure()["code"]) == (502, "server_error")


async def test_an_event_over_the_limit_ends_it() -> None:
    big = sse(chunk({"content": "x" * 5000}))
    async with Upstream([*FIRST, *big]) as upstream, in_process(upstream, limits={"event": "4 KiB"}) as proxy:
        whole, stream = await proxy.both()
    assert (whole.status, stream.failure()["code"]) == (502, "server_error")


# Time


@contextmanager
def full() -> Iterator[str]:
    """The URL of a listener whose queue is full: connections to it stay half open."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


async def test_a_connection_must_come_in_time() -> None:
    with full() as url:
        async with in_process({"url": url}, timeouts={"connect": 0.2}) as proxy:
            for reply in await proxy.both():
                assert reply.status in (503, 504)
                assert "0.2 s" in reply.error()["message"]


async def test_a_connection_that_does_not_come_means_the_next_upstream() -> None:
    with full() as url:
        async with Upstream(GOOD) as second, in_process({"url": url}, second, timeouts={"connect": 0.2}) as proxy:
            assert [reply.status for reply in await proxy.both()] == [200, 200]


async def test_an_answer_must_begin_in_time() -> None:
    async with Upstream([Raw(b""), GONE]) as upstream, in_process(upstream, timeouts={"accept": 0.05}) as proxy:
        for reply in await proxy.both():
            assert (reply.status, reply.error()["type"]) == (504, "server_error")
        await asyncio.gather(*(request.gone.wait() for request in upstream.requests))


@pytest.mark.parametrize("before", [[Head()], FIRST])
@pytest.mark.parametrize("limit", ["idle", "total"])
async def test_an_answer_must_go_on_in_time(before: Script, limit: str) -> None:
    async with Upstream([*before, GONE]) as upstream, in_process(upstream, timeouts={limit: 0.5}) as proxy:
        whole, stream = await proxy.both()
        await asyncio.gather(*(request.gone.wait() for request in upstream.requests))
    assert (whole.status, stream.failure()["code"]) == (504, "server_error")


async def test_a_lively_answer_must_end_in_time() -> None:
    async with Upstream([Forever(FIRST[0])]) as upstream, in_process(upstream, timeouts={"total": 0.1}) as proxy:
        reply = await proxy.post()
    assert (reply.status, "0.1 s" in reply.error()["message"]) == (504, True)
