"""The command: `python -m proxy CONFIG`, installed as `responses-proxy`."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from msgspec import structs

from proxy.app import serve
from proxy.config import DEMO, Config, Route, Upstream
from proxy.loading import ConfigError, load


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until it is stopped, or only checks. Returns the exit status: 2 for a bad configuration."""
    args = arguments(argv)
    try:
        config = load(args.config, os.environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    if args.check:
        print(f"{args.config}: ok ({count(config.upstreams, 'upstream')}, {count(config.routes, 'route')})")
        return 0
    host = config.listen.host if args.host is None else args.host
    port = config.listen.port if args.port is None else args.port
    config = structs.replace(config, listen=structs.replace(config.listen, host=host, port=port))
    try:
        return serve(config, partial(announce, config))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        print(f"can't listen on {address(host, port)}: {reason}; elsewhere: HOST=, PORT=", file=sys.stderr)
        return 1


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="responses-proxy", description="A Responses API in front of endpoints that speak Chat Completions."
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file, such as config/proxy.yaml")
    parser.add_argument("--check", action="store_true", help="only check the file")
    parser.add_argument("--host", help="listen here, whatever the file says")
    parser.add_argument("--port", type=port_number, help="listen on this port, whatever the file says; 0: any free one")
    parser.add_argument("--version", action="version", version=f"%(prog)s {installed_version()}")
    return parser.parse_args(argv)


def port_number(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 65535, found {text!r}")
    return int(text)


def installed_version() -> str:
    try:
        return version("responses-proxy")
    except PackageNotFoundError:
        return "(not installed)"


def count(things: Sequence[object] | dict[str, Upstream], noun: str) -> str:
    return f"{len(things)} {noun}" + ("" if len(things) == 1 else "s")


def announce(config: Config, host: str, port: int) -> None:
    """Says where it listens, what goes where, and what to try."""
    # What listens everywhere is reached here at this machine's own address.
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    base = f"http://{address(here, port)}/v1"
    width = max(len(route.model) for route in config.routes)
    print(f"Responses API: {base}" + ("" if here == host else f", and at this machine's other addresses ({host})"))
    for route in config.routes:
        for name in route.upstreams:
            print(f"  {route.model:{width}}  ->  {name}  {target(route, config.upstreams[name])}")
    print("Try it:", *trial(config, base), sep="\n  ", flush=True)


def target(route: Route, upstream: Upstream) -> str:
    if upstream.url == DEMO:
        return "the built-in demo model; for a real one: make run UPSTREAM=http://127.0.0.1:8000/v1"
    return f"{upstream.url} ({upstream.dialect}, {route.profile.base or upstream.profile.base or 'generic'})"


def trial(config: Config, base: str) -> list[str]:
    """Commands that show a stream when pasted into a shell. A model's name that no route says is asked for first."""
    known = [route.model for route in config.routes if not set("*?") & set(route.model)]
    if config.upstreams[config.routes[0].upstreams[0]].url == DEMO and config.routes[0].model == "*":
        known.append("demo")
    body = json.dumps({"model": known[0] if known else "$MODEL", "input": "Say hello.", "stream": True})
    post = f"curl -N {base}/responses -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    if known:
        return [post]
    ask = f"MODEL=$(curl -s {base}/models | grep -o '\"id\": *\"[^\"]*\"' | head -n 1 | cut -d '\"' -f 4)"
    return [ask, post.replace("$MODEL", "'\"$MODEL\"'")]


def address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


if __name__ == "__main__":
    sys.exit(main())
