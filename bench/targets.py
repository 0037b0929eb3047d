"""The processes that are measured: how each is started, and what the kernel says it has used."""

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.client import CHAT, RESPONSES, Api

LITELLM_ENV = {
    "LITELLM_LOG": "ERROR",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the internet at its start
    # Else it does not start; it listens on loopback only.
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}
ROOT = Path(__file__).parent.parent
PEERS = ROOT / ".venv-peers"
CORES = sorted(os.sched_getaffinity(0))
PROXY_YAML = """\
loop: {loop}
listen: {{port: {port}}}
upstreams:
  main: {{url: "http://127.0.0.1:{upstream}/v1", profile: vllm}}
routes:
  - {{model: "*", upstreams: [main]}}
log: {{level: warning}}
"""
ROUTES, UPSTREAMS = 1000, 100
ROUTES_YAML = """\
loop: asyncio
listen: {{port: {port}}}
upstreams:
{upstreams}
pools:
  all: {{policy: {policy}, upstreams: [{names}]}}
routes:
{routes}
log: {{level: warning}}
"""
NGINX_CONF = """\
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.errors warn;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream engine {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 1h;
    }}
  }}
}}
"""
LITELLM_YAML = """\
model_list:
  - model_name: m
    litellm_params:
      model: hosted_vllm/m
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: none
      use_chat_completions_api: true
"""


@dataclass
class Process:
    """A started target with its children."""

    name: str
    api: Api
    popen: "subprocess.Popen[bytes]"
    port: int
    scale: float
    """Share of the usual load that it gets, so that slow ones end in time."""

    def tree(self) -> list[int]:
        pids = [self.popen.pid]
        for pid in pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                pids += map(int, (task / "children").read_text().split())
        return pids

    def cpu(self) -> float:
        """User and system time of all its processes, in us, from their CPU clocks: /proc/PID/stat counts in 10 ms."""
        return sum(time.clock_gettime_ns(~pid << 3 | 2) for pid in self.tree()) / 1000

    def rss(self) -> float:
        """Resident memory of all its processes, in KB."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.tree())
        return pages * os.sysconf("SC_PAGE_SIZE") / 1000

    async def quiet(self, patience: float = 60) -> None:
        """Wait until it has nothing left to do."""
        end = time.monotonic() + patience
        busy = True
        while busy and time.monotonic() < end:
            before = self.cpu()
            await asyncio.sleep(0.3)
            busy = self.cpu() - before > 15_000


@dataclass(frozen=True)
class Target:
    """Something to measure. `command` gets its port, the upstream's port and a folder for its files."""

    name: str
    api: Api
    command: Callable[[int, int, Path], list[str]]
    env: dict[str, str] = field(default_factory=dict)
    scale: float = 1
    rounds: int | None = None
    """Fewer rounds than the others."""
    scenarios: frozenset[str] = frozenset({"burst", "paced", "capacity", "request", "memory", "stalled"})

    @asynccontextmanager
    async def run(self, upstream: int, folder: Path) -> AsyncIterator[Process]:
        """Start it on a core of its own, stop it at the end."""
        port = free_port()
        log = folder / f"{self.name}.log"
        popen = start(self.command(port, upstream, folder), self.env, log)
        try:
            if not await listening(popen, port):
                raise SystemExit(f"{self.name} does not listen on port {port}:\n{tail(log)}")
            yield Process(self.name, self.api, popen, port, self.scale)
        finally:
            stop(popen)


def start(command: list[str], env: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        popen = subprocess.Popen(
            command, env=os.environ | env, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
        )
    os.sched_setaffinity(popen.pid, CORES[-1:])
    return popen


async def listening(popen: "subprocess.Popen[bytes]", port: int, patience: float = 120) -> bool:
    end = time.monotonic() + patience
    while time.monotonic() < end and popen.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            await asyncio.sleep(0.05)
        else:
            return True
    return False


def tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]


def stop(popen: "subprocess.Popen[bytes]") -> None:
    """Ask it to end; what is left of its process group after 10 s is killed."""
    if popen.poll() is not None:
        return
    os.killpg(popen.pid, signal.SIGTERM)
    try:
        popen.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(popen.pid, signal.SIGKILL)
        popen.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def upstream(port: int, _: int, folder: Path) -> list[str]:
    return [sys.executable, "-m", "bench.upstream", str(port)]


