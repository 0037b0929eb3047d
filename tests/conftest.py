"""Settings of the whole suite."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from proxy.access import Line
from tests.failing import logged

settings.register_profile("proxy", deadline=None)  # the first example builds the validators, which takes its time
settings.load_profile("proxy")


@pytest.fixture
def lines() -> Iterator[list[Line]]:
    """The log lines of the responses of a test, as they come."""
    with logged() as found:
        yield found
