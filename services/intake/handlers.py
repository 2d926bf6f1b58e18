"""What comes over the bus: routing's news of the dossiers that were handed over."""

from collections.abc import Sequence

from services.intake.dossier import Dossier, fold, next_tick, transferred
from services.intake.store import DOSSIER, Store
from shared.contracts import events as ev
from shared.contracts.codes import uuid7
from shared.contracts.envelope import Envelope
from shared.service import Service
from shared.store.chain import link
from shared.store.inbox import Fault, Received
from shared.store.pool import Connection

TOPICS = ("lienthong.transfer.v1",)


class Handlers:
    """The effects of other services' events on intake."""

    def __init__(self, service: Service, store: Store) -> None:
        self._service, self._store = service, store

    async def apply(self, connection: Connection, events: Sequence[Received]) -> dict[int, Fault]:
        """A batch of transfer events: where each dossier is worked on now, and its result when its route is complete."""
        directory = self._service.directory.current
        dossiers = await self._store.lock(connection, sorted({e.envelope.subject for e in events}))
        now = await self._service.log.now(connection)
        faults: dict[int, Fault] = {}
        stopped: set[str] = set()
        elsewhere: set[tuple[str, str]] = set()
        changed: dict[str, Dossier] = {}
        envelopes: list[Envelope] = []
        chains: list[str] = []
        for index, event in enumerate(events):
            code = event.envelope.subject
            dossier = dossiers.get(code)
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
            recorded = max(now, dossier.recorded or now)
            for data in transferred(dossier, event.data):
                assert isinstance(data, ev.DossierEvent)
                event_id = uuid7()
                fold(dossier, data, at, recorded)
                envelopes.append(
                    Envelope(
                        topic=DOSSIER,
                        id=event_id,
                        source=self._service.source,
                        type=data.short,
                        subject=code,
                        time=at,
                        recorded=recorded,
                        sequence=dossier.sequence,
                        mode="live",
                        data=data.to_json(),
                    )
                )
                dossier.chain = link(dossier.chain, envelopes[-1])
                chains.append(dossier.chain)
            changed[code] = dossier
        moved = [(changed[code], next_tick(changed[code], directory)) for code in sorted(changed)]
        await self._store.write_dossiers(connection, [], moved)
        await self._store.note_elsewhere(connection, elsewhere)
        await self._service.log.append(connection, envelopes, chains)
        return faults
