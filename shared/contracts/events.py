"""Every event that crosses between services: its fields, their sensitivity, the moves it may make, its topic.

The outside relies on what stands here. `shared/contracts/schemas` holds the same as JSON Schema 2020-12 and a
test proves that both agree; a change must be compatible both ways (`compatibility.py`).

Reading ignores an unknown field, so that an older service understands a newer one, and refuses everything
else that is not as declared. Personal data is in no event: a dossier's carry a `contact_ref`, and only
`contact.*` hold the data itself, encrypted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from shared.contracts.codes import AgencyCode, DossierCodeText, Instant

T = TypeVar("T")

Tier = Literal["public", "agency", "internal", "restricted"]
TIERS: Final[tuple[Tier, ...]] = ("public", "agency", "internal", "restricted")
"""From what anybody may read to what only the named recipients may (promise 10)."""

Public = Annotated[T, Field(json_schema_extra={"x-sensitivity": "public"})]
Agency = Annotated[T, Field(json_schema_extra={"x-sensitivity": "agency"})]
Internal = Annotated[T, Field(json_schema_extra={"x-sensitivity": "internal"})]
Restricted = Annotated[T, Field(json_schema_extra={"x-sensitivity": "restricted"})]

State = Annotated[int, Field(ge=1, le=10)]
"""The portal's state: 1 submitted, 2 received, 3 refused at the desk, 4 in process, 5 supplement requested,
6 payment requested, 7 withdrawal requested, 8 stopped, 9 resolved, 10 returned."""

Money = Annotated[int, Field(ge=0, le=1_000_000_000_000)]
"""Đồng."""
Count = Annotated[int, Field(ge=0)]
Number = Annotated[int, Field(ge=1)]
LocalDay = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
Code = Annotated[str, Field(min_length=1, max_length=200)]
"""A stable code or reference, never free text."""
FreeText = Annotated[str, Field(max_length=2000)]

Channel = Literal["counter", "online", "postal"]
ReturnBy = Literal["counter", "postal", "online"]
ApplicantKind = Literal["citizen", "business", "household"]
Preference = Literal["sms", "postal", "required"]
"""How an applicant wants to be told; it lies sealed in their contact. `required`: of no more than they must be told."""
Role = Literal["desk", "officer", "leader", "operator", "portal", "admin", "citizen", "system", "import"]
"""Who acted, by role only."""
Source = Literal["scan", "store", "population"]
Unit = Literal["working_days", "hours", "days", "months"]
Result = Literal["granted", "denied"]
Satisfaction = Literal["very_satisfied", "satisfied", "neutral", "dissatisfied"]
Level = Literal["commune", "district", "province", "ministry", "sector"]


class Shape(BaseModel):
    """What events are built of: unchangeable, exact in types, tolerant of fields that it does not know."""

    model_config = ConfigDict(frozen=True, defer_build=True, strict=True, extra="ignore", populate_by_name=True)


class EventData(Shape):
    """The data of one event. `short` is the type without its namespace, such as `dossier.received`."""

    short: ClassVar[str] = ""

    def to_json(self) -> bytes:
        """The bytes that are published. The same event always gives the same bytes."""
        return self.__pydantic_serializer__.to_json(self, by_alias=True)


# ------------------------------------------------------------------------------------------------- dossier


class Component(Shape):
    """One paper of a dossier. `digitised`: it exists as reusable data; `reused`: it was taken from a store."""

    name: Agency[Code]
    digitised: Agency[bool] = False
    reused: Agency[bool] = False
    source: Agency[Source | None] = None
    ref: Internal[FreeText | None] = None
    digest: Internal[FreeText | None] = None


class LimitData(Shape):
    """A time limit. Whole numbers; steps of a route may have halves."""

    value: Public[Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, multiple_of=0.5)]]
    unit: Public[Unit]


class CalendarRef(Shape):
    """The calendar version that a dossier was promised under; version 0 is the default calendar."""

    agency: Public[AgencyCode]
    version: Public[Count]


class ToLevel(Shape):
    level: Public[Level]


class ToSector(Shape):
    sector: Public[Code]


class RouteStep(Shape):
    """One step of the frozen route, with the id that its transfer will have."""

    step: Agency[Number]
    to: Agency[AgencyCode | ToLevel | ToSector]
    limit: Agency[LimitData | None] = None
    transfer: Agency[UUID]


class DossierEvent(EventData):
    """What every act on a dossier says: where it was received and how it stands after the act.

    `previous` is None for the act that brings the dossier into being; a fact that does not move the dossier
    has `previous == state`. `paused`: the clock stands still after this act; `due_at` then keeps its value.
    """

    moves: ClassVar[frozenset[tuple[int | None, int]]] = frozenset()

    agency: Public[AgencyCode]
    procedure: Public[Code]
    previous: Public[State | None]
    state: Public[State]
    due_at: Public[Instant | None]
    paused: Public[bool]
    by: Internal[Role]
    confidential: Internal[bool]

    @model_validator(mode="after")
    def _moves_as_allowed(self) -> Self:
        if (self.previous, self.state) not in self.moves:
            raise ValueError(f"{self.short} does not move a dossier from {self.previous} to {self.state}")
        return self


class _Receipt(DossierEvent):
    deciding_agency: Public[AgencyCode]
    field: Public[Code]
    channel: Public[Channel]
    return_by: Agency[ReturnBy]
    applicant_kind: Agency[ApplicantKind]
    contact_ref: Internal[Code | None] = None
    fee: Agency[Money] = 0
    components: Agency[tuple[Component, ...]] = ()
    kept_code: Internal[bool] = False
    track: Internal[Code | None] = None
    """By which a site that has a copy knows the dossier's tracking pin (`pin_digest`)."""


