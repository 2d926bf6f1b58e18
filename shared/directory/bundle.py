"""A site's bundle: who there is, what they do, when they work, and how citizens are told.

The models say what a bundle may hold; `faults.py` says what must be true between its parts, `merge.py` what
loading it changes. Unknown fields are refused. Agency codes are taken in both forms and kept in the new one.
"""

from __future__ import annotations

import re
from datetime import date
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    WithJsonSchema,
)

from shared.clock import Calendar, Shift, Weekday
from shared.contracts.codes import AgencyCode, Name, Text
from shared.contracts.events import EVENTS, Level, Unit

Online = Literal["full", "partial", "none"]
Language = Literal["vi", "en"]
Tones = Literal["keep", "drop", "keep_within"]
NoticeChannel = Literal["sms", "postal"]
PostalState = Literal["ordered", "collected", "in-transit", "delivered", "returned", "cancelled"]
"""What a carrier reports of an order."""

ACTS: Final = frozenset(short.removeprefix("dossier.") for short in EVENTS if short.startswith("dossier."))
"""What a notice can tell of: the dossier events by their last word."""

MUST_BE_TOLD: Final = frozenset(
    {"refused", "supplement-requested", "payment-requested", "extended", "rescheduled", "stopped"}
)
"""What an applicant is told whatever they wish, unless a rule says otherwise: the acts for which the law has a paper to them
(Decree 61/2018: supplement request, refusal, apology; and the stop notice), a payment that is asked for, another due date."""

PLACEHOLDERS: Final = frozenset(
    {"code", "due", "previous_due", "received", "agency", "procedure", "reason", "amount", "result", "pin"}
)
"""What a template may name in braces."""


def _http_url(value: str) -> str:
    _URL.validate_python(value)
    return value


def _shift(value: str) -> str:
    Shift.parse(value)
    return value


def _in_order(values: tuple[str, ...]) -> tuple[str, ...]:
    shifts = sorted(Shift.parse(value) for value in values)
    if any(later.start < earlier.end for earlier, later in pairwise(shifts)):
        raise ValueError("the shifts of this day overlap")
    return tuple(sorted(values))


def _act(value: str) -> str:
    if value not in ACTS:
        raise ValueError(f"no act has this name; acts are {', '.join(sorted(ACTS))}")
    return value


def _template_text(value: str) -> str:
    for part in re.split(r"(\{[^{}]*\})", value):
        if part.startswith("{") and part.endswith("}"):
            if part[1:-1] not in PLACEHOLDERS:
                raise ValueError(f"a template may name {', '.join(sorted(PLACEHOLDERS))} in braces")
        elif "{" in part or "}" in part:
            raise ValueError("a brace is open or closed alone")
    return value


_URL: Final = TypeAdapter(AnyHttpUrl)
_TIME: Final = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"

Identifier = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,99}$")]
Url = Annotated[str, AfterValidator(_http_url), WithJsonSchema({"type": "string", "format": "uri"})]
TimeOfDay = Annotated[str, Field(pattern=_TIME)]
ShiftText = Annotated[
    str,
    AfterValidator(_shift),
    WithJsonSchema({"type": "string", "pattern": r"^[0-2][0-9]:[0-5][0-9]-[0-2][0-9]:[0-5][0-9]$"}),
]
Shifts = Annotated[tuple[ShiftText, ...], AfterValidator(_in_order)]
Positive = Annotated[int, Field(ge=1, le=1_000_000)]
NotNegative = Annotated[int, Field(ge=0, le=1_000_000)]
Money = Annotated[int, Field(ge=0, le=1_000_000_000_000)]
"""Đồng."""


class Entry(BaseModel):
    """A part of a bundle: unchangeable, exact in types, no unknown fields."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)


class SiteEntry(Entry):
    """The site itself. `upper`: the code of the site above it, if there is one."""

    code: AgencyCode
    name: Name
    upper: AgencyCode | None = None


class AgencyEntry(Entry):
    """A unit that receives, works on or decides dossiers, from `valid_from` to `valid_to`, both inside.

    `site` null: an agency without a site of its own; left out: it is on the bundle's site. `successor` takes
    over what it holds when it closes. `petition_contact` is shown to citizens.
    """

    code: AgencyCode
    name: Name
    level: Level
    parent: AgencyCode | None = None
    site: AgencyCode | None = None
    sector: Identifier | None = None
    valid_from: date | None = None
    valid_to: date | None = None
    successor: AgencyCode | None = None
    petition_contact: Text | None = None


class FieldEntry(Entry):
    """The field of administration that a procedure belongs to, such as G01-TP01 Hộ tịch."""

    code: Identifier
    name: Name


class LimitEntry(Entry):
    """The legal time limit of a procedure; value 0 is a same-day one whatever its unit."""

    value: Annotated[int, Field(ge=0, le=10_000)]
    unit: Unit


class StepLimitEntry(Entry):
    """A leg's limit. Hours and working days may have halves."""

    value: Annotated[int, Field(ge=0, le=10_000)] | Annotated[float, Field(ge=0, le=10_000, multiple_of=0.5)]
    unit: Unit


