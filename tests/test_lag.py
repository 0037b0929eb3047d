"""A loop that is held up is heard of."""

import logging
import time

import pytest

from proxy.lag import PERIOD, Lag
from tests.proxy import until


async def test_a_loop_that_was_held_up_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    lag = Lag(much=0.1)
    time.sleep(PERIOD + 0.2)  # noqa: ASYNC251 - what must not be
    await until(lambda: "the event loop was held up for 0." in caplog.text)
    assert caplog.records[0].levelno == logging.WARNING
    lag.close()
