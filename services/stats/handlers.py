"""What events do to the figures: one batch, a few statements, whatever the number of events (promise 3)."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from services.stats.indicator import (
    LEG_ACTS,
    Act,
    Changes,
    Contradiction,
    Dossier,
    Event,
    LegAct,
    Micros,
    Progress,
    Revision,
    cells,
    instant_of,
    last_instant,
    local_midnight,
    micros,
    month_of,
    months_between,
)
from services.stats.store import INSTANTS, Store
from shared.contracts.codes import local_day
from shared.directory.directory import Directory
from shared.service import Service
from shared.store.inbox import Fault, Received
from shared.store.pool import Connection

COPIES = "lienthong.copy.v1"
WORD_EVERY = 1_000_000  # microseconds
HISTORY_IS_NEW = 3_600_000_000  # microseconds between the first and the last line of a dossier in one import


def site_of(source: str) -> str | None:
    """The site in an event's source, /sites/H55.242/intake."""
    parts = source.split("/")
    return parts[2] if len(parts) > 2 and parts[1] == "sites" else None


def event_of(received: Received) -> Event:
    envelope = received.envelope
    return Event(
        envelope.type,
        str(envelope.id),
        micros(envelope.time),
        micros(envelope.recorded),
        envelope.mode,
        received.data.__dict__,
    )


def leg_act(event: Event) -> LegAct | None:
    """What a transfer's event does to its leg; None when it is not about the work."""
    kind = event.type.removeprefix("transfer.")
    if kind not in LEG_ACTS:
        return None
    due = event.data["due_at"]
    return LegAct(kind, event.happened, event.recorded, event.data["to"], None if due is None else micros(due))


def petition_row(key: str, sequence: int, event: Event) -> tuple[Any, ...]:
    data = event.data
    due, level = data.get("due_at"), data.get("level")
    return (
        key,
        sequence,
        event.type,
        data["agency"],
        event.happened,
        event.recorded,
        None if due is None else micros(due),
        None if level is None else level in ("very_satisfied", "satisfied"),
    )


def document_row(key: str, sequence: int, event: Event) -> tuple[Any, ...]:
    data = event.data
    sender = data["from_agency"] if "from_agency" in data else data["from"]
    return (key, sequence, event.type, data["state"], sender, data["to"], event.happened, event.recorded)


