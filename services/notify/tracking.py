"""What carriers report of orders, by their own call or when they are asked; both come to the same."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Final, get_args
from urllib.parse import urlencode
from uuid import UUID

from pydantic import BaseModel, Field, ValidationError

from services.notify.line import CallFailed, Line
from services.notify.notice import Notice, Step, after_receipt, undeliverable, unnamed
from services.notify.postal import Order, OrderStep, moved
from services.notify.store import Store
from shared.contracts.codes import Instant, Text
from shared.directory.bundle import CarrierEntry, PostalState
from shared.service import Service

_OURS: Final = {word: word for word in get_args(PostalState)}


def state_of(carrier: CarrierEntry, word: str) -> PostalState | None:
    """The carrier's word for a state, in ours: as its entry maps it, else as it stands."""
    return carrier.states.get(word) or _OURS.get(word)


def next_look(polls: int, first: timedelta, most: timedelta) -> timedelta:
    """How long until a carrier is asked again of an order in which nothing has changed for so many times: it doubles."""
    return min(most, first * (1 << min(polls, 16)))


class Report(BaseModel):
    """A carrier's answer about one order; whatever else it says is its own."""

    state: Annotated[str, Field(min_length=1, max_length=100)]
    amount: Annotated[int, Field(ge=0, le=1_000_000_000_000)] | None = None
    reason: Text | None = None
    at: Instant | None = None


async def report_of(line: Line, key: UUID, within: float) -> Report | None:
    """What `GET track_url?id=` answers; None when it answers nothing that can be read."""
    try:
        answer = await line.ask("GET", query=urlencode({"id": str(key)}), within=within)
        return Report.model_validate_json(answer.body) if 200 <= answer.status < 300 else None
    except (CallFailed, TimeoutError, ValidationError):
        return None


async def record_report(
    service: Service,
    store: Store,
    carrier: str,
    key: UUID,
    state: PostalState,
    *,
    amount: int | None,
    reason: str | None,
    at: datetime | None,
) -> Order | None:
    """The order after the report; None when this carrier has no such order."""
    found: Order | None = None

    def step(order: Order) -> OrderStep:
        nonlocal found
        if order.carrier != carrier:
            return order, ()
        found = order
        after, events = moved(order, state, amount=amount, reason=reason, at=happened)
        if after is order:
            return order, ()
        return replace(after, polls=0, track_at=order.track_at if after.open else None), events

    def of_letter(order: Order, letter: Notice) -> Step:
        match order.state:
            case "delivered":
                return after_receipt(letter, carrier, "delivered", None, happened)
            case "returned" | "cancelled":
                return undeliverable(letter, order.reason or order.state)
        return letter, ()

    async with service.pool.acquire() as connection, connection.transaction():
        now = await service.log.now(connection)
        happened = now if at is None else min(at, now)
        if reason is not None:  # it is published, and read by officers who may not see the person
            reason = unnamed(reason, await store.words_of(connection, key))
        rows = await connection.fetch(store.queries["order_dossiers"], [key])
        codes = [row["dossier"] for row in rows]
        await store.move_orders(connection, codes, [key], step, of_letter, now=now, happened=happened)
    service.wake()
    return found
