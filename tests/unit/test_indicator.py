"""Rounding, judging, suppressing and reporting, on cases that can be checked by hand."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.stats.figures import suppressed
from services.stats.indicator import (
    Act,
    LegAct,
    days,
    half_up,
    leg_rectangles,
    leg_segments,
    micros,
    months_between,
    outcome_of,
    rectangles,
    segments,
    share,
)
from services.stats.report import IdentityBroken, report

DUE = datetime(2026, 3, 10, 10, tzinfo=UTC)  # 17:00 in Hà Nội
HOUR = 3_600_000_000
RECEIPT: dict[str, Any] = {
    "deciding": "H55",
    "procedure": "1.001193",
    "field": "G01-TP01",
    "channel": "counter",
    "listed": False,
    "digitised": False,
    "reused": False,
    "population": False,
    "with_fee": False,
}


def act(kind: str, happened: datetime, *, due: datetime | None = DUE, paused: bool = False, late: int = 0) -> Act:
    at = micros(happened)
    more = RECEIPT if kind in ("received", "submitted") else {}
    return Act(kind, kind, at, at + late, None, None if due is None else micros(due), paused, more)


@pytest.mark.parametrize(
    ("ended", "outcome"),
    [
        (datetime(2026, 3, 9, 16, 59, 59, tzinfo=UTC), "early"),  # 23:59:59 of the day before
        (datetime(2026, 3, 9, 17, tzinfo=UTC), "on_time"),  # 00:00 of the due day
        (DUE, "on_time"),
        (DUE + timedelta(microseconds=1), "late"),
    ],
)
def test_outcome_at_the_edges(ended: datetime, outcome: str) -> None:
    assert outcome_of(micros(ended), micros(DUE)) == outcome


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(Fraction(1, 200), 0.01), (Fraction(2845, 1000), 2.85), (Fraction(25500, 299), 85.28), (Fraction(0), 0.0)],
)
def test_half_up(value: Fraction, rounded: float) -> None:
    assert half_up(value) == rounded


@given(numerator=st.integers(0, 10**7), denominator=st.integers(1, 10**7))
def test_a_percentage_is_within_half_a_cent(numerator: int, denominator: int) -> None:
    percent = share(numerator, denominator)["percent"]
    error = Fraction(str(percent)) - Fraction(100 * numerator, denominator)
    assert Fraction(-1, 200) < error <= Fraction(1, 200)


def test_shares_of_nothing_are_null() -> None:
    assert share(0, 0) == {"numerator": 0, "denominator": 0, "percent": None}
    assert days(432 * 1_000_000) == 0.01  # 0.005 days


def test_a_plain_life_makes_two_segments() -> None:
    began = DUE - timedelta(days=5)
    made = segments([act("received", began), act("resolved", DUE - timedelta(days=1))])
    assert [(s.phase, s.outcome) for s in made] == [("pending", None), ("ended", "early")]
    assert made[1].elapsed == 4 * 24 * HOUR
    assert made[0].valid_to == made[1].valid_from


def test_what_ends_while_the_clock_stands_still_is_judged_when_it_stopped() -> None:
    began = DUE - timedelta(days=5)
    made = segments(
        [
            act("received", began),
            act("supplement-requested", DUE - timedelta(days=2), paused=True),
            act("stopped", DUE + timedelta(days=9), paused=True),
        ]
    )
    assert made[-1].outcome == "early"
    assert made[-1].elapsed == 3 * 24 * HOUR
    assert made[-1].ended_at == micros(DUE + timedelta(days=9))


def test_a_pause_that_began_late_stays_overdue_and_its_days_are_not_counted() -> None:
    began = DUE - timedelta(days=1)
    acts = [
        act("received", began),
        act("supplement-requested", DUE + timedelta(hours=1), paused=True),
        act("supplemented", DUE + timedelta(hours=5)),
        act("resolved", DUE + timedelta(hours=6)),
    ]
    assert [(s.paused, s.pause_late) for s in segments(acts)] == [
        (False, False),
        (True, True),
        (False, False),
        (False, False),
    ]
    assert segments(acts)[-1].outcome == "late"
    assert segments(acts)[-1].elapsed == (24 + 6 - 4) * HOUR


def test_acts_recorded_together_make_no_rectangle_in_between() -> None:
    began = DUE - timedelta(days=5)
    recorded = micros(DUE + timedelta(days=30))
    acts = [
        a._replace(recorded=recorded)
        for a in (act("received", began), act("extended", began + timedelta(days=1), due=DUE + timedelta(days=2)))
    ]
    resolved = act("resolved", DUE)._replace(recorded=recorded)
    assert len(rectangles([*acts, resolved])) == 3
    assert all(r.known_from == recorded and r.known_to is None for r in rectangles([*acts, resolved]))


def leg(kind: str, hours: int, recorded: int | None = None) -> LegAct:
    return LegAct(kind, hours * HOUR, (hours if recorded is None else recorded) * HOUR, "H55.17", 10 * HOUR)


@pytest.mark.parametrize("end", ["completed", "returned"])
def test_a_leg_ends_when_completed_or_returned(end: str) -> None:
    made = [segment for _, segment in leg_segments([leg("delivered", 1), leg(end, 12)])]
    assert [(s.phase, s.outcome, s.elapsed) for s in made] == [("pending", None, None), ("ended", "late", 11 * HOUR)]


def test_a_leg_that_was_refused_or_recalled_is_not_pending() -> None:
    refused = leg_segments([leg("delivered", 1), leg("refused", 2)])
    assert [s.phase for _, s in refused] == ["pending", "refused"]
    recalled = leg_segments([leg("delivered", 1), leg("recalled", 2)])
    assert [(s.phase, s.valid_to) for _, s in recalled] == [("pending", 2 * HOUR)]


def test_a_leg_told_twice_counts_once() -> None:
    once = leg_rectangles([leg("delivered", 1), leg("completed", 5)])
    twice = leg_rectangles([leg("delivered", 1), leg("completed", 5), leg("delivered", 1, 3), leg("completed", 5, 7)])
    assert once == twice


def test_closed_months() -> None:
    months = months_between(datetime(2025, 12, 31, 16, 59, tzinfo=UTC), datetime(2026, 2, 28, 17, tzinfo=UTC))
    assert [f"{first:%Y-%m-%d}/{last:%d}" for first, last in months] == [
        "2025-12-01/31",
        "2026-01-01/31",
        "2026-02-01/28",
    ]
    assert months_between(DUE, DUE) == []


COUNTS = {
    "received": 10,
    "online": 2,
    "counter": 3,
    "postal": 1,
    "carried_over": 4,
    "resolved": 7,
    "early": 1,
    "on_time": 5,
    "late": 1,
    "pending": 3,
    "overdue": 1,
}


def test_report_proves_its_identities() -> None:
    made = report([("Hộ tịch", COUNTS), ("Đất đai", COUNTS)])
    assert made["rows"][1]["number"] == 2
    assert made["rows"][0]["received"] == {"total": 10, "online": 2, "counter_postal": 4, "carried_over": 4}
    assert made["total"]["pending"] == {"total": 6, "within": 4, "overdue": 2}
    with pytest.raises(IdentityBroken, match=r"Đất đai: received\.total"):
        report([("Hộ tịch", COUNTS), ("Đất đai", COUNTS | {"pending": 4})])
    with pytest.raises(IdentityBroken, match=r"Hộ tịch: resolved\.total"):
        report([("Hộ tịch", COUNTS | {"late": 2})])


def test_small_groups_cannot_be_worked_out() -> None:
    figures: dict[str, Any] = {
        "received": {"total": 20, "online": 10, "counter": 8, "postal": 2, "carried_over": 0},
        "resolved": {"total": 3, "early": 3, "on_time": 0, "late": 0},
        "pending": {"total": 17, "within": 17, "overdue": 0, "paused": 0},
        "extended": 4,
        "refused": 0,
        "online_share": share(10, 20),
        "on_time_share": share(3, 3),
        "digitised": share(19, 20),
        "average_days": 1.0,
        "median_days": 1.0,
        "p90_days": 1.0,
    }
    shown = suppressed(figures, 5)
    assert shown["received"] == {"total": 20, "online": None, "counter": None, "postal": None, "carried_over": 0}
    assert shown["resolved"] == {"total": None, "early": None, "on_time": 0, "late": 0}
    assert shown["pending"] == figures["pending"]
    assert (shown["extended"], shown["refused"]) == (None, 0)
    assert shown["online_share"] == share(10, 20)
    assert shown["on_time_share"]["percent"] is shown["digitised"]["percent"] is shown["average_days"] is None