class DossierSubmitted(_Receipt):
    """Sent in by portal or desk, not received yet: no due date. `kept_code`: the code is another system's."""

    short = "dossier.submitted"


class DossierReceived(_Receipt):
    """Received: limit, fee and calendar version are frozen from here on.

    `provisional_year`: the due date lies in this year, whose swapped working days were not known yet.
    `backdated`: recorded after the fact. `due_kept`: the due date is the one that another system promised.
    """

    short = "dossier.received"

    limit: Public[LimitData]
    calendar: Public[CalendarRef | None] = None
    payment_pauses: Agency[bool] = False
    provisional_year: Agency[int | None] = None
    backdated: Internal[bool] = False
    due_kept: Internal[bool] = False


class DossierRefused(DossierEvent):
    """Refused at the desk, before receipt."""

    short = "dossier.refused"

    reason: Internal[FreeText]


class DossierProcessingStarted(DossierEvent):
    """Work began, and with it the frozen route: routing asks for step 1. No route: the desk's agency does it all.

    It follows a `dossier.paid` as a fact in 4 when that payment brought the dossier into 4 for the first time.
    """

    short = "dossier.processing-started"

    route: Agency[tuple[RouteStep, ...]] = ()


class DossierSupplementRequested(DossierEvent):
    short = "dossier.supplement-requested"

    reason: Internal[FreeText]


class DossierSupplemented(DossierEvent):
    """The supplement is complete: the dossier is back where the request was made, with a new due date."""

    short = "dossier.supplemented"


class DossierPaymentRequested(DossierEvent):
    short = "dossier.payment-requested"

    amount: Agency[Money]


class DossierPaid(DossierEvent):
    short = "dossier.paid"

    amount: Agency[Money]
    method: Agency[Channel]


class DossierWithdrawalRequested(DossierEvent):
    short = "dossier.withdrawal-requested"

    reason: Internal[FreeText]


class DossierWithdrawalRefused(DossierEvent):
    """The dossier is back where it was when the withdrawal was asked for."""

    short = "dossier.withdrawal-refused"

    reason: Internal[FreeText]


class DossierWithdrawn(DossierEvent):
    short = "dossier.withdrawn"


class DossierStopped(DossierEvent):
    short = "dossier.stopped"

    reason: Internal[FreeText]


