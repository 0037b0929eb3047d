"""Answers of upstreams, and the events that come of them. TRANSCRIPTS=write writes the expected parts anew."""

import os
from pathlib import Path

import pytest

from tests.checker import check, check_schema
from tests.transcript import Transcript, show

FILES = sorted((Path(__file__).parent / "transcripts").glob("*/*.txt"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def transcript(request: pytest.FixtureRequest) -> Transcript:
    path: Path = request.param
    transcript = Transcript.read(path)
    if os.environ.get("TRANSCRIPTS") == "write":
        transcript.rewrite(path)
        transcript = Transcript.read(path)
    return transcript


def test_this_is_sent(transcript: Transcript) -> None:
    assert transcript.sent() == (transcript.sections["sent"], transcript.sections.get("dropped", ""))


def test_these_events_come(transcript: Transcript) -> None:
    outcome = transcript.play(transcript.reads)
    assert show(outcome) == transcript.sections["events"]
    assert "".join(f"{note}\n" for note in outcome.notes) == transcript.sections.get("notes", "")


def test_the_events_keep_the_rules(transcript: Transcript) -> None:
    outcome = transcript.play(transcript.reads)
    if outcome.error is None:
        check(outcome.decoded())
        check_schema(outcome.decoded())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 1 << 20])
def test_reads_may_be_cut_anywhere(transcript: Transcript, size: int) -> None:
    body = b"".join(transcript.reads)
    cut = transcript.play([body[start : start + size] for start in range(0, len(body), size)])
    assert [event.data for event in cut.events] == [event.data for event in transcript.play(transcript.reads).events]


def test_there_are_many() -> None:
    assert len(FILES) >= 60
