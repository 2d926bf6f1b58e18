"""Codes, events and what each tier sees of them."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from uuid import UUID

import pytest
from pydantic import ValidationError

from shared.contracts.codes import (
    format_dossier_code,
    format_instant,
    is_mobile,
    local_day,
    local_phone,
    normalise_agency,
    normalise_phone,
    parse_dossier_code,
    parse_instant,
    uuid7,
)
from shared.contracts.envelope import Envelope, Invalid, Unreadable, decode, encode, parse
from shared.contracts.events import (
    EVENTS,
    MOVES,
    TIERS,
    TOPICS,
    CalendarRef,
    Component,
    ContactErased,
    DossierEvent,
    DossierProcessingStarted,
    DossierReceived,
    DossierRefused,
    DossierReturned,
    LimitData,
    Paper,
    RouteStep,
    ToSector,
    TransferCompleted,
    TransferRequested,
    agency_topic,
    full_type,
    link_topics,
    short_type,
    tier_of_topic,
    topic_of,
)
from shared.contracts.views import public_model, reduce, tier_of

NOW = datetime(2026, 10, 10, 1, 0, tzinfo=UTC)
CODE = "H55.242-261010-0001"


def received(**changes: object) -> DossierReceived:
    values: dict[str, object] = {
        "agency": "H55.242",
        "procedure": "1.001193",
        "previous": None,
        "state": 2,
        "due_at": NOW + timedelta(days=5),
        "paused": False,
        "by": "desk",
        "confidential": False,
        "deciding_agency": "H55",
        "field": "G01-TP01",
        "channel": "counter",
        "return_by": "postal",
        "applicant_kind": "citizen",
        "contact_ref": "c-1",
        "fee": 8000,
        "components": (Component(name="Tờ khai", digitised=True, ref="s3://papers/1", digest="sha256:1"),),
        "limit": LimitData(value=3, unit="working_days"),
        "calendar": CalendarRef(agency="H55", version=1),
        **changes,
    }
    return DossierReceived.model_validate(values)


def envelope(data: bytes | None, short: str = "dossier.received", topic: str | None = None) -> Envelope:
    return Envelope(
        topic=topic or topic_of(short),
        id=uuid7(),
        source="/H55/intake",
        type=short,
        subject=CODE,
        time=NOW,
        recorded=NOW + timedelta(seconds=2),
        sequence=1,
        mode="live",
        data=data,
    )


# --------------------------------------------------------------------------------------------------- codes


@pytest.mark.parametrize(
    ("given", "new"),
    [
        ("H55", "H55"),
        ("H55.242", "H55.242"),
        ("G01.899.008", "G01.899.008"),
        ("000.00.15.H55", "H55.15"),
        ("000.00.00.H55", "H55"),
        ("242.01.15.H55", "H55.15.01.242"),
        ("242.00.00.H55", "H55.242"),
    ],
)
def test_an_agency_code_in_either_form_answers_the_new_one(given: str, new: str) -> None:
    assert normalise_agency(given) == new


@pytest.mark.parametrize("code", ["", "h55", "H5", "H55.", "H55.123456", "15.H55", "H55\n", "H٥٥", "H55.1.2.3.4.5"])
def test_what_is_no_agency_code_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="agency code"):
        normalise_agency(code)


def test_a_dossier_code_is_read_in_both_forms_and_keeps_its_width() -> None:
    assert parse_dossier_code(CODE) == ("H55.242", date(2026, 10, 10), 1, 4)
    assert parse_dossier_code("000.00.15.H55-20261010-0012345") == ("H55.15", date(2026, 10, 10), 12345, 7)
    assert parse_dossier_code("H55-240229-99999").number == 99999


@pytest.mark.parametrize(
    "code",
    ["H55-260229-0001", "H55-20261301-0001", "H55-2610101-0001", "H55-261010-001", "H55-261010-12345678",
     "H55-261010-0001\n", "H55-261010-٠٠٠١", "261010-0001", "H55--0001"],
)  # fmt: skip
def test_a_dossier_code_needs_the_pattern_and_a_real_date(code: str) -> None:
    with pytest.raises(ValueError, match="dossier code"):
        parse_dossier_code(code)


def test_issued_codes_have_four_digits_and_widen_past_9999() -> None:
    day = date(2026, 10, 10)
    assert format_dossier_code("000.00.15.H55", day, 7) == "H55.15-261010-0007"
    assert format_dossier_code("H55", day, 10_000) == "H55-261010-10000"
    for number in (0, 10_000_000):
        with pytest.raises(ValueError, match="number of the day"):
            format_dossier_code("H55", day, number)


@pytest.mark.parametrize("given", ["0912345678", " 091 234 56 78 ", "+84912345678", "+84 (91) 234-5678"])
def test_a_mobile_number_is_normalised_and_written_as_at_home(given: str) -> None:
    assert normalise_phone(given) == "+84912345678"
    assert is_mobile("+84912345678")
    assert local_phone("+84912345678") == "0912345678"


def test_a_landline_is_valid_and_takes_no_message() -> None:
    assert not is_mobile(normalise_phone("0208 3855 612"))


@pytest.mark.parametrize(
    "number", ["", "123", "0112345678", "+14155552671", "09123456789", "gọi 0912345678", "0912345678;ext=1"]
)
def test_what_is_no_vietnamese_number_is_refused_without_repeating_it(number: str) -> None:
    with pytest.raises(ValueError, match="no valid Vietnamese") as refused:
        normalise_phone(number)
    assert not number or number not in str(refused.value)


def test_instants_need_an_offset_and_come_out_in_utc() -> None:
    assert parse_instant("2026-10-10T08:00:00+07:00") == NOW
    assert parse_instant("2026-10-10t01:00:00.000z") == NOW
    assert format_instant(NOW.astimezone(timezone(timedelta(hours=7)))) == "2026-10-10T01:00:00Z"
    assert local_day(datetime(2026, 10, 10, 17, 0, tzinfo=UTC)) == date(2026, 10, 11)


@pytest.mark.parametrize(
    "text",
    ["2026-10-10T08:00:00", "2026-10-10", "2026-10-10T08:00+07:00", "20261010T080000Z", "2026-02-30T00:00:00Z",
     "2026-10-10T25:00:00Z", "2026-10-10T08:00:00+0700", "2026-10-10T08:00:00+24:00", "1760058000",
     "0001-01-01T00:00:00+07:00", "2026-10-10T08:00:00Z\n"],
)  # fmt: skip
def test_what_is_no_rfc_3339_instant_with_an_offset_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="instant"):
        parse_instant(text)


def test_ids_are_version_7_and_sort_in_the_order_in_which_they_were_made() -> None:
    ids = [uuid7() for _ in range(20_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert {(each.version, each.variant) for each in ids} == {(7, UUID(int=0x8 << 60).variant)}


# -------------------------------------------------------------------------------------------------- events

CONTRACT_TYPES = {
    "dossier": "submitted received refused processing-started supplement-requested supplemented "
    "payment-requested paid withdrawal-requested withdrawal-refused withdrawn stopped extended rescheduled "
    "digitised resolved returned rated corrected due-soon overdue",
    "petition": "filed forwarded answered rated",
    "transfer": "requested sent delivered accepted refused completed returned recalled rerouted",
    "document": "sent arrived refused accepted assigned started finished recall-requested recall-accepted "
    "recall-refused",
    "notice": "planned held sent delivered failed expired superseded",
    "postal": "ordered collected in-transit delivered returned cancelled",
    "indicator": "snapshot restated",
    "contact": "recorded changed erased",
    "parked": "recorded",
    "watermark": "advanced",
}


def test_every_type_of_the_contract_has_a_model_and_no_other_has() -> None:
    listed = {f"{family}.{word}" for family, words in CONTRACT_TYPES.items() for word in words.split()}
    assert set(EVENTS) == listed


@pytest.mark.parametrize("short", sorted(EVENTS))
def test_a_type_name_goes_to_its_full_form_and_back(short: str) -> None:
    assert full_type(short) == f"vn.lienthong.{short}.v1"
    assert short_type(full_type(short)) == short


def test_a_type_that_is_not_ours_or_newer_keeps_its_full_name() -> None:
    for full in ("vn.lienthong.dossier.received.v2", "com.example.thing", "vn.lienthong.a.b.c.v1"):
        assert short_type(full) == full
        assert full_type(short_type(full)) == full


def test_every_type_is_on_the_topic_of_its_family() -> None:
    for short in EVENTS:
        assert short in TOPICS[topic_of(short)].types
    assert agency_topic("G01") == "lienthong.agency.G01.v1"
    assert link_topics("H55.242") == ("lienthong.link.H55.242.up", "lienthong.link.H55.242.down")


def test_topics_say_how_far_they_reach() -> None:
    assert tier_of_topic("lienthong.public.dossier.v1") == "public"
    assert tier_of_topic(agency_topic("G01")) == "agency"
    assert tier_of_topic("lienthong.contact.v1") == "restricted"
    compacted = {name for name, topic in TOPICS.items() if topic.cleanup == "compact"}
    assert compacted == {"lienthong.contact.v1", "lienthong.indicator.v1"}


def test_the_lifecycle_is_the_domain_s_table_of_moves() -> None:
    table = {
        1: {2, 3, 5, 7}, 2: {4, 5, 6, 7, 8, 9}, 4: {5, 6, 7, 8, 9}, 5: {1, 2, 4, 7, 8, 3},
        6: {4, 7, 8}, 7: {8, 1, 2, 4, 5, 6}, 9: {10},
    }  # fmt: skip
    drawn: dict[int, set[int]] = {}
    for short, moves in MOVES.items():
        for previous, state in moves if short != "dossier.corrected" else ():
            if previous is not None and previous != state:
                drawn.setdefault(previous, set()).add(state)
    assert drawn == table


def test_facts_stand_beside_the_state() -> None:
    facts = {
        short: {state for previous, state in moves if previous == state}
        for short, moves in MOVES.items()
        if short != "dossier.corrected"
    }
    assert facts["dossier.paid"] == {2, 4, 5, 9}
    assert facts["dossier.extended"] == {2, 4, 5, 6, 7}
    assert facts["dossier.digitised"] == {1, 2, 4, 5, 6, 7, 8, 9, 10}
    assert facts["dossier.rated"] == {3, 8, 9, 10}
    assert facts["dossier.resolved"] == facts["dossier.withdrawn"] == set()


def test_every_dossier_event_knows_its_moves() -> None:
    models = {short: model for short, model in EVENTS.items() if issubclass(model, DossierEvent)}
    assert models.keys() == MOVES.keys()
    assert all(model.moves == MOVES[short] for short, model in models.items() if issubclass(model, DossierEvent))


@pytest.mark.parametrize(("previous", "state"), [(None, 1), (2, 2), (3, 2), (8, 2), (None, 11), (None, 0)])
def test_a_move_that_the_lifecycle_does_not_know_is_refused(previous: int | None, state: int) -> None:
    with pytest.raises(ValidationError):
        received(previous=previous, state=state)


def test_an_event_that_is_read_equals_the_one_that_was_written() -> None:
    event = received()
    assert DossierReceived.model_validate_json(event.to_json()) == event
    assert event.to_json() == received().to_json()


def test_an_unknown_field_is_ignored() -> None:
    data = received().to_json()
    assert DossierReceived.model_validate_json(b'{"newer":{"a":1},' + data[1:]) == received()


@pytest.mark.parametrize(
    "changes",
    [{"state": "2"}, {"paused": 1}, {"due_at": 1760058000}, {"due_at": "2026-10-10T08:00:00"}, {"agency": "x"},
     {"channel": "fax"}, {"fee": -1}, {"limit": None}, {"components": [{"digitised": True}]}, {"by": "Lan"}],
)  # fmt: skip
def test_a_broken_field_fails(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        received(**changes)


def test_a_transfer_carries_its_state_and_the_words_of_the_contract() -> None:
    transfer = uuid7()
    event = TransferRequested(
        transfer=transfer, dossier=CODE, step=1, from_agency="H55.242", to="000.00.17.H55", attempt=1,
        due_at=NOW, agency="H55.242", limit=LimitData(value=0.5, unit="working_days"),
    )  # fmt: skip
    assert b'"from":"H55.242","to":"H55.17","state":"requested"' in event.to_json()
    assert b'"limit":{"value":0.5,"unit":"working_days"}' in event.to_json()
    with pytest.raises(ValidationError):
        TransferRequested.model_validate_json(event.to_json().replace(b'"requested"', b'"sent"'))


def test_a_limit_has_halves_and_nothing_finer() -> None:
    assert LimitData(value=4, unit="hours").model_dump_json() == '{"value":4,"unit":"hours"}'
    with pytest.raises(ValidationError):
        LimitData(value=0.25, unit="hours")


def test_a_completed_route_has_a_result() -> None:
    with pytest.raises(ValidationError, match="route_result"):
        TransferCompleted(
            transfer=uuid7(), dossier=CODE, step=1, from_agency="H55.242", to="H55.17", attempt=1, due_at=None,
            agency="H55.242", result="granted", documents=(Paper(name="Phiếu"),), route_complete=True,
        )  # fmt: skip


def test_a_route_step_goes_to_an_agency_a_level_or_a_sector() -> None:
    step = RouteStep(step=1, to=ToSector(sector="police"), transfer=uuid7())
    event = DossierProcessingStarted(
        agency="H55", procedure="1.001193", previous=2, state=4, due_at=None, paused=False, by="officer",
        confidential=False, route=(step,),
    )  # fmt: skip
    assert DossierProcessingStarted.model_validate_json(event.to_json()).route == (step,)


# --------------------------------------------------------------------------------------------------- tiers


def test_every_field_of_every_event_has_a_tier() -> None:
    for model in EVENTS.values():
        assert all(tier_of(field) in TIERS for field in model.model_fields.values())


def test_a_public_event_holds_public_fields_alone() -> None:
    seen = reduce(received(), "public").to_json()
    assert public_model("dossier.received").model_validate_json(seen).short == "dossier.received"
    assert b'"due_at"' in seen
    for hidden in (b"contact_ref", b"c-1", b"by", b"confidential", b"components", b"fee", b"sha256"):
        assert hidden not in seen


def test_a_reason_is_in_no_view() -> None:
    event = DossierRefused(
        agency="H55", procedure="1.001193", previous=1, state=3, due_at=None, paused=False, by="desk",
        confidential=False, reason="Nguyễn Văn A không đủ giấy tờ",
    )  # fmt: skip
    assert b"reason" not in reduce(event, "agency").to_json()
    assert reduce(event, "internal") == event


def test_an_agency_sees_the_papers_without_where_they_are_stored() -> None:
    seen = reduce(received(), "agency").to_json()
    assert "Tờ khai".encode() in seen
    for hidden in (b"s3://", b"sha256", b"contact_ref"):
        assert hidden not in seen


def test_a_view_keeps_the_aliases_and_the_words() -> None:
    returned = DossierReturned(
        agency="H55", procedure="1.001193", previous=9, state=10, due_at=None, paused=False, by="desk",
        confidential=False, returned_by="postal",
    )  # fmt: skip
    assert b'"returned_by":"postal"' in reduce(returned, "agency").to_json()
    assert b"returned_by" not in reduce(returned, "public").to_json()


# ------------------------------------------------------------------------------------------------ envelope


def test_a_record_has_the_headers_of_the_contract() -> None:
    event = envelope(received().to_json())
    key, value, headers = encode(event)
    assert key == CODE.encode()
    assert value == event.data
    assert dict(headers) == {
        "ce_id": str(event.id).encode(),
        "ce_source": b"/H55/intake",
        "ce_type": b"vn.lienthong.dossier.received.v1",
        "ce_specversion": b"1.0",
        "ce_subject": key,
        "ce_time": b"2026-10-10T01:00:00Z",
        "ce_recordedtime": b"2026-10-10T01:00:02Z",
        "ce_sequence": b"1",
        "ce_partitionkey": key,
        "ce_mode": b"live",
        "ce_dataschema": b"/schemas/dossier.received.v1.json",
        "content-type": b"application/json",
    }


def test_a_tombstone_carries_all_headers_but_two() -> None:
    _, value, headers = encode(envelope(None, "contact.erased"))
    assert value is None
    assert dict(headers).keys().isdisjoint({"ce_dataschema", "content-type"})
    assert len(headers) == 10


def test_an_erased_contact_is_read_from_its_key() -> None:
    assert parse(envelope(None, "contact.erased")) == ContactErased(contact_ref=CODE)
    with pytest.raises(Invalid, match="no-data"):
        parse(envelope(None))


def test_a_reduced_event_names_the_schema_of_its_view() -> None:
    seen = reduce(received(), "public")
    event = envelope(seen.to_json(), topic="lienthong.public.dossier.v1")
    assert dict(encode(event)[2])["ce_dataschema"] == b"/schemas/public/dossier.received.v1.json"
    assert parse(event) == seen
    snapshot = dict(encode(envelope(b"{}", "indicator.snapshot"))[2])
    assert snapshot["ce_dataschema"] == b"/schemas/indicator.snapshot.v1.json"


def test_an_unknown_type_is_read_and_has_no_model() -> None:
    key, value, headers = encode(envelope(b"{}", "dossier.blessed"))
    assert parse(decode("lienthong.dossier.v1", key, value, headers)) is None
    newer = [(name, b"vn.lienthong.dossier.received.v2" if name == "ce_type" else it) for name, it in headers]
    assert parse(decode("lienthong.dossier.v1", key, value, newer)) is None


@pytest.mark.parametrize(
    ("header", "value", "reason"),
    [("ce_id", None, "missing-header"), ("ce_id", b"7", "bad-header"), ("ce_specversion", b"0.3", "bad-header"),
     ("ce_subject", b"H55-261010-0002", "bad-key"), ("ce_partitionkey", b"x", "bad-key"),
     ("ce_time", b"2026-10-10T01:00:00", "bad-header"), ("ce_time", b"yesterday", "bad-header"),
     ("ce_sequence", b"0", "bad-header"), ("ce_sequence", "١".encode(), "bad-header"),
     ("ce_sequence", b"9" * 30, "bad-header"), ("ce_mode", b"test", "bad-header"),
     ("ce_type", b"dossier.received", "bad-header"), ("ce_type", b"", "bad-header"),
     ("ce_source", b"\xff", "bad-header"), ("ce_source", b"", "bad-header"),
     ("content-type", b"application/avro", "bad-content-type"), ("content-type", None, "missing-header")],
)  # fmt: skip
def test_a_wrong_header_makes_a_record_unreadable(header: str, value: bytes | None, reason: str) -> None:
    key, data, headers = encode(envelope(b"{}"))
    changed = [(name, value if name == header else it) for name, it in headers]
    with pytest.raises(Unreadable) as refused:
        decode("lienthong.dossier.v1", key, data, [pair for pair in changed if pair[1] is not None])
    assert refused.value.reason == reason


@pytest.mark.parametrize("header", [b"", b"x", b"\xff", b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01"])
def test_a_malformed_trace_context_is_none_and_no_reason_to_refuse(header: bytes) -> None:
    key, data, headers = encode(envelope(b"{}"))
    assert decode("lienthong.dossier.v1", key, data, [*headers, ("traceparent", header)]).traceparent is None


def test_a_record_without_a_key_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="no-key"):
        decode("lienthong.dossier.v1", None, b"{}", [])


def test_what_is_wrong_with_the_data_is_told_without_the_data() -> None:
    data = received().to_json().replace(b'"counter"', b'"Nguyen Van A"')
    with pytest.raises(Invalid) as refused:
        parse(envelope(data))
    assert refused.value.reason == "not-valid"
    assert refused.value.pointers == ("/channel",)
    assert "Nguyen" not in str(refused.value)
    with pytest.raises(Invalid, match="not-json"):
        parse(envelope(b"Nguyen Van A"))


def test_the_contracts_import_neither_the_bus_nor_the_database() -> None:
    probe = (
        "import sys, shared.contracts.envelope, shared.directory.directory\n"
        "sys.exit(sum(name in sys.modules for name in ('faststream', 'aiokafka', 'asyncpg', 'fastapi')))"
    )
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