class DossierExtended(DossierEvent):
    """Apology with a new due date. `due_at` is the new one."""

    short = "dossier.extended"

    reason: Internal[FreeText]
    previous_due_at: Public[Instant]


class DossierRescheduled(DossierEvent):
    """A new calendar version moved the due date; the dossier has that version from then on."""

    short = "dossier.rescheduled"

    previous_due_at: Public[Instant]
    calendar: Public[CalendarRef]


class DossierDigitised(DossierEvent):
    """`listed`: the receipt had listed this component; otherwise it is listed by this act."""

    short = "dossier.digitised"

    component: Agency[Code]
    listed: Agency[bool]


class DossierResolved(DossierEvent):
    """`by_route`: the last transfer of the route said so, not an officer of the desk's agency."""

    short = "dossier.resolved"

    result: Agency[Result]
    electronic: Public[bool] = False
    ref: Internal[FreeText | None] = None
    digest: Internal[FreeText | None] = None
    by_route: Agency[bool] = False


class DossierReturned(DossierEvent):
    short = "dossier.returned"

    returned_by: Agency[ReturnBy]


class DossierRated(DossierEvent):
    """The applicant's rating. What the applicant wrote beside it is personal and in no event."""

    short = "dossier.rated"

    level: Agency[Satisfaction]
    quality: Agency[Satisfaction | None] = None
    attitude: Agency[Satisfaction | None] = None
    complained: Agency[bool] = False


class DossierCorrected(DossierEvent):
    """The dossier's last act never happened, from the recorded time of this event on."""

    short = "dossier.corrected"

    undoes: Public[UUID]
    undone_type: Public[Code]
    reason: Internal[FreeText]


class DossierDueSoon(DossierEvent):
    short = "dossier.due-soon"


class DossierOverdue(DossierEvent):
    short = "dossier.overdue"


# -------------------------------------------------------------------------- the lifecycle, as portal states


def _facts(*states: int) -> frozenset[tuple[int | None, int]]:
    return frozenset((state, state) for state in states)


def _from(*states: int | None, to: int) -> frozenset[tuple[int | None, int]]:
    return frozenset((state, to) for state in states)


_ALL_STATES: Final = range(1, 11)

MOVES: Final[dict[str, frozenset[tuple[int | None, int]]]] = {
    "dossier.submitted": _from(None, 1, to=1),  # a second submission may change a dossier in 1
    "dossier.received": _from(None, 1, to=2),
    "dossier.refused": _from(1, 5, to=3),
    "dossier.processing-started": _from(2, to=4) | _facts(4),
    "dossier.supplement-requested": _from(1, 2, 4, to=5),
    "dossier.supplemented": frozenset({(5, 1), (5, 2), (5, 4)}),
    "dossier.payment-requested": _from(2, 4, to=6),
    "dossier.paid": _from(6, to=4) | _facts(2, 4, 5, 9),
    "dossier.withdrawal-requested": _from(1, 2, 4, 5, 6, to=7),
    "dossier.withdrawal-refused": frozenset((7, state) for state in (1, 2, 4, 5, 6)),
    "dossier.withdrawn": _from(7, to=8),
    "dossier.stopped": _from(2, 4, 5, 6, to=8),
    "dossier.extended": _facts(2, 4, 5, 6, 7),
    "dossier.rescheduled": _facts(2, 4, 5, 6, 7),
    "dossier.digitised": _facts(1, 2, 4, 5, 6, 7, 8, 9, 10),
    "dossier.resolved": _from(2, 4, to=9),
    "dossier.returned": _from(9, to=10),
    "dossier.rated": _facts(3, 8, 9, 10),
    "dossier.corrected": frozenset((before, after) for before in _ALL_STATES for after in _ALL_STATES),
    "dossier.due-soon": _facts(2, 4, 5, 6, 7),
    "dossier.overdue": _facts(2, 4, 5, 6, 7),
}
"""For each type the pairs (previous, state) that it may carry; `None`: the dossier did not exist.

The portal's states are law, the moves a decision of this project. 3, 8 and 10 are final."""


# ------------------------------------------------------------------------------------------------- contact


