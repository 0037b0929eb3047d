"""What a collector of traces is sent, and what upstreams are told of the trace."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from proxy.metrics import Done
from proxy.otel import OtelTracer

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
DONE = Done(
    endpoint="/v1/responses", status=200, ended="completed", route="big", key="ann", input=7, cached=3, output=5,
    reasoning=2, duration=1.5, first=0.5, stream=True,
)  # fmt: skip


class Collector:
    """Takes spans over OTLP and HTTP. url: where."""

    url = ""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[str | None] = []
        self.status = 200

    async def take(self, request: web.Request) -> web.Response:
        self.headers.append(request.headers.get("x-token"))
        self.requests.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(status=self.status)

    @property
    def spans(self) -> list[Span]:
        """In the order of their ends."""
        resources = [each for request in self.requests for each in request.resource_spans]
        return [span for resource in resources for scope in resource.scope_spans for span in scope.spans]

    def span(self, name: str) -> Span:
        (found,) = (span for span in self.spans if span.name == name)
        return found


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    made = Collector()
    app = web.Application()
    app.add_routes([web.post("/v1/traces", made.take)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    yield made
    await runner.cleanup()


@asynccontextmanager
async def tracing(collector: Collector, ratio: float = 1) -> AsyncIterator[OtelTracer]:
    """At its end all spans have arrived."""
    tracer = OtelTracer(collector.url, "front", "1.2", {"x-token": "t"}, ratio)
    async with asyncio.timeout(30):
        yield tracer
        await tracer.close()


def attributes(of: Any) -> dict[str, Any]:
    def value(pair: KeyValue) -> Any:
        return getattr(pair.value, str(pair.value.WhichOneof("value")))

    return {pair.key: value(pair) for pair in of.attributes}


async def test_a_request_is_a_span_and_so_is_each_attempt(collector: Collector) -> None:
    async with tracing(collector) as tracer:
        request = tracer.begin({}, "POST", "/v1/responses")
        request.attempt("u1", "http://a:8000/v1", "vllm", "m1").end("overloaded")
        request.attempt("u2", "https://b/v1", "generic", "m2").end("ok")
        request.end(DONE, "client-name", "resp_1")
    whole, first, second = (collector.span(name) for name in ("POST /v1/responses", "chat m1", "chat m2"))
    assert [first.parent_span_id, second.parent_span_id] == [whole.span_id] * 2
    assert {span.trace_id for span in collector.spans} == {whole.trace_id}
    assert (whole.kind, first.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    assert whole.start_time_unix_nano <= first.start_time_unix_nano <= first.end_time_unix_nano
    assert first.end_time_unix_nano <= second.start_time_unix_nano <= second.end_time_unix_nano


async def test_the_attempt_that_spoke_tells_what_was_used(collector: Collector) -> None:
    async with tracing(collector) as tracer:
        request = tracer.begin({}, "POST", "/v1/responses")
        request.attempt("u1", "http://a:8000/v1", "vllm", "m1").end("unreachable")
        request.attempt("u2", "https://b/v1", "mistral", "m2").end("ok")
        request.end(DONE, "client-name", "resp_1")
    told = attributes(collector.span("chat m2"))
    assert told.pop("gen_ai.response.time_to_first_chunk") >= 0
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "mistral_ai",
        "gen_ai.request.model": "m2",
        "gen_ai.request.stream": True,
        "gen_ai.response.id": "resp_1",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 2,
        "responses_proxy.upstream": "u2",
        "server.address": "b",
        "server.port": 443,
    }
    assert not [name for name in attributes(collector.span("chat m1")) if "usage" in name]


async def test_the_request_tells_how_it_was_served_and_no_tokens(collector: Collector) -> None:
    async with tracing(collector) as tracer:
        tracer.begin({}, "POST", "/v1/responses").end(DONE, "client-name", "resp_1")
    assert attributes(collector.span("POST /v1/responses")) == {
        "http.request.method": "POST",
        "http.route": "/v1/responses",
        "http.response.status_code": 200,
        "gen_ai.request.model": "client-name",
        "gen_ai.response.id": "resp_1",
        "responses_proxy.route": "big",
        "responses_proxy.key": "ann",
        "responses_proxy.ended": "completed",
    }


@pytest.mark.parametrize(
    ("status", "ended", "error"),
    [(503, "error", "503"), (200, "failed", "failed"), (400, "error", None), (200, "client_closed", None)],
)
async def test_a_failure_is_an_error_unless_it_is_the_clients(
    collector: Collector, status: int, ended: str, error: str | None
) -> None:
    async with tracing(collector) as tracer:
        tracer.begin({}, "POST", "/v1/responses").end(Done(endpoint="/v1/responses", status=status, ended=ended))
    (span,) = collector.spans
    assert attributes(span).get("error.type") == error
    assert (span.status.code == Status.STATUS_CODE_ERROR) == (error is not None)


async def test_an_attempt_that_failed_tells_how(collector: Collector) -> None:
    async with tracing(collector) as tracer:
        request = tracer.begin({}, "POST", "/v1/embeddings")
        request.attempt("u1", "http://[::1]:8000/v1", "vllm", "e").end("broken")
        request.end(Done(endpoint="/v1/embeddings", status=502, ended="error"))
    span = collector.span("embeddings e")
    assert span.status.code == Status.STATUS_CODE_ERROR
    told = attributes(span)
    assert (told["error.type"], told["server.address"], told["server.port"]) == ("broken", "::1", 8000)


async def test_the_clients_trace_goes_on_at_the_upstream(collector: Collector) -> None:
    async with tracing(collector, ratio=0) as tracer:  # the client's word counts, not ours
        request = tracer.begin(HEADERS, "POST", "/v1/responses")
        attempt = request.attempt("u1", "http://a/v1", "vllm", "m")
        sent = dict(attempt.headers)
        attempt.end("ok")
        request.end(DONE)
    span = collector.span("chat m")
    assert sent == {"traceparent": f"00-{TRACE}-{span.span_id.hex()}-01", "tracestate": "vendor=1"}
    assert collector.span("POST /v1/responses").parent_span_id.hex() == PARENT


async def test_a_trace_that_the_client_does_not_sample_is_passed_on_and_not_sent(collector: Collector) -> None:
    async with tracing(collector) as tracer:
        request = tracer.begin({"traceparent": f"00-{TRACE}-{PARENT}-00"}, "POST", "/v1/responses")
        sent = dict(request.attempt("u1", "http://a/v1", "vllm", "m").headers)
        request.end(DONE, "m", "resp_1")
    assert sent["traceparent"].startswith(f"00-{TRACE}-")
    assert sent["traceparent"].endswith("-00")
    assert collector.requests == []


@pytest.mark.parametrize("given", ["", "garbage", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01"])
async def test_a_bad_traceparent_begins_a_new_trace(collector: Collector, given: str) -> None:
    async with tracing(collector) as tracer:
        tracer.begin({"traceparent": given}, "POST", "/v1/responses").end(DONE)
    (span,) = collector.spans
    assert span.parent_span_id == b""


async def test_an_attempt_ends_before_its_request(collector: Collector) -> None:
    async with tracing(collector) as tracer:
        request = tracer.begin({}, "POST", "/v1/responses")
        request.attempt("u1", "http://a/v1", "vllm", "m").end("ok")
        then = time.time_ns()
        request.end(DONE)
    attempt, whole = collector.span("chat m"), collector.span("POST /v1/responses")
    assert attempt.end_time_unix_nano <= then <= whole.end_time_unix_nano


async def test_an_attempt_that_nobody_ended_is_sent_too(collector: Collector) -> None:
    async with tracing(collector) as tracer:
        request = tracer.begin({}, "POST", "/v1/responses")
        request.attempt("u1", "http://a/v1", "vllm", "m")
        request.end(Done(endpoint="/v1/responses", status=200, ended="client_closed"))
    assert collector.span("chat m").end_time_unix_nano > 0


async def test_the_service_and_the_collectors_headers_are_those_of_the_configuration(collector: Collector) -> None:
    async with tracing(collector) as tracer:
        tracer.begin({}, "POST", "/v1/responses").end(DONE)
    assert collector.headers == ["t"]
    told = attributes(collector.requests[0].resource_spans[0].resource)
    assert (told["service.name"], told["service.version"]) == ("front", "1.2")


async def test_long_names_are_cut(collector: Collector) -> None:
    async with tracing(collector) as tracer:
        tracer.begin({}, "POST", "/v1/responses").end(DONE, "m" * 1000)
    assert attributes(collector.spans[0])["gen_ai.request.model"] == "m" * 200


async def test_a_collector_that_fails_does_no_harm(collector: Collector) -> None:
    collector.status = 400
    async with tracing(collector) as tracer:
        tracer.begin({}, "POST", "/v1/responses").end(DONE)
    assert len(collector.requests) == 1
