"""Orders with the public post only move on."""

from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import pytest

from services.notify.notice import Dossier
from services.notify.postal import Order, PostalState, carrier_of, moved, ordered, refused, wanted
from shared.contracts.codes import uuid7
from shared.contracts.events import DossierResolved, DossierSubmitted
from shared.directory.bundle import CarrierEntry

NOW = datetime(2026, 10, 12, 3, 0, tzinfo=UTC)
BASE: dict[str, Any] = {
    "agency": "H55.242",
    "procedure": "2.002621",
    "due_at": NOW,
    "paused": False,
    "by": "desk",
    "confidential": False,
}


def order(state: PostalState = "planned") -> Order:
    return Order(uuid7(), "H55.242-261012-0001", "H55.242", "deliver", "vnpost", state, "c-1", 30000, NOW)


def test_the_applicants_choice() -> None:
    resolved = DossierResolved(**BASE, previous=4, state=9, result="granted")
    dossier = Dossier("H55.242-261012-0001", return_by="postal", fee=50000, paid=20000)
    assert wanted(resolved, dossier) == ("deliver", 30000)
    dossier.paid = 60000
    assert wanted(resolved, dossier) == ("deliver", 0)
    dossier.return_by = "counter"
    assert wanted(resolved, dossier) is None
    submitted = DossierSubmitted(
        **BASE | {"due_at": None},
        previous=None,
        state=1,
        deciding_agency="H55.242",
        field="G01",
        channel="postal",
        return_by="counter",
        applicant_kind="citizen",
    )
    assert wanted(submitted, dossier) == ("collect", 0)


def test_ordered_once() -> None:
    after, events = ordered(order(), NOW)
    assert (after.state, [e.short for e in events]) == ("ordered", ["postal.ordered"])
    assert ordered(after, NOW)[1] == ()
    cancelled, events = refused(order(), "no-address", NOW)
    assert (cancelled.state, cancelled.due, [e.short for e in events]) == ("cancelled", False, ["postal.cancelled"])
    assert refused(after, "x", NOW)[0].state == "ordered"


@pytest.mark.parametrize("reports", list(permutations(["collected", "in-transit", "delivered", "returned"])))
def test_reports_in_any_order_and_twice(reports: tuple[Any, ...]) -> None:
    it, said = order("ordered"), list[str]()
    for report in (*reports, *reports):
        it, events = moved(it, report, amount=30000 if report == "delivered" else None, reason="vắng", at=NOW)
        said += [e.short for e in events]
    assert it.state == next(r for r in reports if r in ("delivered", "returned"))
    assert len(said) == len(set(said))
    assert (it.amount == 30000) == (it.state == "delivered")


def test_a_report_may_be_quicker_than_the_carriers_answer() -> None:
    after, events = moved(order(), "in-transit", amount=None, reason=None, at=NOW)
    assert (after.state, [e.short for e in events]) == ("in-transit", ["postal.ordered", "postal.in-transit"])
    assert ordered(after, NOW)[1] == ()


@pytest.mark.parametrize(
    ("bound", "down", "expected"),
    [
        (None, set(), "a"),
        (None, {"a"}, "b"),
        (None, {"a", "b"}, "a"),  # all are down: nothing is changed
        ("a", {"a"}, "a"),  # it may have the order
        ("c", set(), "c"),  # also when it no longer serves
        ("gone", {"a"}, "b"),
    ],
)
def test_who_is_given_an_order(bound: str | None, down: set[str], expected: str) -> None:
    carriers = [CarrierEntry(name=name, kind="file") for name in ("a", "b", "c")]
    found = carrier_of(carriers, carriers[:2], bound, down)
    assert found is not None
    assert found.name == expected
    assert carrier_of([], [], bound, down) is None
