"""The owner's log: every event for good, numbered contiguously per key and topic, and the outbox that points into it."""

from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Any, Final

from shared.contracts.envelope import Envelope
from shared.observe.traces import cause_of
from shared.store.pool import Connection
from shared.store.queries import Queries

TOPIC_START, TOPIC_END = "lienthong.", ".v1"
_COPIED: Final = (
    *(
        "position",
        "id",
        "aggregatetype",
        "aggregateid",
        "type",
        "payload",
        "sequence",
        "source",
        "happened",
        "recorded",
    ),
    *("mode", "chain", "traceparent"),
)


def family(topic: str) -> str:
    """`lienthong.public.dossier.v1` is stored as `public.dossier`: short in the index of a million rows."""
    return topic.removeprefix(TOPIC_START).removesuffix(TOPIC_END)


def topic_of(aggregatetype: str) -> str:
    return f"{TOPIC_START}{aggregatetype}{TOPIC_END}"


def envelope_of(row: Any) -> Envelope:
    """A row of the log as the envelope that was, or will be, published: the same id and bytes each time."""
    payload = row["payload"]
    return Envelope(
        topic=topic_of(row["aggregatetype"]),
        id=row["id"],
        source=row["source"],
        type=row["type"],
        subject=row["aggregateid"],
        time=row["happened"],
        recorded=row["recorded"],
        sequence=row["sequence"],
        mode=row["mode"],
        data=None if payload is None else payload.encode(),
        traceparent=row.get("traceparent"),
    )


class Log:
    """Appends to and reads one service's log. The caller holds the lock of every key that it appends to."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self._queries = Queries("shared.store", schema)

    async def now(self, connection: Connection) -> datetime:
        """The recorded time of this transaction: the database's clock, read inside it."""
        value: datetime = await connection.fetchval(self._queries["now"])
        return value

    async def append(
        self, connection: Connection, envelopes: Sequence[Envelope], chains: Sequence[str | None] = ()
    ) -> None:
        """Promise 2, stored means published: the events and what points to them, in the caller's transaction.

        `chains`: of the first of them, the hash that each comes to (`shared/store/chain.py`). The events themselves are copied:
        as arrays of an INSERT they cost this process and the database twice as much.
        """
        if not envelopes:
            return
        positions = await connection.fetch(self._queries["outbox_put"], [e.subject for e in envelopes])
        await connection.copy_records_to_table(
            "event",
            schema_name=self.schema,
            columns=_COPIED,
            records=[
                (
                    position,
                    e.id,
                    family(e.topic),
                    e.subject,
                    e.type,
                    None if e.data is None else e.data.decode(),
                    e.sequence,
                    e.source,
                    e.time,
                    e.recorded,
                    e.mode,
                    chain and bytes.fromhex(chain),
                    None if e.mode == "history" else e.traceparent or cause_of(e.subject),
                )
                for (position,), e, chain in zip_longest(positions, envelopes, chains)
            ],
        )

    async def causes(self, connection: Connection, keys: Sequence[str], type_: str) -> dict[str, str]:
        """What follows later on each key's newest event of a type belongs to that event's trace, if it has one."""
        rows = await connection.fetch(self._queries["traceparents"], list(keys), type_)
        return {row["aggregateid"]: row["traceparent"] for row in rows}

    async def forget(self, connection: Connection, topic: str, keys: Sequence[str]) -> None:
        """Erased: the payloads of these keys go; numbers and digests stay. The database allows it for contacts alone."""
        await connection.execute(self._queries["payloads_forget"], family(topic), list(keys))

    async def of_type(self, connection: Connection, topic: str, keys: Collection[str], type_: str) -> list[Envelope]:
        """All events of one type of these keys, each key's in order."""
        rows = await connection.fetch(self._queries["ledger_of_type"], family(topic), sorted(keys), type_)
        return [envelope_of(row) for row in rows]

    async def after(
        self, connection: Connection, topic: str, key: str, sequence: int, limit: int = 1000
    ) -> list[Envelope]:
        """The key's events above `sequence`, in order: the answer to a consumer that met a gap."""
        rows = await connection.fetch(self._queries["ledger"], family(topic), key, sequence, limit)
        return [envelope_of(row) for row in rows]
