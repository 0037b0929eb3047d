"""Changes of files are noticed once, and when they are whole."""

from pathlib import Path

import pytest

from proxy.watch import Watch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "file"
    made.write_text("1")
    return made


def test_a_change_is_told_once(path: Path) -> None:
    watch = Watch([path])
    path.write_text("12")
    assert [watch.changed() for _ in range(4)] == [False, True, False, False]


def test_while_somebody_writes_nothing_is_told(path: Path) -> None:
    watch = Watch([path])
    for size in range(2, 6):
        path.write_text("1" * size)
        assert not watch.changed()
    assert watch.changed()


def test_what_has_been_read_meanwhile_is_no_change(path: Path) -> None:
    watch = Watch([path])
    path.write_text("12")
    watch.mark()
    assert [watch.changed() for _ in range(3)] == [False] * 3


def test_a_file_that_goes_and_one_that_comes_are_changes(path: Path) -> None:
    other = path.with_name("other")
    watch = Watch([path, other])
    path.unlink()
    assert [watch.changed() for _ in range(3)] == [False, True, False]
    other.touch()
    assert [watch.changed() for _ in range(3)] == [False, True, False]


def test_a_change_during_the_reading_is_noticed_afterwards(path: Path) -> None:
    watch = Watch([path])
    watch.mark()
    path.write_text("12")
    watch.follow([path, path.with_name("other")])
    assert [watch.changed() for _ in range(3)] == [False, True, False]


def test_a_link_that_is_turned_is_a_change(path: Path) -> None:
    link, turned = path.with_name("link"), path.with_name("turned")
    link.symlink_to(path)
    watch = Watch([link])
    other = path.with_name("other")
    other.write_text("2")
    turned.symlink_to(other)
    turned.replace(link)
    assert [watch.changed() for _ in range(3)] == [False, True, False]
