"""A configuration -> everything that serves it."""

import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec
from msgspec import Struct, structs

from proxy import config as configured
from proxy import demo
from proxy.answer import Timeouts
from proxy.attempts import Retries
from proxy.checks import is_loopback
from proxy.config import DEMO, Config
from proxy.connections import Connections, Tls
from proxy.core import balance
from proxy.core.retry import Backoff, Budget
from proxy.dialects import load
from proxy.keys import Grant, Keyring
from proxy.limits import MemoryLimits
from proxy.loading import resolve_profile
from proxy.metrics import Metrics
from proxy.pools import Check, Member, Pool, State, Terms
from proxy.probes import Probes
from proxy.router import Route, Router
from proxy.service import Service
from proxy.serving import Instruments, Serving
from proxy.sinks import Pace
from proxy.upstream import Endpoint, Upstream

S = TypeVar("S", bound=Struct)


async def assemble(
    config: Config,
    instruments: Instruments,
    old: Serving | None = None,
    contexts: Mapping[Tls, ssl.SSLContext] | None = None,
) -> Serving:
    """What this configuration amounts to; to be closed, or retired, by the caller.

    old: the one that it replaces, whose counts and health go on. contexts: made before, without which files are read.
    """
    async with AsyncExitStack() as stack:
        connections = await stack.enter_async_context(Connections(contexts))
        demo_url = ""
        if any(upstream.url == DEMO for upstream in config.upstreams.values()):
            model = await demo.start()
            stack.push_async_callback(model.close)
            demo_url = model.url
        router = _router(config, _Pools(config, connections, demo_url, old), instruments.metrics)
        instruments.metrics.watch(router.watched)
        grants = [_like(Grant, key) for key in config.keys]
        limits = old.limits if old else MemoryLimits()
        keyring = Keyring(grants, config.admin_keys)
        probes = Probes(member for pool in router.pools for member in pool.members)
        stack.callback(probes.close)
        limits.keep(grants)
        return Serving(
            Service(router, keyring, strict=config.strict),
            _like(Pace, config.stream),
            limits,
            instruments,
            probes,
            body_limit=config.limits.body,
            metrics_open=config.metrics.open,
            resources=stack.pop_all(),
        )


def client_contexts(config: Config) -> dict[Tls, ssl.SSLContext]:
    """How all upstreams are recognised. Raises OSError when the files can't be used."""
    found = {_like(Tls, upstream.tls) for upstream in config.upstreams.values() if upstream.tls}
    return {tls: tls.context() for tls in found}


def _router(config: Config, pools: "_Pools", metrics: Metrics) -> Router:
    retries = config.retries
    backoff = Backoff(retries.backoff, retries.max_backoff)
    routes = [_route(route, pools) for route in config.routes]
    return Router(routes, Retries(retries.attempts, backoff), metrics, config.models_cache)


def _route(route: configured.Route, pools: "_Pools") -> Route:
    return Route(
        [route.model, *route.aliases],
        [pools.get(name, route) for name in (*route.pools, *route.upstreams)],
        upstream_model=route.upstream_model,
        reasoning=None if route.reasoning_output == "auto" else route.reasoning_output,
        defaults=route.defaults,
        overrides=route.overrides,
        body=route.body,
        pass_fields=route.pass_fields,
        max_output_tokens=route.max_output_tokens,
        max_input=route.max_input,
        long_context=pools.get(route.long_context, route) if route.long_context else None,
        endpoints=tuple(route.endpoints),
    )


class _Pools:
    """Makes pools, one for all routes that see it alike: a route may change the profile of its upstreams."""

    def __init__(self, config: Config, connections: Connections, demo_url: str, old: Serving | None) -> None:
        self._config = config
        self._connections = connections
        self._demo_url = demo_url
        self._made: dict[tuple[str, bytes], Pool] = {}
        self._upstreams: dict[tuple[str, bytes], Upstream] = {}
        self._budgets: dict[str, Budget] = {}
        before = {state.name: state for state in old.service.router.states} if old else {}
        self._states = {name: _state(name, each, before) for name, each in config.upstreams.items()}

    def get(self, name: str, route: configured.Route) -> Pool:
        """name: of a pool, or of an upstream, which is a pool of its own."""
        seen = name, msgspec.json.encode(route.profile)
        pool = self._made.get(seen)
        if pool is None:
            given = self._config.pools.get(name)
            weights = given.upstreams if given else {name: 1.0}
            policy = getattr(balance, given.policy if given else "round_robin")
            upstreams = [(self._upstream(each, route), weight) for each, weight in weights.items()]
            members = [Member(each, weight, self._states[each.name]) for each, weight in upstreams]
            retries = self._config.retries
            budget = self._budgets.setdefault(name, Budget(retries.budget, retries.reserve))
            pool = self._made[seen] = Pool(name, members, policy, budget)
        return pool

    def _upstream(self, name: str, route: configured.Route) -> Upstream:
        given = self._config.upstreams[name]
        profile = resolve_profile(given, route)
        seen = name, msgspec.json.encode(profile)
        if seen not in self._upstreams:
            endpoint = Endpoint(
                name=name,
                url=self._demo_url if given.url == DEMO else given.url,
                product=route.profile.base or given.profile.base or "generic",
                dialect=load(given.dialect),
                profile=profile,
                key=given.key,
                pass_key=given.pass_key,
                headers=given.headers,
                body=given.body,
                forward=given.forward_headers,
                timeouts=_like(Timeouts, given.timeouts),
                event_limit=self._config.limits.event,
                strict=self._config.strict,
                tls=_like(Tls, given.tls) if given.tls else Tls(),
                socket=given.socket,
                proxy=_proxy(given),
            )
            self._upstreams[seen] = Upstream(endpoint, self._connections)
        return self._upstreams[seen]


def _state(name: str, given: configured.Upstream, before: dict[str, State]) -> State:
    """The old one while it is the same place on the same terms."""
    health = given.health
    terms = Terms(
        max_requests=given.max_requests,
        line=given.waiting.size,
        patience=given.waiting.time,
        max_fails=health.max_fails,
        fail_duration=health.fail_duration,
        slow_start=health.slow_start,
        check=_like(Check, health.check) if health.check else None,
    )
    address = f"{given.url} {given.socket}"
    known = before.get(name)
    if known is not None and (known.terms, known.address) == (terms, address):
        return known
    return State(name, terms, address)


def _proxy(upstream: configured.Upstream) -> str:
    """The URL of the HTTP proxy that leads to it, "" for none."""
    if upstream.proxy != "environment":
        return "" if upstream.proxy == "none" else upstream.proxy
    parts = urlsplit(upstream.url)
    host = parts.hostname or ""
    if upstream.socket or upstream.url == DEMO or is_loopback(host) or proxy_bypass(host):
        return ""
    return getproxies().get(parts.scheme, "")


def _like(cls: type[S], given: Struct) -> S:
    """What the configuration says, as the Struct of the same fields that the room below knows."""
    return msgspec.convert(structs.asdict(given), cls)
