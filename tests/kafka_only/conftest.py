"""What these tests share: a site of real processes with people at work on it, and the judge of `make chaos` at the end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.chaos.__main__ import chaos_bundle
from tests.chaos.faults import ProviderProcess
from tests.chaos.judge import Finding, Judge
from tests.chaos.ledger import Ledger
from tests.chaos.load import Load
from tests.harness import until
from tests.ports import free_port
from tests.stack import Stack

SETTLES_WITHIN = 120.0  # seconds
SETTINGS = {"LIENTHONG_SESSION_SECONDS": "6", "LIENTHONG_GAP_WAIT": "5"}


@dataclass
class Worked:
    """A site with people at work. `judged` sends them home and lets the judge look at everything."""

    stack: Stack
    ledger: Ledger
    load: Load
    working: "asyncio.Task[None]"
    judge: Judge

    async def acts(self, more: int) -> None:
        """Waits until so many more acts have been answered."""
        wanted = self.ledger.acts + more
        await until(lambda: self.ledger.acts >= wanted, 120.0, f"{more} more acts are answered")

    async def judged(self) -> list[Finding]:
        self.load.stop()
        await self.working
        return (await self.judge.judge(SETTLES_WITHIN)).findings


Working = Callable[..., AbstractAsyncContextManager[Worked]]


@pytest.fixture
def working(tmp_path: Path) -> Working:
    """`async with working(kafka_size=3, replicas={"intake": 2}) as site`: a whole site on a Kafka of its own, at work."""

    @contextlib.asynccontextmanager
    async def worked(**site: object) -> AsyncIterator[Worked]:
        port = free_port()
        bundle = chaos_bundle(tmp_path, f"http://127.0.0.1:{port}/sms")
        stack = Stack(tmp_path / "site", "kafka", bundle, settings=dict(SETTINGS), **site)  # type: ignore[arg-type]
        provider: ProviderProcess | None = None
        load: Load | None = None
        people: asyncio.Task[None] | None = None
        try:
            await stack.start()
            receipts = [f"{url}/v1/receipts/chaos" for url in stack.urls("notify")]
            provider = ProviderProcess(port, tmp_path / "calls.ndjson", receipts)
            await provider.start()
            ledger = Ledger()
            load = Load(stack, ledger, 1, lives=12, think=0.3)
            people = asyncio.create_task(load.run())
            letters = stack.data / "postal.ndjson"
            judge = Judge(stack, ledger, bundle, provider.log, letters, provider.url, set(), datetime.now(UTC))
            yield Worked(stack, ledger, load, people, judge)
        finally:
            if people is not None:
                people.cancel()
                await asyncio.gather(people, return_exceptions=True)
            if load is not None:
                await load.client.close()
            if provider is not None:
                await provider.kill()
            await stack.stop()

    return worked
