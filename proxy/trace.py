"""What happened to one request: written on the way, read by its log line and by the headers of its answer."""

from collections.abc import Mapping

from msgspec import Struct


class Trace(Struct):
    """One request.

    id: x-request-id, the same toward client and upstream.
    headers: the client's, of which only those that an upstream's configuration lists go on.
    authorization: the client's own, for upstreams that get it passed through; never logged.
    unknown: fields of the request that nobody knows. dropped: what was asked for and could not be said to the upstream.
    ignored: types of the input items that were skipped.
    """

    id: str
    headers: Mapping[str, str]
    authorization: str = ""
    model: str = ""
    route: str = ""
    upstream: str = ""
    attempts: int = 0
    unknown: list[str] = []
    dropped: list[str] = []
    ignored: list[str] = []
