"""README.md, and what the documents name, is true."""

import json
import re
from pathlib import Path

import pytest

from proxy.dialects import load as load_dialect
from proxy.loading import load
from proxy.wire.create import decode_create

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "bench" / "README.md", *(ROOT / "docs").glob("*.md")]


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


def table(heading: str) -> list[list[str]]:
    """The cells of the table under this heading, without its first two lines."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_configuration_loads_and_is_ten_lines(tmp_path: Path) -> None:
    file = tmp_path / "proxy.yaml"
    file.write_text(block("yaml"), "utf-8")
    config = load(file, {"OPENAI_API_KEY": "secret"})
    assert [route.model for route in config.routes] == ["gpt-*", "small", "*"]
    assert len(block("yaml").splitlines()) == 10


def test_the_request_is_accepted() -> None:
    body = re.search(r"-d '(.*)'", block("sh"))
    assert body
    create = decode_create(body[1].encode())
    assert (create.model, create.stream, create.unknown) == ("demo", True, {})


def test_the_shown_events_are_json_but_for_what_is_left_out() -> None:
    shown = re.findall(r"^data: (\{.*)$", README, re.MULTILINE)
    complete = [json.loads(line) for line in shown if ",..." not in line]
    assert [event["delta"] for event in complete] == ["Hello", " from"]


def test_the_profiles_are_those_there_are() -> None:
    assert [row[0].strip("`") for row in table("Profiles")] == list(load_dialect("chat").PROFILES)


def test_the_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    text = "\n".join(path.read_text("utf-8") for path in DOCUMENTS)
    used = set(re.findall(r"(?:^ {4}|`)make ([a-z-]+)", text, re.MULTILINE))
    assert {"run", "test", "test-engines", "check", "bench", "transcripts"} <= used <= targets


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_linked_files_exist(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text("utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_modules_named_in_the_architecture_exist() -> None:
    named = re.findall(r"`((?:wire|core|dialects)/\w+)[`.]", ARCHITECTURE)
    assert named
    assert [name for name in named if not (ROOT / "proxy" / f"{name}.py").exists()] == []


def test_the_architecture_names_every_room() -> None:
    layers = (ROOT / "setup.cfg").read_text("utf-8").split("\nlayers =\n")[1].split("\n\n")[0]
    rooms = set(re.findall(r"proxy\.(\w+)", layers)) - {"demo_schema"}
    assert [room for room in rooms if f"`{room}`" not in ARCHITECTURE and f"`{room}/`" not in ARCHITECTURE] == []
