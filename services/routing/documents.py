"""Documents between sites: each side's own acts go to the other in their order, what comes takes effect here.

The receiver's site works on a document and owns its state; the sender's may ask to take it back. What a document says is
sealed to the other site: no hop reads it.
"""

import orjson
import structlog

from services.routing.carried import event_of, site_of
from services.routing.document import Document, again, arrive, asked_back, envelope_of, hear
from services.routing.link_store import LinkStore
from services.routing.store import Store
from services.routing.wire import Letter, Refused
from shared.contracts.envelope import Envelope
from shared.contracts.events import DocumentEvent, DocumentRecallRequested, DocumentSent, Origin
from shared.security.peers import Identity, PeerRefused
from shared.service import Service
from shared.store.pool import Connection

log = structlog.get_logger("lienthong.documents")


class Documents:
    """What other sites say of them, taken in the caller's transaction. What is said to them is `dispatch.py`'s."""

    def __init__(self, service: Service, store: Store, links: LinkStore, identity: Identity) -> None:
        self._service, self._store, self._links, self._identity = service, store, links, identity

    async def take(self, connection: Connection, each: Letter) -> str:
        """What the other site says of a document. Raises Refused."""
        envelope, data = self._open(each, "sealed")
        outcome = await self._hear(connection, each, envelope, data)
        await self._go_on(connection, data.document)
        return outcome

    def _open(self, each: Letter, sealed: str) -> tuple[Envelope, DocumentEvent]:
        """Raises Refused."""
        try:
            envelope, data = event_of(orjson.loads(self._identity.open(str(each.body[sealed]))))
        except PeerRefused as refused:
            raise Refused(refused.reason) from None
        except (KeyError, ValueError):
            raise Refused("bad-envelope") from None
        if not isinstance(data, DocumentEvent) or envelope.subject != data.document:
            raise Refused("bad-event")
        return envelope, data

    async def _hear(self, connection: Connection, each: Letter, envelope: Envelope, data: DocumentEvent) -> str:
        directory = self._service.directory.current
        now = max(await self._service.log.now(connection), envelope.time)
        origin = Origin(id=envelope.id, source=envelope.source, sequence=envelope.sequence, time=envelope.time)
        data = data.model_copy(update={"origin": origin})
        known = await self._store.document(connection, data.document, lock=True)
        if known is None:
            if not isinstance(data, DocumentSent) or site_of(directory, data.from_agency) not in (each.origin, None):
                raise Refused("not-theirs")
            here = data.to in directory.agencies and directory.works_here(data.to)
            document, said = arrive(data, each.origin, now, here=here)
            await self._store.add_document(connection, document)
            await self._append(connection, *said)
            return "applied"
        if each.origin not in (known.home, known.worked_at):
            raise Refused("not-theirs")
        if isinstance(data, DocumentSent):
            return "repeated"
        if isinstance(data, DocumentRecallRequested) != (known.home == each.origin):
            raise Refused("not-theirs")  # the sender asks for it back, all else is the receiver's
        heard = asked_back(known, data, now) if isinstance(data, DocumentRecallRequested) else hear(known, data, now)
        if heard is None:
            return "late"
        moved, event = heard
        await self._store.move_document(connection, moved)
        if event is not None:
            await self._append(connection, (moved, event))
        return "applied"

    # -- after a restoration from an older backup

    async def stand_again(self, connection: Connection, each: Letter) -> str | None:
        """What was done to a document here, before the loss, stands as it did then. Not None: the document, of which the other
        site has first to say again what came before."""
        try:
            envelope, data = self._open(each, "own")
        except Refused as refused:
            log.error("document-not-given-back", id=str(each.id), reason=refused.reason)
            return None
        known = await self._store.document(connection, data.document, lock=True)
        if known is not None and envelope.sequence <= known.version:
            return None  # it is here, or the document has gone on otherwise
        stands = again(known, data, envelope, worked_at=each.to)
        if stands is None:
            return data.document
        if known is None:
            await self._store.add_document(connection, stands)
        else:
            await self._store.move_document(connection, stands)
        await self._store.told_document(connection, stands.id, stands.version)
        await self._service.log.append(connection, [envelope])
        return None

    async def _go_on(self, connection: Connection, which: str) -> None:
        """What was done here after what the other site has said again."""
        for row, each in await self._links.back_documents(connection, which):
            if await self.stand_again(connection, each) is not None:
                return
            await self._links.back_taken(connection, [row])

    async def _append(self, connection: Connection, *said: tuple[Document, DocumentEvent]) -> None:
        source = self._service.source
        await self._service.log.append(
            connection, [envelope_of(document, event, document.version, source) for document, event in said]
        )
