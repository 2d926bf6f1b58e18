"""What comes over the bus: routing's news of the dossiers that were handed over, notify's of results at the door."""

import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal

from services.intake import acts
from services.intake.dossier import Actor, Dossier, Refusal, decide, fold, next_tick, transferred
from services.intake.store import DOSSIER, Store
from shared.contracts import events as ev
from shared.contracts.codes import uuid7
from shared.contracts.envelope import Envelope
from shared.directory.directory import Directory
from shared.service import Service
from shared.store.chain import link
from shared.store.inbox import Fault, Received
from shared.store.pool import Connection

NOTICE_TOPIC = "lienthong.notice.v1"
COPY_TOPIC = "lienthong.copy.v1"
TOPICS = ("lienthong.transfer.v1", NOTICE_TOPIC, COPY_TOPIC)


class Handlers:
    """The effects of other services' events on intake."""

    def __init__(self, service: Service, store: Store) -> None:
        self._service, self._store = service, store

    async def apply(self, connection: Connection, events: Sequence[Received]) -> dict[int, Fault]:
        """A batch of transfer and postal events: where each dossier is worked on now, its result when its route is
        complete, its payment and its return when the post has brought the result."""
        directory = self._service.directory.current
        copied = [e for e in events if e.envelope.topic == COPY_TOPIC]
        if copied:
            await self._copies(connection, copied)
        dossiers = await self._store.lock(connection, sorted({e.envelope.subject for e in events if _concerns(e)}))
        now = await self._service.log.now(connection)
        faults: dict[int, Fault] = {}
        stopped: set[str] = set()
        elsewhere: set[tuple[str, str]] = set()
        changed: dict[str, Dossier] = {}
        envelopes: list[Envelope] = []
        chains: list[str] = []

        def say(dossier: Dossier, data: ev.DossierEvent, at: datetime) -> None:
            recorded = max(now, dossier.recorded or now)
            fold(dossier, data, at, recorded)
            envelopes.append(
                Envelope(
                    topic=DOSSIER,
                    id=uuid7(),
                    source=self._service.source,
                    type=data.short,
                    subject=dossier.code,
                    time=at,
                    recorded=recorded,
                    sequence=dossier.sequence,
                    mode="live",
                    data=data.to_json(),
                )
            )
            dossier.chain = link(dossier.chain, envelopes[-1])
            chains.append(dossier.chain)

        for index, event in enumerate(events):
            code = event.envelope.subject
            dossier = dossiers.get(code)
            if event.envelope.topic == COPY_TOPIC:
                continue
            if event.envelope.topic == NOTICE_TOPIC:
                if dossier is not None and _concerns(event):
                    at = max(event.envelope.time, dossier.last_at or event.envelope.time)
                    for op, body in at_the_door(event.data):
                        _do(dossier, op, body, at, now, directory, say)
                    changed[code] = dossier
                continue
            if code in stopped:
                continue
            if not isinstance(event.data, ev.TransferEvent):
                faults[index] = Fault("state-contradiction", "no transfer on the topic of transfers")
                stopped.add(code)
                continue
            if dossier is None:
                elsewhere.add((code, event.data.to))  # its home is the site that sent it
                continue
            at = max(event.envelope.time, dossier.last_at or event.envelope.time)
            for data in transferred(dossier, event.data):
                assert isinstance(data, ev.DossierEvent)
                say(dossier, data, at)
            changed[code] = dossier
        moved = [(changed[code], next_tick(changed[code], directory)) for code in sorted(changed)]
        await self._store.write_dossiers(connection, [], moved)
        await self._store.note_elsewhere(connection, elsewhere)
        await self._service.log.append(connection, envelopes, chains)
        return faults

    async def _copies(self, connection: Connection, events: Sequence[Received]) -> None:
        """What lower sites' dossiers have come to. Home has decided; nothing is said of it here, and nobody is told."""
        copies = await self._store.lock_copies(connection, sorted({e.envelope.subject for e in events}))
        changed: dict[str, tuple[str, Dossier]] = {}
        for event in events:
            code, data = event.envelope.subject, event.data
            home, dossier = copies.get(code) or (event.envelope.source.split("/")[2], None)
            if isinstance(data, ev.DossierSubmitted | ev.DossierReceived) and dossier is None:
                dossier = first_of(code, data, event.envelope.mode)
            if dossier is None or not isinstance(data, ev.DossierEvent | ev.TransferEvent):
                continue
            if isinstance(data, ev.DossierEvent):
                fold(dossier, data, event.envelope.time, event.envelope.recorded, event.envelope.mode)
            else:
                transferred(dossier, data)
            copies[code] = changed[code] = (home, dossier)
        await self._store.write_copies(connection, [changed[code] for code in sorted(changed)])


def first_of(code: str, data: ev.DossierSubmitted | ev.DossierReceived, mode: Literal["live", "history"]) -> Dossier:
    """A dossier as its first event begins it, before that event is folded."""
    return Dossier(
        code=code,
        procedure=data.procedure,
        agency=data.agency,
        deciding_agency=data.deciding_agency,
        field=data.field,
        channel=data.channel,
        return_by=data.return_by,
        applicant_kind=data.applicant_kind,
        contact_ref=None,
        confidential=data.confidential,
        mode=mode,
        track=data.track,
    )


def _concerns(event: Received) -> bool:
    """Notices are many, and intake has nothing to do with them but when a result was brought."""
    if event.envelope.topic == COPY_TOPIC:
        return False
    return event.envelope.topic != NOTICE_TOPIC or bool(at_the_door(event.data))


def at_the_door(data: ev.EventData | None) -> list[tuple[str, acts.Act]]:
    """What the delivery of a result by post stands for: what was collected is a payment, and the result is returned."""
    if not isinstance(data, ev.PostalDelivered) or data.kind != "deliver" or data.notice is not None:
        return []
    paid: list[tuple[str, acts.Act]] = []
    if data.amount:
        paid.append(("payment", acts.Payment(amount=data.amount, method="postal")))
    return [*paid, ("return", acts.Return(by="postal"))]


def _do(
    dossier: Dossier,
    op: str,
    body: acts.Act,
    at: datetime,
    now: datetime,
    directory: Directory,
    say: Callable[[Dossier, ev.DossierEvent, datetime], None],
) -> None:
    """The act, unless the desk has been quicker or the dossier has gone another way since."""
    with contextlib.suppress(Refusal):
        decision = decide(dossier, op, body, Actor("system", "post"), now, directory, at)
        for data in decision.events:
            assert isinstance(data, ev.DossierEvent)
            say(dossier, data, decision.at)
