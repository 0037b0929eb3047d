"""The body of a client's request: JSON, whole, decompressed, and not too large."""

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError

from proxy.errors import RequestError

ENCODINGS = ("identity", "gzip", "deflate", "br", "zstd")


async def json_body(request: web.Request, limit: int) -> bytes:
    """limit: bytes, after decompression. Raises RequestError."""
    kind = request.content_type
    if kind != "application/json" and not kind.endswith("+json"):
        raise RequestError(
            f"Unsupported content type: {kind!r}. Send the request body as 'application/json'.",
            status=415,
            code="unsupported_content_type",
        )
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ENCODINGS:
        allowed = ", ".join(repr(each) for each in ENCODINGS)
        raise RequestError(
            f"Unsupported content encoding: {encoding[:40]!r}. Supported are {allowed}.",
            status=415,
            code="unsupported_content_encoding",
        )
    try:
        return await _whole(request, limit)
    except (web.RequestPayloadError, ContentEncodingError) as error:
        raise RequestError(f"The request body could not be read as {encoding!r}.") from error


async def _whole(request: web.Request, limit: int) -> bytes:
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    content = request.content
    body = await content.readany()
    if not content.at_eof():
        blocks, size = [body], len(body)
        while block := await content.readany():
            blocks.append(block)
            size += len(block)
            if size > limit:
                raise _too_large(limit)
        body = b"".join(blocks)
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> RequestError:
    message = f"The request body is larger than the {limit} bytes allowed."
    return RequestError(message, status=413, code="request_too_large")
