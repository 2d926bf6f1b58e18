"""stats on a running site: what intake publishes is counted, shown, published and rebuilt."""

import asyncio
import csv
import io
import random
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import openpyxl
import orjson
import pytest

from services.stats.app import TOPICS
from services.stats.figures import indicators
from services.stats.indicator import Period, local_midnight
from services.stats.pages import shown
from services.stats.published import ScheduledReports
from services.stats.rebuild import Rebuild, Source, connection_in_micros, rebuild
from services.stats.store import Question, Store, at_one_instant
from shared.contracts.codes import LOCAL_ZONE, uuid7
from shared.contracts.envelope import Envelope
from shared.contracts.events import (
    DocumentArrived,
    DocumentFinished,
    EventData,
    PetitionAnswered,
    PetitionFiled,
    TransferCompleted,
    TransferDelivered,
)
from shared.security.tokens import Role
from shared.store.pool import Connection
from tests.contract.test_index766 import PUBLISHED, counts_of
from tests.harness import Backing, RunningSite, real_services, running_site
from tests.property.indicator_register import AGENCIES, Life, Told, register

MARCH = {"from": "2026-03-01", "to": "2026-03-31"}
COMMUNE = "H55.242"
JSON = {"content-type": "application/json"}
RESTATED = "SELECT number, dossier, from_day, to_day, changes, event, known FROM stats.restatement ORDER BY number"


@pytest.fixture
async def site(backing: Backing) -> AsyncIterator[RunningSite]:
    async with running_site(backing, *real_services("intake", "routing", "stats")) as site:
        await site.reading()
        yield site


async def publish(site: RunningSite, lives: Sequence[tuple[str, Sequence[Told]]]) -> None:
    """Lets intake record these events, as if its own decisions had made them."""
    envelopes = [told.envelope for _, events in lives for told in events]
    await append(site, "intake", envelopes)
    await counted(site, {events[0].envelope.subject: len(events) for _, events in lives})


async def append(site: RunningSite, owner: str, envelopes: Sequence[Envelope]) -> None:
    service = site.services[owner]
    async with service.pool.acquire() as connection, connection.transaction():
        await service.log.append(connection, envelopes)
    service.wake()


async def counted(site: RunningSite, heads: dict[str, int]) -> None:
    async def reached() -> Any:
        rows = await site.fetch("SELECT key, sequence FROM stats.inbox WHERE key = ANY ($1)", list(heads))
        return {row["key"]: row["sequence"] for row in rows} == heads

    await site.until(reached)


def of(topic: str, key: str, sequence: int, data: EventData, at: datetime) -> Envelope:
    return Envelope(topic, uuid7(), "/sites/H55/routing", data.short, key, at, at, sequence, "live", data.to_json())


async def get(client: httpx.AsyncClient, path: str, **parameters: Any) -> Any:
    answer = await client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def nothing_to_put(self: Rebuild, table: str, rows: Sequence[Any]) -> None:
    """What is the same is seen without PostgreSQL's judgement: nothing is written beside."""
    raise AssertionError(f"{table}: {rows}")


async def test_promise_8_counts_shows_and_rebuilds(site: RunningSite, monkeypatch: pytest.MonkeyPatch) -> None:
    await publish(site, register(7, 40))
    client = site.client("stats")
    root = "H55"
    figures = await get(client, "/v1/indicators", agency=root, subtree="true", **MARCH)
    assert figures["received"]["total"] == figures["resolved"]["total"] + figures["pending"]["total"] > 0
    assert figures["as_of"] == "2026-03-31T23:59:59.999999+07:00"
    assert set(figures["freshness"]) == {"complete_to", "sites"}
    behind = await get(client, "/v1/indicators/dossiers", agency=root, subtree="true", cell="received.total", **MARCH)
    assert len(behind["items"]) == figures["received"]["total"]
    assert all(item["code"] for item in behind["items"])

    first = await get(
        client, "/v1/indicators/dossiers", agency=root, subtree="true", cell="received.total", limit=3, **MARCH
    )
    more = await get(
        client,
        "/v1/indicators/dossiers",
        agency=root,
        subtree="true",
        cell="received.total",
        cursor=first["next_cursor"],
        limit=1000,
        **MARCH,
    )
    assert first["items"] + more["items"] == behind["items"]

    report = await get(client, "/v1/reports/II.06a", agency=root, subtree="true", **MARCH)
    assert report["total"]["received"]["total"] == figures["received"]["total"]
    assert report["total"]["resolved"]["late"] == figures["resolved"]["late"]
    await _same_rows_in_csv_and_xlsx(client, report, root)

    live = await site.fetch("SELECT f::text AS row FROM stats.fact f ORDER BY 1")
    monkeypatch.setattr(Rebuild, "_put", nothing_to_put)
    done = (await client.post("/v1/rebuild")).json()
    assert done["equal"] is True, done
    assert done["dossiers"] == 40
    assert await site.fetch("SELECT f::text AS row FROM stats.fact f ORDER BY 1") == live


