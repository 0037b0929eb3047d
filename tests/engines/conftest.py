"""A real engine, and the proxy in front of it, each in a process of its own."""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from openai import AsyncOpenAI

ROOT = Path(__file__).parents[2]
PATIENCE = 20
"""Seconds after which a client gives up: no test waits for ever."""

ROUTES = """
upstreams:
  engine: {{url: '{url}/v1', profile: llamacpp}}
  endless: {{url: '{url}/v1', profile: llamacpp, body: {{ignore_eos: true}}}}
routes:
  - {{model: endless, upstreams: [endless], upstream_model: tiny}}
  - {{model: '*', upstreams: [engine]}}
drain: 0
"""
"""The model `endless` is the same one, but never comes to an end."""


@dataclass
class Engine:
    url: str
    process: subprocess.Popen[str]


StartEngine = Callable[..., Engine]
StartProxy = Callable[[str], str]


@contextmanager
def started(*command: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A Python module as a process, and the first line that it prints."""
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        line = process.stdout.readline()
        assert line, f"{command} ended with status {process.wait()}"
        yield process, line.strip()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def stack() -> Iterator[ExitStack]:
    """Ends what the tests have started."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def start_engine(stack: ExitStack) -> StartEngine:
    """Starts another engine. Options are those of serve.py."""

    def start(*options: str) -> Engine:
        process, url = stack.enter_context(started("tests.engines.serve", *options))
        return Engine(url, process)

    return start


@pytest.fixture(scope="session")
def start_proxy(stack: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> StartProxy:
    """Starts another proxy with this YAML, and gives its base URL."""

    def start(config: str) -> str:
        path = tmp_path_factory.mktemp("config") / "proxy.yaml"
        path.write_text(config)
        _, line = stack.enter_context(started("proxy", str(path), "--port=0"))
        return line.removeprefix("Responses API: ")

    return start


@pytest.fixture(scope="session")
def engine(start_engine: StartEngine) -> Engine:
    """One slot: whoever comes second waits."""
    return start_engine("--slots=1")


@pytest.fixture(scope="session")
def proxy(engine: Engine, start_proxy: StartProxy) -> str:
    return start_proxy(ROUTES.format(url=engine.url))


@pytest.fixture(scope="session")
def eager_proxy(engine: Engine, start_proxy: StartProxy) -> str:
    """Waits next to nothing for the engine before it begins the stream, and often breathes."""
    return start_proxy(ROUTES.format(url=engine.url) + "stream: {accept_wait: 0.05, keep_alive: 0.05}\n")


@pytest.fixture
async def client(proxy: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=proxy, api_key="any", max_retries=0, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """For what the SDK does not show: bytes."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as session:
        yield session