class WrappedKey(Shape):
    """The person's data key, wrapped for one recipient (JWE)."""

    kid: Restricted[Code]
    recipient: Restricted[Code]
    wrapped: Restricted[str]


class _Contact(EventData):
    contact_ref: Internal[Code]
    nonce: Restricted[str]
    ciphertext: Restricted[str]
    keys: Restricted[tuple[WrappedKey, ...]]


class ContactRecorded(_Contact):
    """A person's data, encrypted under their own data key; nonce and ciphertext in base64."""

    short = "contact.recorded"


class ContactChanged(_Contact):
    short = "contact.changed"


class ContactErased(EventData):
    """A tombstone: a null value under the contact_ref. The key is destroyed wherever it went."""

    short = "contact.erased"

    contact_ref: Internal[Code]


# ------------------------------------------------------------------------------------------------ petition


class PetitionEvent(EventData):
    petition: Public[UUID]
    agency: Public[AgencyCode]


class PetitionFiled(PetitionEvent):
    short = "petition.filed"

    kind: Agency[Literal["reflection", "complaint", "letter"]]
    due_at: Agency[Instant]
    contact_ref: Internal[Code | None] = None


class PetitionForwarded(PetitionEvent):
    """`agency` is the one that answers from now on, and is `to`."""

    short = "petition.forwarded"

    from_agency: Agency[AgencyCode] = Field(alias="from")
    to: Agency[AgencyCode]
    reason: Internal[FreeText | None] = None


class PetitionAnswered(PetitionEvent):
    short = "petition.answered"

    on_time: Agency[bool]


class PetitionRated(PetitionEvent):
    short = "petition.rated"

    level: Agency[Satisfaction]


# ------------------------------------------------------------------------------------------------ transfer

TransferState = Literal[
    "requested", "sent", "delivered", "accepted", "refused", "completed", "returned", "recalled", "rerouted"
]


class Origin(Shape):
    """The event of another site that this one repeats, as that site published it."""

    id: Internal[UUID]
    source: Internal[Code]
    sequence: Internal[Number]
    time: Internal[Instant]


class Paper(Shape):
    """A document that came of a leg: where it is stored and its digest."""

    name: Agency[Code]
    ref: Internal[FreeText | None] = None
    digest: Internal[FreeText | None] = None


class TransferEvent(EventData):
    """One hand-over of a dossier. `agency` is the dossier's receiving agency, `due_at` the leg's own limit.

    `attempt` counts how often the step was asked for, from 1. `origin` is set when the event came over a link.
    """

    transfer: Agency[UUID]
    dossier: Agency[DossierCodeText]
    step: Agency[Number]
    from_agency: Agency[AgencyCode] = Field(alias="from")
    to: Agency[AgencyCode]
    state: Agency[TransferState]
    attempt: Internal[Number]
    due_at: Agency[Instant | None]
    agency: Agency[AgencyCode]
    origin: Internal[Origin | None] = None


class TransferRequested(TransferEvent):
    """`redirected_from`: the closed agency whose successor is asked. `parallel`: transfers with this step. `replaces`: the
    transfer whose leg goes on with this one, from the second attempt on."""

    short = "transfer.requested"

    state: Agency[Literal["requested"]] = "requested"
    limit: Agency[LimitData | None] = None
    redirected_from: Agency[AgencyCode | None] = None
    parallel: Agency[Number] = 1
    replaces: Agency[UUID | None] = None


class TransferSent(TransferEvent):
    short = "transfer.sent"

    state: Agency[Literal["sent"]] = "sent"


class TransferDelivered(TransferEvent):
    short = "transfer.delivered"

    state: Agency[Literal["delivered"]] = "delivered"


class TransferAccepted(TransferEvent):
    short = "transfer.accepted"

    state: Agency[Literal["accepted"]] = "accepted"


class TransferRefused(TransferEvent):
    """A refusal has a reason and at least one next step (promise 7)."""

    short = "transfer.refused"

    state: Agency[Literal["refused"]] = "refused"
    reason: Internal[FreeText]
    next_steps: Agency[Annotated[tuple[Code, ...], Field(min_length=1)]]


