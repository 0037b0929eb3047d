"""What happened to one request: written on the way, read by its log line and by the headers of its answer."""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from msgspec import Struct

from proxy.core.deltas import Delta
from proxy.spans import OUTSIDE, RequestSpan


class Express(Protocol):
    """A sink that can take deltas at once, outside of any task."""

    def can_take(self) -> bool: ...

    def take(self, deltas: list[Delta]) -> None: ...


class Trace(Struct):
    """One request.

    id: x-request-id, the same toward client and upstream.
    headers: the client's, of which only those that an upstream's configuration lists go on; those that hold a key known
    here are missing.
    loop: the running one, at hand: Python 3.11 makes a system call to find it.
    authorization: the client's own, for upstreams that get it passed through; never logged.
    upstream_model: as upstreams call it. context: headers by which an upstream goes on with the client's trace.
    key: the name of the client's key, "" without keys.
    unknown: fields of the request that nobody knows. dropped: what was asked for and could not be said to the upstream.
    ignored: types of the input items that were skipped.
    alone: there is only one upstream for this model, so that its limits are the client's.
    limits: the rate limits that the upstream told, as headers in lower case.
    express: the short way to the client, once its stream has begun.
    """

    id: str
    headers: Mapping[str, str]
    loop: asyncio.AbstractEventLoop
    authorization: str = ""
    model: str = ""
    route: str = ""
    pool: str = ""
    upstream: str = ""
    key: str = ""
    upstream_model: str = ""
    context: Mapping[str, str] = MappingProxyType({})
    span: RequestSpan = OUTSIDE
    attempts: int = 0
    unknown: list[str] = []
    dropped: list[str] = []
    ignored: list[str] = []
    alone: bool = False
    limits: dict[str, str] = {}
    express: Express | None = None
