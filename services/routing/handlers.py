"""What the bus brings: the events of dossiers, one batch in one transaction."""

from collections.abc import Container, Sequence
from datetime import datetime
from uuid import UUID

from services.routing.crossing import Crossing, Out
from services.routing.dossier import Dossier
from services.routing.store import Store
from services.routing.transfer import ENDED, Walk
from shared.contracts.envelope import Envelope
from shared.contracts.events import (
    DossierCorrected,
    DossierEvent,
    DossierProcessingStarted,
    DossierRefused,
    DossierStopped,
    DossierWithdrawn,
    EventData,
)
from shared.service import Service
from shared.store.inbox import Fault, Received
from shared.store.pool import Connection

CONSUMES = ("lienthong.dossier.v1",)


class Handlers:
    """Follows the dossiers, walks their routes, and keeps the public topic."""

    def __init__(self, service: Service, store: Store, crossing: Crossing) -> None:
        self._service, self._store, self._crossing = service, store, crossing

    async def apply(self, connection: Connection, events: Sequence[Received]) -> dict[int, Fault]:
        """The effect of a batch: two to seven statements, whatever its size. See shared.store.inbox.Apply."""
        dossiers = await self._store.lock(connection, {event.envelope.subject for event in events})
        concerned = {e.envelope.subject for e in events if bears_on_the_route(e.data)}
        begun = {e.envelope.subject for e in events if starts_a_route(e.envelope, e.data)}
        routed = [dossiers[code] for code in sorted(concerned & dossiers.keys()) if dossiers[code].routed]
        batch = Batch(
            out=self._crossing.out(self._service.directory.current, await self._service.log.now(connection)),
            dossiers=dossiers,
            walks=await self._store.walks(connection, routed),
            coming_back=await self._crossing.coming_back(connection, concerned | begun),
        )
        for index, event in enumerate(events):
            batch.take(index, event.envelope, event.data)
        followed = [dossiers[code] for code in sorted(batch.followed)]
        await self._store.write(connection, followed, batch.walks.values())
        said = [(e.envelope, e.data) for index, e in enumerate(events) if index in batch.taken]
        await self._crossing.flush(connection, batch.out, batch.dossiers, said)
        return batch.faults


def bears_on_the_route(data: DossierEvent) -> bool:
    """Whether the event may end or undo a walk: only then is it loaded."""
    return data.state in ENDED or isinstance(data, DossierCorrected)


class Batch:
    """A batch of dossier events taken one by one, in memory: the dossiers and walks that it changes, the events that it
    makes, and what it refuses. `coming_back`: dossiers of a restored site whose transfers come back by themselves."""

    def __init__(
        self,
        *,
        out: Out,
        dossiers: dict[str, Dossier],
        walks: dict[str, Walk],
        coming_back: Container[str] = (),
    ) -> None:
        self._coming_back = coming_back
        self._directory, self._source, self._now = out.directory, out.source, out.now
        self.dossiers, self.walks = dossiers, walks
        self.followed: set[str] = set()
        self.taken: set[int] = set()
        self.out = out
        self.faults: dict[int, Fault] = {}
        self._stopped: set[str] = set()

    def take(self, index: int, envelope: Envelope, data: DossierEvent) -> None:
        code = envelope.subject
        if code in self._stopped:
            return
        dossier = self.dossiers.get(code) or Dossier(code)
        if why := self._contradiction(dossier, envelope, data):
            self.faults[index] = Fault("state-contradiction", why)
            self._stopped.add(code)
            return
        self.dossiers[code] = dossier
        self.followed.add(code)
        self.taken.add(index)
        before = dossier.last_event
        procedure = self._directory.procedures.get(data.procedure)
        dossier.follow(envelope.id, data, confidential=procedure is not None and procedure.confidential)
        if not dossier.confidential:
            self.out.events.append(dossier.say_public(envelope, data, self._now, self._source))
        self.out.dossier_event(dossier, envelope)
        walk = self.walks.get(code)
        if isinstance(data, DossierProcessingStarted) and starts_a_route(envelope, data):
            entered = before if data.previous == data.state and before is not None else envelope.id
            self._begin(dossier, envelope, data, entered)
        elif dossier.routed and walk is not None:
            self._follow_on_the_route(dossier, walk, envelope, data)

    def _contradiction(self, dossier: Dossier, envelope: Envelope, data: DossierEvent) -> str | None:
        if starts_a_route(envelope, data) and dossier.routed:
            return "the dossier's route was started before"
        return dossier.contradicts(data)

    def _begin(self, dossier: Dossier, envelope: Envelope, data: DossierProcessingStarted, entered: UUID) -> None:
        walk = self.walks.setdefault(dossier.code, Walk(dossier.code, dossier.agency, dossier.state, dossier.due_at))
        walk.state, walk.due_at, dossier.routed = dossier.state, dossier.due_at, True
        if dossier.code in self._coming_back:
            walk.began(data.route, envelope.id, entered)
            return
        walk.begin(data.route, envelope.id, entered, self._directory, self._happened(envelope))
        self._say(dossier, walk)

    def _follow_on_the_route(self, dossier: Dossier, walk: Walk, envelope: Envelope, data: DossierEvent) -> None:
        walk.state, walk.due_at = dossier.state, dossier.due_at
        undone = isinstance(data, DossierCorrected) and data.undoes in (walk.started, walk.entered)
        if dossier.code in self._coming_back:
            if undone:
                walk.began((), None, None)
                dossier.routed = False
            return
        if isinstance(data, DossierCorrected) and undone:
            walk.undo(f"Việc bắt đầu giải quyết đã bị hủy: {data.reason}"[:2000], self._happened(envelope))
            dossier.routed = False
        elif data.state in ENDED:
            walk.recall_open(reason_of_the_end(data), self._happened(envelope))
        self._say(dossier, walk)

    def _happened(self, envelope: Envelope) -> datetime:
        """A transfer is asked for and recalled when routing does it, and not before what it follows on."""
        return max(self._now, envelope.time)

    def _say(self, dossier: Dossier, walk: Walk) -> None:
        self.out.transfers(dossier, walk)


def starts_a_route(envelope: Envelope, data: EventData | None) -> bool:
    """Mode history makes no transfers; without a route the desk's agency does it all (contract, "Route.")."""
    return isinstance(data, DossierProcessingStarted) and bool(data.route) and envelope.mode == "live"


def reason_of_the_end(data: DossierEvent) -> str:
    """Why the transfers of a dossier that has ended are recalled, as their officers read it."""
    match data:
        case DossierStopped(reason=reason):
            return f"Hồ sơ đã dừng giải quyết: {reason}"[:2000]
        case DossierRefused(reason=reason):
            return f"Hồ sơ bị từ chối tiếp nhận: {reason}"[:2000]
        case DossierWithdrawn():
            return "Người nộp đã rút hồ sơ."
        case _:
            return "Hồ sơ đã kết thúc."
