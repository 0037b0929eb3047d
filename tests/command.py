"""The command as people use it: run to its end, or started and left running; alone or by make."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

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


async def paste(lines: list[str], **env: str) -> str:
    """What a shell prints for these lines."""
    shell = await asyncio.create_subprocess_exec(
        "sh", "-c", "\n".join(lines), stdout=asyncio.subprocess.PIPE, env=os.environ | env
    )
    output, _ = await shell.communicate()
    return output.decode()


def file(folder: Path, text: str) -> Path:
    path = folder / "proxy.yaml"
    path.write_text(text)
    return path
