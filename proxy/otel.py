"""Spans by OpenTelemetry. Needs the extra `otel`, and is imported only when the configuration asks for traces.

A request is a server span by the conventions for HTTP, each attempt at an upstream a client span by those for
generative AI (github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/client-inference.md). Only the latter
hold tokens, since many backends add them up over all spans. Neither holds anything of prompts, answers, error messages
or keys.

Nothing here waits for the collector: spans go into the queue of a batch processor, at most 2,048 of them, whose thread
sends them. What finds it full is dropped, and the library says so in the log.
"""

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from time import time_ns
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace import Tracer as SdkTracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from proxy.metrics import Done, Outcome
from proxy.spans import AttemptSpan, RequestSpan, Tracer

LONGEST = 200  # characters of an attribute: the model's name is the client's text
PATIENCE = 5.0  # seconds for one request to the collector, further tries included, and for the rest at the end

OPERATIONS = {"/v1/completions": "text_completion", "/v1/embeddings": "embeddings"}
"""gen_ai.operation.name by endpoint; all others are `chat`."""

PROVIDERS = {"generic": "openai", "mistral": "mistral_ai", "azure": "azure.ai.openai"}
"""gen_ai.provider.name by profile, where the conventions have another word for it."""

_context = TraceContextTextMapPropagator()


class OtelTracer(Tracer):
    """Sends spans to a collector over OTLP and HTTP, in its own thread."""

    def __init__(self, endpoint: str, service: str, version: str, headers: Mapping[str, str], ratio: float) -> None:
        """See config.Otel. version: of the proxy."""
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=Resource.create({"service.name": service, "service.version": version}),
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_attribute_length=LONGEST),
        )
        self._exporter = OTLPSpanExporter(endpoint, headers=headers, timeout=PATIENCE)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("proxy", version)

    def begin(self, context: Mapping[str, str], method: str, endpoint: str) -> RequestSpan:
        attributes: dict[str, AttributeValue] = {"http.request.method": method, "http.route": endpoint}
        span = self._tracer.start_span(
            f"{method} {endpoint}", _context.extract(context, Context()), SpanKind.SERVER, attributes
        )
        return _Request(self._tracer, span, OPERATIONS.get(endpoint, "chat"))

    async def close(self) -> None:
        late = asyncio.get_running_loop().call_later(PATIENCE, self._exporter.shutdown)  # gives up what is left
        await asyncio.to_thread(self._provider.shutdown)
        late.cancel()


class _Request(RequestSpan):
    def __init__(self, tracer: SdkTracer, span: Span, operation: str) -> None:
        self._tracer = tracer
        self._span = span
        self._operation = operation
        self._last: _Attempt | None = None

    def attempt(self, upstream: str, url: str, provider: str, model: str) -> AttemptSpan:
        if self._last is not None:
            self._last.leave()
        attributes: dict[str, AttributeValue] = {
            "gen_ai.operation.name": self._operation,
            "gen_ai.provider.name": PROVIDERS.get(provider, provider),
            "gen_ai.request.model": model,
            "responses_proxy.upstream": upstream,
            **_server(url),
        }
        parent = set_span_in_context(self._span, Context())
        span = self._tracer.start_span(f"{self._operation} {model}", parent, SpanKind.CLIENT, attributes)
        self._last = _Attempt(span)
        return self._last

    def end(self, done: Done, model: str = "", response: str = "") -> None:
        if self._last is not None:
            self._last.tell(done, response)
            self._last.leave()
        span = self._span
        if span.is_recording():
            told = {
                "gen_ai.request.model": model,
                "gen_ai.response.id": response,
                "responses_proxy.route": done.route,
                "responses_proxy.key": done.key,
                "responses_proxy.ended": done.ended,
            }
            span.set_attribute("http.response.status_code", done.status)
            span.set_attributes({name: value for name, value in told.items() if value})
            if error := _fault(done):
                span.set_attribute("error.type", error)
                span.set_status(Status(StatusCode.ERROR))
        span.end()


class _Attempt(AttemptSpan):
    """Leaves only when the next one begins or the request ends: what the last one used is known no sooner."""

    def __init__(self, span: Span) -> None:
        headers: dict[str, str] = {}
        _context.inject(headers, set_span_in_context(span, Context()))
        super().__init__(headers)
        self._span = span
        self._began = time_ns()
        self._ended: int | None = None

    def end(self, outcome: Outcome) -> None:
        self._ended = time_ns()
        if outcome != "ok":
            self._span.set_attribute("error.type", outcome)
            self._span.set_status(Status(StatusCode.ERROR))

    def tell(self, done: Done, response: str) -> None:
        """What is known at the end of the request."""
        if not self._span.is_recording():
            return
        told: dict[str, AttributeValue] = {
            "gen_ai.request.stream": done.stream,
            "gen_ai.response.id": response,
            "gen_ai.usage.input_tokens": done.input,
            "gen_ai.usage.cache_read.input_tokens": done.cached,
            "gen_ai.usage.output_tokens": done.output,
            "gen_ai.usage.reasoning.output_tokens": done.reasoning,
        }
        self._span.set_attributes({name: value for name, value in told.items() if value})
        if done.stream and done.first is not None:
            earlier = done.duration - (time_ns() - self._began) / 1e9  # so much before this the request began
            self._span.set_attribute("gen_ai.response.time_to_first_chunk", max(0.0, done.first - earlier))

    def leave(self) -> None:
        self._span.end(self._ended)


def _fault(done: Done) -> str | None:
    """error.type of a request that failed, and not by its client."""
    if done.status >= 500:
        return str(done.status)
    return done.ended if done.ended == "failed" else None


@lru_cache(1024)
def _server(url: str) -> dict[str, AttributeValue]:
    parts = urlsplit(url)
    return {
        "server.address": parts.hostname or "",
        "server.port": parts.port or (443 if parts.scheme == "https" else 80),
    }
