"""`POST /v1/imports`: each line applied, known already, or refused by itself."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from deploy.cli.lines import chunks_of
from shared.security.tokens import Role
from tests.harness import BusRecord, RunningSite
from tests.integration.intake_site import (
    HOME,
    NOT_ONLINE,
    OTHER,
    ROUTED,
    SAME_DAY,
    act,
    ahead,
    client,
    done,
    dossier,
    history,
    imported,
    ndjson,
    person,
    received,
    refused,
    site,
)

__all__ = ["site"]

NDJSON = {"content-type": "application/x-ndjson"}
MARCH = "2026-03-02T08:00:00+07:00"


@pytest.fixture
def admin(site: RunningSite) -> httpx.AsyncClient:
    return client(site, Role.ADMIN)


@pytest.fixture
def desk(site: RunningSite) -> httpx.AsyncClient:
    return client(site, Role.DESK, HOME)


def receive(ref: str, **more: Any) -> dict[str, Any]:
    return {
        "op": "receive",
        "ref": ref,
        **dossier(received_at=MARCH, applicant={"kind": "citizen", "name": ref}),
        **more,
    }


def submit(ref: str, **more: Any) -> dict[str, Any]:
    applicant = {"kind": "citizen", "name": ref}
    return {"op": "submit", "ref": ref, **dossier(submitted_at=MARCH, applicant=applicant, **more)}


def statuses(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["status"] for answer in answers]


async def everything(site: RunningSite) -> list[str]:
    """All that intake holds but what the relay does with it."""
    found = []
    for table in ("dossier", "event", "contact", "counter", "source", "reference", "imported", "imported_id", "remark"):
        found += [
            f"{table} {row['row']}"
            for row in await site.fetch(f"SELECT t::text AS row FROM intake.{table} t ORDER BY 1")
        ]
    return found


# ----------------------------------------------------------------------------------------------- what lines do


async def test_a_register_of_whole_lives(admin: httpx.AsyncClient) -> None:
    answers = await imported(
        admin,
        [
            receive("a"),
            {"op": "start", "ref": "a", "at": "2026-03-02T09:00:00+07:00"},
            {"op": "supplement-request", "ref": "a", "reason": "thiếu", "at": "2026-03-03T08:00:00+07:00"},
            {"op": "supplement", "ref": "a", "at": "2026-03-10T08:00:00+07:00"},
            {"op": "resolution", "ref": "a", "result": "granted", "at": "2026-03-11T08:00:00+07:00"},
            {"op": "return", "ref": "a", "by": "counter", "at": "2026-03-12T08:00:00+07:00"},
            {"op": "rating", "ref": "a", "level": "satisfied", "comment": "Tốt", "at": "2026-03-12T08:00:00+07:00"},
        ],
        source="lives",
    )
    assert statuses(answers) == ["applied"] * 7
    assert [answer["line"] for answer in answers] == list(range(1, 8))
    assert {answer["ref"] for answer in answers} == {"a"}
    (code,) = {answer["code"] for answer in answers}
    assert code.startswith("H55.242-260302-")
    read = (await admin.get(f"/v1/dossiers/{code}")).json()
    assert (read["state"], read["due_at"]) == (10, "2026-03-12T17:00:00+07:00")
    items = await history(admin, code)
    assert [item["at"] for item in items][:2] == ["2026-03-02T08:00:00+07:00", "2026-03-02T09:00:00+07:00"]
    assert {item["by"] for item in items} == {"import"}


async def test_a_later_import_goes_on_by_ref(admin: httpx.AsyncClient) -> None:
    (first,) = await imported(admin, [receive("later")], source="later")
    (start,) = await imported(admin, [{"op": "start", "ref": "later"}], source="later")
    assert (start["status"], start["code"]) == ("applied", first["code"])
    (unknown,) = await imported(admin, [{"op": "start", "ref": "later"}], source="another")
    assert (unknown["status"], unknown["error"]["code"], unknown["error"]["pointer"]) == (
        "refused",
        "unknown-ref",
        "/ref",
    )


async def test_received_at_beats_at(admin: httpx.AsyncClient) -> None:
    both, only_at = await imported(
        admin,
        [receive("both", at="2026-03-09T08:00:00+07:00"), {**_without(receive("at"), "received_at"), "at": MARCH}],
        source="times",
    )
    for answer in (both, only_at):
        assert (await admin.get(f"/v1/dossiers/{answer['code']}")).json()["received_at"] == MARCH


def _without(body: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in names}


async def test_the_same_content_is_a_duplicate(admin: httpx.AsyncClient) -> None:
    line = receive("twin")
    reordered = orjson.dumps(dict(reversed(line.items()))).replace(b'":', b'" : ') + b"\n"
    answers = await imported(admin, [line, reordered, line], source="twins")
    assert statuses(answers) == ["applied", "duplicate", "duplicate"]
    assert len({answer["code"] for answer in answers}) == 1
    assert statuses(await imported(admin, [line], source="twins")) == ["duplicate"]
    assert statuses(await imported(admin, [line], source="other twins")) == ["applied"]


async def test_an_id_stands_for_one_content(admin: httpx.AsyncClient) -> None:
    line = receive("numbered", id="7")
    answers = await imported(
        admin, [line, line, receive("other", id="7"), {"op": "start", "ref": "numbered", "id": "7"}], source="ids"
    )
    assert statuses(answers) == ["applied", "duplicate", "refused", "refused"]
    assert answers[2]["error"]["pointer"] == "/id"
    assert statuses(await imported(admin, [line, receive("other", id="7")], source="ids")) == ["duplicate", "refused"]
    # the same act on two ids is meant twice
    pay = {"op": "payment", "ref": "numbered", "amount": 5, "method": "counter"}
    paid = await imported(admin, [{**pay, "id": "8"}, {**pay, "id": "9"}, {**pay, "id": "9"}], source="ids")
    assert statuses(paid) == ["applied", "applied", "duplicate"]
    assert (await admin.get(f"/v1/dossiers/{answers[0]['code']}")).json()["paid"] == 10


async def test_submitted_then_received(admin: httpx.AsyncClient) -> None:
    answers = await imported(
        admin,
        [
            submit("s1"),
            submit("s1", channel="postal"),
            {"op": "receive", "ref": "s1", "at": "2026-03-03T08:00:00+07:00"},
            submit("s2"),
            {**receive("s2"), "received_at": "2026-03-04T08:00:00+07:00", "due_at": "2026-04-01T17:00:00+07:00"},
            receive("s2", channel="online"),
            submit("s3"),
            {"op": "receive", "ref": "s3", "received_at": "2026-03-05T08:00:00+07:00"},
            submit("s4"),
            {"op": "refuse", "ref": "s4", "reason": "sai nơi nộp", "at": "2026-03-05T08:00:00+07:00"},
        ],
        source="submissions",
    )
    assert statuses(answers) == [
        *("applied", "refused", "applied"),
        *("applied", "applied", "refused"),
        *("applied", "applied", "applied", "applied"),
    ]
    found = [(await admin.get(f"/v1/dossiers/{answers[i]['code']}")).json() for i in (2, 4, 7, 9)]
    assert [d["state"] for d in found] == [2, 2, 2, 3]
    assert found[1]["due_at"] == "2026-04-01T17:00:00+07:00"
    assert found[2]["received_at"] == "2026-03-05T08:00:00+07:00"


async def test_kept_codes(admin: httpx.AsyncClient) -> None:
    kept = "000.00.17.H55-20240229-0000042"
    answers = await imported(
        admin,
        [
            receive("k1", code=kept),
            receive("k2", code=kept),
            receive("k3", code="H55.242-240230-0001"),
            receive("k4", code="H55.242-1-1"),
            receive("k5", code=None),
            submit("k6", code="H55.242-240229-0001"),
        ],
        source="kept",
    )
    assert statuses(answers) == ["applied", "refused", "refused", "refused", "applied", "applied"]
    assert [answers[i]["code"] for i in (0, 5)] == [kept, "H55.242-240229-0001"]
    assert [answers[i]["error"]["pointer"] for i in (1, 2, 3)] == ["/code"] * 3
    assert (await admin.get(f"/v1/dossiers/{kept}")).status_code == 200


async def test_a_kept_code_that_would_have_been_issued_is_left_out(admin: httpx.AsyncClient) -> None:
    day = {"received_at": "2026-04-06T08:00:00+07:00"}
    answers = await imported(
        admin,
        [
            receive("c1", **day),
            receive("c2", **day, code="H55.242-260406-0003"),
            receive("c3", **day),
            receive("c4", **day),
        ],
        source="collisions",
    )
    assert [a["code"][-4:] for a in answers] == ["0001", "0003", "0002", "0004"]
    (kept,) = await imported(admin, [receive("c5", **day, code="H55.242-260406-0005")], source="collisions")
    assert kept["status"] == "applied"
    assert (await received(admin, **day))["code"] == "H55.242-260406-0006"


async def test_a_kept_due_date(admin: httpx.AsyncClient) -> None:
    answers = await imported(
        admin,
        [
            receive("d1", due_at="2026-03-12T17:00:00+07:00"),
            {"op": "supplement-request", "ref": "d1", "reason": "thiếu", "at": "2026-03-03T08:00:00+07:00"},
            {"op": "supplement", "ref": "d1", "at": "2026-03-10T08:00:00+07:00"},
            receive("d2", due_at="9999-12-31T23:59:59Z"),
        ],
        source="due",
    )
    assert statuses(answers) == ["applied", "applied", "applied", "refused"]
    assert answers[3]["error"]["pointer"] == "/due_at"
    assert (await admin.get(f"/v1/dossiers/{answers[0]['code']}")).json()["due_at"] == "2026-03-19T17:00:00+07:00"


# --------------------------------------------------------------------------------------------- refused lines

BAD_LINES: list[tuple[Any, str]] = [
    (b"{\n", ""),
    (b"\xff\xfe\n", ""),
    (b'{"op":"receive","ref":"\xff"}\n', ""),
    (b"[]\n", ""),
    (b"null\n", ""),
    (b'{"op":"receive","ref":"x","n":NaN}\n', ""),
    (b'{"a":' * 2000 + b"1" + b"}" * 2000 + b"\n", ""),
    ({"op": "receive"}, "/ref"),
    ({"op": "receive", "ref": ""}, "/ref"),
    ({"op": "receive", "ref": 5}, "/ref"),
    ({"op": "receive", "ref": "x" * 201}, "/ref"),
    ({"op": "receive", "ref": "a\u0000b"}, "/ref"),
    ({"op": "fly", "ref": "x"}, "/op"),
    ({"ref": "x"}, "/op"),
    ({"op": ["receive"], "ref": "x"}, "/op"),
    ({"op": "start", "ref": "x", "id": 5}, "/id"),
    ({"op": "start", "ref": "x", "at": 5}, "/at"),
    ({"op": "start", "ref": "x", "at": "2026-03-02T08:00:00"}, "/at"),
    ({"op": "start", "ref": "nobody"}, "/ref"),
    ({"op": "refuse", "ref": "x"}, "/reason"),
    ({"op": "start", "ref": "x", "colour": "red"}, "/colour"),
    (receive("x", procedure="9.999999"), "/procedure"),
    (receive("x", receiving_agency="H55.999"), "/receiving_agency"),
    (receive("x", received_at="2024-03-02T08:00:00+07:00"), "/receiving_agency"),
    (receive("x", received_at=ahead(hours=1)), "/received_at"),
    (receive("x", applicant=person(phone="123")), "/applicant/phone"),
    (receive("x", colour="red"), "/colour"),
    (submit("x", due_at=ahead(days=3)), "/due_at"),
    (submit("x", procedure=NOT_ONLINE, channel="online"), "/channel"),
]


async def test_refused_lines_leave_no_trace_and_hold_nothing_up(site: RunningSite, admin: httpx.AsyncClient) -> None:
    before = await everything(site)
    answers = await imported(admin, [line for line, _ in BAD_LINES], source="lives")
    for answer, (line, pointer) in zip(answers, BAD_LINES, strict=True):
        assert (answer["status"], answer["error"]["pointer"], answer["code"]) == ("refused", pointer, None), (
            line,
            answer,
        )
        assert answer["error"]["code"]
        assert answer["error"]["detail"]
    assert await everything(site) == before
    mixed = [part for number, (line, _) in enumerate(BAD_LINES) for part in (receive(f"m{number}"), line)]
    answers = await imported(admin, mixed, source="mixed")
    assert statuses(answers) == ["applied", "refused"] * len(BAD_LINES)
    numbers = sorted(int(answer["code"][-4:]) for answer in answers if answer["code"])
    assert numbers == list(range(numbers[0], numbers[0] + len(BAD_LINES)))  # none was wasted on a refused line


async def test_a_refused_operation_leaves_the_dossier_as_it_was(admin: httpx.AsyncClient) -> None:
    answers = await imported(
        admin,
        [
            receive("r"),
            {"op": "return", "ref": "r", "by": "counter"},
            {"op": "start", "ref": "r", "at": "2026-03-01T08:00:00+07:00"},
            {"op": "start", "ref": "r", "at": MARCH},
        ],
        source="operations",
    )
    assert statuses(answers) == ["applied", "refused", "refused", "applied"]
    assert (answers[1]["error"]["code"], answers[1]["error"]["state"]) == ("move-not-allowed", 2)
    assert answers[2]["error"]["code"] == "time-goes-back"
    assert len(await history(admin, answers[0]["code"])) == 2


async def test_blank_lines_are_skipped_and_counted(admin: httpx.AsyncClient) -> None:
    body = b"\n\r\n  \n" + ndjson([receive("b1")]).replace(b"\n", b"\r\n") + b"\t\n" + orjson.dumps(receive("b2"))
    answers = await imported(admin, body, source="blank")
    assert [(a["line"], a["status"]) for a in answers] == [(4, "applied"), (6, "applied")]
    assert await imported(admin, b"", source="blank") == []
    assert await imported(admin, b"\n\n", source="blank") == []


async def test_a_desk_imports_for_its_agency_only(
    site: RunningSite, admin: httpx.AsyncClient, desk: httpx.AsyncClient
) -> None:
    (theirs,) = await imported(admin, [receive("theirs", receiving_agency=OTHER)], source="scopes")
    answers = await imported(
        desk,
        [receive("mine"), receive("not mine", receiving_agency=OTHER), {"op": "start", "ref": "theirs"}],
        source="scopes",
    )
    assert statuses(answers) == ["applied", "refused", "refused"]
    assert answers[1]["error"]["pointer"] == "/receiving_agency"
    assert (await admin.get(f"/v1/dossiers/{theirs['code']}")).json()["state"] == 2


# ----------------------------------------------------------------------------------------------- the request


async def test_limits_of_a_request(site: RunningSite, admin: httpx.AsyncClient) -> None:
    before = await everything(site)
    many = ndjson([receive("x")]) + b'{"op":"start","ref":"x"}\n' * 10_000
    refused(await admin.post("/v1/imports?source=big", content=many, headers=NDJSON), 413, "too-many-lines")
    large = ndjson([receive("x")]) + b" " * (16 << 20)
    refused(await admin.post("/v1/imports?source=big", content=large, headers=NDJSON), 413, "too-large")

    async def in_pieces() -> Any:
        for start in range(0, len(large), 1 << 20):
            yield large[start : start + (1 << 20)]

    refused(await admin.post("/v1/imports?source=big", content=in_pieces(), headers=NDJSON), 413, "too-large")
    assert await everything(site) == before
    most = b'{"op":"start","ref":"nobody"}\n' * 9_999 + b" " * 1000 + b"\n"
    assert len(await imported(admin, most, source="big")) == 9_999


async def test_wrong_requests(admin: httpx.AsyncClient) -> None:
    for query in (
        "",
        "?source=",
        "?source=a&mode=fast",
        "?source=a&dry_run=perhaps",
        "?source=a&x=1",
        "?source=" + "x" * 201,
    ):
        answer = await admin.post(f"/v1/imports{query}", content=b"", headers=NDJSON)
        refused(answer, 422, answer.json()["code"])
    image = {"content-type": "image/png"}
    refused(await admin.post("/v1/imports?source=a", content=b"x", headers=image), 415, "media-type")


async def test_a_dry_run_says_the_same_and_leaves_nothing(site: RunningSite, admin: httpx.AsyncClient) -> None:
    lines = [
        receive("dry", code="H55.242-240101-0009"),
        receive("dry2"),
        {"op": "start", "ref": "dry2"},
        {"op": "start", "ref": "dry2", "id": "again"},
        receive("dry2"),
        b"{\n",
    ]
    before = await everything(site)
    dry = await imported(admin, lines, source="dry", dry_run="true")
    assert statuses(dry) == ["applied", "applied", "applied", "refused", "duplicate", "refused"]
    assert await everything(site) == before
    assert statuses(await imported(admin, lines, source="dry")) == statuses(dry)
    assert set(statuses(await imported(admin, lines[:3], source="dry", dry_run="true"))) == {"duplicate"}


async def test_mode_history_is_states_and_figures_only(site: RunningSite, admin: httpx.AsyncClient) -> None:
    answers = await imported(
        admin,
        [
            receive("h1", procedure=ROUTED),
            {"op": "start", "ref": "h1", "at": MARCH},
            {"op": "resolution", "ref": "h1", "result": "granted", "at": "2026-03-12T08:00:00+07:00"},
            receive("h2", procedure=ROUTED),
        ],
        source="history",
        mode="history",
    )
    assert statuses(answers) == ["applied"] * 4
    codes = sorted({answer["code"] for answer in answers})
    assert (
        await site.value("SELECT count(*) FROM intake.dossier WHERE code = ANY ($1) AND next_tick IS NOT NULL", codes)
        == 0
    )
    modes = await site.fetch("SELECT DISTINCT mode FROM intake.event WHERE aggregateid = ANY ($1)", codes)
    assert [row["mode"] for row in modes] == ["history"]
    items = await history(admin, codes[0])
    assert {item["mode"] for item in items} == {"history"}

    found: list[BusRecord] = []

    async def published() -> bool:
        found[:] = [r for r in await site.bus.records("lienthong.dossier.v1") if r.header["ce_subject"] in codes]
        return len({record.header["ce_id"] for record in found}) == 4  # at least once each

    await site.until(published, what=lambda: [record.header for record in found])
    assert {record.header["ce_mode"] for record in found} == {"history"}


async def test_a_live_import_asks_for_transfers(admin: httpx.AsyncClient) -> None:
    answers = await imported(
        admin,
        [
            receive("l1", procedure=ROUTED),
            {"op": "start", "ref": "l1"},
            {"op": "resolution", "ref": "l1", "result": "granted"},
        ],
        source="routes",
    )
    assert statuses(answers) == ["applied", "applied", "refused"]
    assert (answers[2]["error"]["code"], len(answers[2]["error"]["transfers"])) == ("transfers-open", 1)


async def test_one_person_has_one_contact(site: RunningSite, admin: httpx.AsyncClient) -> None:
    who = {"kind": "citizen", "name": "Trần Thị Một", "citizen_id": "012345670000"}
    answers = await imported(
        admin, [receive(f"p{i}", applicant={**who, "name": f"Trần Thị {i}"}) for i in range(5)], source="people"
    )
    assert statuses(answers) == ["applied"] * 5
    refs = await site.fetch(
        "SELECT DISTINCT contact_ref FROM intake.dossier WHERE code = ANY ($1)", [a["code"] for a in answers]
    )
    assert len(refs) == 1
    read = (await admin.get(f"/v1/dossiers/{answers[0]['code']}")).json()
    assert read["applicant"]["name"] == "Trần Thị 4"


# ------------------------------------------------------------------------------------------- twice, and cut


def register(count: int) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for i in range(count):
        lines += [
            receive(f"n{i}", applicant={"kind": "citizen", "name": f"Người {i}", "citizen_id": f"{i % 40:012}"}),
            {"op": "start", "ref": f"n{i}", "at": MARCH},
            {"op": "resolution", "ref": f"n{i}", "result": "granted", "at": "2026-03-03T08:00:00+07:00"},
        ]
    return lines


async def states_of(site: RunningSite, source: str) -> list[tuple[str, int, int]]:
    rows = await site.fetch(
        """SELECT r.ref, d.state, d.sequence FROM intake.reference r JOIN intake.source s ON s.number = r.source
           JOIN intake.dossier d USING (code) WHERE s.name = $1 ORDER BY r.ref""",
        source,
    )
    return [(row["ref"], row["state"], row["sequence"]) for row in rows]


async def test_two_imports_of_one_file_at_once_end_the_same(site: RunningSite, admin: httpx.AsyncClient) -> None:
    lines = register(600)
    both = await asyncio.gather(imported(admin, lines, source="race"), imported(admin, lines, source="race"))
    for answers in both:
        assert "refused" not in statuses(answers)
    together = [{a["status"], b["status"]} for a, b in zip(*both, strict=True)]
    assert all(pair == {"applied", "duplicate"} for pair in together)
    assert all(a["code"] == b["code"] for a, b in zip(*both, strict=True))
    found = await states_of(site, "race")
    assert len(found) == 600
    assert {(state, sequence) for _, state, sequence in found} == {(9, 3)}


async def test_an_import_that_was_cut_and_sent_again(site: RunningSite, admin: httpx.AsyncClient) -> None:
    lines = register(700)
    first = asyncio.create_task(imported(admin, lines, source="cut"))
    await site.until(lambda: states_of(site, "cut"))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    again = await imported(admin, lines, source="cut")
    assert set(statuses(again)) <= {"applied", "duplicate"}
    whole = await imported(admin, lines, source="whole")
    assert set(statuses(whole)) == {"applied"}
    assert await states_of(site, "cut") == await states_of(site, "whole")


async def test_work_goes_on_at_the_desk_after_an_import(admin: httpx.AsyncClient, desk: httpx.AsyncClient) -> None:
    (answer,) = await imported(admin, [receive("desk")], source="desk", mode="history")
    await done(desk, answer["code"], "supplement-request", reason="thiếu")
    assert (await act(desk, answer["code"], "supplement")).status_code == 200


async def test_a_register_with_vietnamese_headers_comes_in_as_history(site: RunningSite, tmp_path: Path) -> None:
    file = tmp_path / "so-theo-doi.csv"
    file.write_text(
        "Mã hồ sơ,Mã thủ tục,Đơn vị tiếp nhận,Họ và tên,Ngày tiếp nhận,Ngày hẹn trả,Ngày trả\n"
        f"{HOME}-250806-7001,{SAME_DAY},{HOME},Nguyễn Thị Bưởi,06/08/2025,06/08/2025,07/08/2025\n"
        f"{HOME}-250806-7002,9.999999,{HOME},Lê Văn Bình,06/08/2025,,\n",
        encoding="utf-8",
    )
    desk = client(site, Role.DESK, HOME)
    (chunk,) = chunks_of(file)
    answers = await imported(desk, chunk.body, source="so-theo-doi", mode="history")
    assert [answer["status"] for answer in answers] == ["applied"] * 3 + ["refused"]
    assert answers[3]["error"]["pointer"] == "/procedure"
    found = (await desk.get(f"/v1/dossiers/{HOME}-250806-7001")).json()
    assert (found["state"], found["due_at"]) == (10, "2025-08-06T17:00:00+07:00")
