"""docs/extending.md is true: its dialect speaks, its configurations load, its transcript can be written."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st

from proxy import dialects
from proxy.app import build
from proxy.config import load, resolve_profile
from proxy.core.profile import Profile
from proxy.core.turn import Options, Turn
from tests.checker import check, parse_sse
from tests.inputs import items, user
from tests.transcript import Transcript
from tests.upstream import CLOSE, Head, Script, Upstream, answer

DOCUMENT = (Path(__file__).parent.parent / "docs" / "extending.md").read_text("utf-8")
LINES = Head(headers={"content-type": "application/x-ndjson"})
THOUGHT, *TEXT = [b'{"thought":"A greeting."}\n', b'{"text":"He', b'llo"}\n{"text":" you"}\n']
ANSWER = [THOUGHT, *TEXT, b'{"end":"stop","tokens":[3,2]}\n']


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the document's dialect lies, as if it were one of the proxy's."""
    path = tmp_path_factory.mktemp("dialects")
    (path / "lines.py").write_text(blocks("python")[0], "utf-8")
    dialects.__path__.append(str(path))
    yield path
    dialects.__path__.remove(str(path))
    sys.modules.pop("proxy.dialects.lines", None)


async def ask(folder: Path, script: Script, **fields: Any) -> tuple[int, bytes, bytes]:
    """Status and body of the answer through the whole proxy, and what the upstream was sent."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream(script))
        file = folder / "proxy.yaml"
        file.write_text(blocks("yaml")[0].replace("http://127.0.0.1:8000", upstream.url.removesuffix("/v1")))
        server = await build(load(file, {}), stack)
        client = await stack.enter_async_context(TestClient(TestServer(server.app)))
        response = await client.post("/v1/responses", json={"model": "m", "input": "Hi"} | fields)
        sent = upstream.requests[0].body if upstream.requests else b""
        return response.status, await response.read(), sent


async def test_the_dialect_streams(folder: Path) -> None:
    status, body, sent = await ask(folder, [LINES, *ANSWER], stream=True, instructions="Be kind.")
    final = check(parse_sse(body))
    assert status == 200
    assert [item["content"][0]["text"] for item in final["output"]] == ["A greeting.", "Hello you"]
    assert final["usage"]["total_tokens"] == 5
    assert json.loads(sent)["lines"] == [{"who": "system", "says": "Be kind."}, {"who": "user", "says": "Hi"}]


async def test_the_dialect_answers_in_one_piece(folder: Path) -> None:
    _, body, _ = await ask(folder, [LINES, *ANSWER])
    assert json.loads(body)["output"][1]["content"][0]["text"] == "Hello you"


@pytest.mark.parametrize("script", [[LINES, THOUGHT, CLOSE], [LINES, *TEXT], [LINES, b'{"failure":"no"}\n']])
async def test_an_answer_that_breaks_off_fails(folder: Path, script: Script) -> None:
    _, body, _ = await ask(folder, script, stream=True)
    assert check(parse_sse(body))["status"] == "failed"


async def test_what_the_dialect_cannot_say_is_refused(folder: Path) -> None:
    status, body, sent = await ask(folder, [LINES, *ANSWER], tools=[{"type": "function", "name": "get"}])
    assert (status, json.loads(body)["error"]["param"], sent) == (400, "tools", b"")


def test_what_the_dialect_drops_is_named() -> None:
    turn = Turn("m", None, items(user("Hi")), [], Options(temperature=0, effort="low"))
    dialects.load("lines").encode(turn, Profile())
    assert turn.dropped == ["temperature", "reasoning.effort"]


async def test_the_upstreams_refusal_arrives(folder: Path) -> None:
    status, body, _ = await ask(folder, answer(400, "Too many words."))
    assert (status, json.loads(body)["error"]["message"]) == (400, "Too many words.")


@given(st.lists(st.integers(0, 90)))
def test_the_dialects_reads_may_be_cut_anywhere(cuts: list[int]) -> None:
    body = b"".join(ANSWER)
    turn = Turn("m", None, [], [], Options())
    whole = dialects.load("lines").decoder(turn, Profile(), 1000)
    cut = dialects.load("lines").decoder(turn, Profile(), 1000)
    places = [0, *sorted(cuts), len(body)]
    deltas = [delta for start, end in pairwise(places) for delta in cut.feed(body[start:end])]
    assert deltas + cut.close() == whole.feed(body) + whole.close()
    assert cut.done


def test_the_profile_in_the_yaml_is_vllms_with_two_differences(folder: Path) -> None:
    file = folder / "profile.yaml"
    file.write_text(blocks("yaml")[1])
    profile = resolve_profile(load(file, {}).upstreams["main"])
    assert (profile.think_tags, profile.effort) == (True, "enable_thinking")
    assert profile.reasoning_field == dialects.load("chat").PROFILES["vllm"].reasoning_field


def test_the_profile_in_python_can_be_made() -> None:
    made: dict[str, Profile] = eval("{" + blocks("python")[1] + "}", {"Profile": Profile})
    assert made["example"].tool_choice == "auto_only"


def test_the_transcript_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "new.txt"
    path.write_text(blocks("text")[0], "utf-8")
    Transcript.read(path).rewrite(path)
    written = Transcript.read(path)
    assert len(written.reads) == 2
    assert '"messages":[{"role":"user","content":"Hi"}]' in written.sections["sent"]
    check(written.play(written.reads).decoded())
    assert written.sections["events"].splitlines()[-1].startswith("response.completed")
