"""Which provider is asked, and how fast."""

from collections import Counter
from datetime import date

from services.notify.health import Health, Outage, Pace, Purse, choose, order_of
from shared.directory.bundle import BudgetEntry, ProviderEntry


def calls(health: Health, failed: int, well: int, at: float = 0.0) -> Health:
    for number in range(failed + well):
        health.end(health.begin(at), at, failed=number < failed)
    return health


def entries(*names: str, priority: int | None = None) -> list[ProviderEntry]:
    return [ProviderEntry(name=name, kind="file", priority=priority) for name in names]


def test_half_of_the_calls_failing_is_bad_and_forgotten_after_the_window() -> None:
    health = Health(window=60, least=4, share=0.5)
    assert calls(health, 1, 1).good(0)  # too few to say
    assert not calls(health, 1, 1).good(1)
    assert not health.good(60)
    assert health.good(61)
    assert calls(Health(least=4), 1, 3).good(0)


def test_a_slow_call_counts_also_while_it_hangs() -> None:
    health = Health(least=2, slow=5)
    first, second = health.begin(0), health.begin(0)
    assert health.good(5)
    assert not health.good(5.1)
    health.end(first, 6, failed=False)
    health.end(second, 6, failed=False)
    assert not health.good(7)
    assert health.running == 0


def test_the_bundles_order_then_health_and_nothing_when_all_look_bad() -> None:
    three = entries("a", "b", "c")
    assert order_of(three, {}, 0) == ["a", "b", "c"]
    assert order_of(three, {"a": False, "b": True, "c": True}, 0) == ["b", "c", "a"]
    assert order_of(three, {"a": False, "b": False, "c": False}, 7) == ["a", "b", "c"]


def test_an_equal_priority_takes_turns() -> None:
    mixed = [*entries("a"), *entries("b", "c", priority=1), *entries("d", priority=2)]
    assert order_of(mixed, {}, 0) == ["a", "b", "c", "d"]
    assert order_of(mixed, {}, 1) == ["a", "c", "b", "d"]


def test_choice() -> None:
    assert choose(["a", "b"], (), None) == "a"
    assert choose(["a", "b"], ("a",), None) == "b"
    assert choose(["a", "b"], ("a", "b"), None) is None
    assert choose(["a", "b"], (), "b") == "b"
    assert choose(["a"], (), "gone") is None


def test_no_second_holds_more_calls_than_the_pace_allows() -> None:
    pace, begun, now = Pace(5), list[float](), 0.0
    while now < 10:
        while pace.free(now) > 0:
            pace.take(now)
            begun.append(now)
        assert pace.wait(now) > 0
        now += 0.01
    assert len(begun) > 40
    assert all(sum(1 for other in begun if each <= other < each + 1) <= 5 for each in begun)


def test_a_pace_below_one_a_second_and_none() -> None:
    pace = Pace(0.5)
    pace.take(0.0)
    assert pace.free(1.9) == 0
    assert 0 < pace.wait(1.9) < 0.2
    assert pace.free(2.1) == 1
    free = Pace(None)
    free.take(0.0)
    assert free.free(0.0) > 1000
    assert free.wait(0.0) == 0


def test_whoever_sent_before_may_have_used_up_the_pace() -> None:
    pace, free = Pace(50), Pace(None)
    pace.spend(10.0)
    free.spend(10.0)
    assert pace.free(10.9) == 0
    assert pace.free(11.1) == 50
    assert free.wait(10.0) == 0


def test_equals_take_turns_by_their_weights() -> None:
    heavy = [ProviderEntry(name=name, kind="file", priority=1, weight=weight) for name, weight in (("a", 3), ("b", 1))]
    assert Counter(order_of(heavy, {}, turn)[0] for turn in range(400)) == {"a": 300, "b": 100}


def test_who_was_bad_comes_back_slowly() -> None:
    health = calls(Health(window=60, least=4, back=100), 4, 0)
    assert health.trust(0) == 0
    assert health.trust(61) == 0.1
    assert health.trust(61 + 50) == 0.5
    first = Counter(order_of(entries("a", "b"), {"a": 0.5, "b": 1.0}, turn)[0] for turn in range(1000))
    assert 490 <= first["a"] <= 510
    assert health.trust(61 + 100) == 1
    assert health.trust(10_000) == 1
    calls(health, 4, 0, at=10_000)
    assert health.trust(10_000) == 0  # it has to earn its turns anew


def test_a_days_budget_binds_the_agency_and_all_below_it() -> None:
    province, commune = (BudgetEntry(agency=code, parts_per_day=most) for code, most in (("H55", 5), ("H55.242", 3)))
    purse = Purse(date(2026, 10, 10))
    assert purse.affords([province, commune], 3)
    purse.take([province, commune], 3)
    assert not purse.affords([province, commune], 1)
    assert purse.affords([province], 2)
    purse.take([province, commune], -3)  # nobody took it
    assert purse.affords([province, commune], 3)
    purse.take([province], 5)
    purse.turn(date(2026, 10, 10))
    assert not purse.affords([province], 1)
    purse.turn(date(2026, 10, 11))
    assert purse.affords([province], 5)


def test_a_carrier_that_takes_nothing_for_long_is_passed_by_and_asked_again() -> None:
    outage = Outage(patience=900, again=300)
    for at in (0, 45, 600, 899):
        outage.note(at, took=False)
        assert not outage.down(at)
    outage.note(900, took=False)
    assert outage.down(900)
    assert outage.down(1199)
    assert not outage.down(1200)  # time to see whether it is back
    outage.note(1200, took=False)
    assert outage.down(1200)
    outage.note(1500, took=True)
    assert not outage.down(1500)


def test_two_failures_far_apart_are_no_outage() -> None:
    outage = Outage(patience=900, again=300)
    outage.note(0, took=False)
    outage.note(5000, took=False)
    assert not outage.down(5000)
