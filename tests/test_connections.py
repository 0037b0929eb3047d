"""How an upstream is reached: by TLS with a private authority, by a Unix socket, through a proxy."""

import asyncio
import ssl
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import trustme
from msgspec import convert

from proxy.connections import Connections, Idle, Session, Tls
from proxy.core.profile import Profile
from proxy.dialects import load
from proxy.errors import Unreachable
from proxy.exchange import Exchange
from proxy.timers import after
from proxy.upstream import Endpoint
from proxy.upstream import Upstream as Asked
from tests.upstream import CLOSE, Upstream, answer

OK = answer(200, {"data": [{"id": "m"}]})
GUARD = 10
"""Seconds after which a test that hangs fails."""


async def models(url: str, **settings: Any) -> list[str]:
    """What an upstream lists, asked as the proxy asks with these settings of an endpoint."""
    endpoint = Endpoint("u1", url, load("chat"), Profile(), **settings)
    async with asyncio.timeout(GUARD), Connections() as connections:
        return list(await Asked(endpoint, connections).models())


class Authority:
    """A private one, its files and what it has issued."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.file = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.file)
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.ca.issue_cert("127.0.0.1").configure_cert(self.server)
        client = self.ca.issue_cert("proxy@example.org")
        self.key, self.certificate, self.both = (str(folder / name) for name in ("key.pem", "cert.pem", "both.pem"))
        client.private_key_pem.write_to_path(self.key)
        client.cert_chain_pems[0].write_to_path(self.certificate)
        client.private_key_and_cert_chain_pem.write_to_path(self.both)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_a_private_authority_can_be_trusted(authority: Authority) -> None:
    async with Upstream(OK, tls=authority.server) as upstream:
        assert await models(upstream.url, tls=Tls(ca=authority.file)) == ["m"]


async def test_an_unknown_authority_is_not_trusted_unless_anybody_is(authority: Authority) -> None:
    async with Upstream(OK, tls=authority.server) as upstream:
        with pytest.raises(Unreachable, match="certificate verify failed"):
            await models(upstream.url)
        assert upstream.requests == []
        assert await models(upstream.url, tls=Tls(verify=False)) == ["m"]


async def test_a_name_that_is_not_the_upstreams_is_refused(authority: Authority) -> None:
    other = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.ca.issue_cert("elsewhere.test").configure_cert(other)
    async with Upstream(OK, tls=other) as upstream:
        with pytest.raises(Unreachable, match="not valid for"):
            await models(upstream.url, tls=Tls(ca=authority.file))


@pytest.mark.parametrize("apart", [True, False])
async def test_a_certificate_of_ours_is_shown(apart: bool, authority: Authority) -> None:
    authority.ca.configure_trust(authority.server)
    authority.server.verify_mode = ssl.CERT_REQUIRED
    shown = (authority.certificate, authority.key) if apart else (authority.both, "")
    async with Upstream(OK, tls=authority.server) as upstream:
        with pytest.raises(Unreachable):
            await models(upstream.url, tls=Tls(ca=authority.file))
        assert await models(upstream.url, tls=Tls(authority.file, *shown)) == ["m"]


@pytest.mark.parametrize("field", ["ca", "certificate", "key"])
@pytest.mark.parametrize("wrong", ["missing", "empty"])
def test_a_file_that_can_not_be_used_is_named(field: str, wrong: str, authority: Authority, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    if wrong == "empty":
        bad.touch()
    files = {"certificate": authority.certificate, "key": authority.key} if field == "key" else {}
    with pytest.raises(OSError, match="no usable certificates or key") as failure:
        convert(files | {field: str(bad)}, Tls).context()
    assert failure.value.filename == (authority.certificate if field == "key" else str(bad))


async def test_a_unix_socket_stands_for_the_host(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    async with Upstream(OK, path=path) as upstream:
        assert await models(upstream.url, socket=path) == ["m"]
        request = upstream.requests[0]
    assert (request.path, request.headers["host"]) == ("/v1/models", "somewhere.test")


async def test_a_unix_socket_that_is_not_there_is_no_upstream(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="No such file"):
        await models("http://nobody.test/v1", socket=str(tmp_path / "socket"))


async def test_a_proxy_is_asked_for_the_whole_url() -> None:
    async with Upstream(OK) as proxy:
        assert await models("http://far.test/v1", proxy=proxy.url.removesuffix("/v1")) == ["m"]
        request = proxy.requests[0]
    assert (request.path, request.headers["host"]) == ("http://far.test/v1/models", "far.test")


async def test_a_proxy_that_is_not_there_is_a_failure_to_connect() -> None:
    with pytest.raises(Unreachable) as failure:
        await models("http://far.test/v1", proxy="http://127.0.0.1:1")
    assert failure.value.status == 503


async def test_who_connects_in_the_same_way_shares_connections(authority: Authority) -> None:
    tls = Tls(ca=authority.file)
    async with Connections() as connections:
        assert connections.session(Tls(ca=authority.file)) is connections.session(tls)
        others = (connections.session(), connections.session(socket="/x"))
        assert all(other is not connections.session(tls) for other in others)


async def test_the_end_closes_idle_connections() -> None:
    async with Upstream(OK) as upstream:
        await models(upstream.url)
        await upstream.requests[0].gone.wait()


async def test_an_idle_connection_is_closed_before_the_upstream_may_do_it() -> None:
    go = asyncio.Event()
    async with asyncio.timeout(GUARD), Upstream(OK, [OK[0], go, *OK[1:]]) as upstream, Connections() as connections:
        session = Session(connections.session().client, defaultdict(lambda: Idle(0.05)))
        exchange = Exchange("u1", upstream.url, session, headers={})
        after(0.02, go.set)
        for given in await asyncio.gather(*(exchange.request("GET", "/models", {}) for _ in range(2))):
            await given.content.read()
        await asyncio.gather(*(request.gone.wait() for request in upstream.requests))


async def test_the_connection_used_last_is_used_next() -> None:
    """The others may then end, and those that an upstream has closed are not found out one by one."""
    async with asyncio.timeout(GUARD), Upstream(OK) as upstream, Connections() as connections:
        exchange = Exchange("u1", upstream.url, connections.session(), headers={})
        for given in await asyncio.gather(*(exchange.request("GET", "/models", {}) for _ in range(3))):
            await given.content.read()
        for _ in range(3):
            await (await exchange.request("GET", "/models", {})).content.read()
    assert len({request.connection for request in upstream.requests[3:]}) == 1


async def test_a_connection_that_ended_while_idle_is_passed_over() -> None:
    end = asyncio.Event()
    async with asyncio.timeout(GUARD), Upstream([*OK, end, CLOSE], OK) as upstream, Connections() as connections:
        exchange = Exchange("u1", upstream.url, connections.session(), headers={})
        await (await exchange.request("GET", "/models", {})).content.read()
        end.set()
        await upstream.requests[0].played.wait()
        async with Upstream(OK) as other:
            assert await models(other.url) == ["m"]  # by now the end has arrived here too
        assert await (await exchange.request("GET", "/models", {})).content.read()
        assert [request.connection for request in upstream.requests] == [1, 2]