def passthrough(port: int, upstream: int, folder: Path) -> list[str]:
    return [sys.executable, "-m", "bench.passthrough", str(port), f"http://127.0.0.1:{upstream}/v1"]


def proxy(loop: str, port: int, upstream: int, folder: Path) -> list[str]:
    config = folder / f"proxy-{port}.yaml"
    config.write_text(PROXY_YAML.format(loop=loop, port=port, upstream=upstream))
    return [sys.executable, "-m", "proxy", str(config)]


def routes(policy: str, port: int, upstream: int, folder: Path) -> list[str]:
    """The proxy with many routes and upstreams. What is asked for stands behind all other patterns."""
    config = folder / f"routes-{port}.yaml"
    names = [f"u{number}" for number in range(UPSTREAMS)]
    exact = [f"  - {{model: org/model-{n}, aliases: [alias-{n}], pools: [all]}}" for n in range(ROUTES * 9 // 10)]
    globs = [f'  - {{model: "family-{n}-*", pools: [all]}}' for n in range(ROUTES // 10 - 1)]
    text = ROUTES_YAML.format(
        port=port,
        policy=policy,
        upstreams="\n".join(f'  {name}: {{url: "http://127.0.0.1:{upstream}/v1", profile: vllm}}' for name in names),
        names=", ".join(names),
        routes="\n".join([*exact, *globs, '  - {model: "m*", pools: [all]}']),
    )
    config.write_text(text)
    return [sys.executable, "-m", "proxy", str(config)]


def nginx(port: int, upstream: int, folder: Path) -> list[str]:
    config = folder / f"nginx-{port}.conf"
    config.write_text(NGINX_CONF.format(port=port, upstream=upstream, folder=folder))
    return [found_nginx(), "-p", str(folder), "-c", str(config)]


def found_nginx() -> str:
    """Its path, "" when it is not installed. Debian keeps it where only root looks."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or ""


def litellm(port: int, upstream: int, folder: Path) -> list[str]:
    config = folder / "litellm.yaml"
    config.write_text(LITELLM_YAML.format(upstream=upstream))
    command = PEERS / "litellm" / "bin" / "litellm"
    return [str(command), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]


def install_litellm() -> None:
    """Into a venv of its own, the first time."""
    venv = PEERS / "litellm"
    if (venv / "bin" / "litellm").exists():
        return
    PEERS.mkdir(exist_ok=True)
    (PEERS / ".gitignore").write_text("*\n")
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin" / "pip", "install", "--quiet", "litellm[proxy]"], check=True)


PASSED = frozenset({"burst", "paced", "request"})
"""What an endpoint that passes through is measured by."""
ROUTED = frozenset({"routing"})


def targets(peer: str) -> list[Target]:
    """Everything that can be measured here, the floor first."""
    bare = Target("passthrough", CHAT, passthrough)
    found = [
        bare,
        Target("proxy", RESPONSES, partial(proxy, "asyncio"), scenarios=bare.scenarios | ROUTED),
        Target("forward", CHAT, partial(proxy, "asyncio"), scenarios=PASSED),
        Target("least_loaded", RESPONSES, partial(routes, "least_loaded"), scenarios=ROUTED),
        Target("affinity", RESPONSES, partial(routes, "affinity"), scenarios=ROUTED),
    ]
    if importlib.util.find_spec("uvloop"):
        found.append(Target("proxy + uvloop", RESPONSES, partial(proxy, "uvloop")))
        found.append(Target("forward + uvloop", CHAT, partial(proxy, "uvloop"), scenarios=PASSED))
    if found_nginx():
        found.append(Target("nginx", CHAT, nginx, scenarios=PASSED))
    else:
        print("nginx is not installed: left out", file=sys.stderr)
    if peer == "litellm":
        install_litellm()
        found.append(Target("litellm", RESPONSES, litellm, LITELLM_ENV, scale=0.1, rounds=1))
    elif peer:
        raise SystemExit(f"PEER={peer}: there is only litellm")
    return found
