"""The forecast of load, against what then happened on simulated registers, beside the rule "like last week"."""

import random
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from services.stats.forecast import Done, Open, Pace, by_agency, by_day, chances

NOW = datetime(2026, 3, 2, 1, tzinfo=UTC)
HOUR, DAY = 3600.0, 86400.0


def pending(age: timedelta, limit: timedelta, code: str = "A-1", agency: str = "A", procedure: str = "p") -> Open:
    received = NOW - age
    return Open(code, agency, procedure, received, received + limit)


def test_the_chance_is_the_share_of_those_that_took_longer_than_the_limit() -> None:
    pace = Pace(Done("A", "p", days * DAY) for days in range(1, 11))
    assert pace.late(pending(timedelta(0), timedelta(days=7)), NOW) == Fraction(3, 10)
    # Of those that took longer than the five days it has lasted, three of five took longer than seven.
    assert pace.late(pending(timedelta(days=5), timedelta(days=7)), NOW) == Fraction(3, 5)
    assert pace.late(pending(timedelta(days=8), timedelta(days=7)), NOW) == 1


def test_few_of_ones_own_ask_others() -> None:
    done = [Done("A", "p", DAY)] * 4 + [Done("B", "p", 9 * DAY)] * 8
    assert Pace(done).late(pending(timedelta(0), timedelta(days=2)), NOW) == Fraction(8, 12)
    assert Pace([]).late(pending(timedelta(0), timedelta(days=2)), NOW) == Fraction(1, 2)


def test_days_and_agencies_add_up() -> None:
    pace = Pace([Done("A", "p", days * DAY) for days in range(1, 11)] * 2)
    found = chances(
        pace,
        [pending(timedelta(0), timedelta(days=days), f"A-{days}", "A" if days < 3 else "B") for days in range(1, 9)],
        NOW,
        7,
    )
    assert {chance.dossier.code for chance in found} == {f"A-{days}" for days in range(1, 7)}
    assert [chance.late for chance in found] == sorted((chance.late for chance in found), reverse=True)
    days = by_day(found, NOW, 7)
    assert len(days) == 7
    assert sum(due for _, due, _ in days) == sum(due for _, due, _ in by_agency(found)) == 6
    assert sum(late for _, _, late in days) == sum(late for _, _, late in by_agency(found))


def simulated(seed: int) -> tuple[list[Done], list[tuple[Open, bool]], int]:
    """A register up to NOW and what came after: resolved ones, pending ones that fall due this week with whether they were
    late, and how many were late last week. Agencies differ in pace, procedures in limit, and the load is uneven."""
    rng = random.Random(seed)
    paces = {agency: rng.uniform(0.5, 1.3) for agency in "ABCDE"}
    limits = {"p": 3, "q": 7, "r": 15}
    done, ahead, last_week = list[Done](), list[tuple[Open, bool]](), 0
    for number in range(3000):
        agency, procedure = rng.choice("ABCDE"), rng.choice("pqr")
        surge = rng.random() < 0.3  # much came in the last days
        age = rng.uniform(0, 6 if surge else 80)
        received = NOW - timedelta(days=age)
        took = limits[procedure] * paces[agency] * rng.lognormvariate(-0.1, 0.5)
        due = received + timedelta(days=limits[procedure])
        late = took > limits[procedure]
        if took <= age:
            done.append(Done(agency, procedure, took * DAY))
        elif NOW <= due < NOW + timedelta(days=6):
            ahead.append((Open(f"{number:05}", agency, procedure, received, due), late))
        if NOW - timedelta(days=6) <= due < NOW:
            last_week += late
    return done, ahead, last_week


def test_it_is_nearer_than_last_week() -> None:
    ours, naive = [], []
    for seed in range(40):
        done, ahead, last_week = simulated(seed)
        happened = sum(late for _, late in ahead)
        found = chances(Pace(done), [dossier for dossier, _ in ahead], NOW, 7)
        ours.append(abs(float(sum(chance.late for chance in found)) - happened))
        naive.append(abs(last_week - happened))
    assert sum(ours) < 0.5 * sum(naive), (sum(ours), sum(naive))


def test_those_it_names_first_are_late_more_often() -> None:
    hits = named = late_in_all = all_of_them = 0
    for seed in range(20):
        done, ahead, _ = simulated(seed)
        truth = {dossier.code: late for dossier, late in ahead}
        first = chances(Pace(done), [dossier for dossier, _ in ahead], NOW, 7)[: len(ahead) // 4]
        hits += sum(truth[chance.dossier.code] for chance in first)
        named += len(first)
        late_in_all += sum(truth.values())
        all_of_them += len(truth)
    assert hits / named > 1.3 * late_in_all / all_of_them