async def _same_rows_in_csv_and_xlsx(client: httpx.AsyncClient, report: dict[str, Any], root: str) -> None:
    question = {"agency": root, "subtree": "true", **MARCH}
    text = (await client.get("/v1/reports/II.06a", params={**question, "format": "csv"})).content
    assert text.startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(io.StringIO(text.decode("utf-8-sig"))))
    assert {len(row) for row in rows} == {13}
    assert len(rows) == len(report["rows"]) + 2
    assert rows[-1][2] == str(report["total"]["received"]["total"])
    book = await workbook(client, "/v1/reports/II.06a", question)
    plain = [
        ["" if value is None else str(value) for value in row] for row in book.worksheets[0].iter_rows(values_only=True)
    ]
    assert plain == rows
    assert {cell.number_format for row in book.worksheets[0].iter_rows(2, min_col=3) for cell in row} == {"#,##0"}
    form = book.worksheets[1]
    cells = list(form.iter_rows(values_only=True))
    assert cells[0][6] == "CỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM"
    assert cells[5][0] == "Kỳ báo cáo: Từ ngày 01/03/2026 đến ngày 31/03/2026"
    top = next(at for at, row in enumerate(cells) if row[0] == "(1)") + 1
    assert [[str(value) for value in row] for row in cells[top : top + len(rows) - 2]] == rows[1:-1]
    assert [str(value) for value in cells[top + len(rows) - 2][2:]] == rows[-1][2:]
    assert any(row[8] == "THỦ TRƯỞNG ĐƠN VỊ" for row in cells)
    assert {"A8:A9", "C8:F8", "G8:J8", "K8:M8"} <= {str(area) for area in form.merged_cells.ranges}
    page = (await client.get("/v1/reports/II.06a", params={**question, "format": "html"})).text
    assert "@media print" in page
    assert f"<strong>{shown(report['total']['received']['total'])}</strong>" in page


async def workbook(client: httpx.AsyncClient, path: str, question: dict[str, Any]) -> openpyxl.Workbook:
    """The report as a spreadsheet program would show it: formulas by the value that they hold."""
    answer = await client.get(path, params={**question, "format": "xlsx"})
    assert answer.status_code == 200, answer.text
    return openpyxl.load_workbook(io.BytesIO(answer.content), data_only=True)


async def test_a_published_report_stays_and_its_restatements_point_at_it(site: RunningSite) -> None:
    life = Life(f"{COMMUNE}-260303-0001", COMMUNE, random.Random(1))
    life.now = datetime(2026, 3, 3, 3, tzinfo=UTC)
    life.receive()
    await publish(site, [(life.agency, life.events)])
    client = site.client("stats", Role.LEADER, "H55", subtree=True)
    quarter = {"from": "2025-12-15", "to": "2026-03-14"}
    wanted = {"agency": COMMUNE, **quarter}
    key = {"Idempotency-Key": "quarter"}
    made = await client.post("/v1/published-reports", json=wanted, headers=key)
    assert made.status_code == 201, made.text
    number = made.json()["number"]
    assert number == f"II.06a-{COMMUNE}-2026-Q1-1"
    assert (await client.post("/v1/published-reports", json=wanted, headers=key)).json() == made.json()
    assert (await client.post("/v1/published-reports", json=wanted)).json()["number"].endswith("-Q1-2")
    before = await get(client, f"/v1/published-reports/{number}")
    assert before["total"]["pending"]["total"] == 1
    assert before["restatements"] == []

    life.now += timedelta(minutes=1)
    life.recorded = datetime.now(UTC)
    life.stop()
    await append(site, "intake", [life.events[-1].envelope])
    await counted(site, {life.code: 2})
    after = await get(client, f"/v1/published-reports/{number}")
    assert (after["rows"], after["total"]) == (before["rows"], before["total"])
    assert after["restated"] == 1
    assert after["restatements"][0]["changes"]["resolved.total"] == 1
    sheet = (await workbook(client, f"/v1/published-reports/{number}", {})).worksheets
    assert sheet[0].cell(sheet[0].max_row, 11).value == 1
    assert sheet[1].cell(3, 1).value == f"Số: {number}"
    items = (await get(client, "/v1/restatements", agency=COMMUNE))["items"]
    told = next(item for item in items if item["from"] == quarter["from"])
    assert told["reports"] == [number, f"II.06a-{COMMUNE}-2026-Q1-2"]
    listed = (await get(client, "/v1/published-reports", agency="H55", subtree="true"))["items"]
    assert [entry["restated"] for entry in listed] == [1, 1]

    desk = site.client("stats", Role.DESK, COMMUNE)
    assert (await desk.post("/v1/published-reports", json=wanted)).status_code == 403
    assert (await desk.get(f"/v1/published-reports/{number}")).status_code == 200
    assert (await site.client("stats", Role.DESK, "H55.201").get(f"/v1/published-reports/{number}")).status_code == 403
    open_period = {**wanted, "to": "2100-01-01"}
    refused = await client.post("/v1/published-reports", json=open_period)
    assert refused.json()["errors"][0]["pointer"] == "/to"
    assert (await client.get("/v1/published-reports/nothing")).status_code == 404


