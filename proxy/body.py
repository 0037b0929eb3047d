"""The body of a client's request: JSON, whole, decompressed, and not too large.

Decompressed here and not by aiohttp (`auto_decompress` is off), in small steps: there a body of 2 KB that comes to 1 GB
is decompressed to its end even when it has been refused, 2.4 s of work.
"""

import asyncio
from collections.abc import Iterator
from functools import partial

from aiohttp import StreamReader, web
from aiohttp.compression_utils import BrotliDecompressor, ZLibDecompressor, ZSTDDecompressor

from proxy.errors import RequestError
from proxy.timers import after

STEP = 256 * 1024
"""Bytes that one step of decompression gives, 1 ms."""

PATIENCE = 30.0
"""Seconds that a client may take for the next bytes of its body."""

ENCODINGS = ("identity", "gzip", "deflate", "br", "zstd")

Decompressor = ZLibDecompressor | BrotliDecompressor | ZSTDDecompressor


async def json_body(request: web.Request, limit: int, patience: float = PATIENCE) -> bytes:
    """limit: bytes, after decompression. patience: seconds for the next bytes. Raises RequestError."""
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
        if encoding == "identity":
            return await _whole(request.content, limit, patience)
        return await _unpacked(request.content, limit, encoding, patience)
    except web.RequestPayloadError as error:
        raise RequestError("The request body is not framed as HTTP wants it.") from error


async def _whole(content: StreamReader, limit: int, patience: float) -> bytes:
    body = await (content.readany() if content.is_eof() else _next(content, patience))
    if not content.at_eof():
        blocks, size = [body], len(body)
        while block := await _next(content, patience):
            blocks.append(block)
            size += len(block)
            if size > limit:
                raise _too_large(limit)
        body = b"".join(blocks)
    if len(body) > limit:
        raise _too_large(limit)
    return body


async def _next(content: StreamReader, patience: float) -> bytes:
    """What is here of the body, as soon as that is something; b"" at its end."""
    timer = after(patience, partial(content.set_exception, TimeoutError()))
    try:
        return await content.readany()
    except TimeoutError as error:
        message = f"The request body is not whole, and nothing more of it came within {patience:g} s."
        raise RequestError(message, status=408, code="request_timeout") from error
    finally:
        timer.cancel()


async def _unpacked(content: StreamReader, limit: int, encoding: str, patience: float) -> bytes:
    decompressor: Decompressor | None = None
    pieces, size = [], 0
    while block := await _next(content, patience):
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