class TransferCompleted(TransferEvent):
    """`route_complete`: no step of the route is left; `route_result` is then the dossier's result, else None."""

    short = "transfer.completed"

    state: Agency[Literal["completed"]] = "completed"
    result: Agency[Result]
    note: Internal[FreeText | None] = None
    documents: Agency[tuple[Paper, ...]] = ()
    route_complete: Agency[bool] = False
    route_result: Agency[Result | None] = None

    @model_validator(mode="after")
    def _result_with_the_end_of_the_route(self) -> Self:
        if self.route_complete != (self.route_result is not None):
            raise ValueError("route_result is given exactly when the route is complete")
        return self


class TransferReturned(TransferEvent):
    short = "transfer.returned"

    state: Agency[Literal["returned"]] = "returned"
    reason: Internal[FreeText]
    need: Agency[Literal["supplement", "correction"]]


class TransferRecalled(TransferEvent):
    short = "transfer.recalled"

    state: Agency[Literal["recalled"]] = "recalled"
    reason: Internal[FreeText]


class TransferRerouted(TransferEvent):
    """This transfer has ended; `new_transfer` goes to `to_agency` instead."""

    short = "transfer.rerouted"

    state: Agency[Literal["rerouted"]] = "rerouted"
    to_agency: Agency[AgencyCode]
    reason: Internal[FreeText]
    new_transfer: Agency[UUID]


# ------------------------------------------------------------------------------------------------ document

DocumentState = Literal["01", "02", "03", "04", "05", "06", "13", "15", "16"]
"""eDoc: 01 arrived, 02 refused, 03 accepted, 04 assigned, 05 in work, 06 done, 13 recall asked,
15 recall or update agreed, 16 refused."""


class DocumentEvent(EventData):
    """An official document between agencies. `kind`: 0 new, 1 recall, 2 update, 3 replace.

    `document` is its id: organisation, date and number.
    """

    document: Agency[Annotated[str, Field(min_length=1, max_length=500)]]
    number: Agency[Code]
    date: Agency[LocalDay]
    kind: Agency[Annotated[int, Field(ge=0, le=3)]]
    from_agency: Agency[AgencyCode] = Field(alias="from")
    to: Agency[AgencyCode]
    state: Agency[DocumentState]
    dossier: Agency[DossierCodeText | None] = None
    origin: Internal[Origin | None] = None


class _DocumentWithContent(DocumentEvent):
    title: Internal[FreeText]
    replaces: Agency[Code | None] = None
    ref: Internal[FreeText | None] = None
    digest: Internal[FreeText | None] = None


class DocumentSent(_DocumentWithContent):
    short = "document.sent"


class DocumentArrived(_DocumentWithContent):
    short = "document.arrived"


class DocumentRefused(DocumentEvent):
    short = "document.refused"

    reason: Internal[FreeText]


class DocumentAccepted(DocumentEvent):
    short = "document.accepted"


class DocumentAssigned(DocumentEvent):
    """`assignee`: the agency or unit that works on it, never a person's name."""

    short = "document.assigned"

    assignee: Internal[FreeText]


class DocumentStarted(DocumentEvent):
    short = "document.started"


class DocumentFinished(DocumentEvent):
    short = "document.finished"


class DocumentRecallRequested(DocumentEvent):
    short = "document.recall-requested"

    reason: Internal[FreeText]


class DocumentRecallAccepted(DocumentEvent):
    short = "document.recall-accepted"


class DocumentRecallRefused(DocumentEvent):
    short = "document.recall-refused"

    reason: Internal[FreeText]


# -------------------------------------------------------------------------------------- notices and postal


class NoticeEvent(EventData):
    """One notice. `act` is the short type of the event that it tells of, `event` that event's `ce_id`."""

    notice: Agency[UUID]
    dossier: Agency[DossierCodeText]
    act: Agency[Code]
    event: Agency[UUID]
    channel: Agency[Literal["sms", "postal"]]
    agency: Agency[AgencyCode]


