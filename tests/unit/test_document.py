"""Official documents between agencies: their ids, states and recalls."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from services.routing.document import (
    MOVES,
    Document,
    DocumentRefusal,
    Operation,
    allowed,
    document_id,
    envelope_of,
    move,
    referred,
    sent,
)
from shared.contracts.envelope import parse
from shared.contracts.events import DocumentState

NOW = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)

ARRIVED = Document(
    id="H55.242-2026-11-23-12-CV",
    number="12/CV",
    date=date(2026, 11, 23),
    kind=0,
    sender="H55.242",
    receiver="H55.21",
    title="Đề nghị phối hợp",
    state="01",
    sent_at=NOW,
    changed_at=NOW,
    recorded=NOW,
)


def after(document: Document, *operations: Operation) -> Document:
    for operation in operations:
        document, _ = move(document, operation, NOW, **needs(operation))
    return document


def needs(operation: Operation) -> dict[str, Any]:
    if operation == "assign":
        return {"assignee": "Phòng Tư pháp"}
    return {"reason": "lý do"} if operation in ("refuse", "recall", "recall-refuse") else {}


@pytest.mark.parametrize(
    ("number", "end"),
    [
        ("12/CV", "12-CV"),
        ("12/QĐ-UBND", "12-QD-UBND"),
        ("  7 / TTr–SNV ", "7-TTr-SNV"),
        ("1234/BTTTT.VP", "1234-BTTTT.VP"),
        ("05/GM%2F", "05-GM-2F"),
        ("15/đt", "15-dt"),
    ],
)
def test_the_id_is_one_safe_segment_of_a_path(number: str, end: str) -> None:
    assert document_id("H55.242", date(2026, 11, 23), number) == f"H55.242-2026-11-23-{end}"


def test_composed_and_decomposed_tones_are_one_number() -> None:
    assert document_id("H55", date(2026, 1, 2), "1/Qu\u1ebf") == document_id(
        "H55", date(2026, 1, 2), "1/Que\u0302\u0301"
    )


def test_a_number_without_letters_and_digits_is_none() -> None:
    with pytest.raises(ValueError, match="neither letters nor digits"):
        document_id("H55", date(2026, 1, 2), "//..")


def test_a_document_is_sent_and_has_arrived_in_one_breath() -> None:
    events = sent(replace(ARRIVED, title="Đề nghị", ref="s3://a"))
    assert [(event.short, event.state) for event in events] == [("document.sent", "01"), ("document.arrived", "01")]


def test_the_usual_way_of_a_document() -> None:
    states = []
    document = ARRIVED
    for operation in ("accept", "assign", "start", "finish"):
        document = after(document, operation)
        states.append(document.state)
    assert states == ["03", "04", "05", "06"]
    assert document.assignee == "Phòng Tư pháp"
    assert document.version == 6


def test_every_event_reads_as_its_type() -> None:
    document = ARRIVED
    for operation in ("accept", "assign", "start", "recall", "recall-refuse", "finish"):
        document, event = move(document, operation, NOW, **needs(operation))
        assert parse(envelope_of(document, event, document.version, "/sites/H55/routing")) == event


def test_a_refused_recall_lets_work_go_on_from_where_it_was() -> None:
    working = after(ARRIVED, "accept", "start")
    kept = after(working, "recall", "recall-refuse")
    assert (kept.state, kept.before) == ("16", "05")
    assert allowed(kept) == allowed(working)
    assert after(kept, "finish").state == "06"


def test_a_second_recall_remembers_the_same_place() -> None:
    kept = after(ARRIVED, "accept", "recall", "recall-refuse", "recall", "recall-refuse")
    assert (kept.state, kept.before) == ("16", "03")


def test_an_agreed_recall_ends_the_document() -> None:
    assert allowed(after(ARRIVED, "recall", "recall-accept")) == ()


def test_a_recall_document_asks_for_the_one_that_it_names() -> None:
    recall = replace(ARRIVED, id="H55.242-2026-11-24-13-CV", number="13/CV", kind=1, replaces=ARRIVED.id)
    asked = referred(after(ARRIVED, "accept"), recall, NOW + timedelta(days=1))
    assert asked is not None
    assert (asked[0].state, asked[0].reason) == ("13", "Văn bản 13/CV thu hồi văn bản này.")
    assert referred(after(ARRIVED, "refuse"), recall, NOW) is None


def test_nothing_happens_before_what_it_follows_on() -> None:
    earlier, _ = move(ARRIVED, "accept", NOW - timedelta(minutes=1))
    assert earlier.changed_at == NOW


REACHED: dict[DocumentState, tuple[Operation, ...]] = {
    "01": (),
    "02": ("refuse",),
    "03": ("accept",),
    "04": ("accept", "assign"),
    "05": ("accept", "assign", "start"),
    "06": ("accept", "start", "finish"),
    "13": ("accept", "recall"),
    "15": ("recall", "recall-accept"),
}


@pytest.mark.parametrize("state", list(REACHED))
@pytest.mark.parametrize("operation", list(MOVES))
def test_every_state_and_operation(state: DocumentState, operation: Operation) -> None:
    document = after(ARRIVED, *REACHED[state])
    assert document.state == state
    starts, leads_to = MOVES[operation]
    if state in starts:
        assert after(document, operation).state == leads_to
    else:
        with pytest.raises(DocumentRefusal) as refused:
            after(document, operation)
        assert (refused.value.state, refused.value.allowed) == (state, allowed(document))