async def test_the_laws_reports_are_published_on_their_day_once_all_is_counted(site: RunningSite) -> None:
    life = Life(f"{COMMUNE}-260303-0001", COMMUNE, random.Random(1))
    life.now = life.recorded = datetime(2026, 3, 3, 3, tzinfo=UTC)
    life.receive()
    await publish(site, [(life.agency, life.events)])
    client = site.client("stats")
    await complete(site, after=datetime(2026, 4, 1, tzinfo=UTC))  # of all that the rounds below publish
    reports = ScheduledReports(site.services["stats"], Store(), TOPICS, 60.0)
    assert await reports.round(datetime(2026, 3, 17, 17, 0, tzinfo=UTC) - timedelta(microseconds=1)) == []
    commune = await reports.round(datetime(2026, 3, 17, 17, 0, tzinfo=UTC))  # 00:00 of the 18th at the commune
    assert {f"II.06a-{COMMUNE}-2026-T03-1", f"II.06a-{COMMUNE}-2026-Q1-1"} <= set(commune)
    agencies = site.services["stats"].directory.current.agencies
    assert {agencies[number.split("-")[1]].level for number in commune} == {"commune"}
    assert await reports.round(datetime(2026, 3, 18, 3, tzinfo=UTC)) == []
    province = await reports.round(datetime(2026, 3, 25, 3, tzinfo=UTC))
    assert {"II.06a-H55-all-2026-T03-1", "II.06a-H55-all-2026-Q1-1"} <= set(province)
    assert not set(commune) & set(province)
    items = (await get(client, "/v1/published-reports", agency="H55"))["items"]
    assert all(item["scheduled"] for item in items)
    # What ended before the first dossier was heard of was kept elsewhere.
    assert await site.value("SELECT count(*) FROM stats.published_report WHERE to_day < '2026-03-01'") == 0


async def get_complete(client: httpx.AsyncClient) -> Any:
    return (await get(client, "/v1/freshness"))["complete_to"]


FACTS = "SELECT f::text AS row FROM stats.fact f ORDER BY 1"
SPOIL = "UPDATE stats.fact SET outcome = 'late', elapsed = 1 WHERE phase = 'ended' AND code = ANY ($1)"


async def lose(site: RunningSite, code: str) -> None:
    """All that stats knows of a dossier is gone, also that it has ever seen it."""
    for table in ("fact", "dossier", "rating", "extension"):
        await site.fetch(f"DELETE FROM stats.{table} WHERE code = $1", code)
    await site.fetch("DELETE FROM stats.inbox WHERE key = $1", code)


async def complete(site: RunningSite, after: datetime = datetime.min.replace(tzinfo=UTC)) -> Any:
    """When everything that was recorded up to `after` has been counted: until what. A mark that was taken while events of the
    past waited in the outbox lies before them."""

    async def reached() -> Any:
        until = await get_complete(site.client("stats"))
        return until is not None and datetime.fromisoformat(until) > after and until

    return await site.until(reached)


@pytest.mark.parametrize("source", ["log", "topics"])
async def test_promise_8_a_rebuild_names_and_mends_what_differs(site: RunningSite, source: Source) -> None:
    await publish(site, register(11, 20))
    await complete(site, after=datetime.now(UTC) - timedelta(minutes=1))
    live = await site.fetch(FACTS)
    code = await site.value("SELECT code FROM stats.fact WHERE outcome <> 'late' LIMIT 1")
    lost = await site.value("SELECT code FROM stats.fact WHERE code <> $1 AND known_to = 'infinity' LIMIT 1", code)
    await site.fetch(SPOIL, [code])
    await lose(site, lost)
    foreign = "H55.242-260101-9999"
    if source == "log":  # what the topics do not hold may only be older than they are
        await site.fetch(
            "INSERT INTO stats.dossier SELECT $1, topic, agency, procedure, field, channel, state,"
            " confidential, began, acts FROM stats.dossier LIMIT 1",
            foreign,
        )
    before, spoilt = await site.fetch(RESTATED), await site.fetch(FACTS)
    stats, store = site.services["stats"], Store()
    looked = await rebuild(stats, store, source=source, dry_run=True)
    assert (await site.fetch(FACTS), looked.switched) == (spoilt, False)
    told = {(entry["key"], entry["table"]): (entry["is"], entry["columns"]) for entry in looked.differences}
    assert {key for key, _ in told} == {code, lost, *([foreign] if source == "log" else [])}
    assert told[code, "fact"] == ("different", ["elapsed", "outcome"])
    assert told[lost, "fact"][0] == told[lost, "inbox"][0] == "missing"
    assert source == "topics" or told[foreign, "dossier"][0] == "extra"

    now = datetime.now(UTC)
    year = Question(AGENCIES, Period(local_midnight(date(2026, 1, 1)), now), now, now=True)

    async def figures(asked: Store) -> dict[str, Any]:
        async with stats.pool.acquire() as connection, at_one_instant(connection):
            return await indicators(asked, connection, year)

    wrong = await figures(store)
    report = await rebuild(stats, store, source=source)
    assert (report.switched, report.differences) == (True, looked.differences)
    assert await site.fetch(FACTS) == live
    assert await figures(store) == await figures(Store()) != wrong  # what was kept in memory is read again
    assert await site.fetch(RESTATED) == before
    again = await rebuild(stats, store, source=source)
    assert (again.differing, again.switched, again.incomplete, again.waiting) == (0, False, 0, 0)


