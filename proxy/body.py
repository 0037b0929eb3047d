"""The body of a client's request: JSON, whole, decompressed, and not too large.

Decompressed here and not by aiohttp (`auto_decompress` is off), in small steps: there a body of 2 KB that comes to 1 GB
is decompressed to its end even when it has been refused, 2.4 s of work.
"""

import asyncio
from collections.abc import Iterator

from aiohttp import web
from aiohttp.compression_utils import BrotliDecompressor, ZLibDecompressor, ZSTDDecompressor

from proxy.errors import RequestError

STEP = 256 * 1024
"""Bytes that one step of decompression gives, 1 ms."""

ENCODINGS = ("identity", "gzip", "deflate", "br", "zstd")

Decompressor = ZLibDecompressor | BrotliDecompressor | ZSTDDecompressor


async def json_body(request: web.Request, limit: int) -> bytes:
    """limit: bytes, after decompression. Raises RequestError."""
    kind = request.content_type
    if kind != "application/json" and not kind.endswith("+json"):
        raise RequestError(
            f"Unsupported content type: {kind!r}. Send the request body as 'application/json'.",
            status=415,
            code="unsupported_content_type",
        )
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ENCODINGS:
        allowed = ", ".join(repr(each) for each in ENCODINGS)
        raise RequestError(
            f"Unsupported content encoding: {encoding[:40]!r}. Supported are {allowed}.",
            status=415,
            code="unsupported_content_encoding",
        )
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    try:
        return await (_whole(request, limit) if encoding == "identity" else _unpacked(request, limit, encoding))
    except web.RequestPayloadError as error:
        raise RequestError("The request body is not framed as HTTP wants it.") from error


async def _whole(request: web.Request, limit: int) -> bytes:
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


async def _unpacked(request: web.Request, limit: int, encoding: str) -> bytes:
    decompressor: Decompressor | None = None
    pieces, size = [], 0
    while block := await request.content.readany():
        decompressor = decompressor or _decompressor(encoding, block)
        for piece in _steps(decompressor, block, encoding):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            await asyncio.sleep(0)  # other streams go on
    return b"".join(pieces)


def _decompressor(encoding: str, block: bytes) -> Decompressor:
    """block: the beginning of the body, which tells whether `deflate` comes with a header, as it should."""
    if encoding == "br":
        return BrotliDecompressor()
    if encoding == "zstd":
        return ZSTDDecompressor()
    return ZLibDecompressor(encoding, suppress_deflate_header=encoding == "deflate" and block[0] & 0xF != 8)


def _steps(decompressor: Decompressor, block: bytes, encoding: str) -> Iterator[bytes]:
    try:
        while piece := decompressor.decompress_sync(block, STEP):
            yield piece
            block = b""
    except Exception as error:  # each of the three libraries has its own
        raise RequestError(f"The request body could not be read as {encoding!r}.") from error


def _too_large(limit: int) -> RequestError:
    message = f"The request body is larger than the {limit} bytes allowed."
    return RequestError(message, status=413, code="request_too_large")
