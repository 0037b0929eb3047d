"""The only place where tasks are made: each is kept alive, named, and heard of when it fails."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")
_running: set[asyncio.Task[Any]] = set()


def spawn(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Run this beside the caller, who may await or cancel it, or forget it."""
    task = asyncio.create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("task %s failed", task.get_name(), exc_info=error)


def uncancel() -> bool:
    """Take back the cancellation of the task that runs, which has something to end yet; whether that was all of it."""
    task = asyncio.current_task()
    return task is not None and task.uncancel() == 0
