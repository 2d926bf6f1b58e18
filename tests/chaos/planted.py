"""A service with one of its mechanisms turned off, to see that the judge misses it.

    python -m tests.chaos.planted NAME run intake --port 8001

Nothing in the services knows of this: what is named is patched before the command is called. `PREPARE` is what the plant
does to the database beforehand, where the database holds the promise as well.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any

PREPARE: dict[str, Sequence[str]] = {
    "dossier-lock": (
        "DROP INDEX intake.event_key_sequence",
        "CREATE INDEX event_key_sequence ON intake.event (aggregateid, sequence, aggregatetype)",
    )
}


def sequence_check() -> None:
    """Whatever comes is applied, be it the second time or out of its turn."""
    from shared.store import inbox

    def judge(place: Any, sequence: int | None, *, fault: bool = False, known: bool = True) -> inbox.Verdict:
        return inbox.Verdict.PARK if fault or sequence is None else inbox.Verdict.APPLY

    inbox.judge = judge


def dossier_lock() -> None:
    """Intake decides on a dossier that another batch is deciding on."""
    from services.intake.store import Store

    made = Store.__init__

    def unlocked(self: Any, *arguments: Any, **more: Any) -> None:
        made(self, *arguments, **more)
        for name, statement in list(self.queries._statements.items()):
            if "FROM intake.dossier WHERE code = ANY" in statement:
                self.queries._statements[name] = statement.replace("FOR UPDATE", "")

    Store.__init__ = unlocked  # type: ignore[method-assign]


def relay_lock() -> None:
    """Every relay publishes every shard."""
    from shared.store.relay import SHARDS, Relay

    async def take_locks(self: Any, connection: Any) -> bool:
        new: bool = self.held != set(SHARDS)
        self.held = set(SHARDS)
        return new

    Relay._take_locks = take_locks  # type: ignore[method-assign]


def commit_after_transaction() -> None:
    """How far was read is written down before what was read is stored."""
    from shared.bus.consumer import Consumer

    stored = Consumer._until_done

    async def committed_first(self: Any, records: Any) -> bool:
        consumer = self._subscriber.consumer
        if self._bus.groups:
            await consumer.commit()
        else:
            positions = self._positions()
            if self._ids and set(self._ids) >= {partition.topic for partition in positions}:
                await self._write_positions(positions)
        await asyncio.sleep(0.2)
        done: bool = await stored(self, records)
        return done

    Consumer._until_done = committed_first  # type: ignore[method-assign]


def gap_request() -> None:
    """Nobody asks the owner for what is missing."""
    from shared.bus.consumer import Consumer

    async def nothing(self: Any) -> int:
        return 0

    Consumer.close_gaps = nothing  # type: ignore[method-assign]


def early_receipt() -> None:
    """A receipt that is quicker than the provider's answer is taken and forgotten."""
    from services.notify import api, notice

    heard = notice.after_receipt

    def after_receipt(known: Any, *arguments: Any) -> Any:
        return (known, ()) if known.sent_at is None else heard(known, *arguments)

    api.after_receipt = after_receipt  # type: ignore


PLANTS: dict[str, Callable[[], None]] = {
    "sequence-check": sequence_check,
    "dossier-lock": dossier_lock,
    "relay-lock": relay_lock,
    "commit-after-transaction": commit_after_transaction,
    "gap-request": gap_request,
    "early-receipt": early_receipt,
}


def main() -> None:
    PLANTS[sys.argv.pop(1)]()
    from deploy.cli.main import run

    run()


if __name__ == "__main__":
    main()
