"""Reading an answer's body in blocks, at a fraction of what aiohttp's own reader costs.

aiohttp keeps account of every HTTP chunk (engines send one for each token) and asks the connection to resume reading
for each of them. Whoever reads blocks needs neither. This is the only place that knows aiohttp's insides; where they
are not as expected, the reader is left as it is.
"""

import socket
from collections.abc import Callable
from typing import Any, cast

from aiohttp import StreamReader

RECEIVE = 24 * 1024
"""Bytes of the kernel's receive buffer, which it doubles.

As much as one read can bring, and so a bound on what a stalled client holds.
"""


class BlockReader(StreamReader):
    """A StreamReader for readany() only.

    Somebody may listen: then, instead of waking the reader that waits, the loop calls `listener` once for all that one
    read of the socket has brought. It takes what there is with take(), or calls wake() to let the reader have it.
    """

    __slots__ = ()  # the class of a living object can be changed only to one of the same layout

    def feed_data(self, data: bytes, size: int = 0) -> bool:
        if data:
            self._buffer.append(data)
            self._size += len(data)
            self.total_bytes += len(data)
            if self._waiter is not None:
                listener: Any = self._http_chunk_splits
                if listener is None:
                    self.wake()
                elif len(self._buffer) == 1:
                    self._loop.call_soon(listener)
            if self._size > self._high_water:
                self._protocol.pause_reading()
        return False

    def begin_http_chunk_receiving(self) -> None:
        pass

    def end_http_chunk_receiving(self) -> None:
        pass

    def listen(self, listener: Callable[[], None] | None) -> None:
        self._http_chunk_splits = cast("Any", listener)  # a place that is of no other use here

    def waits(self) -> bool:
        """Whether a reader waits."""
        return self._waiter is not None

    def wake(self) -> None:
        """Let the reader that waits have what there is, if anything."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def readany(self) -> bytes:
        """What there is; b"" at the end, and after a wake() with nothing there."""
        if not self._buffer:  # what has arrived before a failure is given out before it
            if self._exception is not None:
                raise self._exception
            if not self._eof:
                try:
                    await self._wait("readany")
                except Exception:
                    if not self._buffer:
                        raise
        return self.take()

    def take(self) -> bytes:
        buffer = self._buffer
        data = buffer[0] if len(buffer) == 1 else b"".join(buffer)
        buffer.clear()
        self._size = 0
        if self._protocol._reading_paused:
            self._protocol.resume_reading()
        return data


_NEEDED = {
    "_buffer",
    "_buffer_offset",
    "_eof",
    "_exception",
    "_high_water",
    "_http_chunk_splits",
    "_loop",
    "_protocol",
    "_size",
    "_waiter",
    "total_bytes",
}
_FITS = _NEEDED.issubset(getattr(StreamReader, "__slots__", ())) and hasattr(StreamReader, "_wait")


def by_blocks(content: StreamReader) -> StreamReader:
    """The same body, from now on to be read by readany() alone."""
    if _FITS and type(content) is StreamReader and not content._buffer_offset:
        content.__class__ = BlockReader
        content._http_chunk_splits = None
    return content


def read_small(transport: Any) -> None:
    """Let asyncio ask for 64 KiB a read and not for 256, which the kernel would map and unmap each time."""
    if getattr(transport, "max_size", 0) > 2 * RECEIVE:
        transport.max_size = 2 * RECEIVE


def small_socket(address: tuple[Any, ...]) -> socket.socket:
    """For aiohttp's socket_factory."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE)
    return made
