"""Where clients connect: HTTPS with certificates that change, and unix sockets."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import trustme

from tests.command import command, file, needs_curl, paste, running
from tests.proxy import REQUEST, Client, Process, as_process
from tests.test_backpressure import SMALL, endless, settled
from tests.upstream import Upstream, chunk, sse, text

FIRST = sse(chunk({"role": "assistant", "content": "Hel"}), done=False)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    """listen.tls with files that are there."""
    files = {"certificate": str(tmp_path / "certificate.pem"), "key": str(tmp_path / "key.pem")}
    issue(authority, files)
    return files


def issue(authority: trustme.CA, files: dict[str, str]) -> None:
    """A new certificate in the place of the old one."""
    made = authority.issue_cert("127.0.0.1")
    made.private_key_pem.write_to_path(files["key"])
    Path(files["certificate"]).write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))


def trusting(authority: trustme.CA, own: trustme.CA | None = None) -> ssl.SSLContext:
    """A client's context; own: who has issued the client's certificate."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if own:
        own.issue_cert("client").configure_cert(context)
    return context


@asynccontextmanager
async def secure(proxy: Process, context: ssl.SSLContext) -> AsyncIterator[Client]:
    """A client with connections of its own."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), read_bufsize=1 << 20) as session:
        yield Client(proxy.url, session)


async def certificate(proxy: Process, context: ssl.SSLContext) -> int:
    """The serial number of the one that new connections see."""
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=context)
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    found: Any = tls.getpeercert()
    writer.close()
    await writer.wait_closed()
    return int(found["serialNumber"], 16)


# HTTPS


async def test_https_serves_streams_to_the_sdk(authority: trustme.CA, tls: dict[str, str]) -> None:
    async with (
        Upstream(text("Hel", "lo")) as upstream,
        as_process(upstream, listen={"tls": tls}) as proxy,
        openai.AsyncOpenAI(
            base_url=proxy.url, api_key="none", http_client=openai.DefaultAsyncHttpxClient(verify=trusting(authority))
        ) as client,
    ):
        assert proxy.url.startswith("https://127.0.0.1:")
        async with client.responses.stream(model="m", input="hi") as stream:
            assert (await stream.get_final_response()).output_text == "Hello"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_https_speaks_http_1_1(authority: trustme.CA, tls: dict[str, str], version: ssl.TLSVersion) -> None:
    context = trusting(authority)
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.minimum_version = context.maximum_version = version
    async with as_process({"url": "demo:"}, listen={"tls": tls}) as proxy, secure(proxy, context) as client:
        assert (await client.get("/health")).status == 200
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=context)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.close()


@pytest.mark.parametrize("loop", ["auto", "asyncio"])
async def test_a_new_certificate_is_used_by_new_connections(
    authority: trustme.CA, tls: dict[str, str], loop: str
) -> None:
    go, context = asyncio.Event(), trusting(authority)
    async with (
        Upstream([*FIRST, go, *text("lo")]) as upstream,
        as_process(upstream, loop=loop, listen={"tls": tls}) as proxy,
        secure(proxy, context) as client,
        client.stream() as stream,
    ):
        await stream.until('"delta":"Hel"')
        before = await certificate(proxy, context)
        assert await certificate(proxy, context) == before
        issue(authority, tls)
        await proxy.said("INFO reloaded")
        assert await certificate(proxy, context) != before
        go.set()
        assert (await stream.rest()).final()["status"] == "completed"


async def test_a_certificate_without_its_key_is_refused(
    authority: trustme.CA, tls: dict[str, str], tmp_path: Path
) -> None:
    context = trusting(authority)
    async with as_process({"url": "demo:"}, listen={"tls": tls}) as proxy:
        before = await certificate(proxy, context)
        later = tmp_path / "later.pem"
        issue(authority, tls | {"key": str(later)})
        await proxy.said("ERROR not reloaded")
        assert ": listen.tls." in proxy.log
        assert await certificate(proxy, context) == before
        later.replace(tls["key"])
        await proxy.said("INFO reloaded")
        assert await certificate(proxy, context) != before


async def test_client_certificates_are_demanded_of_the_authority_there_is_now(
    authority: trustme.CA, tls: dict[str, str], tmp_path: Path
) -> None:
    first, second, file = trustme.CA(), trustme.CA(), tmp_path / "clients.pem"
    first.cert_pem.write_to_path(str(file))
    async with as_process({"url": "demo:"}, listen={"tls": tls | {"client_ca": str(file)}}) as proxy:
        assert await let_in(proxy, trusting(authority, first))
        assert not await let_in(proxy, trusting(authority))
        assert not await let_in(proxy, trusting(authority, second))
        second.cert_pem.write_to_path(str(file))
        await proxy.said("INFO reloaded")
        assert await let_in(proxy, trusting(authority, second))
        assert not await let_in(proxy, trusting(authority, first))


@pytest.mark.parametrize("loop", ["auto", "asyncio"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_no_session_outlives_the_authority_it_was_made_under(
    authority: trustme.CA, tls: dict[str, str], tmp_path: Path, version: ssl.TLSVersion, loop: str
) -> None:
    first, second, file = trustme.CA(), trustme.CA(), tmp_path / "clients.pem"
    first.cert_pem.write_to_path(str(file))
    context = trusting(authority, first)
    context.minimum_version = context.maximum_version = version
    async with as_process({"url": "demo:"}, loop=loop, listen={"tls": tls | {"client_ca": str(file)}}) as proxy:
        session = await asyncio.to_thread(asked, proxy.port, context)
        assert session
        assert await asyncio.to_thread(asked, proxy.port, context, session)
        second.cert_pem.write_to_path(str(file))
        await proxy.said("INFO reloaded")
        assert not await asyncio.to_thread(asked, proxy.port, context, session)


def asked(port: int, context: ssl.SSLContext, before: ssl.SSLSession | None = None) -> ssl.SSLSession | None:
    """The session that another connection can take up, as this one does with that of before; None: not let in."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port)) as made,
            context.wrap_socket(made, server_hostname="127.0.0.1", session=before) as connection,
        ):
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            if not connection.recv(4096).startswith(b"HTTP/1.1 200 "):
                return None
            assert connection.session_reused == bool(before)
            return connection.session
    except OSError:
        return None


