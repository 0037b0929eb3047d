"""The command, as a process of its own."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from proxy import demo

ROOT = Path(__file__).parent.parent
SMALL = "upstreams: {main: {url: 'http://127.0.0.1:1/v1'}}\n"

CI = "CI" in os.environ  # where nothing is skipped
needs_curl = pytest.mark.skipif(not CI and not shutil.which("curl"), reason="without curl there is nothing to paste")


def command(*args: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs until it ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "proxy", *map(str, args)],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@asynccontextmanager
async def started(*args: str | Path, **env: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[str]]]:
    """A process that serves, in a group of its own, and the lines that it announced itself with."""
    process = await asyncio.create_subprocess_exec(
        *map(str, args), cwd=ROOT, env=os.environ | env, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert process.stdout
    try:
        lines = [await process.stdout.readline()]
        while lines[-1] and b"curl -N" not in lines[-1]:
            lines.append(await process.stdout.readline())
        yield process, [line.decode().rstrip() for line in lines]
    finally:
        if process.returncode is None:
            process.terminate()
        await process.stdout.read()  # to its end: nobody who could write to it is left
        await process.wait()


def running(*args: str | Path, **env: str) -> AbstractAsyncContextManager[tuple[asyncio.subprocess.Process, list[str]]]:
    return started(sys.executable, "-m", "proxy", *args, **env)


def made(**env: str) -> AbstractAsyncContextManager[tuple[asyncio.subprocess.Process, list[str]]]:
    """`make run`, with what runs the tests and not with what it would install."""
    binaries = f"BIN={Path(sys.executable).parent}"
    # The tests themselves may run under make, which tells its children so.
    return started("make", "-o", ".venv/run", binaries, "run", MAKEFLAGS="", MAKELEVEL="", **env)


async def paste(lines: list[str]) -> str:
    """What a shell prints for these lines."""
    script = "\n".join(lines)
    shell = await asyncio.create_subprocess_exec("sh", "-c", script, stdout=asyncio.subprocess.PIPE)
    output, _ = await shell.communicate()
    return output.decode()


def file(folder: Path, text: str) -> Path:
    path = folder / "proxy.yaml"
    path.write_text(text)
    return path


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
    assert result.stderr == "config/proxy.yaml:4: listen.port: expected a whole number from 0 to 65535, found `none`\n"


@pytest.mark.parametrize("port", ["-1", "65536", "x"])
def test_a_bad_port_on_the_command_line_is_refused(port: str) -> None:
    result = command("config/proxy.yaml", f"--port={port}")
    assert result.returncode == 2
    assert f"argument --port: expected a number from 0 to 65535, found '{port}'" in result.stderr


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
        assert '"model": "small"' in lines[-1]


async def test_open_to_all_it_announces_an_address_to_try() -> None:
    async with running("config/proxy.yaml", "--host=0.0.0.0", "--port=0") as (_, lines):
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