class ComponentEntry(Entry):
    """A paper that the procedure asks for. `required` advises the desk and refuses nothing."""

    name: Name
    required: bool = True


class LevelTarget(Entry):
    """The nearest agency of that level above the receiving agency, itself included."""

    level: Level


class SectorTarget(Entry):
    """The agency of that sector under the receiving agency's nearest ancestor that has one."""

    sector: Identifier


def _target_kind(value: Any) -> str:
    if isinstance(value, dict):
        return "level target" if "level" in value else "sector target"
    if isinstance(value, BaseModel):
        return "level target" if isinstance(value, LevelTarget) else "sector target"
    return "agency target"


Target = Annotated[
    Annotated[AgencyCode, Tag("agency target")]
    | Annotated[LevelTarget, Tag("level target")]
    | Annotated[SectorTarget, Tag("sector target")],
    Discriminator(_target_kind),
]


class StepEntry(Entry):
    """One step of a route; equal step numbers run in parallel."""

    step: Positive
    to: Target
    limit: StepLimitEntry | None = None


class ProcedureEntry(Entry):
    """A procedure of the catalogue, with the dates that the index's transparency metrics ask for."""

    code: Identifier
    name: Name
    field: FieldEntry
    level: Level | None = None
    online: Online = "none"
    fee: Money = 0
    confidential: bool = False
    payment_pauses: bool = False
    limit: LimitEntry
    components: tuple[ComponentEntry, ...] = ()
    route: tuple[StepEntry, ...] = ()
    valid_from: date | None = None
    valid_to: date | None = None
    decided_on: date | None = None
    effective_on: date | None = None
    published_on: date | None = None
    content_full: bool | None = None


class CalendarEntry(Entry):
    """One version of an agency's working time; missing fields have the default calendar's values.

    A weekday that `shifts` does not name has none.
    """

    agency: AgencyCode
    version: Positive
    valid_from: date = date.min
    public_holidays: bool = True
    same_day_cutoff: TimeOfDay = "15:00"
    receipt_only: tuple[Weekday, ...] = ()
    shifts: dict[Weekday, Shifts] | None = None
    closed: tuple[date, ...] = ()
    open: tuple[date, ...] = ()


class ProviderEntry(Entry):
    """An SMS gateway. They are tried in the order given, by health; `priority` only sorts equals together, and `weight` is
    the share that each of these equals gets.

    `secret` signs receipts; `secret_env` names the environment variable that holds it instead. `username`,
    `password` (or `password_env`) and `smsc` are Kannel's. `dedupes`: it sends an id only once. `receipts`: it reports on
    every SMS, so that one without a report when it expires has failed, unknown why. `price`: đồng a part.
    """

    name: Identifier
    kind: Literal["http", "kannel", "file"]
    url: Url | None = None
    secret: Annotated[str, Field(min_length=1)] | None = Field(default=None, repr=False)
    secret_env: Identifier | None = None
    username: str | None = None
    password: str | None = Field(default=None, repr=False)
    password_env: Identifier | None = None
    smsc: str | None = None
    per_second: Annotated[float, Field(gt=0)] | None = None
    dedupes: bool = False
    priority: int | None = None
    receipts: bool = False
    weight: Annotated[int, Field(ge=1, le=100)] = 1
    price: Money = 0


class NoticeRule(Entry):
    """Who is told of an act, by what and in which template: the first channel of `by` that can reach them.

    `post_if_undelivered`: a letter follows an SMS that did not arrive in time (it costs). `urgent`: it does not wait for
    the morning, for the budget, or behind what is not urgent. `required`: told also to an applicant who wants to hear no more
    than they must; when it is not given, by the act. A rule may be for an agency and those below it, for one
    procedure, for one way of returning the result, for one channel by which dossiers come, and for acts from `valid_from`
    to `valid_to`, local days, both inside; of several that fit an act the narrowest counts. `enabled: false`: nobody is told.
    """

    act: Annotated[str, AfterValidator(_act)]
    to: Literal["applicant"] = "applicant"
    by: Annotated[tuple[NoticeChannel, ...], Field(min_length=1)] = ("sms", "postal")
    template: Identifier
    post_if_undelivered: bool = False
    urgent: bool = False
    required: bool | None = None
    enabled: bool = True
    agency: AgencyCode | None = None
    procedure: Identifier | None = None
    return_by: Literal["counter", "postal", "online"] | None = None
    channel: Literal["counter", "online", "postal"] | None = None
    valid_from: date | None = None
    valid_to: date | None = None

    @property
    def is_required(self) -> bool:
        return self.act in MUST_BE_TOLD if self.required is None else self.required


