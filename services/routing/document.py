"""Official documents between agencies (văn bản liên thông), with the states of eDoc; for documents, not for dossiers.

Pure. A document arrives (01); its receiver refuses it (02) or accepts it (03), assigns it (04), works on it (05) and is
done (06). Its sender may ask to take it back (13); the receiver agrees (15), or refuses (16) and works on from where it
was. A document of kind 1, 2 or 3 (recall, update, replacement) asks the same of the one that it refers to.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, Final, Literal

from shared.contracts.codes import uuid7
from shared.contracts.envelope import Envelope
from shared.contracts.events import (
    DocumentAccepted,
    DocumentArrived,
    DocumentAssigned,
    DocumentEvent,
    DocumentFinished,
    DocumentRecallAccepted,
    DocumentRecallRefused,
    DocumentRecallRequested,
    DocumentRefused,
    DocumentSent,
    DocumentStarted,
    DocumentState,
)

DOCUMENT_TOPIC: Final = "lienthong.document.v1"

Operation = Literal["accept", "refuse", "assign", "start", "finish", "recall", "recall-accept", "recall-refuse"]
SENDER_OPERATIONS: Final[tuple[Operation, ...]] = ("recall",)

MOVES: Final[Mapping[Operation, tuple[frozenset[str], DocumentState]]] = MappingProxyType(
    {
        "accept": (frozenset({"01"}), "03"),
        "refuse": (frozenset({"01"}), "02"),
        "assign": (frozenset({"03", "04"}), "04"),
        "start": (frozenset({"03", "04"}), "05"),
        "finish": (frozenset({"05"}), "06"),
        "recall": (frozenset({"01", "03", "04", "05", "06"}), "13"),
        "recall-accept": (frozenset({"13"}), "15"),
        "recall-refuse": (frozenset({"13"}), "16"),
    }
)
"""For each operation the states that it starts from, and the one that it leads to."""

EVENTS: Final[Mapping[Operation, type[DocumentEvent]]] = MappingProxyType(
    {
        "accept": DocumentAccepted,
        "refuse": DocumentRefused,
        "assign": DocumentAssigned,
        "start": DocumentStarted,
        "finish": DocumentFinished,
        "recall": DocumentRecallRequested,
        "recall-accept": DocumentRecallAccepted,
        "recall-refuse": DocumentRecallRefused,
    }
)

KINDS: Final = MappingProxyType({1: "thu hồi", 2: "cập nhật", 3: "thay thế"})
_NOT_SAFE: Final = re.compile(r"[^0-9A-Za-z.]+")


class DocumentRefusal(Exception):
    """The document's state does not allow the operation; `allowed` are those that it does."""

    def __init__(self, state: str, allowed: Sequence[str]) -> None:
        super().__init__(state)
        self.state, self.allowed = state, tuple(allowed)


@dataclass(frozen=True, slots=True)
class Document:
    """One document. `before`: the state that work goes on from after a refused recall; `version` its event sequence.

    `home`: the sender's site when it is another, `worked_at` the receiver's when it is another; `told`: up to which of the
    events here the other site has been told.
    """

    id: str
    number: str
    date: date
    kind: int
    sender: str
    receiver: str
    title: str
    state: DocumentState
    sent_at: datetime
    changed_at: datetime
    recorded: datetime
    dossier: str | None = None
    replaces: str | None = None
    ref: str | None = None
    digest: str | None = None
    before: DocumentState | None = None
    assignee: str | None = None
    reason: str | None = None
    version: int = 2
    home: str | None = None
    worked_at: str | None = None
    told: int = 0

    @property
    def arrived(self) -> bool:
        """Whether the receiver's site has it; it says so once it has stored it."""
        return self.worked_at is None or self.version > 1


def document_id(sender: str, day: date, number: str) -> str:
    """Organisation, date and number, as one segment of a path: `H55.242`, 2026-11-23 and `12/QĐ-UBND` give
    `H55.242-2026-11-23-12-QD-UBND`.

    The number is written without tones (đ as d); whatever is no Latin letter, digit or point becomes one hyphen. Raises
    ValueError for a number of which nothing is left.
    """
    plain = unicodedata.normalize("NFD", number.replace("đ", "d").replace("Đ", "D"))
    letters = "".join(character for character in plain if not unicodedata.combining(character))
    safe = _NOT_SAFE.sub("-", letters).strip("-.")
    if not safe:
        raise ValueError("the document's number has neither letters nor digits")
    return f"{sender}-{day.isoformat()}-{safe}"


def allowed(document: Document) -> tuple[Operation, ...]:
    """The operations that the document's state allows; while it is on its way to another site, none."""
    if not document.arrived:
        return ()
    state = document.before if document.state == "16" else document.state
    return tuple(operation for operation, (states, _) in MOVES.items() if state in states)


def sent(document: Document) -> list[DocumentEvent]:
    """A new document: within one site it is sent and has arrived in the same breath."""
    said = _content(document)
    return [DocumentSent(**said)] if document.worked_at is not None else [DocumentSent(**said), DocumentArrived(**said)]


# ------------------------------------------------------------------------------------------------- between two sites


def arrive(
    said: DocumentSent, home: str, now: datetime, *, here: bool
) -> tuple[Document, list[tuple[Document, DocumentEvent]]]:
    """Another site's document as it stands here, with the events that say so: that it was sent, as that site says, and that
    it has arrived. One for an agency that is not `here` is refused
    by the system, with a reason."""
    document = _of(said, now, version=1, home=home)
    # Both are said here, too: the sender's figures are kept by the sites above it.
    events: list[tuple[Document, DocumentEvent]] = [(document, said)]
    document = replace(document, version=2)
    events.append((document, DocumentArrived(**_content(document))))
    if not here:
        document, refused = move(document, "refuse", now, reason=f"Cơ quan {said.to} không thuộc đơn vị này.")
        events.append((document, refused))
    return document, events


