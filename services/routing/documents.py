"""Documents between sites: each side's own acts go to the other in their order, what comes takes effect here.

The receiver's site works on a document and owns its state; the sender's may ask to take it back. What a document says is
sealed to the other site: no hop reads it.
"""

import orjson

from services.routing.carried import event_of, site_of
from services.routing.document import Document, arrive, asked_back, envelope_of, hear
from services.routing.store import Store
from services.routing.wire import Letter, Refused
from shared.contracts.events import DocumentEvent, DocumentRecallRequested, DocumentSent, Origin
from shared.security.peers import Identity, PeerRefused
from shared.service import Service
from shared.store.pool import Connection


class Documents:
    """What other sites say of them, taken in the caller's transaction. What is said to them is `dispatch.py`'s."""

    def __init__(self, service: Service, store: Store, identity: Identity) -> None:
        self._service, self._store, self._identity = service, store, identity

    async def take(self, connection: Connection, each: Letter) -> str:
        """What the other site says of a document. Raises Refused."""
        try:
            envelope, data = event_of(orjson.loads(self._identity.open(str(each.body["sealed"]))))
        except PeerRefused as refused:
            raise Refused(refused.reason) from None
        except (KeyError, ValueError):
            raise Refused("bad-envelope") from None
        if not isinstance(data, DocumentEvent) or envelope.subject != data.document:
            raise Refused("bad-event")
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

    async def _append(self, connection: Connection, *said: tuple[Document, DocumentEvent]) -> None:
        source = self._service.source
        await self._service.log.append(
            connection, [envelope_of(document, event, document.version, source) for document, event in said]
        )
