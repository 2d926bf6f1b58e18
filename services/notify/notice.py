"""Who is told of what, by which way, and what becomes of it (promise 9). Pure: time and ids are arguments.

    planned ──▶ sent ──▶ delivered        held: quiet hours; it goes on as planned
       │  ▲       └────▶ failed           unknown: the line broke after the request had left
       ▼  │                               expired: stale before anybody took it
      held                                superseded: its matter was settled before it went out

A receipt that says `delivered` is believed in every state; one that says `failed` changes nothing once it has arrived.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, time, timedelta
from enum import Enum
from operator import attrgetter
from typing import Any, Final, Literal
from uuid import UUID

from services.notify.text import without_tones
from shared.contracts.codes import LOCAL_ZONE, format_instant, is_mobile, parse_instant
from shared.contracts.events import (
    DossierEvent,
    DossierExtended,
    DossierPaid,
    DossierPaymentRequested,
    DossierReceived,
    DossierRefused,
    DossierRescheduled,
    DossierResolved,
    DossierStopped,
    DossierSubmitted,
    DossierSupplementRequested,
    NoticeDelivered,
    NoticeEvent,
    NoticeExpired,
    NoticeFailed,
    NoticeHeld,
    NoticePlanned,
    NoticeSent,
    NoticeSuperseded,
    Preference,
)
from shared.directory.bundle import Language, NoticeRule, QuietHours

State = Literal["planned", "held", "sent", "delivered", "failed", "expired", "superseded", "unknown"]
Channel = Literal["sms", "postal"]
Matter = Literal["supplement", "payment", "due"]
"""What an unsent notice may be overtaken by: the supplement, the payment, a newer due date."""

Reason = Literal["no-contact", "erased", "unreachable", "opted-out", "not-wanted", "no-template", "no-rule"]
"""Why nobody is told: the contact did not come, the person was erased, has neither mobile number nor address (or none
that the rule allows), wants no SMS and no letter is possible, wants to be told only what they must be, the rule's template
does not exist, or the rule was taken away while the act waited."""

UNSENT: Final = frozenset[State]({"planned", "held"})
FOLLOWED_BY_POST: Final = frozenset({"supplement-requested", "resolved"})
"""The acts whose SMS a letter may follow."""

# ------------------------------------------------------------------------------------- the dossier as notify sees it


@dataclass(slots=True)
class Dossier:
    """What notices need to know of a dossier. `sequence`, `recorded`: of the last event that notify published for it."""

    code: str
    state: int | None = None
    agency: str = ""
    deciding_agency: str = ""
    procedure: str = ""
    contact_ref: str | None = None
    return_by: str = "counter"
    channel: str | None = None
    received_at: datetime | None = None
    due_at: datetime | None = None
    fee: int = 0
    paid: int = 0
    last_paid: int = 0  # by the last act, should it be undone
    sequence: int = 0
    recorded: datetime | None = None

    @property
    def unpaid(self) -> int:
        return max(0, self.fee - self.paid)


def follow(dossier: Dossier, data: DossierEvent, happened: datetime) -> None:
    """Brings the dossier up to date with its next event."""
    dossier.state, dossier.agency, dossier.procedure, dossier.due_at = (
        data.state,
        data.agency,
        data.procedure,
        data.due_at,
    )
    if isinstance(data, DossierSubmitted | DossierReceived):
        dossier.deciding_agency, dossier.contact_ref = data.deciding_agency, data.contact_ref
        dossier.return_by, dossier.fee, dossier.channel = data.return_by, data.fee, data.channel
    if isinstance(data, DossierReceived):
        dossier.received_at = happened
    if data.short == "dossier.corrected":
        dossier.paid -= dossier.last_paid
    dossier.last_paid = data.amount if isinstance(data, DossierPaid) else 0
    dossier.paid += dossier.last_paid


def settled(data: DossierEvent, due_before: datetime | None) -> tuple[Matter, ...]:
    """The matters that this act settles: an unsent notice of them has been overtaken."""
    matters: list[Matter] = []
    if data.short == "dossier.supplemented":
        matters.append("supplement")
    if data.short == "dossier.paid":
        matters.append("payment")
    if data.due_at is not None and due_before is not None and data.due_at != due_before:
        matters.append("due")
    return tuple(matters)


def matter_of(act: str) -> Matter | None:
    match act:
        case "supplement-requested":
            return "supplement"
        case "payment-requested":
            return "payment"
        case "extended" | "rescheduled":
            return "due"
    return None


# -------------------------------------------------------------------------------------------- the act that is told


@dataclass(frozen=True, slots=True)
class Telling:
    """An act that asks for a notice. `facts` is what its text may name; `met_by`: the event that has settled it since."""

    event: UUID
    dossier: str
    agency: str
    act: str
    happened: datetime
    recorded: datetime
    contact_ref: str | None
    facts: dict[str, Any]
    met_by: UUID | None = None


def facts_of(data: DossierEvent, dossier: Dossier) -> dict[str, Any]:
    """The facts that a text about this act may name, as JSON; call it after `follow`."""
    facts: dict[str, Any] = {
        "agency": dossier.agency,
        "procedure": dossier.procedure,
        "return_by": dossier.return_by,  # for the rule, not for the text
        "channel": dossier.channel,  # likewise
    }
    if dossier.due_at is not None:
        facts["due"] = format_instant(dossier.due_at)
    if dossier.received_at is not None:
        facts["received"] = format_instant(dossier.received_at)
    match data:
        case DossierExtended(reason=reason, previous_due_at=previous):
            facts |= {"reason": reason, "previous_due": format_instant(previous)}
        case DossierRescheduled(previous_due_at=previous):
            facts["previous_due"] = format_instant(previous)
        case DossierRefused(reason=reason) | DossierStopped(reason=reason) | DossierSupplementRequested(reason=reason):
            facts["reason"] = reason
        case DossierPaymentRequested(amount=amount) | DossierPaid(amount=amount):
            facts["amount"] = amount
        case DossierResolved(result=result):
            facts["result"] = result
        case _:
            if (why := getattr(data, "reason", None)) is not None:
                facts["reason"] = why
    return facts


_RESULTS: Final[dict[Language, dict[str, str]]] = {
    "vi": {"granted": "đồng ý", "denied": "không đồng ý"},
    "en": {"granted": "granted", "denied": "not granted"},
}


def value_of(
    placeholder: str,
    code: str,
    facts: dict[str, Any],
    lang: Language,
    name_of: Callable[[str, str], str],
    pin: Callable[[str], str],
) -> str | None:
    """A fact as a person reads it: local times, names, grouped amounts. What is not known is a dash.

    `name_of(kind, code)` names an agency or a procedure; `pin(code)` is the dossier's tracking pin.
    """
    match placeholder:
        case "code":
            return code
        case "pin":
            return pin(code)
        case "due" | "previous_due" | "received":
            return _local(facts.get(placeholder))
        case "agency" | "procedure":
            return name_of(placeholder, facts[placeholder])
        case "reason":
            return str(facts.get("reason", "-"))
        case "amount":
            amount = facts.get("amount")
            return "-" if amount is None else f"{amount:,}".replace(",", "." if lang == "vi" else ",")
        case "result":
            return _RESULTS[lang].get(facts.get("result", ""), "-")
    return None


def _local(instant: str | None) -> str:
    return "-" if instant is None else f"{parse_instant(instant).astimezone(LOCAL_ZONE):%d/%m/%Y %H:%M}"


# ------------------------------------------------------------------------------------------------------ the decision


@dataclass(frozen=True, slots=True)
class Person:
    """The applicant as far as a notice needs one; an erased person has nothing. `wants`: how they asked to be told."""

    name: str | None = None
    phone: str | None = None
    address: str | None = None
    language: Language = "vi"
    erased: bool = False
    wants: Preference | None = None

    @property
    def mobile(self) -> str | None:
        return self.phone if self.phone is not None and is_mobile(self.phone) else None


class Wait(Enum):
    """The contact may still come."""

    FOR_CONTACT = "for-contact"


def way_to_tell(
    rule: NoticeRule, contact_ref: str | None, person: Person | None, *, waited: bool, opted_out: bool = False
) -> Channel | Reason | Wait:
    """The first way of the rule that reaches the person, the way that they want before the others; a reason when there is
    none; else wait.

    The same whatever order act and contact come in, and however often they are repeated. `opted_out`: no SMS to this
    number. Who wants no more than must be is told by required rules alone; a way that the rule does not have is not taken
    for anybody's wish.
    """
    if contact_ref is None or (person is None and waited):
        return "no-contact"
    if person is None:
        return Wait.FOR_CONTACT
    if person.erased:
        return "erased"
    if person.wants == "required" and not rule.is_required:
        return "not-wanted"
    for channel in sorted(rule.by, key=lambda channel: channel != person.wants):
        if channel == "sms" and person.mobile is not None and not opted_out:
            return "sms"
        if channel == "postal" and person.address:
            return "postal"
    return "opted-out" if opted_out and "sms" in rule.by else "unreachable"


# --------------------------------------------------------------------------------------------------- the notice's life


# Not frozen, for speed alone: its thirty fields are written five times on its way. A transition makes a new one.
@dataclass(slots=True)
class Notice:
    """One notice to one recipient by one channel.

    `due`: it may be sent now; else `next_at` says when, or nobody waits for it. `tried`: who has refused it in this
    round; `asked`: everybody who ever got it; `bound`: it stays with `provider`, which may have taken it already.
    `post_at`: when a letter follows unless it has arrived. `urgent`: it is not held. `cost`: đồng, once it is sent.
    `receipt_by`: when a provider that reports on everything has lost it.
    """

    id: UUID
    dossier: str
    agency: str
    act: str
    event: UUID
    act_recorded: datetime
    recipient: str
    channel: Channel
    state: State
    template: str
    version: int
    parts: int
    planned_at: datetime
    expires_at: datetime
    matter: Matter | None = None
    provider: str | None = None
    attempts: int = 0
    rounds: int = 0
    tried: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    bound: bool = False
    in_flight: bool = False
    due: bool = False
    next_at: datetime | None = None
    held_until: datetime | None = None
    sent_at: datetime | None = None
    delivered_at: datetime | None = None
    post_at: datetime | None = None
    reason: str | None = None
    urgent: bool = False
    cost: int = 0
    receipt_by: datetime | None = None

    @property
    def overtakable(self) -> bool:
        """Surely unsent: nobody has it, nobody may have it."""
        return self.state in UNSENT and not self.in_flight and not self.bound


Step = tuple[Notice, tuple[NoticeEvent, ...]]
"""The notice after something happened to it, and the events that say so; none: nothing changed outside."""


def _say(model: Callable[..., NoticeEvent], notice: Notice, **more: Any) -> NoticeEvent:
    return model(
        notice=notice.id,
        dossier=notice.dossier,
        act=f"dossier.{notice.act}",
        event=notice.event,
        channel=notice.channel,
        agency=notice.agency,
        **more,
    )


_values = attrgetter(*(field.name for field in fields(Notice)))


def changed(notice: Notice, **changes: Any) -> Notice:
    """The notice with other values, as `dataclasses.replace` makes it, in a third of its time: five are made of each."""
    made = Notice(*_values(notice))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def _ended(notice: Notice, state: State, **changes: Any) -> Notice:
    return changed(notice, state=state, due=False, next_at=None, receipt_by=None, **changes)


def planned(notice: Notice, *, stale: bool = False, met_by: UUID | None = None) -> Step:
    """A notice comes into being: due at once, or ended at once when its act is too old or settled already."""
    events = (
        _say(
            NoticePlanned,
            notice,
            template=notice.template,
            version=notice.version,
            parts=notice.parts,
            expires_at=notice.expires_at,
        ),
    )
    if stale:
        after, ended = _expired(notice, "act-too-old")
    elif met_by is not None:
        after, ended = superseded(notice, met_by)
    else:
        after, ended = changed(notice, due=notice.channel == "sms"), ()
    return after, (*events, *ended)


def superseded(notice: Notice, by: UUID) -> Step:
    if not notice.overtakable:
        return notice, ()
    return _ended(notice, "superseded", post_at=None), (_say(NoticeSuperseded, notice, by=str(by)),)


def held(notice: Notice, until: datetime) -> Step:
    """Quiet hours: it keeps its place in the order planned."""
    if notice.state != "planned" or not notice.overtakable or notice.urgent:
        return notice, ()
    after = changed(notice, state="held", due=False, next_at=None, held_until=until)
    return after, (_say(NoticeHeld, notice, until=until),)


def forgotten(notice: Notice) -> Step:
    """The person was erased: what has not gone out has nobody to go to."""
    if notice.state not in UNSENT or notice.in_flight:
        return changed(notice, post_at=None), ()
    return _failed(changed(notice, post_at=None), "erased")


def expired(notice: Notice) -> Step:
    """Its time is over. What a provider may have taken ends as failed: whether it arrived was never learnt."""
    if notice.in_flight:
        return notice, ()
    if notice.state == "unknown" or (notice.state in UNSENT and notice.bound):
        return _failed(notice, "unknown")
    if notice.state == "sent" and notice.receipt_by is not None:
        return _failed(notice, "unknown")
    if notice.state in UNSENT:
        return _expired(notice, "stale" if notice.attempts == 0 else "no-provider")
    return notice, ()


def _expired(notice: Notice, reason: str) -> Step:
    return _ended(notice, "expired", reason=reason), (_say(NoticeExpired, notice, reason=reason),)


def _failed(notice: Notice, reason: str) -> Step:
    return (
        _ended(notice, "failed", reason=reason),
        (_say(NoticeFailed, notice, reason=reason, provider=notice.provider),),
    )


# ------------------------------------------------------------------------------------------------- what a call came to


@dataclass(frozen=True, slots=True)
class Taken:
    """The provider has it (2xx)."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The recipient's fault (4xx with a reason): no provider can help."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotTaken:
    """Surely not taken: the provider's own fault, or it could not be reached at all."""

    reason: str


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The request has left and nobody knows what became of it."""

    reason: str


Outcome = Taken | Refused | NotTaken | NoAnswer


@dataclass(frozen=True, slots=True)
class Pauses:
    """Between two rounds of all providers: from `first`, doubling, to at most `most`."""

    first: timedelta = timedelta(seconds=2)
    most: timedelta = timedelta(seconds=45)

    def after(self, rounds: int) -> timedelta:
        return min(self.most, self.first * (1 << min(rounds, 16)))


def after_attempt(
    notice: Notice,
    provider: str,
    outcome: Outcome,
    *,
    dedupes: bool,
    providers: Sequence[str],
    now: datetime,
    pauses: Pauses,
    reports: bool = False,
) -> Step:
    """What an attempt's outcome makes of the notice.

    `dedupes`: the provider sends an id only once, so that an unknown outcome is repeated with it; `reports`: it reports
    on every SMS; `providers`: those that there are. A receipt that was quicker than the answer stands.
    """
    landed = changed(notice, in_flight=False)
    if notice.state not in UNSENT and not (notice.state == "unknown" and outcome == Taken()):
        return landed, ()
    match outcome:
        case Taken():
            sent, events = _sent(landed, provider, now)
            return (changed(sent, receipt_by=notice.expires_at) if reports else sent), events
        case Refused(reason):
            return _failed(landed, clean(reason))
        case NoAnswer() if not dedupes:
            return _ended(landed, "unknown", bound=True, reason=outcome.reason), ()
        case NoAnswer() | NotTaken() if notice.bound or isinstance(outcome, NoAnswer):
            bound = changed(landed, bound=True, rounds=notice.rounds + 1, reason=outcome.reason)
            return changed(bound, due=False, next_at=now + pauses.after(notice.rounds)), ()
        case NotTaken(reason):
            tried = (*notice.tried, provider)
            if set(providers) - set(tried):
                return changed(landed, tried=tried, due=True, next_at=None, reason=reason), ()
            later = now + pauses.after(notice.rounds)
            return changed(landed, tried=(), rounds=notice.rounds + 1, due=False, next_at=later, reason=reason), ()
    raise AssertionError(outcome)


def _sent(notice: Notice, provider: str, now: datetime) -> Step:
    after = _ended(notice, "sent", provider=provider, sent_at=now, reason=None)
    return after, (_say(NoticeSent, notice, provider=provider, attempts=max(1, notice.attempts)),)


def handed_over(notice: Notice, carrier: str, now: datetime) -> Step:
    """A letter: the carrier has it."""
    return (
        _sent(changed(notice, attempts=notice.attempts + 1), carrier, now) if notice.state in UNSENT else (notice, ())
    )


def undeliverable(notice: Notice, reason: str) -> Step:
    """A letter that its carrier did not take, or brought back."""
    return _failed(notice, reason) if notice.state in (*UNSENT, "sent") else (notice, ())


# ----------------------------------------------------------------------------------------------------- what is heard


def after_receipt(
    notice: Notice, provider: str, status: Literal["delivered", "failed"], reason: str | None, now: datetime
) -> Step:
    """A receipt, early, twice, or in the wrong order. `now`: when the provider says that it happened."""
    if notice.state == "delivered":
        return notice, ()
    if status == "failed" and (notice.state not in (*UNSENT, "sent", "unknown") or notice.provider != provider):
        return notice, ()
    events: tuple[NoticeEvent, ...] = ()
    if notice.sent_at is None:
        # Quicker than the provider's answer, or in its place: the provider has had it.
        notice, events = _sent(notice, provider, now)
    if status == "failed":
        after, failed = _failed(notice, clean(reason or "not-delivered"))
        return after, (*events, *failed)
    after = _ended(notice, "delivered", delivered_at=now, reason=None, post_at=None)
    return after, (*events, _say(NoticeDelivered, notice, provider=provider))


_NUMBER: Final = re.compile(r"\+?\d(?:[ ().-]{0,2}\d){5,}")


def unnamed(reason: str, private: Iterable[str | None]) -> str:
    """What a carrier says, without the person's own words that it was given (name, address, number), whatever their tones
    and capitals."""
    line = unicodedata.normalize("NFC", reason)
    # Each letter as it is compared, and where in the line it stands: one may become several, or none.
    flat = [(plain, at) for at, letter in enumerate(line) for plain in without_tones(letter).casefold()]
    compared, hidden = "".join(plain for plain, _ in flat), set[int]()
    for words in private:
        wanted = without_tones(words or "").casefold().strip()
        start = compared.find(wanted) if wanted else -1
        while start >= 0:
            hidden |= {at for _, at in flat[start : start + len(wanted)]}
            start = compared.find(wanted, start + 1)
    shown = ("…" if at in hidden else letter for at, letter in enumerate(line) if not {at - 1, at} <= hidden)
    return "".join(shown)


def clean(reason: str) -> str:
    """A provider's reason as it may be kept and published: one line, no number that could be a person's."""
    line = " ".join("".join(c if c.isprintable() else " " for c in reason).split())
    return _NUMBER.sub("…", line)[:200] or "no-reason"


# ------------------------------------------------------------------------------------------------------- quiet hours


def quiet_until(hours: QuietHours | None, now: datetime) -> datetime | None:
    """When the quiet hours that reign now end, or None outside them. Local time; `from` after `to`: over midnight."""
    if hours is None or hours.from_time == hours.to:
        return None
    local = now.astimezone(LOCAL_ZONE)
    begin, end, clock = time.fromisoformat(hours.from_time), time.fromisoformat(hours.to), local.time()
    quiet = begin <= clock < end if begin < end else clock >= begin or clock < end
    if not quiet:
        return None
    day = local.date() if clock < end else local.date() + timedelta(days=1)
    return datetime.combine(day, end, LOCAL_ZONE).astimezone(now.tzinfo)
