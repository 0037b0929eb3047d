"""Serves what a file says, or checks it: the arguments, and what becomes of them."""

import argparse
import sys
from collections.abc import Sequence, Sized
from functools import partial
from pathlib import Path

from proxy.announcement import announcement
from proxy.app import serve, version
from proxy.config import Config
from proxy.listener import ListenError
from proxy.loading import ConfigError
from proxy.source import Source
from proxy.workers import supervise


def main(argv: Sequence[str]) -> int:
    """Serves until it is stopped, or only checks. Returns the exit status: 2 for a bad configuration."""
    args = arguments(argv)
    listen = {name: value for name in ("host", "port") if (value := getattr(args, name)) is not None}
    source = Source(args.config, listen)
    try:
        config = source.load()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    if args.check:
        print(f"{args.config}: ok ({count(config.upstreams, 'upstream')}, {count(config.routes, 'route')})")
        return 0
    run = serve if config.workers == 1 else supervise
    try:
        return run(source, config, partial(announce, config))
    except ListenError as error:
        print(f"{error}; elsewhere: HOST=, PORT=", file=sys.stderr)
        return 1


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="responses-proxy",
        description="A Responses API in front of endpoints that speak Chat Completions.",
        epilog="Other commands: `key` makes a key for a client, `schema` prints a JSON Schema of the YAML.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file, such as config/proxy.yaml")
    parser.add_argument("--check", action="store_true", help="only check the file")
    parser.add_argument("--host", help="listen here, whatever the file says")
    parser.add_argument("--port", type=port_number, help="listen on this port, whatever the file says; 0: any free one")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version()}")
    return parser.parse_args(argv)


def port_number(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 65535, found {text!r}")
    return int(text)


def count(things: Sized, noun: str) -> str:
    return f"{len(things)} {noun}" + ("" if len(things) == 1 else "s")


def announce(config: Config, host: str, port: int) -> None:
    print(announcement(config, host, port), flush=True)
