"""The law's reporting periods and days."""

import itertools
from datetime import date, timedelta

import pytest

from services.stats.published import period_name
from services.stats.schedule import Reporting, closed, reporting, schedule_on

LAW = schedule_on(date(2026, 11, 26))


@pytest.mark.parametrize(
    ("grain", "month", "name", "first", "last"),
    [
        ("month", 3, "2026-T03", date(2026, 2, 15), date(2026, 3, 14)),
        ("month", 1, "2026-T01", date(2025, 12, 15), date(2026, 1, 14)),
        ("quarter", 3, "2026-Q1", date(2025, 12, 15), date(2026, 3, 14)),
        ("quarter", 12, "2026-Q4", date(2026, 9, 15), date(2026, 12, 14)),
        ("year", 12, "2026", date(2025, 12, 15), date(2026, 12, 14)),
    ],
)
def test_the_periods_of_decree_09(grain: str, month: int, name: str, first: date, last: date) -> None:
    period = reporting(LAW, grain, 2026, month)  # type: ignore[arg-type]
    assert (period.name, period.first, period.last) == (name, first, last)
    assert period_name(first, last) == name


def test_periods_follow_each_other_without_gap_or_overlap() -> None:
    months = [reporting(LAW, "month", 2026 + n // 12, n % 12 + 1) for n in range(48)]
    for before, after in itertools.pairwise(months):
        assert after.first - before.last == timedelta(days=1)


def test_what_is_closed_is_over_and_not_long_ago() -> None:
    def names(today: date) -> list[str]:
        return [period.name for period in closed(LAW, today)]

    assert names(date(2026, 12, 14)) == ["2026-T11"]
    assert names(date(2026, 12, 15)) == ["2026-T11", "2026-T12", "2026-Q4", "2026"]
    assert names(date(2027, 1, 14)) == ["2026-T12", "2026-Q4", "2026"]
    assert names(date(2027, 1, 15)) == ["2027-T01"]


def test_each_level_has_its_day() -> None:
    period = Reporting("quarter", "2026-Q1", date(2025, 12, 15), date(2026, 3, 14))
    assert period.due(LAW, "commune") == date(2026, 3, 18)
    assert period.due(LAW, "province") == date(2026, 3, 25)
    february = reporting(LAW, "month", 2026, 2)
    assert february.due(LAW, "ministry") == date(2026, 2, 28)


def test_other_periods_are_named_by_their_days() -> None:
    assert period_name(date(2026, 3, 1), date(2026, 3, 31)) == "20260301-20260331"