class Handlers:
    """Applies events to the projections of stats."""

    def __init__(self, service: Service, store: Store) -> None:
        self._service, self._store = service, store
        self._words: dict[str, Micros] = {}  # of lower sites, as last written by this process

    async def apply(self, connection: Connection, events: Sequence[Received]) -> dict[int, Fault]:
        faults: dict[int, Fault] = {}
        dossiers: dict[str, list[int]] = {}
        legs: dict[UUID, list[tuple[str, LegAct]]] = {}
        petitions, documents = list[tuple[Any, ...]](), list[tuple[Any, ...]]()
        moved: set[str] = set()
        read = [event_of(received) for received in events]
        for index, (received, event) in enumerate(zip(events, read, strict=True)):
            key, sequence = received.envelope.subject, received.envelope.sequence
            family = event.type.partition(".")[0]
            if family == "dossier":
                dossiers.setdefault(key, []).append(index)
            elif family == "transfer":
                act = leg_act(event)
                if act is not None:
                    legs.setdefault(event.data["transfer"], []).append((event.data["dossier"], act))
                    moved.add(act.agency)
            elif family == "petition":
                petitions.append(petition_row(key, sequence, event))
            elif family == "document":
                documents.append(document_row(key, sequence, event))
                moved |= set(documents[-1][4:6])
        if dossiers:
            await self._dossiers(connection, events, read, dossiers, faults, moved)
        if legs:
            held = await self._store.legs(connection, legs)
            await self._store.write_legs(
                connection,
                [
                    (transfer, new[0][0], [*held.get(transfer, []), *(act for _, act in new)])
                    for transfer, new in legs.items()
                ],
            )
        await self._store.put(connection, "petitions_put", petitions, INSTANTS["petition_act"])
        await self._store.put(connection, "documents_put", documents, INSTANTS["document_act"])
        if moved:
            await connection.execute(self._store["moved_put"], sorted(moved))
        await self._remember_words(connection, events)
        return faults

    async def _remember_words(self, connection: Connection, events: Sequence[Received]) -> None:
        """What lower sites said last. Written once a second of theirs: the row is one, and the batches are many."""
        said: dict[str, datetime] = {}
        for received in events:
            envelope = received.envelope
            if envelope.topic == COPIES and (site := site_of(envelope.source)):
                said[site] = max(envelope.recorded, said.get(site, envelope.recorded))
        new = {site: at for site, at in said.items() if micros(at) >= self._words.get(site, 0) + WORD_EVERY}
        if new:
            await self._store.put(connection, "words_put", sorted(new.items()))
            self._words |= {site: micros(at) for site, at in new.items()}

    async def _dossiers(
        self,
        connection: Connection,
        events: Sequence[Received],
        read: Sequence[Event],
        dossiers: dict[str, list[int]],
        faults: dict[int, Fault],
        moved: set[str],
    ) -> None:
        held = await self._store.dossiers(connection, dossiers)
        changed: list[tuple[Dossier, Changes]] = []
        for code, indexes in dossiers.items():
            dossier = held.get(code) or Dossier(code, events[indexes[0]].envelope.topic)
            progress = Progress(dossier)
            for index in indexes:
                try:
                    progress.take(read[index])
                except Contradiction as error:
                    faults[index] = Fault("state-contradiction", str(error))
                    break
            if dossier.state is not None:
                changed.append((dossier, progress.finish()))
                moved.add(dossier.agency)
        await self._store.write(connection, changed)
        revisions = [(d, r) for d, c in changed for r in c.revisions]
        if revisions:
            rows = await self._restate(connection, revisions)
            await self._store.put(connection, "restatements_put", rows)

    async def _restate(
        self, connection: Connection, revisions: Sequence[tuple[Dossier, Revision]]
    ) -> list[tuple[Any, ...]]:
        """The figures of periods closed or asked for that acts recorded afterwards have changed."""
        directory = self._service.directory.current if self._service.directory.loaded else None
        above = {dossier.agency: _upwards(directory, dossier.agency) for dossier, _ in revisions}
        asked = await self._store.asked_before(
            connection,
            {code for codes in above.values() for code in codes},
            instant_of(min(r.since for _, r in revisions)),
            instant_of(max(r.recorded for _, r in revisions)),
        )
        rows: list[tuple[Any, ...]] = []
        for dossier, revision in revisions:
            since, recorded = instant_of(revision.since), instant_of(revision.recorded)
            periods: dict[tuple[date, date], datetime] = {}
            if not _first_told(dossier, revision):
                periods = {month: last_instant(month[1]) for month in months_between(since, recorded)}
            for row in asked:
                whom = row["agency"] == dossier.agency or (row["subtree"] and row["agency"] in above[dossier.agency])
                if whom and row["judged"] >= since and row["at"] < recorded:
                    period = (row["from_day"], row["to_day"])
                    periods[period] = max(row["judged"], periods.get(period, row["judged"]))
            if periods:
                rows += _restated(dossier, revision, periods)
        return rows


def _upwards(directory: Directory | None, agency: str) -> tuple[str, ...]:
    if directory is None or agency not in directory.agencies:
        return (agency,)
    return (agency, *directory.ancestors(agency))


def _first_told(dossier: Dossier, revision: Revision) -> bool:
    """An import of history tells of a dossier for the first time: nothing that was said of it before changes."""
    return revision.event.mode == "history" and revision.recorded - dossier.began <= HISTORY_IS_NEW


def _restated(
    dossier: Dossier, revision: Revision, periods: dict[tuple[date, date], datetime]
) -> list[tuple[Any, ...]]:
    """Rows of the table of restatements; those of closed months are still to be published."""
    rows: list[tuple[Any, ...]] = []
    today = local_day(instant_of(revision.recorded))
    for (first, last), judged in sorted(periods.items()):
        start = micros(local_midnight(first))
        changes = _difference(revision.before, revision.after, start, micros(judged))
        if changes:
            rows.append(
                (
                    dossier.code,
                    dossier.agency,
                    first,
                    last,
                    changes,
                    UUID(revision.event.id),
                    revision.event.type,
                    instant_of(revision.event.happened),
                    instant_of(revision.recorded),
                    month_of(first) != (first, last) or today <= last,
                )
            )
    return rows


def _difference(before: Sequence[Act], after: Sequence[Act], start: int, judged: int) -> dict[str, int]:
    """By how much each cell changes for one dossier."""
    was, now = cells(before, start, judged), cells(after, start, judged)
    return dict.fromkeys(sorted(now - was), 1) | dict.fromkeys(sorted(was - now), -1)