def hear(document: Document, said: DocumentEvent, now: datetime) -> tuple[Document, DocumentEvent | None] | None:
    """What the receiver's site has done, at the sender's. None: it is known. Without an event: it was done before that site
    learned that the document is asked back; work goes on from there if that is refused."""
    if isinstance(said, DocumentArrived) and document.arrived:
        return None
    if document.state == "13" and said.state in ("03", "04", "05", "06"):
        return replace(document, before=said.state), None
    before = _before(document, "recall-refuse") if said.state == "16" else None
    return _follow(document, said, now, state=said.state, before=before), said


def asked_back(
    document: Document, said: DocumentRecallRequested, now: datetime
) -> tuple[Document, DocumentEvent | None] | None:
    """The sender's site asks for the document, at the receiver's. None: it was refused, or is given back, already."""
    if "recall" not in allowed(document):
        return None
    moved, _ = move(document, "recall", now, reason=said.reason)
    return moved, said


def again(known: Document | None, said: DocumentEvent, envelope: Envelope, *, worked_at: str) -> Document | None:
    """A document after something that was done here once, and that its site's database has lost. None: something that the
    other site has done comes before it."""
    if known is None:
        if not isinstance(said, DocumentSent) or envelope.sequence != 1:
            return None
        known = _of(said, envelope.time, version=0, worked_at=worked_at)
    if envelope.sequence != known.version + 1:
        return None
    before = next((_before(known, act) for act, event in EVENTS.items() if isinstance(said, event)), None)
    stands = _follow(known, said, envelope.time, state=said.state, before=before)
    return replace(stands, recorded=max(envelope.recorded, known.recorded))


def _of(
    said: DocumentSent, at: datetime, *, version: int, home: str | None = None, worked_at: str | None = None
) -> Document:
    return Document(
        id=said.document,
        number=said.number,
        date=date.fromisoformat(said.date),
        kind=said.kind,
        sender=said.from_agency,
        receiver=said.to,
        title=said.title,
        state="01",
        sent_at=at,
        changed_at=at,
        recorded=at,
        dossier=said.dossier,
        replaces=said.replaces,
        ref=said.ref,
        digest=said.digest,
        version=version,
        home=home,
        worked_at=worked_at,
    )


def _follow(
    document: Document, said: DocumentEvent, now: datetime, *, state: DocumentState, before: DocumentState | None
) -> Document:
    return replace(
        document,
        state=state,
        before=before,
        changed_at=max(now, document.changed_at),
        recorded=max(now, document.recorded),
        reason=getattr(said, "reason", document.reason),
        assignee=getattr(said, "assignee", document.assignee),
        version=document.version + 1,
    )


# ------------------------------------------------------------------------------------------------------------- acts


def move(
    document: Document,
    operation: Operation,
    now: datetime,
    *,
    reason: str | None = None,
    assignee: str | None = None,
) -> tuple[Document, DocumentEvent]:
    """The document after the operation, and the event that says so. Raises DocumentRefusal.

    `reason` belongs to refuse, recall and recall-refuse, `assignee` to assign.
    """
    may = allowed(document)
    if operation not in may:
        raise DocumentRefusal(document.state, may)
    moved = replace(
        document,
        state=MOVES[operation][1],
        before=_before(document, operation),
        changed_at=max(now, document.changed_at),
        recorded=max(now, document.recorded),
        reason=reason if reason is not None else document.reason,
        assignee=assignee if assignee is not None else document.assignee,
        version=document.version + 1,
    )
    said = {name: text for name, text in (("reason", reason), ("assignee", assignee)) if text is not None}
    return moved, EVENTS[operation](**_base(moved) | said)


def referred(earlier: Document, by: Document, now: datetime) -> tuple[Document, DocumentEvent] | None:
    """What a document of kind 1, 2 or 3 does to the one that it refers to: its receiver is asked to agree.

    None: the earlier one was refused or taken back already, or is being asked for, so that there is nothing to ask.
    """
    if "recall" not in allowed(earlier):
        return None
    return move(earlier, "recall", now, reason=f"Văn bản {by.number} {KINDS[by.kind]} văn bản này.")


def _before(document: Document, operation: Operation) -> DocumentState | None:
    """The place to which work returns if a recall is refused: kept while it is asked for and once it is refused."""
    if operation == "recall":
        return document.before if document.state == "16" else document.state
    return document.before if operation == "recall-refuse" else None


def _base(document: Document) -> dict[str, Any]:
    return {
        "document": document.id,
        "number": document.number,
        "date": document.date.isoformat(),
        "kind": document.kind,
        "from_agency": document.sender,
        "to": document.receiver,
        "state": document.state,
        "dossier": document.dossier,
    }


def _content(document: Document) -> dict[str, Any]:
    return _base(document) | {
        "title": document.title,
        "replaces": document.replaces,
        "ref": document.ref,
        "digest": document.digest,
    }


def envelope_of(document: Document, event: DocumentEvent, sequence: int, source: str) -> Envelope:
    """The event on the document's own line."""
    return Envelope(
        topic=DOCUMENT_TOPIC,
        id=uuid7(),
        source=source,
        type=event.short,
        subject=document.id,
        time=document.changed_at,
        recorded=document.recorded,
        sequence=sequence,
        mode="live",
        data=event.to_json(),
    )
