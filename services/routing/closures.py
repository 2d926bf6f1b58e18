"""Agencies change: what lies open with an agency that has closed goes to its successor."""

import asyncio
from datetime import date

from services.routing.crossing import Crossing
from services.routing.store import Store
from shared.contracts.codes import local_day, uuid7
from shared.directory.directory import Directory, NoTarget
from shared.service import Service

BATCH = 500


class Closures:
    """Looks after each load of the directory, and every now and then, because an agency closes at midnight by itself."""

    def __init__(self, service: Service, store: Store, crossing: Crossing, poll: float) -> None:
        self._service, self._store, self._crossing, self._poll = service, store, crossing, poll
        self._changed = asyncio.Event()

    async def watch(self) -> None:
        """To be told of each load; once, when the service starts."""
        self._service.directory.on_change.append(self._on_change)

    async def run(self) -> None:
        while True:
            self._service.beat("closures")
            self._changed.clear()
            if self._service.directory.loaded:
                while await self.sweep():
                    self._service.beat("closures")
            try:
                async with asyncio.timeout(self._poll):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _on_change(self, _: Directory) -> None:
        self._changed.set()

    async def sweep(self) -> int:
        """Reroutes up to a batch of open transfers to the successors of closed agencies; how many it found."""
        directory = self._service.directory.current
        async with self._service.pool.acquire() as connection:
            today = local_day(await self._service.log.now(connection))
            closed = [code for code in directory.agencies if not directory.valid_on(code, today)]
            left = [code for code in closed if _succeeded(directory, code, today)]
            found = await self._store.open_at(connection, left, BATCH) if left else {}
        for code, transfers in found.items():
            async with self._service.pool.acquire() as connection, connection.transaction():
                dossier = (await self._store.lock(connection, [code]))[code]
                walk = (await self._store.walks(connection, [dossier]))[code]
                now = await self._service.log.now(connection)
                walk.leave_closed({each: uuid7() for each in transfers}, directory, now)
                out = self._crossing.out(directory, now)
                out.transfers(dossier, walk)
                await self._store.write(connection, [dossier], [walk])
                await self._crossing.flush(connection, out, {code: dossier})
            self._service.wake()
        return sum(len(transfers) for transfers in found.values())


def _succeeded(directory: Directory, code: str, today: date) -> bool:
    try:
        directory.successor_of(code, today)
    except NoTarget:
        return False
    return True
