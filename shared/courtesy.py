"""Who waits for an answer goes first: work that can wait a moment lets the requests pass that this process is answering.

A commune's node does everything on one loop. Beside a register's import its consumers always have a next batch, and a
receipt took its turn behind all of them at each of its steps (decision 0012).
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

PATIENCE: Final = 0.05
"""Seconds that a piece of work waits at most: it goes on also under requests without end."""

SHORT: Final = 0.5
"""Seconds; what is being answered for longer (an import, a stream of figures) is not waited for."""

NEAR: Final = 2.0
"""Seconds after an answer in which the next question is expected: work comes in small parts meanwhile."""

_began: dict[object, float] = {}
_answered = float("-inf")


@contextmanager
def answering() -> Iterator[None]:
    """Somebody waits for the answer that is made in this block."""
    global _answered
    request = object()
    _began[request] = time.monotonic()
    try:
        yield
    finally:
        if _began.pop(request) > time.monotonic() - SHORT:
            _answered = time.monotonic()


def anybody_waits() -> bool:
    since = time.monotonic() - SHORT
    return any(began > since for began in _began.values())


def somebody_is_near() -> bool:
    """Somebody waits for an answer, or had one a moment ago."""
    return anybody_waits() or time.monotonic() - _answered < NEAR


async def give_way() -> None:
    """Lets other tasks run, and waits while somebody waits for an answer: PATIENCE at most."""
    await asyncio.sleep(0)
    until = time.monotonic() + PATIENCE
    while anybody_waits() and time.monotonic() < until:
        await asyncio.sleep(0.002)
