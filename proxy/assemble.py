"""A configuration -> everything that serves it."""

from contextlib import AsyncExitStack

import msgspec

from proxy import demo
from proxy.answer import Timeouts
from proxy.config import DEMO, Config
from proxy.config import Route as ConfiguredRoute
from proxy.core.profile import Profile
from proxy.dialects import load
from proxy.loading import resolve_profile
from proxy.router import Route, Router
from proxy.service import Service
from proxy.serving import Serving
from proxy.sinks import Pace
from proxy.upstream import Endpoint, Upstream, open_session


async def assemble(config: Config, old: Serving | None = None) -> Serving:
    """What this configuration amounts to; to be closed, or retired, by the caller.

    old: the one that it replaces, whose counts and health go on.
    """
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session())
        demo_url = ""
        if any(upstream.url == DEMO for upstream in config.upstreams.values()):
            model = await demo.start()
            stack.push_async_callback(model.close)
            demo_url = model.url
        upstreams: dict[tuple[str, Profile], Upstream] = {}
        routes = []
        for route in config.routes:
            wanted = [_endpoint(config, route, name, demo_url) for name in route.upstreams]
            asked = [upstreams.setdefault((e.name, e.profile), Upstream(e, session)) for e in wanted]
            shown = None if route.reasoning_output == "auto" else route.reasoning_output
            routes.append(Route(route.model, asked, route.upstream_model, shown))
        return Serving(
            Service(Router(routes)),
            msgspec.convert(config.stream, Pace, from_attributes=True),
            strict=config.strict,
            body_limit=config.limits.body,
            resources=stack.pop_all(),
        )


def _endpoint(config: Config, route: ConfiguredRoute, name: str, demo_url: str) -> Endpoint:
    """An upstream as a route sees it: the route may change its profile."""
    given = config.upstreams[name]
    return Endpoint(
        name=name,
        url=demo_url if given.url == DEMO else given.url,
        dialect=load(given.dialect),
        profile=resolve_profile(given, route),
        key=given.key,
        pass_key=given.pass_key,
        headers=given.headers,
        body=given.body,
        forward=given.forward_headers,
        timeouts=msgspec.convert(given.timeouts, Timeouts, from_attributes=True),
        event_limit=config.limits.event,
        strict=config.strict,
    )
