"""Without traces of our own, the client's is passed on."""

from typing import Any

import pytest
from multidict import CIMultiDict

from proxy.metrics import Done
from proxy.spans import Tracer, context_of

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {}),
        ({"Traceparent": PARENT, "Authorization": "Bearer x"}, {"traceparent": PARENT}),
        ({"traceparent": PARENT, "TraceState": "a=1"}, {"traceparent": PARENT, "tracestate": "a=1"}),
        ({"tracestate": "a=1"}, {}),  # which says nothing without the other
        (
            [("traceparent", PARENT), ("tracestate", "a=1"), ("TraceState", "b=2,c=3")],
            {"traceparent": PARENT, "tracestate": "a=1,b=2,c=3"},
        ),
        ({"traceparent": PARENT, "tracestate": ""}, {"traceparent": PARENT}),
        ({"traceparent": PARENT, "tracestate": "a=" + "1" * 511}, {"traceparent": PARENT}),
        ({"traceparent": PARENT * 10}, {}),
    ],
)
async def test_the_upstream_gets_what_the_client_said(given: Any, sent: dict[str, str]) -> None:
    tracer = Tracer()
    request = tracer.begin(context_of(CIMultiDict(given)), "POST", "/v1/responses")
    attempt = request.attempt("u1", "http://a/v1", "vllm", "m")
    assert attempt.headers == sent
    attempt.end("ok")
    request.end(Done(endpoint="/v1/responses", status=200))
    await tracer.close()
