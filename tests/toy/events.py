"""Events for the toy: valid ones of the contract, with what the consumer is to do in `procedure`."""

from datetime import UTC, datetime
from uuid import UUID

from shared.contracts.codes import uuid7
from shared.contracts.envelope import Envelope
from shared.contracts.events import DossierDueSoon

DOSSIERS = "lienthong.dossier.v1"
SOURCE = "/sites/H55/intake"

REFUSED = "refused"  # the state of the key does not allow it
RAISES = "raises"  # the handler breaks
TOO_LARGE = "too-large"  # a number that no column takes


def data(procedure: str = "1.001193") -> DossierDueSoon:
    return DossierDueSoon(
        agency="H55.242",
        procedure=procedure,
        previous=2,
        state=2,
        due_at=None,
        paused=False,
        by="system",
        confidential=False,
    )


def event(
    key: str,
    sequence: int,
    *,
    procedure: str = "1.001193",
    topic: str = DOSSIERS,
    source: str = SOURCE,
    event_id: UUID | None = None,
    recorded: datetime | None = None,
) -> Envelope:
    now = recorded or datetime.now(UTC)
    return Envelope(
        topic=topic,
        id=event_id or uuid7(),
        source=source,
        type="dossier.due-soon",
        subject=key,
        time=now,
        recorded=now,
        sequence=sequence,
        mode="live",
        data=data(procedure).to_json(),
    )
