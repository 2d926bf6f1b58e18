"""After a restoration from an older backup: the dossiers' events that a peer has given back stand in the log again, each under
its id and number; the dossiers are as they were then, and no code is issued twice."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from services.intake.dossier import Dossier, Past, fold, next_tick, refolded
from services.intake.handlers import first_of
from services.intake.store import AGAIN, DOSSIER, GivenPerson, Store
from shared.contracts import events as ev
from shared.contracts.envelope import ContractError, Envelope, parse
from shared.directory.directory import Directory, DirectoryError
from shared.security.tokens import Role
from shared.service import Service
from shared.store.chain import link
from shared.store.pool import Connection
from shared.web.app import Asking, Body, allow, router
from shared.web.ledger import envelope_from_json
from shared.web.problem import invalid

Text = Annotated[str, Field(max_length=100_000)]


class SealedPerson(Body):
    """A person under the person's own key, that key wrapped to this site."""

    contact_ref: Annotated[str, Field(max_length=100)]
    nonce: Text
    ciphertext: Text
    wrapped: Text


class GivenBack(Body):
    """Events of dossiers in their order, as services ask each other for them; people who were erased; applicants who went
    along with a transfer; `whole`: that is all."""

    events: Annotated[list[dict[str, Any]], Field(max_length=1000)]
    erased: Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=1000)]
    people: Annotated[list[SealedPerson], Field(max_length=1000, default_factory=list)]
    whole: bool = False


def restored_routes(service: Service, store: Store) -> APIRouter:
    api = router()

    @api.post("/v1/restored", tags=["internal"])
    async def restored(who: Asking, body: GivenBack) -> dict[str, Any]:
        """What is there already changes nothing. `forked`: dossiers that have gone on otherwise here, from which number on."""
        allow(who, Role.SERVICE)
        try:
            events = [envelope_from_json(DOSSIER, item) for item in body.events]
            said = [(each, parse(each)) for each in events]
        except (ContractError, KeyError, TypeError, ValueError):
            raise invalid("These are no events of dossiers.", "/events") from None
        back = Back(service, store)
        async with service.pool.acquire() as connection, connection.transaction():
            await back.take(connection, [(each, data) for each, data in said if isinstance(data, ev.DossierEvent)])
            now = await service.log.now(connection)
            await store.miss(connection, back.applicants, now)
            for ref in body.erased:
                if await store.erase(connection, ref, now, AGAIN) is None:
                    await store.note_erasure(connection, ref, now)
            await store.give_back(connection, [GivenPerson(**person.model_dump()) for person in body.people], now)
            if body.whole:
                await connection.execute(store.queries["restored_whole"])
                await connection.execute(store.queries["missing_whole"])
        service.wake()
        return {"taken": back.taken, "forked": back.forked}

    return api


class Back:
    """Events that come back, taken dossier by dossier."""

    def __init__(self, service: Service, store: Store) -> None:
        self._service, self._store = service, store
        self.taken = 0
        self.applicants: set[str] = set()
        self.forked: dict[str, int] = {}

    async def take(self, connection: Connection, events: Sequence[tuple[Envelope, ev.DossierEvent]]) -> None:
        by_code: dict[str, list[tuple[Envelope, ev.DossierEvent]]] = {}
        for envelope, data in events:
            by_code.setdefault(envelope.subject, []).append((envelope, data))
        dossiers = await self._store.lock(connection, sorted(by_code))
        directory = self._service.directory.current
        new: list[Dossier] = []
        moved: list[Dossier] = []
        stored: list[Envelope] = []
        chains: list[str] = []
        for code in sorted(by_code):
            dossier = dossiers.get(code)
            fresh = await self._fresh(connection, code, 0 if dossier is None else dossier.sequence, by_code[code])
            if not fresh:
                continue
            known = dossier is not None
            for envelope, data in fresh:
                if dossier is None:
                    assert isinstance(data, ev.DossierSubmitted | ev.DossierReceived)
                    dossier = first_of(code, data, envelope.mode)
                    dossier.contact_ref = data.contact_ref
                take(dossier, envelope, data, directory)
                dossier.chain = link(dossier.chain, envelope)
                stored.append(envelope)
                chains.append(dossier.chain)
            assert dossier is not None
            self.applicants |= {ref for ref in (dossier.contact_ref,) if ref is not None}
            if any(isinstance(data, ev.DossierCorrected) for _, data in fresh):
                before = await self._store.history(connection, code)
                past = [Past(e.sequence, e.id, e.time, e.recorded, e.mode, data) for e, data in fresh]
                dossier = refolded(dossier, [*before, *past], directory)
            (moved if known else new).append(dossier)
        await self._service.log.append(connection, stored, chains)
        ticked = [[(dossier, next_tick(dossier, directory)) for dossier in group] for group in (new, moved)]
        await self._store.write_dossiers(connection, *ticked)
        issued = [code for code, said in by_code.items() if _issued_here(said[0][1])]
        await self._store.reach_numbers(connection, issued)
        self.taken += len(stored)

    async def _fresh(
        self, connection: Connection, code: str, head: int, events: Sequence[tuple[Envelope, ev.DossierEvent]]
    ) -> list[tuple[Envelope, ev.DossierEvent]]:
        """Those that are not here, as far as they follow on what is; what is here must be the same."""
        if any(envelope.sequence <= head for envelope, _ in events):
            first = min(envelope.sequence for envelope, _ in events)
            log = await self._service.log.after(connection, DOSSIER, code, first - 1, 10_000)
            here = {each.sequence: each.id for each in log}
            other = [e.sequence for e, _ in events if e.sequence <= head and here[e.sequence] != e.id]
            if other:
                self.forked[code] = min(other)
                return []
        fresh = []
        for envelope, data in sorted(events, key=lambda each: each[0].sequence):
            if envelope.sequence == head + 1:
                fresh.append((envelope, data))
                head += 1
        return fresh


def take(dossier: Dossier, envelope: Envelope, data: ev.DossierEvent, directory: Directory) -> None:
    """One event, and what it froze of the catalogue."""
    fold(dossier, data, envelope.time, envelope.recorded, envelope.mode)
    if isinstance(data, ev.DossierReceived):
        try:
            dossier.route = [step.model_dump(mode="json") for step in directory.procedure(dossier.procedure).route]
        except DirectoryError:
            dossier.route = []


def _issued_here(first: ev.DossierEvent) -> bool:
    """Whether the dossier that begins so got its code here; one from an old system keeps its own."""
    return isinstance(first, ev.DossierSubmitted | ev.DossierReceived) and not first.kept_code
