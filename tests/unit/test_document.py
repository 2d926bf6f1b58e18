"""Official documents between agencies: their ids, states and recalls."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from services.routing.document import (
    DOCUMENT_TOPIC,
    MOVES,
    Document,
    DocumentRefusal,
    Operation,
    again,
    allowed,
    arrive,
    asked_back,
    document_id,
    envelope_of,
    hear,
    move,
    referred,
    sent,
)
from shared.contracts.codes import uuid7
from shared.contracts.envelope import Envelope, parse
from shared.contracts.events import DocumentEvent, DocumentRecallRequested, DocumentSent, DocumentState

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


# ------------------------------------------------------------------------------------------------- between two sites


class Story:
    """A document of H55.242's site at the site that works on it, and what each has said that the other has not heard."""

    def __init__(self) -> None:
        self.home = replace(ARRIVED, version=1, worked_at="H55")
        [said] = sent(self.home)
        assert isinstance(said, DocumentSent)
        self.there, made = arrived_at(said)
        self.said = [event for _, event in made if not isinstance(event, DocumentSent)]

    def do(self, operation: Operation) -> None:
        self.there, event = move(self.there, operation, NOW, **needs(operation))
        self.said.append(event)

    def recall(self) -> DocumentRecallRequested:
        self.home, event = move(self.home, "recall", NOW, reason="nhầm số")
        assert isinstance(event, DocumentRecallRequested)
        return event

    def asked_back(self, event: DocumentRecallRequested) -> bool:
        if (heard := asked_back(self.there, event, NOW)) is None:
            return False
        self.there = heard[0]
        return True

    def hear(self) -> list[str]:
        """Home hears all; the events that it makes of it."""
        made = []
        for each in self.said:
            if (heard := hear(self.home, each, NOW)) is not None:
                self.home = heard[0]
                made += [] if heard[1] is None else [heard[1].short.removeprefix("document.")]
        self.said.clear()
        return made

    @property
    def states(self) -> tuple[str, str]:
        return self.home.state, self.there.state


def arrived_at(said: DocumentSent, *, here: bool = True) -> tuple[Document, list[tuple[Document, DocumentEvent]]]:
    return arrive(said, "H55.242", NOW, here=here)


def test_between_two_sites_each_act_is_followed_at_home() -> None:
    story = Story()
    assert not story.home.arrived
    assert allowed(story.home) == ()
    for operation in ("accept", "assign", "start", "finish"):
        story.do(operation)
    said = list(story.said)
    assert story.hear() == ["arrived", "accepted", "assigned", "started", "finished"]
    assert story.states == ("06", "06")
    assert (story.home.assignee, story.home.version) == ("Phòng Tư pháp", 6)
    story.said = said[:1]  # once more
    assert story.hear() == []


def test_a_refusal_comes_home_with_its_reason() -> None:
    story = Story()
    story.do("refuse")
    assert story.hear() == ["arrived", "refused"]
    assert (story.states, story.home.reason) == (("02", "02"), "lý do")


def test_an_agency_that_is_not_there_refuses_by_the_system() -> None:
    [said] = sent(replace(ARRIVED, version=1, worked_at="H55"))
    assert isinstance(said, DocumentSent)
    document, made = arrived_at(said, here=False)
    assert (document.state, document.version) == ("02", 3)
    assert [event.short for _, event in made] == ["document.sent", "document.arrived", "document.refused"]


@pytest.mark.parametrize(("answer", "state"), [("recall-accept", "15"), ("recall-refuse", "16")])
def test_asked_back_while_work_was_done_on_the_other_side_of_the_line(answer: Operation, state: str) -> None:
    story = Story()
    story.do("accept")
    story.hear()
    asked = story.recall()
    story.do("start")  # before it hears of the recall
    assert story.asked_back(asked)
    assert story.hear() == []
    assert story.states == ("13", "13")
    story.do(answer)
    story.hear()
    assert story.states == (state, state)
    if answer == "recall-refuse":
        assert story.home.before == story.there.before == "05"
        story.do("finish")
        story.hear()
        assert story.states == ("06", "06")


def envelope_at(sequence: int, said: DocumentEvent) -> Envelope:
    return Envelope(
        topic=DOCUMENT_TOPIC, id=uuid7(), source="/sites/H55.242/routing", type=said.short, subject=said.document,
        time=NOW, recorded=NOW, sequence=sequence, mode="live", data=said.to_json(),
    )  # fmt: skip


def test_after_a_loss_a_document_stands_again_by_the_words_of_both() -> None:
    """Home has lost all; its own words come back from the ledger, those between them are said again by the other site."""
    story = Story()
    [said] = sent(story.home)
    story.do("accept")
    answers = list(story.said)  # arrived, accepted
    story.hear()
    asked = story.recall()
    assert story.home.version == 4
    lost = story.home

    first = again(None, said, envelope_at(1, said), worked_at="H55")
    assert first is not None
    assert first.version == 1
    assert not first.arrived
    assert again(None, asked, envelope_at(4, asked), worked_at="H55") is None
    assert again(first, asked, envelope_at(4, asked), worked_at="H55") is None  # what was answered comes before
    story.home = first
    story.said = answers
    assert story.hear() == ["arrived", "accepted"]
    stands = again(story.home, asked, envelope_at(4, asked), worked_at="H55")
    assert stands == lost
    assert stands is not None
    assert stands.before == "03"


def test_asked_back_after_it_was_refused_it_stays_refused_at_both() -> None:
    story = Story()
    story.hear()
    asked = story.recall()
    story.do("refuse")
    assert not story.asked_back(asked)
    story.hear()
    assert story.states == ("02", "02")
