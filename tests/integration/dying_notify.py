"""Notify in a process of its own that ends itself with SIGKILL at one step of sending.

    python -m tests.integration.dying_notify STEP

The steps, in their order: `planned` (nothing has begun), `begun` (the attempt is on record, nobody was called), `asked` (the
request has left), `answered` (the answer is known, not recorded), `recorded`.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from services.notify import app, line, providers, sender
from services.notify.settings import NotifySettings
from shared.service import Service
from tests.integration.test_notify import nothing_more

STEPS = ("planned", "begun", "asked", "answered", "recorded")


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str) -> None:
    setattr(owner, name, die)


def after(owner: Any, name: str, *, when: Callable[[Any], bool] = lambda result: True) -> None:
    """Dies once the coroutine has returned something that matters."""
    original = getattr(owner, name)

    async def dying(*arguments: Any, **named: Any) -> Any:
        result = await original(*arguments, **named)
        if when(result):
            die()
        return result

    setattr(owner, name, dying)


def arrange(step: str) -> None:
    match step:
        case "planned":
            before(sender.Sender, "_choose")
        case "begun":
            before(sender.Sender, "_dispatch")
        case "asked":
            drained = line._some

            async def dying(reader: asyncio.StreamReader) -> bytes:
                die()
                return await drained(reader)

            line._some = dying
        case "answered":
            after(providers.Http, "send")
        case "recorded":
            after(sender.Sender, "_record")


async def run(step: str) -> None:
    setattr(Service, "ask_owner", nothing_more)  # noqa: B010
    arrange(step)
    service = app.create(NotifySettings())
    await service.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1]))
