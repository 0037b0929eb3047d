"""The command: `python -m proxy CONFIG`, installed as `responses-proxy`; and two smaller ones, `key` and `schema`."""

import signal
import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {"key": "proxy.keys", "schema": "proxy.schema"}
"""Modules whose `main` takes the other arguments; without one of these words it is that of proxy.command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words and words[0] in COMMANDS:
        return run(COMMANDS[words[0]], words[1:])
    # Held back until it means a reload. Else it ends the process during the imports, which take most of the start.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    return run("proxy.command", words)


def run(module: str, words: Sequence[str]) -> int:
    status: int = import_module(module).main(words)
    return status


if __name__ == "__main__":
    sys.exit(main())
