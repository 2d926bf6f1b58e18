"""Orders with the public post: letters, results that are brought to the door, papers that are fetched. Pure.

    planned ──▶ ordered ──▶ collected ──▶ in-transit ──▶ delivered | returned        any open one ──▶ cancelled

A carrier's event that comes late or twice changes nothing: an order only moves on.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from services.notify.notice import Dossier, clean
from shared.contracts.events import (
    DossierEvent,
    DossierResolved,
    DossierSubmitted,
    PostalCancelled,
    PostalCollected,
    PostalDelivered,
    PostalEvent,
    PostalInTransit,
    PostalOrdered,
    PostalReturned,
)
from shared.directory.bundle import CarrierEntry

Kind = Literal["collect", "deliver"]
PostalState = Literal["planned", "ordered", "collected", "in-transit", "delivered", "returned", "cancelled"]

_RANK: Final[dict[PostalState, int]] = {
    "planned": 0,
    "ordered": 1,
    "collected": 2,
    "in-transit": 3,
    "delivered": 4,
    "returned": 4,
    "cancelled": 4,
}


@dataclass(frozen=True, slots=True)
class Order:
    """One order. `notice`: the letter that it carries, if it is one; its id is then the notice's. `track_at`: when its
    carrier is asked next what became of it; `polls`: how often it was asked since something had changed; `unsure`: an answer
    of its carrier never came."""

    id: UUID
    dossier: str
    agency: str
    kind: Kind
    carrier: str
    state: PostalState
    contact_ref: str
    fee_to_collect: int
    planned_at: datetime
    notice: UUID | None = None
    due: bool = True
    in_flight: bool = False
    rounds: int = 0
    next_at: datetime | None = None
    amount: int | None = None
    reason: str | None = None
    changed_at: datetime | None = None
    track_at: datetime | None = None
    polls: int = 0
    unsure: bool | None = None

    @property
    def open(self) -> bool:
        """The carrier has it, and it is under way."""
        return 0 < _RANK[self.state] < _RANK["delivered"]


def wanted(data: DossierEvent, dossier: Dossier) -> tuple[Kind, int] | None:
    """The order that an act asks for, and what is still unpaid and to be collected at the door in đồng, without the carrier's
    charge.

    The applicant's choice: the result is brought when it is to be returned by post, papers are fetched when they are
    submitted by post. Call it after `follow`.
    """
    match data:
        case DossierResolved() if dossier.return_by == "postal":
            return "deliver", dossier.unpaid
        case DossierSubmitted(channel="postal", previous=None):
            return "collect", 0
    return None


def carrier_of(
    carriers: Sequence[CarrierEntry], serving: Sequence[CarrierEntry], bound: str | None, down: Collection[str]
) -> CarrierEntry | None:
    """Who is given an order: the carrier that may have it already (`bound`) while the bundle has it; else the first that
    serves and is not down. If all are down nothing is changed: it may be our own line."""
    if bound is not None and (own := next((each for each in carriers if each.name == bound), None)) is not None:
        return own
    return next((each for each in serving if each.name not in down), next(iter(serving), None))


OrderStep = tuple[Order, tuple[PostalEvent, ...]]


def ordered(order: Order, now: datetime) -> OrderStep:
    """The carrier has taken it."""
    if order.state != "planned":
        return replace(order, in_flight=False, due=False), ()
    after = replace(order, state="ordered", in_flight=False, due=False, next_at=None, reason=None, changed_at=now)
    return after, (PostalOrdered(**_named(order), fee_to_collect=order.fee_to_collect),)


def refused(order: Order, reason: str, now: datetime) -> OrderStep:
    """It cannot be handed over: no address, or the carrier says that it is the applicant's fault."""
    if order.state != "planned":
        return replace(order, in_flight=False, due=False), ()
    why = clean(reason)
    after = replace(order, state="cancelled", in_flight=False, due=False, next_at=None, reason=why, changed_at=now)
    return after, (PostalCancelled(**_named(order), reason=why),)


def moved(
    order: Order,
    state: Literal["ordered", "collected", "in-transit", "delivered", "returned", "cancelled"],
    *,
    amount: int | None,
    reason: str | None,
    at: datetime,
) -> OrderStep:
    """The order after its carrier's event. `amount`: đồng collected at the door then."""
    if _RANK[state] <= _RANK[order.state]:
        return order, ()
    before: tuple[PostalEvent, ...] = ()
    if order.state == "planned":  # the carrier's word is quicker than its answer
        order, before = ordered(order, at)
        if state == "ordered":
            return order, before
    why = clean(reason or "no-reason")
    named = _named(order)
    event: PostalEvent
    match state:
        case "collected":
            event = PostalCollected(**named, amount=amount or 0)
        case "in-transit":
            event = PostalInTransit(**named)
        case "delivered":
            event = PostalDelivered(**named, amount=amount or 0)
        case "returned":
            event = PostalReturned(**named, reason=why)
        case "cancelled":
            event = PostalCancelled(**named, reason=why)
        case "ordered":
            raise AssertionError(state)
    after = replace(
        order,
        state=state,
        amount=order.amount if amount is None else amount,
        reason=why if state in ("returned", "cancelled") else None,
        changed_at=at,
    )
    return after, (*before, event)


def _named(order: Order) -> dict[str, Any]:
    return {
        "order": order.id,
        "dossier": order.dossier,
        "kind": order.kind,
        "carrier": order.carrier,
        "notice": order.notice,
    }
