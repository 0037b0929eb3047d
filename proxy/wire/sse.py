"""Server-sent events: frames out, payloads in, at any cut of the bytes."""

from collections.abc import Sequence

from proxy.wire.events import Event

COMMENT = b": keepalive\n\n"
DONE = b"data: [DONE]\n\n"
BOM = b"\xef\xbb\xbf"


def frames(events: Sequence[Event]) -> bytes:
    """Events for one write: a client's parser may lose what is split before its blank line."""
    return events[0].frame if len(events) == 1 else b"".join([event.frame for event in events])


class Splitter:
    """The bytes of an event stream -> the payloads of its events.

    Takes LF, CRLF and CR, `data:` with and without a space, data over several lines, comments, other fields, a byte
    order mark, a missing last blank line. A line that is a JSON object without `data:` is a payload of its own: some
    servers write their errors so.

    overflow: an event has grown past `limit` bytes; what comes after it is not looked at.
    """

    __slots__ = ("_after_cr", "_data", "_limit", "_partial", "_size", "_start", "overflow")

    def __init__(self, limit: int) -> None:
        self.overflow = False
        self._limit = limit
        self._partial: list[
            bytes
        ] = []  # a line so far, joined once its end has come: no quadratic copying (pitfall 68)
        self._data: list[bytes] = []  # the data lines of an event so far
        self._size = 0  # bytes in both
        self._start = True
        self._after_cr = False

    def feed(self, block: bytes) -> list[bytes]:
        """The payloads that this block completes, in order."""
        if self._start and not self._partial and block.startswith(b"data: "):
            self._start = False  # no byte order mark
        if self._start or self._after_cr or b"\r" in block:
            block = self._with_plain_ends(block)
        fresh = not self._partial and not self._data
        if fresh and block.find(b"\n") == len(block) - 2 and block.startswith(b"data: ") and block.endswith(b"\n"):
            return [block[6:-2]] if len(block) <= self._limit else self._feed_lines(block)  # an engine's own pace
        begin = 0 if fresh else block.find(b"\n\n") + 2
        end = block.rfind(b"\n\n") + 2
        if 1 < end <= self._limit and begin != 1 and begin < end and block.startswith(b"data: ", begin):
            # Nearly always: whole events of one line each. Taken apart by one split.
            payloads = block[begin + 6 : end - 2].split(b"\n\ndata: ")
            if block.count(b"\n", begin, end) == 2 * len(payloads):
                if begin:
                    before = self._feed_lines(block[:begin])
                    if self.overflow:
                        return before
                    payloads[:0] = before
                if end < len(block):
                    payloads += self._feed_lines(block[end:])
                return payloads
        return self._feed_lines(block)

    def _feed_lines(self, block: bytes) -> list[bytes]:
        lines = block.split(b"\n")
        rest = lines.pop()
        if lines and self._partial:
            self._partial.append(lines[0])
            lines[0] = b"".join(self._partial)
            self._size -= len(lines[0]) - len(self._partial.pop())
            self._partial.clear()
        payloads = self._take(lines)
        if rest:
            self._partial.append(rest)
            self._size += len(rest)
            self.overflow |= self._size > self._limit
        return payloads

    def close(self) -> list[bytes]:
        """The payload that stood at the end without its blank line, if any."""
        return self.feed(b"\n\n")

    def _take(self, lines: list[bytes]) -> list[bytes]:
        payloads: list[bytes] = []
        data = self._data
        for line in lines:
            if not line:
                if data:
                    payloads.append(data[0] if len(data) == 1 else b"\n".join(data))
                    data.clear()
                    self._size = 0
                continue
            self._size += len(line)
            if self._size > self._limit or self.overflow:
                self.overflow = True
                break
            if line.startswith(b"data:"):
                data.append(line[5:])
            else:
                self._size -= len(line)
                if line.startswith(b"{"):
                    payloads.append(line)
        return payloads

    def _with_plain_ends(self, block: bytes) -> bytes:
        """The block with LF for every line end; a CRLF may be cut in two."""
        if self._start:
            block = b"".join((*self._partial, block))
            self._partial.clear()
            self._size = 0
            if len(block) < len(BOM) and BOM.startswith(block):
                self._partial.append(block)  # may be the beginning of a byte order mark
                return b""
            self._start = False
            block = block.removeprefix(BOM)
        if self._after_cr and block:
            block = block.removeprefix(b"\n")
            self._after_cr = False
        if block.endswith(b"\r"):
            self._after_cr = True
        return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
