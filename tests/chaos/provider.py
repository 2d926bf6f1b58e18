"""An SMS provider of its own process: it behaves as it is told, and writes down every call before it answers.

    python -m tests.chaos.provider --port P --log FILE --secret S --receipts URL [--receipts URL]

`POST /sms` takes a message, `POST /mode` says how it behaves from now on, `GET /state` how many receipts it still owes.
What an id comes to follows from the id alone, so that a repeated call comes to the same: some recipients are refused, some
messages fail, for some no receipt is ever sent. The log outlives the process: what it had taken and what it owes is read
again at the start. Its lines:

    {"call": id, "to": SHA-256 of the number, "text", "at", "outcome": "taken" | "again" | "refused" | "down" | "lost"}
    {"receipt": id, "status": "delivered" | "failed", "answer": HTTP status, "at"}
"""

import argparse
import asyncio
import hmac
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import httpx
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Outcome = Literal["taken", "again", "refused", "down", "lost"]
RECEIPT_AGAIN = 0.5  # seconds until a receipt that was not taken is sent again


@dataclass
class Mode:
    """How the provider behaves. `delay` in seconds; `status` is answered instead of taking the message."""

    delay: float = 0.0
    status: int = 0
    hangs: bool = False
    receipts: int = 1
    early: bool = False


def share(identity: str) -> int:
    """0 to 99, by the id alone."""
    return int(sha256(identity.encode()).hexdigest()[:8], 16) % 100


def is_refused(identity: str) -> bool:
    return share(identity) < 3


def receipt_of(identity: str) -> str | None:
    """What the provider reports of a message that it has taken, if it reports anything."""
    if share(identity) < 8:
        return "failed"
    return "delivered" if share(identity) < 92 else None


def hash_of(number: str) -> str:
    return sha256(number.encode()).hexdigest()[:16]


class Provider:
    """The provider's state, its log, and the receipts that it owes."""

    def __init__(self, log: Path, secret: str, receipts: list[str]) -> None:
        self.mode = Mode()
        self._secret, self._receipts = secret, receipts
        self._changed = asyncio.Event()
        self._taken: set[str] = set()
        self._owed: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        for line in log.read_bytes().splitlines() if log.exists() else ():
            self._remember(orjson.loads(line))
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def _remember(self, line: dict[str, Any]) -> None:
        if line.get("outcome") == "taken":
            self._taken.add(line["call"])
            if (status := receipt_of(line["call"])) is not None:
                self._owed[line["call"]] = status
        elif "receipt" in line and 200 <= line["answer"] < 300:
            self._owed.pop(line["receipt"], None)

    def _write(self, **line: Any) -> None:
        line["at"] = time.time()
        os.write(self._log, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        self._remember(line)

    @asynccontextmanager
    async def life(self, _: Starlette) -> AsyncIterator[None]:
        async with httpx.AsyncClient(timeout=3.0, trust_env=False) as self._http:
            for identity in list(self._owed):
                self._report(identity, 1)
            yield
            for task in self._tasks:
                task.cancel()

    async def change(self, request: Request) -> Response:
        body = await request.json()
        self.mode = Mode(**{each.name: body[each.name] for each in fields(Mode) if each.name in body})
        self._changed.set()
        self._changed = asyncio.Event()
        return JSONResponse({})

    async def state(self, _: Request) -> Response:
        return JSONResponse({"owed": len(self._owed), "taken": len(self._taken)})

    async def take(self, request: Request) -> Response:
        body = await request.json()
        identity, mode, changed = body["id"], self.mode, self._changed

        def note(outcome: Outcome) -> None:
            self._write(call=identity, to=hash_of(body["to"]), text=body["text"], outcome=outcome)

        if mode.status:
            note("down")
            return JSONResponse({}, mode.status)
        if is_refused(identity):
            note("refused")
            return JSONResponse({"reason": "blocked"}, 422)
        if mode.hangs and share(identity) % 2:
            note("lost")
            await changed.wait()
            return JSONResponse({}, 503)
        again = identity in self._taken
        note("again" if again else "taken")
        if identity in self._owed and not again:
            first = self._report(identity, mode.receipts)
            if mode.early:
                await asyncio.wait([first], timeout=2.0)
        if mode.hangs:
            await changed.wait()
        await asyncio.sleep(mode.delay)
        return JSONResponse({"id": identity})

    def _report(self, identity: str, times: int) -> "asyncio.Task[None]":
        task = asyncio.create_task(self._send_receipts(identity, times))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _send_receipts(self, identity: str, times: int) -> None:
        """Until notify has taken the receipt; `times` of it one after another."""
        if not self.mode.early:
            await asyncio.sleep(0.05)
        status = self._owed[identity]
        body = orjson.dumps({"id": identity, "status": status})
        signature = hmac.new(self._secret.encode(), body, sha256).hexdigest()
        headers = {"X-Signature": f"sha256={signature}", "Content-Type": "application/json"}
        sent = 0
        while sent < times:
            for url in self._receipts:
                try:
                    answer = (await self._http.post(url, content=body, headers=headers)).status_code
                except httpx.HTTPError:
                    continue
                if answer < 500:
                    self._write(receipt=identity, status=status, answer=answer)
                    sent += 1
                    break
            else:
                await asyncio.sleep(RECEIPT_AGAIN)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--secret", required=True)
    parser.add_argument("--receipts", action="append", required=True)
    arguments = parser.parse_args()

    async def serve() -> None:
        provider = Provider(arguments.log, arguments.secret, arguments.receipts)
        app = Starlette(
            routes=[
                Route("/sms", provider.take, methods=["POST"]),
                Route("/mode", provider.change, methods=["POST"]),
                Route("/state", provider.state),
            ],
            lifespan=provider.life,
        )
        config = uvicorn.Config(app, port=arguments.port, log_level="warning", access_log=False)
        await uvicorn.Server(config).serve()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
