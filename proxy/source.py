"""Where the configuration comes from: its files, whether they have changed, and what they say now."""

import logging
import os
from collections.abc import Iterable
from logging import DEBUG, ERROR, WARNING
from pathlib import Path
from typing import Any

from msgspec import structs

from proxy.config import Config
from proxy.loading import ConfigError, load
from proxy.watch import Watch

log = logging.getLogger(__name__)


class Source:
    """A YAML file with what it names. listen: fields of `listen` that the command line gives instead of the file."""

    def __init__(self, path: Path, listen: dict[str, Any] | None = None) -> None:
        self.path = path
        self.listen = listen or {}
        self._watch = Watch([path])

    def load(self) -> Config:
        """What the files say. Raises ConfigError."""
        return self._load(self.listen)

    def changed(self) -> bool:
        """True once for each change of a file since it was read, when nobody is writing to it any more."""
        return self._watch.changed()

    def reload(self, begun: Config, *, quiet: bool = False) -> Config | None:
        """What the files say now, but for what stays as a process began with; None when they can't be used.

        That is said in the log; quiet: a supervisor has said it for all.
        """
        try:
            wanted = self.load()
            # Checked again for the place where it does listen: without keys, that may be no place for it.
            where = begun.listen
            now = self._load({"host": where.host, "port": where.port, "socket": where.socket})
        except ConfigError as error:
            log.log(DEBUG if quiet else ERROR, "not reloaded, the configuration from before goes on: %s", error)
            return None
        for name in _fixed_differences(begun, wanted):
            message = "%s: %s is changed by a restart only; the rest takes effect"
            log.log(DEBUG if quiet else WARNING, message, self.path, name)
        return _with_fixed(begun, now)

    def _load(self, listen: dict[str, Any]) -> Config:
        self._watch.mark()
        config = load(self.path, os.environ, **listen)
        self._watch.follow(self._files(config))
        return config

    def _files(self, config: Config) -> Iterable[Path]:
        yield self.path
        if config.keys_file:
            yield Path(config.keys_file)
        if tls := config.listen.tls:
            yield from map(Path, filter(None, (tls.certificate, tls.key, tls.client_ca)))
        for upstream in config.upstreams.values():
            if own := upstream.tls:
                yield from map(Path, filter(None, (own.ca, own.certificate, own.key)))


def _fixed_differences(begun: Config, now: Config) -> list[str]:
    """The fields that differ, of those that stay as they were at the start."""
    fixed, wanted = _fixed(begun), _fixed(now)
    return [name for name, value in wanted.items() if fixed[name] != value]


def _fixed(config: Config) -> dict[str, object]:
    listen = config.listen
    return {
        "listen.host": listen.host,
        "listen.port": listen.port,
        "listen.socket": listen.socket,
        "listen.tls": listen.tls is not None,
        "listen.tls.client_ca": listen.tls is not None and bool(listen.tls.client_ca),
        "workers": config.workers,
        "loop": config.loop,
        "metrics.enabled": config.metrics.enabled,
    }


def _with_fixed(begun: Config, now: Config) -> Config:
    """What holds now, for a worker that begins too; host, port and socket are right already."""
    before, after = begun.listen.tls, now.listen.tls
    alike = (before is None) == (after is None) and bool(before and before.client_ca) == bool(after and after.client_ca)
    return structs.replace(
        now,
        listen=now.listen if alike else structs.replace(now.listen, tls=before),
        workers=begun.workers,
        loop=begun.loop,
        metrics=structs.replace(now.metrics, enabled=begun.metrics.enabled),
    )
