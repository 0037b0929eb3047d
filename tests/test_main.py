"""The command, as a process of its own."""

import asyncio
import os
import pty
import re
import shutil
import signal
import socket
import sys
from pathlib import Path

import aiohttp
import pytest

from proxy import demo
from tests.command import CI, ROOT, command, file, made, needs_curl, paste, running, started
from tests.proxy import until

SMALL = "upstreams: {main: {url: 'http://127.0.0.1:1/v1'}}\n"


# Checking


def test_check_says_in_one_line_that_a_file_is_good() -> None:
    result = command("config/proxy.yaml", "--check")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "config/proxy.yaml: ok (1 upstream, 1 route)\n"


def test_check_counts(tmp_path: Path) -> None:
    text = "upstreams: {a: {url: 'demo:'}, b: {url: 'demo:'}}\nroutes:\n"
    text += "".join(f"- {{model: {name}, upstreams: [a, b]}}\n" for name in "xyz")
    assert command(file(tmp_path, text), "--check").stdout.endswith(": ok (2 upstreams, 3 routes)\n")


@pytest.mark.parametrize("args", [["--check"], []])
def test_a_bad_file_is_one_line_on_stderr_and_status_2(tmp_path: Path, args: list[str]) -> None:
    path = file(tmp_path, SMALL + "timeouts: {idel: 3}")
    result = command(path, *args)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"{path}:2: timeouts.idel: unknown field `idel`; did you mean `idle`?")
    assert result.stderr.count("\n") == 1


def test_a_bad_value_from_the_environment_is_shown_at_its_field() -> None:
    result = command("config/proxy.yaml", "--check", PORT="none")
    assert result.returncode == 2
    assert result.stderr == "config/proxy.yaml:5: listen.port: expected a whole number from 0 to 65535, found `none`\n"


@pytest.mark.parametrize("port", ["-1", "65536", "x"])
def test_a_bad_port_on_the_command_line_is_refused(port: str) -> None:
    result = command("config/proxy.yaml", f"--port={port}")
    assert result.returncode == 2
    assert f"argument --port: expected a number from 0 to 65535, found '{port}'" in result.stderr


def test_key_makes_a_key_and_schema_describes_the_file() -> None:
    key, schema = command("key"), command("schema")
    assert (key.returncode, schema.returncode) == (0, 0), key.stderr + schema.stderr
    assert "sha256:" in key.stdout
    assert '"upstreams"' in schema.stdout


def test_version_is_printed() -> None:
    assert re.fullmatch(r"responses-proxy \S.*\n", command("--version").stdout)


# Serving


def test_an_address_in_use_is_one_line_and_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = command("config/proxy.yaml", f"--port={port}")
    assert result.returncode == 1
    assert f"can't listen on 127.0.0.1:{port}: Address already in use" in result.stderr
    assert "Traceback" not in result.stderr


async def test_it_says_where_it_listens_and_what_goes_where(tmp_path: Path) -> None:
    text = "upstreams: {a: {url: 'http://127.0.0.1:1/v1', profile: vllm}, b: {url: 'demo:'}}\n"
    text += "routes: [{model: small, upstreams: [a, b], profile: ollama}, {model: '*', upstreams: [a]}]"
    async with running(file(tmp_path, text), "--port=0") as (_, lines):
        assert re.fullmatch(r"Responses API: http://127\.0\.0\.1:[1-9]\d+/v1", lines[0])
        assert lines[1:4] == [
            "  small  ->  a  http://127.0.0.1:1/v1 (chat, ollama)",
            "  small  ->  b  the built-in demo model; for a real one: make run UPSTREAM=http://127.0.0.1:8000/v1",
            "  *      ->  a  http://127.0.0.1:1/v1 (chat, vllm)",
        ]
        assert re.fullmatch("Event loop: (asyncio|uvloop)", lines[4])
        assert '"model": "small"' in lines[-1]


async def test_it_says_which_pools_a_route_asks_and_what_else_it_is_called(tmp_path: Path) -> None:
    text = "upstreams: {a: {url: 'demo:'}, b: {url: 'demo:'}, c: {url: 'demo:'}}\nlisten: {port: 0}\n"
    text += "pools: {near: {upstreams: {a: 1, b: 2}}, far: {upstreams: [c], policy: weighted}}\n"
    text += "routes: [{model: m, aliases: [n, 'gpt-*'], pools: [near, far], long_context: far}]"
    async with running(file(tmp_path, text)) as (_, lines):
        assert lines[1:5] == [
            "  m  ->  near  a, b x 2 (affinity)",
            "  m  ->  far  c (weighted)",
            "  m  ->  far  c (weighted), for long prompts",
            "         also called n, gpt-*",
        ]


async def test_of_a_thousand_routes_it_shows_the_first(tmp_path: Path) -> None:
    text = "upstreams: {a: {url: 'demo:'}}\nlisten: {port: 0}\nroutes:\n"
    text += "".join(f"- {{model: m{number}, upstreams: [a]}}\n" for number in range(1000))
    async with running(file(tmp_path, text)) as (_, lines):
        assert "  and 980 more routes" in lines
        assert len(lines) < 30


