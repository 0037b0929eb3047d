"""What is printed at the start: where it listens, what goes where, and what to try."""

import json
import shlex
from collections.abc import Iterator

from proxy.app import loop_name
from proxy.config import DEMO, Config, Pool, Route
from proxy.listener import joined

MOST = 20
"""Routes that are shown; a file may have a thousand."""


def announcement(config: Config, host: str, port: int) -> str:
    """host, port: as the listener gives them, the path and 0 for a unix socket."""
    # What listens everywhere is reached here at this machine's own address.
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    scheme = "https" if config.listen.tls else "http"
    base = f"{scheme}://{joined(here, port) if port else 'localhost'}/v1"
    other = f", and at this machine's other addresses ({host})" if here != host else ""
    other = other if port else f", on the unix socket {host}"
    lines = [f"Responses API: {base}{other}", *_routes(config), *_processes(config)]
    return "\n  ".join(["\n".join([*lines, "Try it:"]), *_trial(config, base)])


def _routes(config: Config) -> list[str]:
    """Each route with the places that are asked, in their order."""
    routes = config.routes[:MOST]
    width = max(len(route.model) for route in routes)
    lines = []
    for route in routes:
        lines += [f"  {route.model:{width}}  ->  {place}" for place in _places(config, route)]
        if route.aliases:
            lines.append(f"  {'':{width}}      also called {', '.join(route.aliases)}")
    if hidden := len(config.routes) - len(routes):
        lines.append(f"  and {hidden} more routes")
    return lines


def _places(config: Config, route: Route) -> Iterator[str]:
    for name in route.upstreams:
        yield f"{name}  {_target(config, name, route)}"
    for name in route.pools:
        yield f"{name}  {_pool(config.pools[name])}"
    if route.long_context:
        yield f"{route.long_context}  {_pool(config.pools[route.long_context])}, for long prompts"


def _pool(pool: Pool) -> str:
    members = (name + (f" x {weight:g}" if weight != 1 else "") for name, weight in pool.upstreams.items())
    return f"{', '.join(members)} ({pool.policy})"


def _target(config: Config, name: str, route: Route) -> str:
    upstream = config.upstreams[name]
    if upstream.url == DEMO:
        return "the built-in demo model; for a real one: make run UPSTREAM=http://127.0.0.1:8000/v1"
    return f"{upstream.url} ({upstream.dialect}, {route.profile.base or upstream.profile.base or 'generic'})"


def _processes(config: Config) -> list[str]:
    loop = f"Event loop: {loop_name(config.loop)}"
    if config.workers == 1:
        return [loop]
    lines = [loop, f"Workers: {config.workers}"]
    if any(key.requests_per_minute or key.tokens_per_minute or key.streams for key in config.keys):
        lines[1] += f"; each counts for itself, so a key may have up to {config.workers} times its limits"
    return lines


def _trial(config: Config, base: str) -> list[str]:
    """Commands that show a stream when pasted into a shell. A model's name that no route says is asked for first."""
    known = [route.model for route in config.routes if not set("*?") & set(route.model)]
    first = config.routes[0]
    if first.model == "*" and first.upstreams and config.upstreams[first.upstreams[0]].url == DEMO:
        known.append("demo")
    options = _options(config)
    body = json.dumps({"model": known[0] if known else "$MODEL", "input": "Say hello.", "stream": True})
    post = f"curl -N{options} {base}/responses -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    if known:
        return [post]
    find = 'grep -o \'"id": *"[^"]*"\' | head -n 1 | cut -d \'"\' -f 4'
    return [f"MODEL=$(curl -s{options} {base}/models | {find})", post.replace("$MODEL", "'\"$MODEL\"'")]


def _options(config: Config) -> str:
    """What curl needs to be let in."""
    options = f" --unix-socket {shlex.quote(config.listen.socket)}" if config.listen.socket else ""
    if tls := config.listen.tls:
        options += " -k" + (" --cert CERTIFICATE --key KEY" if tls.client_ca else "")
    return options + (' -H "Authorization: Bearer $KEY"' if config.keys else "")
