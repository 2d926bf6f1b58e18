"""What may be done to a dossier, and the body that each operation takes, over HTTP and in import lines alike."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from shared.clock import local
from shared.contracts.codes import AgencyCode, DossierCodeText, Instant, Name, Phone, Text
from shared.contracts.events import ApplicantKind, Channel, Preference, Result, ReturnBy, Satisfaction, Source

ProcedureCode = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z.\-]{1,60}$")]
CitizenId = Annotated[str, StringConstraints(pattern=r"^(\d{9}|\d{12})$")]
"""An identity card has 9 digits, a citizen identity card 12."""
Dong = Annotated[int, Field(strict=True, ge=0, le=10**12)]
"""An amount of money, in đồng."""


def _on_the_calendar(instant: datetime) -> datetime:
    local(instant)  # raises ClockRangeError
    return instant


Due = Annotated[Instant, AfterValidator(_on_the_calendar)]
"""A due instant given by hand; its local day is on the calendar too."""


class Act(BaseModel):
    """A body: unknown fields are refused. `at`: when it happened, if not now."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: Instant | None = None


class Applicant(BaseModel):
    """Who applies. All of it is personal."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: ApplicantKind
    name: Name
    phone: Phone | None = None
    address: Text | None = None
    citizen_id: CitizenId | None = None
    language: Literal["vi", "en"] | None = None
    notify: Preference | None = Field(None, description="How they want to be told; what is not said stays as it was.")


class Component(BaseModel):
    """A paper that came with the dossier."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    digitised: bool = False
    ref: Text | None = None
    digest: Text | None = None
    reused: bool = False
    source: Source | None = None


class _Dossier(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    procedure: ProcedureCode
    receiving_agency: AgencyCode
    deciding_agency: AgencyCode | None = None
    channel: Channel
    applicant: Applicant
    return_by: ReturnBy
    components: Annotated[tuple[Component, ...], Field(max_length=200)] = ()


class NewDossier(_Dossier):
    """A dossier received at a desk."""

    received_at: Instant | None = None

    @property
    def happened(self) -> datetime | None:
        return self.received_at


class NewSubmission(_Dossier):
    """A dossier sent in, to be received or refused later."""

    submitted_at: Instant | None = None
    code: DossierCodeText | None = None

    @property
    def happened(self) -> datetime | None:
        return self.submitted_at


class ImportedDossier(NewDossier):
    """A dossier of another system: it may keep its code and its promised due date."""

    code: DossierCodeText | None = None
    due_at: Due | None = None


class Plain(Act):
    """An operation that needs nothing but its time."""


class ImportedReceipt(Plain):
    """The receipt of a dossier that was submitted before: another system may have promised its due date already."""

    received_at: Instant | None = None
    due_at: Due | None = None


class WithReason(Act):
    reason: Text


class PaymentRequest(Act):
    amount: Dong


class Payment(Act):
    amount: Dong
    method: Channel


class Extension(Act):
    reason: Text
    due_at: Due


class Digitisation(Act):
    component: Name


class Resolution(Act):
    result: Result
    electronic: bool = False
    ref: Text | None = None
    digest: Text | None = None


class Return(Act):
    by: ReturnBy


class Correction(Act):
    undoes: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]
    reason: Text


class Rating(Act):
    level: Satisfaction
    quality: Satisfaction | None = None
    attitude: Satisfaction | None = None
    complained: bool = False
    comment: Text | None = None


BODIES: dict[str, type[Act]] = {
    "receive": Plain,
    "refuse": WithReason,
    "start": Plain,
    "supplement-request": WithReason,
    "supplement": Plain,
    "payment-request": PaymentRequest,
    "payment": Payment,
    "withdrawal-request": WithReason,
    "withdrawal": Plain,
    "withdrawal-refusal": WithReason,
    "stop": WithReason,
    "extension": Extension,
    "digitisation": Digitisation,
    "resolution": Resolution,
    "return": Return,
    "correction": Correction,
    "rating": Rating,
}
"""Every operation on a dossier that exists, with its body."""
