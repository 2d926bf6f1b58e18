"""What becomes of a notice, by whatever order outcomes, receipts and time come in."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from services.notify.notice import (
    Dossier,
    NoAnswer,
    Notice,
    NotTaken,
    Outcome,
    Pauses,
    Person,
    Refused,
    State,
    Step,
    Taken,
    Wait,
    after_attempt,
    after_receipt,
    clean,
    expired,
    facts_of,
    follow,
    forgotten,
    held,
    planned,
    quiet_until,
    settled,
    superseded,
    unnamed,
    value_of,
    way_to_tell,
)
from shared.contracts.codes import LOCAL_ZONE, parse_instant, uuid7
from shared.contracts.events import DossierCorrected, DossierExtended, DossierPaid, DossierSupplemented
from shared.directory.bundle import NoticeRule, QuietHours

NOW = datetime(2026, 10, 12, 3, 0, tzinfo=UTC)
PAUSES = Pauses(timedelta(seconds=2), timedelta(seconds=45))


def notice(state: State = "planned", **changes: Any) -> Notice:
    new = Notice(
        id=uuid7(),
        dossier="H55.242-261012-0001",
        agency="H55.242",
        act="received",
        event=uuid7(),
        act_recorded=NOW,
        recipient="c-1",
        channel="sms",
        state=state,
        template="received",
        version=1,
        parts=1,
        planned_at=NOW,
        expires_at=NOW + timedelta(hours=24),
    )
    return replace(new, **changes)


def begun(provider: str = "a", **changes: Any) -> Notice:
    """An attempt is in flight."""
    flying: dict[str, Any] = {"in_flight": True, "attempts": 1, "provider": provider, "asked": (provider,)}
    return notice(**flying | changes)


def attempt(before: Notice, outcome: Outcome, *, dedupes: bool = False, provider: str = "a") -> Step:
    return after_attempt(before, provider, outcome, dedupes=dedupes, providers=["a", "b"], now=NOW, pauses=PAUSES)


def types(step: Step) -> list[str]:
    return [event.short for event in step[1]]


def test_planned_is_due_or_has_ended_already() -> None:
    after, events = planned(notice())
    assert (after.state, after.due, [e.short for e in events]) == ("planned", True, ["notice.planned"])
    after, events = planned(notice(), stale=True)
    assert (after.state, after.due, after.reason) == ("expired", False, "act-too-old")
    assert [e.short for e in events] == ["notice.planned", "notice.expired"]
    after, events = planned(notice(), met_by=uuid7())
    assert (after.state, [e.short for e in events]) == ("superseded", ["notice.planned", "notice.superseded"])
    assert not planned(notice(channel="postal"))[0].due


def test_taken_is_sent() -> None:
    after, events = attempt(begun(), Taken())
    assert (after.state, after.sent_at, after.in_flight) == ("sent", NOW, False)
    assert [e.short for e in events] == ["notice.sent"]


def test_the_recipients_fault_ends_it() -> None:
    after, events = attempt(begun(), Refused("bad number +84 912 345 678\n"))
    assert (after.state, after.reason) == ("failed", "bad number …")
    assert [e.short for e in events] == ["notice.failed"]


def test_after_a_definite_refusal_the_next_is_asked_then_all_again_after_growing_pauses() -> None:
    after, events = attempt(begun("a"), NotTaken("status-500"))
    assert (after.state, after.due, after.tried, events) == ("planned", True, ("a",), ())
    after, events = attempt(replace(after, in_flight=True), NotTaken("not-reached"), provider="b")
    assert (after.due, after.tried, after.next_at, events) == (False, (), NOW + timedelta(seconds=2), ())
    for wait in (4, 8, 16, 32, 45, 45):
        after, _ = attempt(replace(after, tried=("a",), in_flight=True), NotTaken("x"), provider="b")
        assert after.next_at == NOW + timedelta(seconds=wait)


def test_an_unknown_outcome_stays_with_its_provider() -> None:
    after, events = attempt(begun(), NoAnswer("no-answer"))
    assert (after.state, after.provider, after.due, after.next_at, events) == ("unknown", "a", False, None, ())
    assert types(expired(after)) == ["notice.failed"]
    assert expired(after)[0].reason == "unknown"
    # The answer that came after all, from the process that had lost its lock meanwhile.
    assert attempt(after, Taken())[0].state == "sent"
    assert attempt(after, NotTaken("x"))[0].state == "unknown"


def test_a_provider_that_dedupes_is_asked_again_and_no_other() -> None:
    after, _ = attempt(begun(), NoAnswer("no-answer"), dedupes=True)
    assert (after.state, after.bound, after.next_at) == ("planned", True, NOW + timedelta(seconds=2))
    after, _ = attempt(replace(after, in_flight=True), NotTaken("status-500"), dedupes=True)
    assert (after.state, after.bound, after.due, after.tried) == ("planned", True, False, ())
    assert expired(after)[0].reason == "unknown"
    assert superseded(after, uuid7()) == (after, ())


@pytest.mark.parametrize("before", [begun(), begun(state="unknown", in_flight=False, bound=True)])
def test_a_receipt_may_be_quicker_than_the_answer(before: Notice) -> None:
    step = after_receipt(before, "a", "delivered", None, NOW)
    assert types(step) == ["notice.sent", "notice.delivered"]
    delivered = step[0]
    for outcome in (Taken(), Refused("x"), NotTaken("x"), NoAnswer("x")):
        after, events = attempt(delivered, outcome)
        assert (after.state, after.in_flight, events) == ("delivered", False, ())


def test_a_failed_receipt_changes_nothing_after_delivered_or_from_another_provider() -> None:
    sent = begun(state="sent", in_flight=False, sent_at=NOW)
    assert after_receipt(sent, "b", "failed", "x", NOW) == (sent, ())
    delivered, _ = after_receipt(sent, "a", "delivered", None, NOW)
    assert after_receipt(delivered, "a", "failed", "x", NOW) == (delivered, ())
    assert after_receipt(delivered, "a", "delivered", None, NOW) == (delivered, ())
    failed, events = after_receipt(sent, "a", "failed", "absent", NOW)
    assert (failed.state, failed.reason, [e.short for e in events]) == ("failed", "absent", ["notice.failed"])
    assert after_receipt(failed, "a", "failed", "absent", NOW) == (failed, ())
    assert types(after_receipt(failed, "a", "delivered", None, NOW)) == ["notice.delivered"]


def test_expiry_leaves_an_attempt_in_flight_alone() -> None:
    flying = begun()
    assert expired(flying) == (flying, ())
    assert expired(notice())[0].reason == "stale"
    assert expired(notice(attempts=3))[0].reason == "no-provider"
    assert expired(notice("held"))[0].state == "expired"
    sent = notice("sent")
    assert expired(sent) == (sent, ())


def test_only_what_is_surely_unsent_is_superseded_or_held() -> None:
    by = uuid7()
    states: tuple[State, ...] = ("planned", "held")
    for state in states:
        assert superseded(notice(state), by)[0].state == "superseded"
    for other in (begun(), notice("sent"), notice("delivered"), notice("unknown"), notice("failed")):
        assert superseded(other, by) == (other, ())
        assert held(other, NOW) == (other, ())
    waiting, events = held(notice(), NOW + timedelta(hours=7))
    assert (waiting.state, waiting.due, [e.short for e in events]) == ("held", False, ["notice.held"])
    assert held(waiting, NOW) == (waiting, ())


def test_an_erased_person_is_not_told() -> None:
    after, events = forgotten(notice(post_at=NOW))
    assert (after.state, after.reason, after.post_at, len(events)) == ("failed", "erased", None, 1)
    assert forgotten(begun())[1] == ()
    assert forgotten(notice("sent"))[0].state == "sent"


# ------------------------------------------------------------------------------------------------------- the decision


def test_the_first_way_that_reaches_the_person() -> None:
    rule = NoticeRule(act="received", template="received")
    both, landline = Person(phone="+84912345678", address="xã"), Person(phone="+842083123456", address="xã")
    assert way_to_tell(rule, "c", both, waited=False) == "sms"
    assert way_to_tell(rule, "c", landline, waited=False) == "postal"
    assert way_to_tell(rule, "c", Person(phone="+842083123456"), waited=False) == "unreachable"
    assert (
        way_to_tell(NoticeRule(act="received", template="received", by=("postal",)), "c", both, waited=True) == "postal"
    )
    assert way_to_tell(NoticeRule(act="received", template="received", by=("sms",)), "c", landline, waited=True) == (
        "unreachable"
    )
    assert way_to_tell(rule, "c", Person(erased=True), waited=False) == "erased"
    assert way_to_tell(rule, "c", None, waited=False) is Wait.FOR_CONTACT
    assert way_to_tell(rule, "c", None, waited=True) == "no-contact"
    assert way_to_tell(rule, None, None, waited=False) == "no-contact"


def test_who_wants_it_otherwise_is_told_otherwise_as_far_as_the_rule_has_it() -> None:
    anybody = Person(phone="+84912345678", address="xã")
    post, least = replace(anybody, wants="postal"), replace(anybody, wants="required")
    rule = NoticeRule(act="received", template="received")
    assert way_to_tell(rule, "c", post, waited=False) == "postal"
    assert way_to_tell(rule, "c", Person(phone="+84912345678", wants="postal"), waited=False) == "sms"
    letters_first = NoticeRule(act="received", template="received", by=("postal", "sms"))
    assert way_to_tell(letters_first, "c", replace(anybody, wants="sms"), waited=False) == "sms"
    sms_alone = NoticeRule(act="received", template="received", by=("sms",))
    assert way_to_tell(sms_alone, "c", post, waited=False) == "sms"  # a wish makes no way
    assert way_to_tell(rule, "c", least, waited=True) == "not-wanted"
    for act in ("refused", "supplement-requested", "payment-requested", "extended", "rescheduled", "stopped"):
        assert way_to_tell(NoticeRule(act=act, template=act), "c", least, waited=False) == "sms"
    assert (
        way_to_tell(NoticeRule(act="received", template="received", required=True), "c", least, waited=False) == "sms"
    )
    free = NoticeRule(act="extended", template="extended", required=False)
    assert way_to_tell(free, "c", least, waited=False) == "not-wanted"


def _base(previous: int, state: int, due: datetime) -> dict[str, Any]:
    return {
        "agency": "H55.242",
        "procedure": "2.002621",
        "previous": previous,
        "state": state,
        "due_at": due,
        "paused": False,
        "by": "desk",
        "confidential": False,
    }


def test_what_an_act_settles() -> None:
    supplemented = DossierSupplemented(**_base(5, 2, NOW))
    assert settled(supplemented, NOW) == ("supplement",)
    assert settled(supplemented, NOW - timedelta(days=1)) == ("supplement", "due")
    assert settled(DossierPaid(**_base(6, 4, NOW), amount=1, method="online"), NOW) == ("payment",)
    extended = DossierExtended(**_base(2, 2, NOW), reason="r", previous_due_at=NOW - timedelta(days=1))
    assert settled(extended, NOW - timedelta(days=1)) == ("due",)
    assert settled(extended, None) == ()


def test_facts_as_a_person_reads_them() -> None:
    dossier = Dossier("H55.242-261012-0001", state=2)
    extended = DossierExtended(
        **_base(2, 2, parse_instant("2026-10-15T10:00:00Z")), reason="xác minh", previous_due_at=NOW
    )
    follow(dossier, extended, NOW)
    facts = facts_of(extended, dossier)

    def value(placeholder: str, lang: Any = "vi", **more: Any) -> str | None:
        return value_of(
            placeholder, dossier.code, facts | more, lang, lambda kind, code: f"{kind} {code}", lambda _: "123456"
        )

    assert value("due") == "15/10/2026 17:00"
    assert value("previous_due") == "12/10/2026 10:00"
    assert (value("reason"), value("received"), value("amount")) == ("xác minh", "-", "-")
    assert (value("agency"), value("procedure")) == ("agency H55.242", "procedure 2.002621")
    assert (value("amount", amount=1250000), value("amount", "en", amount=1250000)) == ("1.250.000", "1,250,000")
    assert (value("result", result="granted"), value("result", "en", result="denied")) == ("đồng ý", "not granted")
    assert (value("pin"), value("code"), value("nothing")) == ("123456", dossier.code, None)


def test_paid_follows_payments_and_the_correction_of_the_last() -> None:
    dossier = Dossier("H55.242-261012-0001", state=4, fee=50_000)
    paid = DossierPaid(**_base(4, 4, NOW), amount=20_000, method="counter")
    follow(dossier, paid, NOW)
    follow(dossier, paid, NOW)
    assert dossier.unpaid == 10_000
    undo = DossierCorrected(**_base(4, 4, NOW), undoes=uuid7(), undone_type="dossier.paid", reason="nhầm")
    follow(dossier, undo, NOW)
    assert dossier.unpaid == 30_000


# -------------------------------------------------------------------------------------------------------- quiet hours


@pytest.mark.parametrize(
    ("clock", "until"),
    [
        ("2026-10-12T21:59:59", None),
        ("2026-10-12T22:00:00", "2026-10-13T07:00:00"),
        ("2026-10-12T23:59:59", "2026-10-13T07:00:00"),
        ("2026-10-13T00:00:00", "2026-10-13T07:00:00"),
        ("2026-10-13T06:59:59", "2026-10-13T07:00:00"),
        ("2026-10-13T07:00:00", None),
    ],
)
def test_quiet_hours_over_midnight(clock: str, until: str | None) -> None:
    hours = QuietHours(from_time="22:00", to="07:00")
    now = datetime.fromisoformat(clock).replace(tzinfo=LOCAL_ZONE).astimezone(UTC)
    expected = None if until is None else datetime.fromisoformat(until).replace(tzinfo=LOCAL_ZONE)
    assert quiet_until(hours, now) == expected


def test_quiet_hours_within_a_day_and_none() -> None:
    noon = datetime(2026, 10, 12, 12, 30, tzinfo=LOCAL_ZONE)
    assert quiet_until(QuietHours(from_time="12:00", to="13:30"), noon) == noon.replace(hour=13)
    assert quiet_until(QuietHours(from_time="13:00", to="13:30"), noon) is None
    assert quiet_until(QuietHours(from_time="12:00", to="12:00"), noon) is None
    assert quiet_until(None, noon) is None


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("absent subscriber", "absent subscriber"),
        ("0912345678 is bad", "… is bad"),
        ("+84 912-345-678", "…"),
        ("code 12345", "code 12345"),
        ("a\nb\x00c", "a b c"),
        ("  ", "no-reason"),
        ("x" * 500, "x" * 200),
    ],
)
def test_a_reason_is_kept_without_what_could_be_a_number(said: str, kept: str) -> None:
    assert clean(said) == kept


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Nguyễn Thị Đào đã chuyển đi", "… đã chuyển đi"),
        ("NGUYEN THI DAO vang nha, XOM 7…", "… vang nha, ……"),
        ("nguyễn thị đào", "…"),
        ("Đào vắng nhà", "Đào vắng nhà"),
        ("", ""),
    ],
)
def test_a_carriers_reason_is_kept_without_the_persons_own_words(said: str, kept: str) -> None:
    assert unnamed(said, ["Nguyễn Thị Đào", "Xóm 7", None, ""]) == kept


def test_ids_sort_in_the_order_planned() -> None:
    ids: list[UUID] = [notice().id for _ in range(200)]
    assert ids == sorted(ids)
