"""Lines of the log for people: each is one line, and what is in it can be seen."""

import logging
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.logs import Text


def line(message: str) -> str:
    """What is written, without the time."""
    record = logging.makeLogRecord({"levelname": "INFO", "msg": message})
    return Text().format(record).split(" ", 2)[2]


@pytest.mark.parametrize("message", ["plain", "é 漢字 😀", 'a="b"'])
def test_what_can_be_seen_stays(message: str) -> None:
    assert line(message) == f"INFO {message}"


@pytest.mark.parametrize(
    ("sign", "written"),
    [
        ("\n", r"\n"),
        ("\x1b", r"\x1b"),
        ("\u2028", r"\u2028"),
        ("\u202e", r"\u202e"),  # turns the text around
        ("\u200b", r"\u200b"),  # a space of no width
        ("\U000e0041", r"\U000e0041"),  # a tag
        ("\ud800", r"\ud800"),
    ],
)
def test_what_can_not_be_seen_is_written_out(sign: str, written: str) -> None:
    assert line(f"a{sign}b") == f"INFO a{written}b"


@given(st.text(st.characters()))
def test_a_line_is_one_line_whatever_is_said(message: str) -> None:
    assert line(message).isprintable()


# What others say


PROGRAM = """
import logging
from proxy.logs import set_up
set_up({form!r}, {level!r}, bodies=False)
logging.getLogger({name!r}).warning("what happened")
logging.getLogger({name!r}).info("nothing")
"""


def said(form: str, level: str, name: str) -> str:
    program = PROGRAM.format(form=form, level=level, name=name)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr


@pytest.mark.parametrize("name", ["opentelemetry.sdk.trace.export", "aiohttp.client", "asyncio", "urllib3.connection"])
def test_the_warnings_of_libraries_are_lines_of_the_log(name: str) -> None:
    assert said("json", "debug", name).endswith(f'"level":"warning","logger":"{name}","message":"what happened"}}\n')
    assert said("text", "info", name).endswith(" WARNING what happened\n")


def test_they_are_silent_where_the_proxys_own_are() -> None:
    assert said("text", "error", "opentelemetry") == ""


def test_what_aiohttp_quotes_of_requests_is_in_no_log() -> None:
    assert said("text", "debug", "aiohttp.server") == ""