class NoticePlanned(NoticeEvent):
    short = "notice.planned"

    template: Agency[Code]
    version: Agency[Count]
    parts: Agency[Count]
    expires_at: Agency[Instant]


class NoticeHeld(NoticeEvent):
    """Quiet hours: it goes out at `until`, in the order planned."""

    short = "notice.held"

    until: Agency[Instant]


class NoticeSent(NoticeEvent):
    short = "notice.sent"

    provider: Internal[Code]
    attempts: Internal[Number]


class NoticeDelivered(NoticeEvent):
    short = "notice.delivered"

    provider: Internal[Code]


class NoticeFailed(NoticeEvent):
    short = "notice.failed"

    reason: Internal[FreeText]
    provider: Internal[Code | None] = None


class NoticeExpired(NoticeEvent):
    short = "notice.expired"

    reason: Internal[FreeText]


class NoticeSuperseded(NoticeEvent):
    """Its matter was settled before it went out. `by`: the event or notice that did it."""

    short = "notice.superseded"

    by: Internal[Code]


class PostalEvent(EventData):
    """One order with the public post: `collect` papers from the applicant, or `deliver` the result; with `notice`, a letter
    that tells of an act."""

    order: Agency[UUID]
    notice: Agency[UUID | None] = None
    dossier: Agency[DossierCodeText]
    kind: Agency[Literal["collect", "deliver"]]
    carrier: Internal[Code]


class PostalOrdered(PostalEvent):
    short = "postal.ordered"

    fee_to_collect: Agency[Money]


class PostalCollected(PostalEvent):
    """Picked up; `amount` is what was collected at the door then."""

    short = "postal.collected"

    amount: Agency[Money] = 0


class PostalInTransit(PostalEvent):
    short = "postal.in-transit"


class PostalDelivered(PostalEvent):
    """Handed over; `amount` is what was collected at the door then."""

    short = "postal.delivered"

    amount: Agency[Money] = 0


class PostalReturned(PostalEvent):
    short = "postal.returned"

    reason: Internal[FreeText]


class PostalCancelled(PostalEvent):
    short = "postal.cancelled"

    reason: Internal[FreeText]


# ----------------------------------------------------------------------------------------------- indicator


class IndicatorEvent(EventData):
    """Figures of an agency over local dates, both inside."""

    agency: Public[AgencyCode]
    grain: Public[Code]
    from_day: Public[LocalDay] = Field(alias="from")
    to: Public[LocalDay]


class IndicatorSnapshot(IndicatorEvent):
    """Small groups (fewer than 5) are suppressed before they come here."""

    short = "indicator.snapshot"

    as_of: Public[Instant]
    figures: Public[dict[str, JsonValue]]


class IndicatorRestated(IndicatorEvent):
    """A figure of a closed period changed. `dossier` is left out where even existence is private."""

    short = "indicator.restated"

    dossier: Public[DossierCodeText | None] = None
    before: Public[dict[str, JsonValue]]
    after: Public[dict[str, JsonValue]]
    because: Public[Code]


# ------------------------------------------------------------------------------------- parked, watermarks


class ParkedRecorded(EventData):
    """An event that could not be applied, without what it said (promise 4): nothing personal, no payload.

    `consumer`: who parked it; `reason`: a stable code; `pointers`: where its data is wrong.
    """

    short = "parked.recorded"

    parked: Internal[UUID]
    consumer: Internal[Code]
    topic: Internal[Code]
    event: Internal[Code | None] = None
    type: Internal[Code | None] = None
    sequence: Internal[Count | None] = None
    reason: Internal[Code]
    pointers: Internal[tuple[Code, ...]] = ()
    size: Internal[Count] = 0


class WatermarkAdvanced(EventData):
    """All that was recorded before `complete_to` is published, up to `offset` of this partition."""

    short = "watermark.advanced"

    topic: Internal[Code]
    partition: Internal[Count]
    offset: Internal[int]
    complete_to: Internal[Instant]


# -------------------------------------------------------------------------------------------------- registry


def _concrete(base: type[EventData]) -> Iterable[type[EventData]]:
    for model in base.__subclasses__():
        if model.short:
            yield model
        yield from _concrete(model)


