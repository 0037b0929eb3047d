"""docs/extending.md is true: its dialect speaks, its configurations load, its transcript can be written."""

import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy import dialects
from proxy.core.profile import Profile
from proxy.core.turn import Options, Turn
from proxy.dialects.chat_profiles import PROFILES
from proxy.loading import load, resolve_profile
from tests.checker import check
from tests.inputs import items, user
from tests.proxy import Reply, in_process
from tests.transcript import Transcript
from tests.upstream import CLOSE, Head, Request, Script, Upstream, answer

DOCUMENT = (Path(__file__).parent.parent / "docs" / "extending.md").read_text("utf-8")
LINES = Head(headers={"content-type": "application/x-ndjson"})
THOUGHT, *TEXT = [b'{"thought":"A greeting."}\n', b'{"text":"He', b'llo"}\n{"text":" you"}\n']
ANSWER = [THOUGHT, *TEXT, b'{"end":"stop","tokens":[3,2]}\n']


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module", autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The document's dialect, where the proxy looks for its own."""
    folder = tmp_path_factory.mktemp("dialects")
    (folder / "lines.py").write_text(blocks("python")[0], "utf-8")
    dialects.__path__.append(str(folder))
    yield
    dialects.__path__.remove(str(folder))
    sys.modules.pop("proxy.dialects.lines", None)


async def ask(script: Script, **fields: Any) -> tuple[Reply, list[Request]]:
    """The answer of the whole proxy, and what the upstream was asked."""
    (endpoint,) = yaml.safe_load(blocks("yaml")[0])["upstreams"].values()
    async with Upstream(script) as upstream, in_process(endpoint | {"url": upstream.url}) as proxy:
        return await proxy.post(**fields), upstream.requests


async def test_the_dialect_streams() -> None:
    reply, (sent,) = await ask([LINES, *ANSWER], stream=True, instructions="Be kind.")
    final = reply.final()
    assert [item["content"][0]["text"] for item in final["output"]] == ["A greeting.", "Hello you"]
    assert final["usage"]["total_tokens"] == 5
    assert sent.json()["lines"] == [{"who": "system", "says": "Be kind."}, {"who": "user", "says": "hi"}]


async def test_the_dialect_answers_in_one_piece() -> None:
    reply, _ = await ask([LINES, *ANSWER])
    assert reply.json()["output"][1]["content"][0]["text"] == "Hello you"


@pytest.mark.parametrize("script", [[LINES, THOUGHT, CLOSE], [LINES, *TEXT], [LINES, b'{"failure":"no"}\n']])
async def test_an_answer_that_breaks_off_fails(script: Script) -> None:
    reply, _ = await ask(script, stream=True)
    assert reply.final()["status"] == "failed"


async def test_what_the_dialect_cannot_say_is_refused() -> None:
    reply, sent = await ask([LINES, *ANSWER], tools=[{"type": "function", "name": "get"}])
    assert (reply.status, reply.error()["param"], sent) == (400, "tools", [])


def test_what_the_dialect_drops_is_named() -> None:
    turn = Turn("m", None, items(user("Hi")), [], Options(temperature=0, effort="low"))
    dialects.load("lines").encode(turn, Profile())
    assert turn.dropped == ["temperature", "reasoning.effort"]


async def test_the_upstreams_refusal_arrives() -> None:
    reply, _ = await ask(answer(400, "Too many words."))
    assert (reply.status, reply.error()["message"]) == (400, "Too many words.")


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


def test_the_profile_in_the_yaml_is_vllms_with_two_differences(tmp_path: Path) -> None:
    file = tmp_path / "proxy.yaml"
    file.write_text(blocks("yaml")[1], "utf-8")
    profile = resolve_profile(load(file, {}).upstreams["main"])
    assert profile == replace(PROFILES["vllm"], think_tags=True, effort="enable_thinking")


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
