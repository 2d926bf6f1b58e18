"""What routing keeps of a dossier: where it stands, its two sequences, and its public view.

Pure. The home's intake decides what a dossier does; here its events are only followed, each checked against the state
that the one before it left (promise 3).
"""

from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Final
from uuid import UUID

from shared.contracts.codes import uuid7
from shared.contracts.envelope import Envelope
from shared.contracts.events import (
    DossierCorrected,
    DossierEvent,
    DossierReceived,
    DossierSubmitted,
    TransferEvent,
)
from shared.contracts.views import reduce

TRANSFER_TOPIC: Final = "lienthong.transfer.v1"
PUBLIC_TOPIC: Final = "lienthong.public.dossier.v1"


@dataclass(slots=True)
class Dossier:
    """One dossier as routing knows it. `state` 0: not seen yet. `routed`: its route was started and not undone.

    `confidential` once is confidential for good. The sequences are those of its transfer and of its public events.
    `home`: the site that it belongs to, when that is another; `copied_…`: how many of its events went to the upper site.
    """

    code: str
    state: int = 0
    agency: str = ""
    deciding_agency: str = ""
    procedure: str = ""
    confidential: bool = False
    due_at: datetime | None = None
    routed: bool = False
    last_event: UUID | None = None
    transfer_sequence: int = 0
    transfer_recorded: datetime | None = None
    public_sequence: int = 0
    public_recorded: datetime | None = None
    home: str | None = None
    copied_dossier: int = 0
    copied_transfer: int = 0

    def contradicts(self, data: DossierEvent) -> str | None:
        """Why the event cannot follow what was applied before; None: it can."""
        if (data.previous or 0) == self.state:
            return None
        return f"{data.short} comes from state {data.previous}, the dossier is in {self.state or None}"

    def follow(self, event_id: UUID, data: DossierEvent, *, confidential: bool) -> None:
        """Takes an event that does not contradict. `confidential`: what the catalogue says of its procedure."""
        self.state, self.agency, self.procedure, self.due_at = data.state, data.agency, data.procedure, data.due_at
        self.confidential = self.confidential or data.confidential or confidential
        if isinstance(data, DossierSubmitted | DossierReceived):
            self.deciding_agency = data.deciding_agency
        self.last_event = event_id

    def say_transfer(self, event: TransferEvent, happened: datetime, recorded: datetime, source: str) -> Envelope:
        """The next event on the dossier's own line of transfer events; its row must be locked."""
        self.transfer_sequence += 1
        self.transfer_recorded = max(recorded, self.transfer_recorded or recorded)
        return Envelope(
            topic=TRANSFER_TOPIC,
            id=uuid7(),
            source=source,
            type=event.short,
            subject=self.code,
            time=happened,
            recorded=self.transfer_recorded,
            sequence=self.transfer_sequence,
            mode="live",
            data=event.to_json(),
        )

    def say_public(self, original: Envelope, data: DossierEvent, recorded: datetime, source: str) -> Envelope:
        """The event as everybody may see it (promise 10), made of its public fields alone; never of a confidential one."""
        if self.confidential:
            raise ValueError("a confidential dossier has no public view")
        view = reduce(data, "public")
        if isinstance(data, DossierCorrected):
            # What it undoes is known to the public under another id.
            view = view.model_copy(update={"undoes": public_id(data.undoes)})
        self.public_sequence += 1
        self.public_recorded = max(recorded, self.public_recorded or recorded)
        return Envelope(
            topic=PUBLIC_TOPIC,
            id=public_id(original.id),
            source=source,
            type=data.short,
            subject=self.code,
            time=original.time,
            recorded=self.public_recorded,
            sequence=self.public_sequence,
            mode=original.mode,
            data=view.to_json(),
        )


def public_id(original: UUID) -> UUID:
    """The id of an event's public view: a UUIDv7 of the same instant, always the same for the same event, so that a
    correction can name what it undoes."""
    noise = int.from_bytes(blake2b(original.bytes, digest_size=8, person=b"public view").digest())
    head = (original.int >> 64) & ~0xF000 | 0x7000
    return UUID(int=head << 64 | 0x8000_0000_0000_0000 | noise & 0x3FFF_FFFF_FFFF_FFFF)