class TemplateEntry(Entry):
    """A text in one language. `keep_within`: with tones if it stays within `parts`, else without.

    Of the versions in force on the local day of the act the highest is used; `valid_to` is inside.
    """

    name: Identifier
    version: NotNegative
    lang: Language = "vi"
    tones: Tones = "keep_within"
    parts: Positive = 1
    text: Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_template_text)]
    valid_from: date | None = None
    valid_to: date | None = None


class QuietHours(Entry):
    """Local times between which no notice goes out; `from` after `to` means over midnight."""

    from_time: TimeOfDay = Field(alias="from")
    to: TimeOfDay


class BudgetEntry(Entry):
    """What an agency and those below it may spend on SMS in a local day, in parts; what is over it waits for the next."""

    agency: AgencyCode
    parts_per_day: NotNegative


class SmsSettings(Entry):
    """`sender`: the brand name, at most 11 ASCII characters. A notice expires after `expire_hours`."""

    sender: Annotated[str, Field(pattern=r"^[ -~]{1,11}$")] = "LIENTHONG"
    expire_hours: Annotated[float, Field(gt=0)] = 24
    budgets: tuple[BudgetEntry, ...] = ()


class CarrierEntry(Entry):
    """A postal carrier. `charge` in đồng is added to the fee that is collected at the door; `price` is what an order costs
    the agency.

    It may be for an agency and those below it, and for one kind of order alone; of several the nearest to the agency counts,
    of equals the first.

    `track_url`: where its orders are asked for (`GET track_url?id=`) besides what it reports by itself; `states`: its words
    for the states of an order, and ours for them.
    """

    name: Identifier
    kind: Literal["file", "http"]
    url: Url | None = None
    secret: Annotated[str, Field(min_length=1)] | None = Field(default=None, repr=False)
    secret_env: Identifier | None = None
    charge: Money = 0
    price: Money = 0
    agency: AgencyCode | None = None
    kinds: Annotated[tuple[Literal["collect", "deliver"], ...], Field(min_length=1)] = ("collect", "deliver")
    track_url: Url | None = None
    states: dict[Annotated[str, Field(min_length=1, max_length=100)], PostalState] = {}


class PortalEntry(Entry):
    """A portal that is kept up to date. `version` decides how it writes the kind of applicant."""

    name: Identifier
    url: Url
    unit: AgencyCode
    version: Positive = 1
    secret_env: Identifier | None = None


class Bundle(Entry):
    """What `lienthong site load` takes. What is left out stays as it is."""

    site: SiteEntry
    agencies: tuple[AgencyEntry, ...]
    procedures: tuple[ProcedureEntry, ...] = ()
    calendars: tuple[CalendarEntry, ...] = ()
    providers: tuple[ProviderEntry, ...] = ()
    notices: tuple[NoticeRule, ...] = ()
    templates: tuple[TemplateEntry, ...] = ()
    quiet_hours: QuietHours | None = None
    sms: SmsSettings = SmsSettings()
    carriers: tuple[CarrierEntry, ...] = ()
    portals: tuple[PortalEntry, ...] = ()


class Site(BaseModel):
    """All that a site knows, merged from its bundles: one JSON document per version of the directory.

    `calendars` hold the national days that were known when each version was loaded. `default_calendar`,
    version 0 under the site's code, is frozen at the first load in the same way.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    site: SiteEntry
    agencies: tuple[AgencyEntry, ...]
    procedures: tuple[ProcedureEntry, ...]
    calendars: tuple[Calendar, ...]
    default_calendar: Calendar
    providers: tuple[ProviderEntry, ...]
    notices: tuple[NoticeRule, ...]
    templates: tuple[TemplateEntry, ...]
    quiet_hours: QuietHours | None
    sms: SmsSettings
    carriers: tuple[CarrierEntry, ...]
    portals: tuple[PortalEntry, ...]


def valid_on(entry: AgencyEntry | ProcedureEntry | NoticeRule | TemplateEntry, day: date) -> bool:
    """Whether it is in force on that local day, both ends inside."""
    return (entry.valid_from is None or entry.valid_from <= day) and (entry.valid_to is None or day <= entry.valid_to)


def bundle_schema() -> dict[str, Any]:
    """The published JSON Schema 2020-12 of a bundle."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "/schemas/bundle.json",
        **Bundle.model_json_schema(by_alias=True),
    }