async def let_in(proxy: Process, context: ssl.SSLContext) -> bool:
    try:
        async with secure(proxy, context) as client:
            return (await client.get("/health")).status == 200
    except aiohttp.ClientError:
        return False


async def test_over_tls_too_a_client_that_does_not_read_stops_the_upstream(
    authority: trustme.CA, tls: dict[str, str]
) -> None:
    async with (
        Upstream(endless(SMALL)) as upstream,
        as_process(upstream, listen={"tls": tls}) as proxy,
        secure(proxy, trusting(authority)) as client,
        client.stream(),
    ):
        request = await upstream.received(1)
        await settled([request], client)
        assert not request.gone.is_set()


# Unix sockets


@pytest.fixture(params=["auto", "asyncio"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Of a configuration that listens on the socket beside it, with either loop."""
    text = f"upstreams: {{a: {{url: 'demo:'}}}}\nlisten: {{socket: {tmp_path}/socket}}\nloop: {request.param}"
    return file(tmp_path, text)


@needs_curl
async def test_a_unix_socket_serves_and_is_gone_at_the_end(path: Path) -> None:
    made = path.with_name("socket")
    async with running(path) as (_, lines):
        assert lines[0] == f"Responses API: http://localhost/v1, on the unix socket {made}"
        output = await paste([lines[-1].strip()])
        assert "event: response.completed" in output
    assert not made.exists()


async def test_a_socket_left_by_a_dead_process_is_replaced(path: Path) -> None:
    async with running(path) as (process, _):
        process.kill()
        await process.wait()
        assert path.with_name("socket").is_socket()
    async with running(path) as (process, _):
        session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path.with_name("socket"))))
        async with session, session.post("http://localhost/v1/responses", json=REQUEST) as answer:
            assert (await answer.json())["status"] == "completed"


async def test_a_socket_that_is_in_use_or_no_socket_is_left_alone(path: Path) -> None:
    made = path.with_name("socket")
    async with running(path):
        result = await asyncio.to_thread(command, path)
        assert result.returncode == 1
        assert f"can't listen on {made}: another process listens there" in result.stderr
        assert made.is_socket()
    made.write_text("mine")
    result = await asyncio.to_thread(command, path)
    assert f"can't listen on {made}: this file is no socket" in result.stderr
    assert made.read_text() == "mine"


# Ports


async def test_port_0_is_one_port_for_all_addresses_of_a_name() -> None:
    async with as_process({"url": "demo:"}, listen={"host": "localhost"}) as proxy:
        for family in (each[0] for each in socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)):
            address = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}[family]
            _, writer = await asyncio.open_connection(address, proxy.port)
            writer.close()
