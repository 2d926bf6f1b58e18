"""A petition's decisions: when its answer is due, who answers it, and what each state allows."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from deploy.demo.sample import SAMPLE
from services.intake.dossier import Refusal
from services.intake.petition import Petition, answer, file, forward, rate
from services.intake.petitions_api import NewPetition
from shared.contracts.codes import uuid7
from shared.directory.directory import Directory
from shared.directory.merge import merge
from shared.directory.reading import load_bundle

FILED = datetime(2026, 10, 12, 3, 0, tzinfo=UTC)  # a Monday


@pytest.fixture(scope="module")
def directory() -> Directory:
    return Directory(merge(None, load_bundle(SAMPLE))[0])


def filed(directory: Directory, agency: str = "H55.242") -> Petition:
    return file(uuid7(), agency, "reflection", "portal", FILED, directory, 15)[0]


def test_it_is_due_fifteen_working_days_on_by_the_agencys_calendar(directory: Directory) -> None:
    petition, event = file(uuid7(), "H55.242", "complaint", "portal", FILED, directory, 15)
    assert petition.due_at == event.due_at == datetime(2026, 11, 2, 10, 0, tzinfo=UTC)
    assert (petition.state, petition.sequence, event.agency, event.kind) == ("filed", 1, "H55.242", "complaint")


@pytest.mark.parametrize(("late_by", "on_time"), [(timedelta(0), True), (timedelta(microseconds=1), False)])
def test_the_due_instant_itself_is_on_time(directory: Directory, late_by: timedelta, on_time: bool) -> None:
    petition = filed(directory)
    answered, event = answer(petition, petition.due_at + late_by)
    assert (answered.state, answered.sequence, event.on_time) == ("answered", 2, on_time)
    assert answered.overdue(petition.due_at + timedelta(days=9)) is not on_time


def test_forwarded_it_is_the_other_agencys_and_due_as_before(directory: Directory) -> None:
    petition = filed(directory)
    passed, event = forward(petition, "H55.24", "land", FILED, directory)
    assert (passed.agency, passed.state, passed.due_at) == ("H55.24", "filed", petition.due_at)
    assert (event.agency, event.from_agency, event.to) == ("H55.24", "H55.242", "H55.24")


def test_the_last_rating_counts(directory: Directory) -> None:
    answered, _ = answer(filed(directory), FILED)
    content, _ = rate(answered, "satisfied", FILED)
    assert rate(content, "dissatisfied", FILED)[0].rating == "dissatisfied"


@pytest.mark.parametrize(
    ("move", "allowed"),
    [
        (lambda petition, directory: rate(petition, "neutral", FILED), ["answer", "forward"]),
        (lambda petition, directory: answer(answer(petition, FILED)[0], FILED), ["rating"]),
        (lambda petition, directory: forward(answer(petition, FILED)[0], "H55.24", None, FILED, directory), ["rating"]),
    ],
)
def test_a_move_that_is_not_allowed_says_what_is(
    directory: Directory, move: Callable[[Petition, Directory], Any], allowed: list[str]
) -> None:
    with pytest.raises(Refusal) as refused:
        move(filed(directory), directory)
    assert (refused.value.status, refused.value.code) == (409, "move-not-allowed")
    assert refused.value.extra["allowed"] == allowed


@pytest.mark.parametrize(
    ("to", "code"),
    [("H99", "unknown-agency"), ("H55.41", "agency-not-in-force"), ("H55.242", "same-agency")],
)
def test_it_goes_only_to_another_agency_that_is_there(directory: Directory, to: str, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        forward(filed(directory), to, None, FILED, directory)
    assert (refused.value.status, refused.value.code, refused.value.pointer) == (422, code, "/to")


def test_recorded_times_never_go_back(directory: Directory) -> None:
    petition = filed(directory)
    assert answer(petition, FILED - timedelta(hours=1))[0].recorded == petition.recorded


def test_a_contact_is_a_text_or_its_parts() -> None:
    body = {"agency": "H55.242", "kind": "letter", "text": "x"}
    as_text = NewPetition.model_validate({**body, "contact": " Bà A, 0912345678 "}).contact
    as_parts = NewPetition.model_validate({**body, "contact": {"name": "Bà A", "phone": "0912345678"}}).contact
    assert as_text is not None
    assert as_text.model_dump(exclude_none=True) == {"text": "Bà A, 0912345678"}
    assert as_parts is not None
    assert as_parts.phone == "+84912345678"


@pytest.mark.parametrize(
    ("contact", "where"),
    [("", ("contact",)), ("x" * 2001, ("contact",)), ({"phone": "12"}, ("contact", "phone")), (7, ("contact",))],
)
def test_a_bad_contact_is_named_where_it_stands(contact: Any, where: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        NewPetition.model_validate({"agency": "H55.242", "kind": "letter", "text": "x", "contact": contact})
    assert [error["loc"] for error in refused.value.errors()] == [where]
