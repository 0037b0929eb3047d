"""Random bytes in stock: each call of the kernel for them costs some microseconds, so they are fetched by the page."""

import os

_PAGE = 4096  # bytes


class _Stock:
    """Bytes that have not been given out."""

    def __init__(self) -> None:
        self.page = b""
        self.at = 0

    def empty(self) -> None:
        self.page, self.at = b"", 0


_stock = _Stock()
os.register_at_fork(after_in_child=_stock.empty)  # else two processes would give out the same


def random_hex(size: int) -> str:
    """2 * size hex digits, as good as os.urandom, for a small size in bytes; each byte is given out once."""
    end = _stock.at + size
    if end > len(_stock.page):
        _stock.page, _stock.at, end = os.urandom(_PAGE), 0, size
    taken = _stock.page[_stock.at : end]
    _stock.at = end
    return taken.hex()