async def test_a_rebuild_that_fails_leaves_nothing_beside(site: RunningSite, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = "SELECT relname FROM pg_class WHERE relpersistence = 't' AND relname ~ '^(rebuilt|staged|told)'"
    stats = site.services["stats"]
    found: list[Any] = []

    async def away(self: Rebuild, *_: Any) -> Any:
        found.extend(await site.fetch(beside))
        raise ConnectionError("the owner is away")

    with monkeypatch.context() as patched:
        patched.setattr(Rebuild, "_read", away)
        with pytest.raises(ConnectionError):
            await rebuild(stats, Store())
    assert found
    assert await site.fetch(beside) == []
    assert (await rebuild(stats, Store())).differing == 0


async def test_promise_8_nobody_sees_half_of_a_switch(site: RunningSite, monkeypatch: pytest.MonkeyPatch) -> None:
    lives = register(11, 30)
    await publish(site, lives)
    codes = sorted({row["code"] for row in await site.fetch("SELECT code FROM stats.fact WHERE phase = 'ended'")})
    now = datetime.now(UTC)
    every = sorted(site.services["stats"].directory.current.agencies)
    question = Question(every, Period(local_midnight(date(2026, 1, 1)), now), now)
    stats, store = site.services["stats"], Store()

    async def figures(asked: Store = store) -> dict[str, Any]:
        async with stats.pool.acquire() as connection, at_one_instant(connection):
            return await indicators(asked, connection, question)

    right = await figures()
    await site.fetch(SPOIL, codes)
    await site.fetch("UPDATE stats.rating SET content = NOT content")
    wrong = await figures()
    assert wrong["resolved"] != right["resolved"]
    assert wrong["satisfaction"] != right["satisfaction"]

    monkeypatch.setattr("services.stats.rebuild.PAGE", 20)  # events: the dossiers come on many pages
    seen: list[dict[str, Any]] = []
    while_it_runs = asyncio.create_task(rebuild(stats, store))
    while not while_it_runs.done():
        seen.append(await figures())
    assert (await while_it_runs).switched
    seen.append(await figures())
    assert len(seen) > 3
    assert seen == sorted(seen, key=lambda each: each == right)
    assert all(each in (wrong, right) for each in seen)
    assert seen[-1] == right

    class SwitchedMeanwhile(Store):
        """Between its first question and its second one a rebuild switches."""

        async def rated(self, connection: Connection, question: Question) -> tuple[int, int, int]:
            assert (await rebuild(stats, store)).switched
            return await super().rated(connection, question)

    await site.fetch(SPOIL, codes)
    await site.fetch("UPDATE stats.rating SET content = NOT content")
    assert await figures(SwitchedMeanwhile()) == wrong
    assert await figures() == right


async def test_promise_8_work_goes_on_between_comparing_and_switching(site: RunningSite) -> None:
    life = Life(f"{COMMUNE}-260303-0001", COMMUNE, random.Random(1))
    life.now = datetime(2026, 3, 3, 3, tzinfo=UTC)
    life.receive()
    other = Life(f"{COMMUNE}-260303-0002", COMMUNE, random.Random(2))
    other.now = life.now
    other.receive()
    await publish(site, [(COMMUNE, life.events), (COMMUNE, other.events)])
    await complete(site, after=datetime(2026, 3, 4, tzinfo=UTC))
    await site.fetch("UPDATE stats.fact SET due_at = due_at + interval '1 day'")
    await lose(site, other.code)
    stats = site.services["stats"]
    async with connection_in_micros(stats) as connection:
        work = Rebuild(stats, Store(), connection)
        await work.begin()
        await work.compare()
        assert {entry["key"] for entry in work.report.differences} == {life.code, other.code}
        for each in (life, other):  # one that is known and one that was lost go on meanwhile
            each.now += timedelta(minutes=1)
            each.recorded = datetime.now(UTC)
            each.stop()
        await append(site, "intake", [life.events[-1].envelope, other.events[-1].envelope])
        await counted(site, {life.code: 2, other.code: 2})
        await work.switch()
        await work.end()
    rows = await site.fetch("SELECT code, phase FROM stats.fact WHERE known_to = 'infinity' AND valid_to = 'infinity'")
    assert {(row["code"], row["phase"]) for row in rows} == {(life.code, "ended"), (other.code, "ended")}
    assert (await rebuild(stats, Store())).differing == 0


async def test_what_is_on_its_way_is_no_difference(site: RunningSite) -> None:
    await publish(site, register(11, 2))
    await complete(site)
    stats = site.services["stats"]
    assert stats.consumer is not None
    await stats.consumer.stop()
    life = Life(f"{COMMUNE}-260303-0001", COMMUNE, random.Random(1))
    life.now = life.recorded = datetime.now(UTC)
    life.receive()
    await append(site, "intake", [life.events[0].envelope])
    report = await rebuild(stats, Store())
    assert (report.differing, report.waiting, report.dossiers) == (0, 1, 2)


async def test_a_late_act_restates_what_was_asked(site: RunningSite) -> None:
    life = Life(f"{COMMUNE}-260303-0001", COMMUNE, random.Random(1))
    life.now = datetime(2026, 3, 3, 3, tzinfo=UTC)
    life.receive()
    agency, code = life.agency, life.code
    await publish(site, [(agency, life.events)])
    client = site.client("stats")
    period = {"from": "2026-03-01", "to": "2026-03-10"}
    before = await get(client, "/v1/indicators", agency=agency, **period)
    assert before["pending"]["total"] == 1
    life.now += timedelta(minutes=1)
    life.recorded = datetime.now(UTC)
    life.stop()
    late = life.events[-1].envelope
    await append(site, "intake", [late])
    await counted(site, {code: 2})
    after = await get(client, "/v1/indicators", agency=agency, **period)
    assert after["resolved"]["total"] == 1
    assert await get(client, "/v1/indicators", agency=agency, known_at=before["known_at"], **period) == {
        **before,
        "freshness": after["freshness"],
    }
    items = (await get(client, "/v1/restatements", agency=agency))["items"]
    asked = next(item for item in items if item["from"] == period["from"] and item["to"] == period["to"])
    assert asked["dossier"] == code
    assert asked["because"] == {"event": str(late.id), "type": "dossier.stopped"}
    assert asked["changes"]["pending.total"] == -1
    assert asked["changes"]["resolved.total"] == 1


async def test_legs_documents_and_petitions(site: RunningSite, monkeypatch: pytest.MonkeyPatch) -> None:
    client = site.client("stats")
    now = datetime.now(UTC)
    began = now - timedelta(days=2)
    dossier, transfer, petition, document = f"{COMMUNE}-260301-0001", uuid7(), uuid7(), "H55.17/2026-03-01/12"
    leg: dict[str, Any] = {
        "transfer": transfer,
        "dossier": dossier,
        "step": 1,
        "from": COMMUNE,
        "to": "H55.17",
        "attempt": 1,
        "due_at": began + timedelta(hours=1),
        "agency": COMMUNE,
    }
    paper: dict[str, Any] = {"document": document, "number": "12", "date": "2026-03-01", "kind": 0, "from": "H55.17"}
    await append(
        site,
        "routing",
        [
            of("lienthong.transfer.v1", dossier, 1, TransferDelivered(**leg), began),
            of(
                "lienthong.transfer.v1",
                dossier,
                2,
                TransferCompleted(**leg, result="granted"),
                now - timedelta(hours=1),
            ),
            of(
                "lienthong.document.v1", document, 1, DocumentArrived(**paper, to=COMMUNE, state="01", title="x"), began
            ),
            of("lienthong.document.v1", document, 2, DocumentFinished(**paper, to=COMMUNE, state="06"), now),
        ],
    )
    filed = PetitionFiled(petition=petition, agency=COMMUNE, kind="complaint", due_at=now + timedelta(days=9))
    answered = PetitionAnswered(petition=petition, agency=COMMUNE, on_time=True)
    await append(
        site,
        "intake",
        [
            of("lienthong.petition.v1", str(petition), 1, filed, began),
            of("lienthong.petition.v1", str(petition), 2, answered, now),
        ],
    )
    await counted(site, {dossier: 2, document: 2, str(petition): 2})
    days = {"from": f"{began.astimezone(LOCAL_ZONE):%Y-%m-%d}", "to": f"{now.astimezone(LOCAL_ZONE):%Y-%m-%d}"}
    legs = await get(client, "/v1/indicators", agency="H55.17", by="working", **days)
    assert legs["resolved"] == {"total": 1, "early": 0, "on_time": 0, "late": 1}
    assert legs["received"]["total"] == 1
    behind = await get(client, "/v1/indicators/dossiers", agency="H55.17", by="working", cell="resolved.late", **days)
    assert [item["code"] for item in behind["items"]] == [dossier]
    figures = await get(client, "/v1/indicators", agency=COMMUNE, **days)
    assert figures["documents"] == {"received": 1, "sent": 0, "handled": 1}
    index = await get(client, "/v1/index766", agency=COMMUNE, **days)
    on_time = next(line for line in index["satisfaction"] if line["code"] == "PETITION_PROCESSING_ON_TIME")
    assert (on_time["numerator"], on_time["denominator"], on_time["score"]) == (1, 1, 6)
    assert index["group_scores"]["total"] is None
    monkeypatch.setattr(Rebuild, "_put", nothing_to_put)
    assert (await rebuild(site.services["stats"], Store())).differing == 0


async def test_freshness_is_told_once_all_is_complete(site: RunningSite) -> None:
    client = site.client("stats")

    async def complete() -> Any:
        return (await get(client, "/v1/freshness"))["complete_to"]

    first: str = await site.until(complete)
    assert datetime.fromisoformat(first).utcoffset() == timedelta(hours=7)


async def test_an_upper_site_shows_its_lower_sites_last_word(site: RunningSite) -> None:
    life = Life(f"{COMMUNE}-260303-0001", COMMUNE, random.Random(1))
    life.now = life.recorded = datetime(2026, 3, 3, 3, tzinfo=UTC)
    life.receive()
    told = life.events[0]
    copy = replace(told.envelope, topic="lienthong.copy.v1", source=f"/sites/{COMMUNE}/intake")
    await append(site, "routing", [copy])
    await counted(site, {life.code: 1})
    client = site.client("stats")
    sites = (await get(client, "/v1/freshness"))["sites"]
    assert [each["site"] for each in sites] == ["H55", COMMUNE]
    assert datetime.fromisoformat(sites[1]["last_word"]) == told.recorded
    assert (await get(client, "/v1/indicators", agency=COMMUNE, **MARCH))["received"]["total"] == 1


async def test_a_snapshot_is_published_without_small_groups(site: RunningSite) -> None:
    await publish(site, register(5, 30))

    async def told() -> Any:
        records = await site.bus.records("lienthong.indicator.v1")
        mine = [orjson.loads(r.value or b"") for r in records if r.key and r.key.startswith(COMMUNE.encode())]
        return [figures for figures in mine if figures["from"] == f"{month}-01"]  # restatements may come first

    month = f"{datetime.now(LOCAL_ZONE):%Y-%m}"
    current: list[dict[str, Any]] = await site.until(told)
    for block in ("received", "resolved", "pending"):
        assert all(n is None or n == 0 or n >= 5 for n in current[-1]["figures"][block].values())


async def test_the_page_is_told_when_figures_change(site: RunningSite) -> None:
    client = site.client("stats")
    async with client.stream("GET", "/live") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        told: list[str] = []
        async for line in stream.aiter_lines():
            if line.startswith("data: ") and line not in told:
                told.append(line)
                if len(told) == 2:
                    break
                life = Life(f"{COMMUNE}-260303-0001", COMMUNE, random.Random(1))
                life.now = datetime.now(UTC) - timedelta(hours=1)
                life.recorded = life.now
                life.receive()
                await publish(site, [(life.agency, life.events)])
    assert len(told) == 2


async def test_ranking_moves_levers_and_forecast(site: RunningSite) -> None:
    await publish(site, register(7, 60))
    client = site.client("stats")
    asked = {"agency": "H55", "from": "2026-02-01", "to": "2026-02-28"}
    items = (await get(client, "/v1/ranking", **asked))["items"]
    before = (await get(client, "/v1/ranking", **{**asked, "from": "2026-01-01", "to": "2026-01-31"}))["items"]
    ranks = {item["agency"]: item for item in before if not item["suppressed"]}
    assert any(item["moved"] is not None for item in items)
    for item in items:
        if item["moved"] is not None:
            assert item["moved"] == ranks[item["agency"]]["rank"] - item["rank"]
    procedures = (await get(client, "/v1/ranking", of="procedure", **asked))["items"]
    assert {item["procedure"] for item in procedures} == {"1.001193", "1.004222"}
    assert (await get(client, "/v1/ranking", agency="H55"))["items"] is not None

    subtree = {**asked, "subtree": "true"}
    index = await get(client, "/v1/index766", **subtree)
    levers = (await get(client, "/v1/index766/levers", **subtree))["items"]
    assert [lever["gain"] for lever in levers] == sorted((lever["gain"] for lever in levers), reverse=True)
    late = next(lever for lever in levers if lever["field"] == "progress")
    assert late["missing"] == index["progress"]["overdue"]
    assert late["gain"] == pytest.approx(20 - index["progress"]["score"])
    for lever in levers:  # each names the very dossiers that it counts
        if lever["behind"] is not None:
            behind = (await client.get(lever["behind"])).json()
            assert len(behind["items"]) == lever["missing"], lever
            assert all(item["code"] for item in behind["items"])
    assert {lever["field"] for lever in levers if lever["behind"]} >= {
        "progress",
        "digitisation.SO_HOA_GIAY_TO_GIAI_QUYET",
    }
    wrong = await client.get("/v1/index766/dossiers", params={**subtree, "metric": "transparency.DOSSIER_SYNC"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "unknown-metric")
    stranger = site.client("stats", Role.LEADER, "H55.17")
    assert (await stranger.get(late["behind"])).status_code == 403
    await what_is_entered_counts_until_it_is_taken_back(site, index)

    life = Life(f"{COMMUNE}-260303-0009", COMMUNE, random.Random(1))
    life.now = life.recorded = datetime.now(UTC) - timedelta(hours=1)
    due = datetime.now(UTC) + timedelta(days=1)
    life.some_due = lambda: due  # type: ignore[method-assign]
    life.receive()
    await publish(site, [(life.agency, life.events)])
    ahead = await get(client, "/v1/forecast", agency=COMMUNE)
    assert [dossier["code"] for dossier in ahead["dossiers"]] == [life.code]
    assert sum(day["due"] for day in ahead["days"]) == 1
    assert sum(day["late"] for day in ahead["days"]) == pytest.approx(ahead["dossiers"][0]["chance"])
    officer = site.client("stats", Role.OFFICER, "H55.17")
    assert (await officer.get("/v1/forecast", params={"agency": COMMUNE})).status_code == 403


async def what_is_entered_counts_until_it_is_taken_back(site: RunningSite, before: dict[str, Any]) -> None:
    client, leader = site.client("stats"), site.client("stats", Role.LEADER, COMMUNE)
    asked = {"agency": "H55", "from": "2026-02-01", "to": "2026-02-28", "subtree": "true"}
    body: dict[str, Any] = {"agency": COMMUNE, "metric": "DOSSIER_SYNC", "from": "2026-02-01", "to": "2026-02-28"}

    def line(index: dict[str, Any]) -> dict[str, Any]:
        return next(each for each in index["transparency"] if each["code"] == "DOSSIER_SYNC")

    assert line(before)["score"] is None
    for agency, counts in ((COMMUNE, (90, 100)), ("H55.241", (20, 20)), (COMMUNE, (80, 100))):
        done = await client.post(
            "/v1/index766/entered",
            json={**body, "agency": agency, "numerator": counts[0], "denominator": counts[1]},
        )
        assert done.status_code == 201, done.text
    now = line(await get(client, "/v1/index766", **asked))
    assert (now["numerator"], now["denominator"], now["score"]) == (
        100,
        120,
        5.0,
    )  # 6 points for all, the newest counts
    known = datetime.now(UTC).isoformat()
    entered = (await get(client, "/v1/index766/entered", **asked))["items"]
    assert {(item["agency"], item["numerator"]) for item in entered} == {(COMMUNE, 80), ("H55.241", 20)}
    assert (await leader.post("/v1/index766/entered", json={**body, "numerator": None, "denominator": None})).is_success
    assert line(await get(client, "/v1/index766", **asked))["numerator"] == 20
    assert line(await get(client, "/v1/index766", known_at=known, **asked))["numerator"] == 100
    for wrong, code in (
        ({"metric": "SO_HOA_GIAY_TO_GIAI_QUYET"}, "not-entered"),
        ({"numerator": 2, "denominator": 1}, "over-the-whole"),
        ({"denominator": None}, "half-a-ratio"),
        ({"to": "2026-01-31"}, "period-inverted"),
    ):
        refused = await client.post("/v1/index766/entered", json={**body, "numerator": 1, "denominator": 1, **wrong})
        assert (refused.status_code, refused.json()["code"]) == (422, code)
    outside = await leader.post(
        "/v1/index766/entered", json={**body, "agency": "H55.17", "numerator": 1, "denominator": 1}
    )
    assert outside.status_code == 403
    desk = site.client("stats", Role.DESK, COMMUNE)
    assert (await desk.post("/v1/index766/entered", json={**body, "numerator": 1, "denominator": 1})).status_code == 403


async def test_promise_10_who_may_ask_what(site: RunningSite) -> None:
    asked = {"agency": COMMUNE, **MARCH}
    below = {"agency": "H55", "subtree": "true", **MARCH}
    for role, agency, subtree, own, all_of_it in (
        (Role.DESK, COMMUNE, False, 200, 403),
        (Role.OFFICER, "H55.17", False, 403, 403),
        (Role.LEADER, COMMUNE, False, 200, 200),
        (Role.LEADER, "H55", True, 200, 200),
        (Role.AUDITOR, None, False, 200, 200),
        (Role.OPERATOR, None, False, 200, 200),
        (Role.ADMIN, None, False, 200, 200),
    ):
        client = site.client("stats", role, agency, subtree=subtree)
        for path in ("/v1/indicators", "/v1/reports/II.06a", "/v1/ranking", "/v1/index766"):
            assert (await client.get(path, params=asked)).status_code == own, (role, path)
            assert (await client.get(path, params=below)).status_code == all_of_it, (role, path)
    leader = site.client("stats", Role.LEADER, COMMUNE)
    assert (await leader.get("/v1/restatements", params={"agency": COMMUNE})).status_code == 200
    assert (await leader.get("/v1/restatements", params={"agency": "H55"})).status_code == 403
    assert (await site.client("stats", None).get("/v1/indicators", params=asked)).status_code == 401
    assert (await site.client("stats", Role.DESK, COMMUNE).post("/v1/rebuild")).status_code == 403


@pytest.mark.parametrize(
    ("path", "parameters", "status"),
    [
        ("/v1/indicators", {"agency": "H99", **MARCH}, 404),
        ("/v1/indicators", {"agency": "not a code", **MARCH}, 404),
        ("/v1/indicators", {"agency": COMMUNE, "from": "2026-03-02", "to": "2026-03-01"}, 422),
        ("/v1/indicators", {"agency": COMMUNE, **MARCH, "as_of": "2026-02-01T00:00:00Z"}, 422),
        ("/v1/indicators", {"agency": COMMUNE, **MARCH, "as_of": "2999-02-01T00:00:00Z"}, 422),
        ("/v1/indicators", {"agency": COMMUNE, **MARCH, "as_of": "2026-03-05T00:00:00"}, 422),
        ("/v1/indicators", {"agency": COMMUNE, "from": "2026-02-30", "to": "2026-03-01"}, 422),
        ("/v1/indicators", {"agency": COMMUNE, **MARCH, "unknown": "1"}, 422),
        ("/v1/indicators", {"agency": "000.00.42.H99", **MARCH}, 404),
        ("/v1/indicators", MARCH, 422),
        ("/v1/indicators/rolling", {"agency": COMMUNE, "window": "2h"}, 422),
        ("/v1/indicators/rolling", {"agency": COMMUNE, "window": "24h"}, 200),
        ("/v1/indicators/dossiers", {"agency": COMMUNE, **MARCH, "cell": "resolved.slow"}, 422),
        ("/v1/reports/II.06a", {"agency": COMMUNE, **MARCH, "format": "pdf"}, 422),
        ("/v1/freshness", {}, 200),
    ],
)
async def test_questions_that_cannot_be_asked(
    asking: httpx.AsyncClient, path: str, parameters: dict[str, str], status: int
) -> None:
    answer = await asking.get(path, params=parameters)
    assert answer.status_code == status, answer.text
    if status == 422:
        assert answer.json()["errors"]


@pytest.fixture(scope="module")
async def asking(backing: Backing) -> AsyncIterator[httpx.AsyncClient]:
    """One site for the questions that need no events; the tests with a site of their own stand above its first use."""
    async with running_site(backing, *real_services("stats")) as site:
        yield site.client("stats")


async def test_the_dashboard_is_open_and_self_contained(asking: httpx.AsyncClient) -> None:
    async with httpx.AsyncClient(base_url=asking.base_url, timeout=60.0, trust_env=False) as anybody:
        answer = await anybody.get("/")
    assert answer.status_code == 200
    page = answer.text
    assert '<html lang="vi">' in page
    assert "Thái Nguyên" in page
    assert re.findall(r'<script src="([^"]*)" defer></script>', page) == ["/dashboard.js"]
    assert page.count("<script") == page.count("src=") == 1
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")


async def test_the_pages_know_who_asks(asking: httpx.AsyncClient) -> None:
    asked = {"agency": COMMUNE, **MARCH, "cell": "pending.overdue"}
    leader = asking.headers["Authorization"].removeprefix("Bearer ")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    async with httpx.AsyncClient(base_url=asking.base_url, timeout=60.0, trust_env=False) as anybody:
        answer = await anybody.get("/dossiers", params=asked)
        assert (answer.status_code, answer.headers["content-type"]) == (401, "text/html; charset=utf-8")
        assert '<input id="token" name="token"' in answer.text
        assert (await anybody.get("/report", params={"agency": COMMUNE, **MARCH})).status_code == 401
        wrong = await anybody.post("/session", content="token=nothing&back=//elsewhere", headers=form)
        assert wrong.status_code == 401
        assert 'name="back" value="/"' in wrong.text
        foreign = await anybody.post(
            "/session", content=f"token={leader}", headers={**form, "Sec-Fetch-Site": "cross-site"}
        )
        assert foreign.status_code == 403
        done = await anybody.post("/session", content=f"token={leader}&back=/?wall=true", headers=form)
        assert (done.status_code, done.headers["location"]) == (303, "/?wall=true")
        assert "HttpOnly" in done.headers["set-cookie"]
        assert "Không có hồ sơ nào." in (await anybody.get("/dossiers", params=asked)).text
        assert (await anybody.get("/v1/indicators", params={"agency": COMMUNE, **MARCH})).status_code == 401
        assert (await anybody.get("/", params={"agency": "H99"})).status_code == 404
        await anybody.post("/session/end", headers=form)
        assert (await anybody.get("/dossiers", params=asked)).status_code == 401


async def test_the_index_over_http(asking: httpx.AsyncClient) -> None:
    for province in PUBLISHED:
        counts = counts_of(province, given=True)
        answer = await asking.post("/v1/index766", json=counts)
        assert answer.status_code == 200, answer.text
        assert answer.json() == province
        counts["satisfaction"][0]["code"] = "SOMETHING_ELSE"
        refused = await asking.post("/v1/index766", json=counts)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == "/satisfaction/0/code"
        counts = counts_of(province, given=True)
        counts["progress"]["received"] = "many"
        refused = await asking.post("/v1/index766", json=counts)
        assert [wrong["pointer"] for wrong in refused.json()["errors"]] == ["/progress/received"]
        assert (await asking.post("/v1/index766", json={**counts, "more": 1})).status_code == 422
        assert (await asking.post("/v1/index766", content=b"[]", headers=JSON)).status_code == 422
