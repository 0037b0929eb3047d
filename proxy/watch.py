"""Whether files have changed."""

from collections.abc import Iterable
from pathlib import Path

LOOK = 0.5
"""Seconds between two looks at the files; a change is noticed within two of them."""

Stamps = dict[Path, tuple[int, int, int] | None]
"""For each path what tells one content from another; None: there is no such file."""


class Watch:
    """Some files since they were read last.

    Links are followed: to turn one is a change, which is how Kubernetes replaces the files of a ConfigMap.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._read = self._seen = _stamps(files)

    def changed(self) -> bool:
        """True once for each change, and only when the files are as at the look before: nobody is writing any more."""
        last, self._seen = self._seen, _stamps(self._seen)
        if self._seen == self._read or self._seen != last:
            return False
        self._read = self._seen
        return True

    def mark(self) -> None:
        """They are being read now."""
        self._read = self._seen = _stamps(self._seen)

    def follow(self, files: Iterable[Path]) -> None:
        """From now on it is these; those that were followed before have been read when they were marked."""
        now = _stamps(files)
        self._read = self._seen = {path: self._read.get(path, stamp) for path, stamp in now.items()}


def _stamps(files: Iterable[Path]) -> Stamps:
    return {path: _stamp(path) for path in files}


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