EVENTS: Final[dict[str, type[EventData]]] = {model.short: model for model in _concrete(EventData)}
"""Every event type by its short name."""

for _short, _moves in MOVES.items():
    _model = EVENTS[_short]
    assert issubclass(_model, DossierEvent)
    _model.moves = _moves

_NAMESPACE: Final = "vn.lienthong."
_VERSION: Final = ".v1"


def full_type(short: str) -> str:
    """`dossier.received` -> `vn.lienthong.dossier.received.v1`; a type of another shape is left as it is."""
    return f"{_NAMESPACE}{short}{_VERSION}" if short.count(".") == 1 else short


def short_type(full: str) -> str:
    """The inverse of `full_type`. A type that is not ours, or of a later version, is left as it is."""
    if full.startswith(_NAMESPACE) and full.endswith(_VERSION):
        short = full[len(_NAMESPACE) : -len(_VERSION)]
        if short.count(".") == 1:
            return short
    return full


# ---------------------------------------------------------------------------------------------------- topics


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic, without the site's prefix. `key` says what the record key means; `owner` alone writes it."""

    name: str
    key: str
    owner: str
    cleanup: Literal["delete", "compact"]
    tier: Tier
    types: tuple[str, ...]
    retention_days: int = 7
    in_contract: bool = True
    """False: between the services of one site, never for subscribers."""


def _types(*families: str) -> tuple[str, ...]:
    return tuple(short for short in EVENTS if short.split(".")[0] in families)


TOPICS: Final[dict[str, Topic]] = {
    topic.name: topic
    for topic in (
        Topic("lienthong.dossier.v1", "dossier code", "intake", "delete", "internal", _types("dossier")),
        Topic("lienthong.transfer.v1", "dossier code", "routing", "delete", "internal", _types("transfer")),
        Topic("lienthong.notice.v1", "dossier code", "notify", "delete", "internal", _types("notice", "postal")),
        Topic("lienthong.contact.v1", "contact_ref", "intake", "compact", "restricted", _types("contact")),
        Topic("lienthong.petition.v1", "petition id", "intake", "delete", "internal", _types("petition")),
        Topic("lienthong.document.v1", "document id", "routing", "delete", "internal", _types("document")),
        Topic(
            "lienthong.indicator.v1",
            "agency, grain, period",
            "stats",
            "compact",
            "public",
            _types("indicator"),
        ),
        Topic("lienthong.public.dossier.v1", "dossier code", "routing", "delete", "public", _types("dossier")),
        Topic("lienthong.parked.v1", "dossier code", "all", "delete", "internal", _types("parked")),
        Topic(
            "lienthong.copy.v1",
            "dossier code",
            "routing",
            "delete",
            "internal",
            _types("dossier", "transfer"),
            in_contract=False,
        ),
        Topic(
            "lienthong.watermark.v1",
            "topic, partition",
            "all",
            "delete",
            "internal",
            _types("watermark"),
            in_contract=False,
        ),
    )
}
"""Every fixed topic. Agency views and links are made on demand: `agency_topic`, `link_topics`."""

AGENCY_TOPIC_PARTITIONS: Final = 3
LINK_TOPIC_PARTITIONS: Final = 1


def agency_topic(code: str) -> str:
    """The topic of one external subscriber's view."""
    return f"lienthong.agency.{code}.v1"


def link_topics(site: str) -> tuple[str, str]:
    """The two topics of a link, up and down, on the upper site's bus. `site` is the lower one."""
    return f"lienthong.link.{site}.up", f"lienthong.link.{site}.down"


def topic_of(short: str) -> str:
    """The owner's topic of an event type: `dossier.received` -> `lienthong.dossier.v1`."""
    family = short.split(".")[0]
    return f"lienthong.{'notice' if family == 'postal' else family}.v1"


def tier_of_topic(topic: str) -> Tier:
    """How far a topic reaches: the view of an event that its records hold."""
    if topic.startswith("lienthong.agency."):
        return "agency"
    return TOPICS[topic].tier if topic in TOPICS else "internal"