async def test_it_says_that_the_limits_of_keys_hold_for_each_worker(tmp_path: Path) -> None:
    text = "upstreams: {a: {url: 'demo:'}}\nlisten: {port: 0}\nworkers: 2\n"
    text += f"keys: [{{name: k, hash: 'sha256:{'0' * 64}', streams: 5}}]"
    async with running(file(tmp_path, text)) as (_, lines):
        assert "Workers: 2; each counts for itself, so a key may have up to 2 times its limits" in lines


async def test_open_to_all_it_announces_an_address_to_try() -> None:
    async with running("config/proxy.yaml", "--host=0.0.0.0", "--port=0", OPEN="true") as (_, lines):
        assert re.fullmatch(r"Responses API: http://127\.0\.0\.1:\d+/v1, and .* \(0\.0\.0\.0\)", lines[0])


@needs_curl
async def test_the_announced_curl_shows_a_stream() -> None:
    async with running("config/proxy.yaml", PORT="0", UPSTREAM="") as (_, lines):
        output = await paste(lines[lines.index("Try it:") + 1 :])
    assert output.startswith("event: response.created\n")
    assert output.count("event: response.output_text.delta") > 20
    assert "event: response.completed" in output


@needs_curl
async def test_the_announced_curl_finds_the_name_of_a_real_endpoints_model(tmp_path: Path) -> None:
    endpoint = await demo.start(pace=0)
    async with running(file(tmp_path, f"upstreams: {{main: {{url: '{endpoint.url}'}}}}"), "--port=0") as (_, lines):
        output = await paste(lines[lines.index("Try it:") + 1 :])
    await endpoint.close()
    assert '"model":"demo"' in output
    assert "event: response.completed" in output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_status_0(number: signal.Signals) -> None:
    async with running("config/proxy.yaml", PORT="0") as (process, _):
        process.send_signal(number)
        assert await process.wait() == 0


@pytest.mark.skipif(not CI and not Path("/proc/self/status").exists(), reason="nothing tells what a process waits with")
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_hangup_during_the_start_is_a_reload_after_it(tmp_path: Path, workers: int) -> None:
    path = file(tmp_path, f"{SMALL}listen: {{port: 0}}\nworkers: {workers}")
    log = tmp_path / "log"
    with log.open("wb") as errors:
        words = (sys.executable, "-m", "proxy", str(path))
        process = await asyncio.create_subprocess_exec(*words, cwd=ROOT, stdout=errors, stderr=errors)
    try:
        async with asyncio.timeout(60):
            await until(lambda: holds_back(process.pid, signal.SIGHUP))
            process.send_signal(signal.SIGHUP)
            await until(lambda: "INFO reloaded" in log.read_text())
            process.terminate()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()


def holds_back(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(re.findall(r"SigBlk:\s+(\w+)", status)[0], 16) >> number - 1 & 1)


async def test_out_of_file_descriptors_it_says_so_in_one_line(tmp_path: Path) -> None:
    path, log = file(tmp_path, "upstreams: {a: {url: 'demo:'}}\nlisten: {port: 0}\nloop: asyncio"), tmp_path / "log"
    words = f"ulimit -n 40; exec {sys.executable} -m proxy {path} 2>{log}"
    async with started("sh", "-c", words) as (_, lines):
        port = int(re.findall(r":(\d+)/", lines[0])[0])
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
        await until(lambda: "system resource" in log.read_text())
        for client in clients:
            client.close()
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/health") as answer:
            assert answer.status == 200
    assert log.read_text().count("ERROR socket.accept() out of system resource: Too many open files") == 1
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("workers", [1, 2])
async def test_it_ends_with_its_terminal(tmp_path: Path, workers: int) -> None:
    path = file(tmp_path, f"{SMALL}listen: {{port: 0}}\nworkers: {workers}")
    master, slave = pty.openpty()
    words = ["sh", "-c", 'exec "$@" <"$TTY" >"$TTY" 2>&1', "sh", sys.executable, "-m", "proxy", str(path)]
    env = os.environ | {"TTY": os.ttyname(slave)}  # the leader of a session owns the first terminal that it opens
    process = await asyncio.create_subprocess_exec(*words, cwd=ROOT, env=env, start_new_session=True)
    try:
        async with asyncio.timeout(60):
            shown = b""
            while b"curl -N" not in shown:
                shown += await asyncio.to_thread(os.read, master, 4096)
            os.close(slave)
            os.close(master)
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()


# make run


@pytest.mark.skipif(not CI and not shutil.which("ps"), reason="without ps nobody sees a command line")
async def test_make_run_names_the_endpoint_and_shows_its_key_nowhere() -> None:
    env = {"UPSTREAM_KEY": "sk-hush", "PORT": "0", "UPSTREAM": "http://127.0.0.1:1/v1", "PROFILE": "vllm"}
    async with made(**env) as (_, lines):
        assert lines[1] == "  *  ->  main  http://127.0.0.1:1/v1 (chat, vllm)"
        processes = await paste(["ps -A -ww -o args"])
        assert "-m proxy config/proxy.yaml" in processes
        assert "sk-hush" not in processes + "\n".join(lines)


async def test_sigterm_for_make_ends_the_proxy() -> None:
    async with made(PORT="0") as (make, _):
        make.send_signal(signal.SIGTERM)
        assert await make.stdout.read() == b""  # its end, which comes when the proxy has gone too


async def test_ctrl_c_ends_make_and_the_proxy() -> None:
    async with made(PORT="0") as (make, _):
        os.killpg(make.pid, signal.SIGINT)
        assert await make.stdout.read() == b""
