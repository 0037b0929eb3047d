"""The paths of the endpoints, and what aiohttp decides about a request before its endpoint is asked."""

from collections.abc import Mapping
from typing import Any

from aiohttp import HttpVersion11, web

from proxy.errors import RequestError

MODEL = r"/v1/models/{id:[\s\S]+}"
ANY = r"/{path:[\s\S]*}"
"""Of whatever characters: a path is decoded before it is matched, and may hold a line feed, which is none for `.`."""


async def proceed(request: web.Request) -> None:
    """Tell a client that waits for it to send its body. Raises RequestError when it expects anything else."""
    expected = request.headers["Expect"]
    if expected.lower() != "100-continue":
        message = f"Unsupported Expect header: {expected[:40]!r}. Supported is '100-continue'."
        raise RequestError(message, status=417)
    if request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun


def allowed(app: web.Application, request: web.Request) -> list[str]:
    """The methods of the other routes to this path."""
    routes = [route for route in app.router.routes() if route.method != "*"]
    return sorted({route.method for route in routes if _leads(route.get_info(), request.rel_url.raw_path)})


def _leads(info: Mapping[str, Any], path: str) -> bool:
    """Whether a route is the path's. info: aiohttp's description of it."""
    return bool(info["pattern"].fullmatch(path)) if "pattern" in info else info.get("path") == path
