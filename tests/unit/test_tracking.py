"""What the citizen's page says of a dossier: nothing that was taken back, nothing personal, and what to do next."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from deploy.demo.sample import SAMPLE
from services.intake.dossier import Dossier, Past
from services.intake.tracking import ACTS, NOT_FOR_CITIZENS, STATES, standing, view
from shared.contracts import events as ev
from shared.contracts.codes import uuid7
from shared.directory.directory import Directory
from shared.directory.merge import merge
from shared.directory.reading import load_bundle

RECEIVED = datetime(2026, 10, 12, 1, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def directory() -> Directory:
    return Directory(merge(None, load_bundle(SAMPLE))[0])


def dossier(state: int, **more: Any) -> Dossier:
    return Dossier(
        **{
            "code": "H55.242-261012-0001",
            "procedure": "1.004873",
            "agency": "H55.242",
            "deciding_agency": "H55.242",
            "field": "G01-TP01",
            "channel": "counter",
            "return_by": "counter",
            "applicant_kind": "citizen",
            "contact_ref": "c1",
            "confidential": False,
            "mode": "live",
            "state": state,
            "received_at": RECEIVED,
            "due_at": RECEIVED + timedelta(days=3),
            **more,
        }
    )


def base(previous: int | None, state: int) -> dict[str, Any]:
    return {
        "agency": "H55.242",
        "procedure": "1.004873",
        "previous": previous,
        "state": state,
        "due_at": None,
        "paused": False,
        "by": "desk",
        "confidential": False,
    }


def received() -> ev.DossierReceived:
    return ev.DossierReceived(
        **base(None, 2),
        deciding_agency="H55.242",
        field="G01-TP01",
        channel="counter",
        return_by="counter",
        applicant_kind="citizen",
        limit=ev.LimitData(value=3, unit="working_days"),
    )


def happened(*events: ev.DossierEvent, ids: list[UUID] | None = None) -> list[Past]:
    return [
        Past(
            number + 1,
            ids[number] if ids else uuid7(),
            RECEIVED + timedelta(hours=number),
            RECEIVED + timedelta(hours=number),
            "live",
            data,
        )
        for number, data in enumerate(events)
    ]


def test_the_page_has_the_contracts_fields_and_local_times(directory: Directory) -> None:
    history = happened(received(), ev.DossierProcessingStarted(**base(2, 4)))
    seen = view(dossier(4), history, directory)
    assert list(seen) == ["code", "state", "received_at", "due_at", "where", "history", "todo"]
    assert (seen["received_at"], seen["where"]) == ("2026-10-12T08:00:00+07:00", "Xã Trung Hội")
    assert seen["history"] == [
        {"state": 2, "at": "2026-10-12T08:00:00+07:00", "act": "received"},
        {"state": 4, "at": "2026-10-12T09:00:00+07:00", "act": "processing-started"},
    ]


def test_an_act_that_was_taken_back_is_not_shown(directory: Directory) -> None:
    ids = [uuid7() for _ in range(3)]
    correction = ev.DossierCorrected(**base(4, 2), undoes=ids[1], undone_type="dossier.processing-started", reason="x")
    history = happened(received(), ev.DossierProcessingStarted(**base(2, 4)), correction, ids=ids)
    assert [past.id for past in standing(history)] == [ids[0]]
    assert [item["act"] for item in view(dossier(2), history, directory)["history"]] == ["received"]


def test_what_concerns_officers_alone_is_not_shown(directory: Directory) -> None:
    history = happened(received(), ev.DossierDueSoon(**base(2, 2)), ev.DossierOverdue(**base(2, 2)))
    assert [item["act"] for item in view(dossier(2), history, directory)["history"]] == ["received"]


def test_the_supplement_asked_for_last_is_said_without_numbers_of_persons(directory: Directory) -> None:
    first = ev.DossierSupplementRequested(**base(2, 5), reason="bản sao cũ")
    said = "Giấy chứng sinh; gọi 0912 345 678 hoặc 024095001234, nộp 2 bản."
    history = happened(received(), first, ev.DossierSupplementRequested(**base(2, 5), reason=said))
    todo = view(dossier(5), history, directory)["todo"]
    assert "Giấy chứng sinh; gọi … hoặc …, nộp 2 bản" in todo
    assert "bản sao cũ" not in todo


def test_the_amount_to_pay_is_said_as_it_is_written_at_home(directory: Directory) -> None:
    history = happened(received(), ev.DossierPaymentRequested(**base(2, 6), amount=1_500_000))
    assert "1.500.000 đồng" in view(dossier(6), history, directory)["todo"]
    assert "1,500,000 đồng" in view(dossier(6), history, directory, "en")["todo"]


def test_it_is_where_open_transfers_are(directory: Directory) -> None:
    working = {"t1": "H55.21", "t2": "H55.17", "t3": "H55.21"}
    seen = view(dossier(4, working=working), happened(received()), directory)
    assert seen["where"] == "Công an tỉnh Thái Nguyên, Bảo hiểm xã hội tỉnh Thái Nguyên"
    assert view(dossier(4, working={"t1": "H99.1"}), happened(received()), directory)["where"] == "H99.1"


@pytest.mark.parametrize("lang", ["vi", "en"])
@pytest.mark.parametrize("return_by", ["counter", "postal", "online"])
@pytest.mark.parametrize("state", range(1, 11))
def test_every_state_says_what_to_do(directory: Directory, state: int, return_by: str, lang: Any) -> None:
    todo = view(dossier(state, return_by=return_by), happened(received()), directory, lang)["todo"]
    assert todo.endswith(".")
    assert "{" not in todo


def test_every_act_that_is_shown_has_words_in_both_languages() -> None:
    shown = {
        short.removeprefix("dossier.")
        for short in ev.EVENTS
        if short.startswith("dossier.") and short not in (*NOT_FOR_CITIZENS, "dossier.corrected")
    }
    assert set(ACTS["vi"]) == set(ACTS["en"]) == shown
    assert set(STATES["vi"]) == set(STATES["en"]) == set(range(1, 11))
