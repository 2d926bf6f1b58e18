"""Notify on a real database and bus: dossier and contact events in, SMS to a gateway that behaves badly, notices out."""

import asyncio
import contextlib
import csv
import hmac
import io
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from services.notify import app
from services.notify.line import SETTLED, Line, NotReached
from services.notify.settings import NotifySettings
from shared.contracts.codes import LOCAL_ZONE, uuid7
from shared.contracts.envelope import Envelope, Mode
from shared.contracts.events import (
    ContactRecorded,
    DossierEvent,
    DossierExtended,
    DossierPaid,
    DossierProcessingStarted,
    DossierReceived,
    DossierResolved,
    DossierSupplemented,
    DossierSupplementRequested,
    LimitData,
    WrappedKey,
)
from shared.directory.reading import parse_bundle
from shared.directory.store import load, stored_site
from shared.security.keys import SiteKeys, load_keys
from shared.security.sealing import new_data_key, seal
from shared.security.tokens import Role
from shared.service import Service
from shared.store.inbox import Apply, Inbox, record_of
from shared.store.pool import connect
from shared.store.room import RoomInPostgres
from tests.harness import LONG, Backing, RunningSite, running_site

T = TypeVar("T")

COMMUNE = "H55.242"
DUE = datetime(2031, 3, 5, 10, 0, tzinfo=UTC)
SCHEMAS = {"site": ("shared.directory",), "notify": app.MIGRATIONS}
SECRET = "s3cret"
# The canary: whatever a test finds outside the seals must not hold her.
NAME, PHONE, ADDRESS = "Đàm Thị Hoàng Yến", "+84912345678", "Xóm Đồng Tâm, xã Phú Tiến"
CANARY = {"name": NAME, "phone": PHONE, "address": ADDRESS}


async def nothing_more(_: Service, topic: str, key: str, after: int) -> list[Envelope]:
    """What an intake that is none has to say when it is asked."""
    return []


@pytest.fixture
async def notify(backing: Backing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningSite]:
    """Notify alone; the tests are its intake, which has nothing more to say when it is asked; its clock is quick."""
    monkeypatch.setattr(Service, "ask_owner", nothing_more)

    def make(settings: dict[str, Any]) -> Any:
        return app.create(NotifySettings(**settings))

    quick: dict[str, Any] = {
        "call_timeout": 0.5,
        "retry_first": 0.05,
        "retry_most": 0.2,
        "sender_poll": 0.05,
        "contact_wait": 2.0,  # two topics are read at their own pace, on a busy machine too
        "held_patience": 20.0,
        "sent_file": tmp_path / "sent.ndjson",
        "postal_file": tmp_path / "postal.ndjson",
    }
    async with running_site(backing, {"notify": make}, SCHEMAS, **quick) as site:
        await load_bundle(site, quiet_hours=None)
        await site.reading()
        yield site


async def load_bundle(site: RunningSite, **parts: Any) -> None:
    """Loads a bundle of these parts beside the sample province; it takes effect at once."""
    text = json.dumps({"site": {"code": "H55", "name": "Tỉnh Thái Nguyên", "upper": None}, "agencies": [], **parts})
    connection = await connect(site.database_url)
    try:
        _, current = await stored_site(connection)
        await load(connection, parse_bundle(text, "test.json", current), who="test")
    finally:
        await connection.close()
    if "notify" in site.services:
        await site.services["notify"].directory.refresh()


@cache
def keys_of(folder: Path) -> SiteKeys:
    """Reading them takes longer than sealing with them."""
    return load_keys(folder)


class Intake:
    """Puts a dossier's events, and its applicant's, on the bus as intake would."""

    def __init__(self, site: RunningSite, code: str, *, mode: Mode = "live") -> None:
        self.code, self.ref, self._site, self._mode = code, f"c-{code}", site, mode
        self._sequence = 0
        self._said = 0
        self._due = DUE
        self._key = new_data_key()

    def _base(self, previous: int | None, state: int) -> dict[str, Any]:
        return {
            "agency": COMMUNE,
            "procedure": "2.002621",
            "previous": previous,
            "state": state,
            "due_at": self._due,
            "paused": False,
            "by": "desk",
            "confidential": False,
        }

    def contact(self, **content: Any) -> Envelope:
        keys = keys_of(self._site.backing.keys)
        sealed = seal(keys, self.ref, {"language": "vi", "kind": "citizen"} | content, self._key)
        data = ContactRecorded(
            contact_ref=self.ref,
            nonce=sealed.nonce,
            ciphertext=sealed.ciphertext,
            keys=(WrappedKey(kid=sealed.key_id, recipient="H55", wrapped=sealed.wrapped),),
        )
        return self._contact_event("contact.recorded", data.to_json())

    def erased(self) -> Envelope:
        return self._contact_event("contact.erased", None)

    def _contact_event(self, kind: str, data: bytes | None) -> Envelope:
        self._said += 1
        now = datetime.now(UTC)
        return Envelope(
            "lienthong.contact.v1", uuid7(), "/sites/H55/intake", kind, self.ref, now, now, self._said, "live", data
        )

    def event(self, data: DossierEvent, happened: datetime | None = None) -> Envelope:
        self._sequence += 1
        now = datetime.now(UTC)
        return Envelope(
            "lienthong.dossier.v1",
            uuid7(),
            "/sites/H55/intake",
            data.short,
            self.code,
            happened or now,
            now,
            self._sequence,
            self._mode,
            data.to_json(),
        )

    def received(self, return_by: str = "counter", fee: int = 0, happened: datetime | None = None) -> Envelope:
        data = DossierReceived(
            **self._base(None, 2),
            deciding_agency=COMMUNE,
            field="G01-TP01",
            channel="counter",
            return_by=return_by,  # type: ignore[arg-type]
            applicant_kind="citizen",
            contact_ref=self.ref,
            fee=fee,
            limit=LimitData(value=5, unit="working_days"),
        )
        return self.event(data, happened)

    def supplement_requested(self) -> Envelope:
        return self.event(DossierSupplementRequested(**self._base(2, 5), reason="thiếu giấy khai sinh"))

    def supplemented(self) -> Envelope:
        return self.event(DossierSupplemented(**self._base(5, 2)))

    def extended(self) -> Envelope:
        """By a day."""
        before, self._due = self._due, self._due + timedelta(days=1)
        return self.event(DossierExtended(**self._base(2, 2), reason="cần xác minh", previous_due_at=before))

    def started(self) -> Envelope:
        return self.event(DossierProcessingStarted(**self._base(2, 4)))

    def paid(self, amount: int) -> Envelope:
        return self.event(DossierPaid(**self._base(4, 4), amount=amount, method="counter"))

    def resolved(self) -> Envelope:
        return self.event(DossierResolved(**self._base(4, 9), result="granted"))

    async def say(self, *envelopes: Envelope) -> None:
        await self._site.bus.send(*envelopes)


Answer = bytes | None
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def status(code: int, body: bytes = b"", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n%s\r\n%s" % (code, len(body), headers, body)


class Gateway:
    """An SMS gateway that does what a test tells it: `behave(document, call)` gives the raw answer, None for none.

    `came`: when each call did, in seconds of a clock that only goes forward.
    """

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.came: list[float] = []
        self.connections = 0
        self.behave: Callable[[dict[str, Any], int], Awaitable[Answer]] = self._well
        self.url = ""
        self.writers: set[asyncio.StreamWriter] = set()

    async def _well(self, document: dict[str, Any], call: int) -> Answer:
        return OK

    def answers(self, *raw: Answer) -> None:
        """These in turn, the last for good."""

        async def behave(document: dict[str, Any], call: int) -> Answer:
            return raw[min(call, len(raw)) - 1]

        self.behave = behave

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length")
                )
                document = json.loads(await reader.readexactly(length))
                self.calls.append(document)
                self.came.append(asyncio.get_running_loop().time())
                answer = await self.behave(document, len(self.calls))
                if answer is None:
                    await reader.read()  # until the caller gives up
                    break
                writer.write(answer)
                await writer.drain()
                if b"\r\n\r\n" not in answer:
                    break  # the line breaks in the middle
        self.writers.discard(writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def gateway() -> AsyncIterator[Gateway]:
    it = Gateway()
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    it.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/sms"
    try:
        yield it
    finally:
        server.close()
        for writer in it.writers:
            writer.close()
        await server.wait_closed()


def provider(name: str, url: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "http", "url": url, "secret": SECRET, **more}


async def holds(condition: Callable[[], Awaitable[T | None]], what: str | Callable[[], str] = "") -> T:
    """Waits until the condition answers something, and returns it; `what` says how things stand if it never does."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LONG):
            while not (found := await condition()):
                await asyncio.sleep(0.01)
            return found
    raise AssertionError(f"not within {LONG} s: {what if isinstance(what, str) else what()}")


async def notices(site: RunningSite, code: str) -> list[dict[str, Any]]:
    answer = await site.client("notify").get("/v1/notices", params={"dossier": code})
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def reach(site: RunningSite, code: str, *states: str) -> list[dict[str, Any]]:
    """The dossier's notices once they are in these states, in the order planned."""

    items: list[dict[str, Any]] = []

    async def there() -> list[dict[str, Any]] | None:
        items[:] = await notices(site, code)
        return items if tuple(item["state"] for item in items) == states else None

    return await holds(there, lambda: f"{code} in {states}: {items}")


async def said(site: RunningSite, code: str, number: int) -> list[str]:
    """The short types of what notify said of a dossier, once there is so much and all of it is published."""

    async def found() -> list[str] | None:
        waiting = await site.value("SELECT count(*) FROM notify.outbox")
        rows = await site.fetch(
            "SELECT type, sequence FROM notify.event WHERE aggregateid = $1 ORDER BY sequence", code
        )
        assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1))
        return [row["type"] for row in rows] if len(rows) >= number and not waiting else None

    return await holds(found, f"{number} events of {code}")


async def receipt(site: RunningSite, name: str, secret: str = SECRET, **document: Any) -> int:
    body = json.dumps(document).encode()
    signature = f"sha256={hmac.new(secret.encode(), body, sha256).hexdigest()}"
    answer = await site.client("notify", None).post(
        f"/v1/receipts/{name}", content=body, headers={"Content-Type": "application/json", "X-Signature": signature}
    )
    return answer.status_code


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# ------------------------------------------------------------------------------------------------------- the ordinary


async def test_promise_9_told_once_through_the_file(notify: RunningSite, tmp_path: Path) -> None:
    dossier = Intake(notify, "H55.242-301012-0001")
    contact, received, started, resolved = (
        dossier.contact(**CANARY),
        dossier.received(),
        dossier.started(),
        dossier.resolved(),
    )
    await dossier.say(contact, received, received, started, resolved, contact, resolved)
    items = await reach(notify, dossier.code, "sent", "sent")
    assert [(item["act"], item["channel"], item["provider"], item["parts"]) for item in items] == [
        ("received", "sms", "file", 1),
        ("resolved", "sms", "file", 1),
    ]
    assert items[0]["id"] < items[1]["id"]
    assert items[0]["planned_at"].endswith("+07:00")
    sent = lines(tmp_path / "sent.ndjson")
    assert [(line["id"], line["to"]) for line in sent] == [(items[0]["id"], PHONE), (items[1]["id"], PHONE)]
    assert dossier.code in sent[0]["text"]
    assert "05/03/2031 17:00" in sent[0]["text"]
    assert sorted(await said(notify, dossier.code, 4)) == ["notice.planned"] * 2 + ["notice.sent"] * 2
    first = (await notify.bus.records("lienthong.notice.v1"))[0]
    assert (first.key, first.header["ce_type"]) == (dossier.code.encode(), "vn.lienthong.notice.planned.v1")


async def test_promise_10_nothing_personal_outside_the_seals(notify: RunningSite, tmp_path: Path) -> None:
    dossier = Intake(notify, "H55.242-301012-0002")
    await dossier.say(dossier.received(), dossier.contact(**CANARY))
    [item] = await reach(notify, dossier.code, "sent")
    tables = [
        row["tablename"] for row in await notify.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'notify'")
    ]
    found = [str(row) for table in tables for row in await notify.fetch(f"SELECT t::text FROM notify.{table} t")]
    found += [str(record) for record in await notify.bus.records("lienthong.notice.v1")]
    found += [json.dumps(item, ensure_ascii=False), (await notify.client("notify", None).get("/metrics")).text]
    assert dossier.code in "".join(found)
    for secret in (NAME, PHONE[-9:], ADDRESS, "đã được tiếp nhận", "da duoc tiep nhan"):
        assert not [text for text in found if secret in text]
    # A desk sees where it went, masked, and that it looked is on record; an auditor sees nothing of it.
    desk = notify.client("notify", Role.DESK, COMMUNE)
    [seen] = (await desk.get("/v1/notices", params={"dossier": dossier.code})).json()["items"]
    assert seen["recipient"] == "09•••••678"
    assert await notify.value("SELECT code FROM notify.access_record WHERE role = 'desk'") == dossier.code
    auditor = notify.client("notify", Role.AUDITOR)
    [seen] = (await auditor.get("/v1/notices", params={"dossier": dossier.code})).json()["items"]
    assert "recipient" not in seen
    stranger = notify.client("notify", Role.DESK, "H55.21")
    assert (await stranger.get("/v1/notices", params={"dossier": dossier.code})).json()["items"] == []


async def test_the_contact_may_come_later_and_a_reason_is_recorded_when_it_does_not(notify: RunningSite) -> None:
    late, never, landline, unreachable = (Intake(notify, f"H55.242-301012-001{n}") for n in range(4))
    await late.say(late.received(), never.received())
    await late.say(late.contact(**CANARY))
    await landline.say(landline.contact(phone="+842083123456", address=ADDRESS, name=NAME), landline.received())
    await unreachable.say(unreachable.received(), unreachable.contact(name=NAME))
    await reach(notify, late.code, "sent")
    [letter] = await reach(notify, landline.code, "sent")
    assert letter["channel"] == "postal"

    async def reasons() -> bool:
        rows = await notify.fetch("SELECT dossier, reason FROM notify.untold")
        return {tuple(row) for row in rows} == {(never.code, "no-contact"), (unreachable.code, "unreachable")}

    await holds(reasons)
    told = (await notify.client("notify", Role.OPERATOR).get("/v1/told")).json()
    assert told["missing"] == []
    assert sum(row["asked"] for row in told["items"]) == 4
    assert sum(row["notices"] for row in told["items"]) == 2
    assert told["reasons"] == {"no-contact": 1, "unreachable": 1}


async def test_history_tells_nobody_and_an_old_act_is_recorded_as_expired(notify: RunningSite, tmp_path: Path) -> None:
    history, old = Intake(notify, "H55.242-301012-0020", mode="history"), Intake(notify, "H55.242-301012-0021")
    await history.say(history.contact(**CANARY), history.received())
    await old.say(old.contact(**CANARY), old.received(happened=datetime.now(UTC) - timedelta(hours=25)))
    [item] = await reach(notify, old.code, "expired")
    assert item["reason"] == "act-too-old"
    assert await said(notify, old.code, 2) == ["notice.planned", "notice.expired"]
    assert await notices(notify, history.code) == []
    assert await notify.value("SELECT state FROM notify.dossier WHERE code = $1", history.code) == 2
    assert lines(tmp_path / "sent.ndjson") == []


async def test_an_act_that_the_state_does_not_allow_parks_its_dossier_alone(notify: RunningSite) -> None:
    wrong, other = Intake(notify, "H55.242-301012-0030"), Intake(notify, "H55.242-301012-0031")
    await wrong.say(wrong.contact(**CANARY), wrong.received(), wrong.resolved())
    await other.say(other.contact(**CANARY), other.received())
    await reach(notify, other.code, "sent")
    await reach(notify, wrong.code, "sent")

    async def items() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await notify.client("notify", Role.OPERATOR).get("/v1/parked")).json()["items"]
        return found

    parked = await holds(items, "the act is parked")  # it may come in a batch of its own
    assert [(row["key"], row["sequence"], row["reason"]) for row in parked] == [(wrong.code, 2, "state-contradiction")]


async def test_erasure_forgets_what_was_sealed(notify: RunningSite) -> None:
    async with gateway() as sms:
        sms.answers(status(500))
        await load_bundle(notify, providers=[provider("a", sms.url)], quiet_hours=None)
        dossier = Intake(notify, "H55.242-301012-0040")
        await dossier.say(dossier.contact(**CANARY), dossier.received())
        await notify.until(lambda: len(sms.calls) >= 2)
        await dossier.say(dossier.erased())
        [item] = await reach(notify, dossier.code, "failed")
        assert item["reason"] == "erased"
    sealed = "SELECT count(*) FROM notify.notice WHERE coalesce(nonce, ciphertext, wrapped) IS NOT NULL"
    assert await notify.value(sealed) == 0
    assert await notify.value("SELECT count(*) FROM notify.contact WHERE wrapped IS NOT NULL") == 0
    await dossier.say(dossier.started(), dossier.resolved())
    await holds(lambda: notify.value("SELECT reason = 'erased' FROM notify.untold"))


# ------------------------------------------------------------------------------------------- a gateway that is hostile


async def test_after_a_5xx_the_next_provider_is_asked_under_the_same_id(notify: RunningSite) -> None:
    async with gateway() as first, gateway() as second:
        first.answers(status(503, b"<html>" * 100))
        await load_bundle(notify, providers=[provider("a", first.url), provider("b", second.url)], quiet_hours=None)
        dossier = Intake(notify, "H55.242-301012-0050")
        await dossier.say(dossier.contact(**CANARY), dossier.received())
        [item] = await reach(notify, dossier.code, "sent")
        assert item["provider"] == "b"
        assert first.calls == second.calls
        assert second.calls == [
            {"id": item["id"], "to": PHONE, "text": second.calls[0]["text"], "sender": second.calls[0]["sender"]}
        ]
        assert dossier.code in second.calls[0]["text"]
        assert await said(notify, dossier.code, 2) == ["notice.planned", "notice.sent"]


@pytest.mark.parametrize(
    "answer",
    [
        status(500),
        status(302, headers=b"Location: http://127.0.0.1:1/elsewhere\r\n"),
        status(404, b"<html>no such page</html>"),
        status(429, b"{}"),
    ],
    ids=["500", "redirect", "404 without a reason", "429 without a reason"],
)
async def test_all_refusing_it_stays_planned_and_is_tried_until_one_takes_it(
    notify: RunningSite, answer: bytes
) -> None:
    async with gateway() as sms:
        sms.answers(answer, answer, answer, OK)
        await load_bundle(notify, providers=[provider("a", sms.url)], quiet_hours=None)
        dossier = Intake(notify, "H55.242-301012-0051")
        await dossier.say(dossier.contact(**CANARY), dossier.received())
        await reach(notify, dossier.code, "sent")
        assert len(sms.calls) == 4
        assert len({call["id"] for call in sms.calls}) == 1


async def test_a_recipients_fault_ends_the_notice_with_its_reason(notify: RunningSite) -> None:
    async with gateway() as first, gateway() as second:
        first.answers(status(422, json.dumps({"reason": "no such subscriber 0912345678"}).encode()))
        await load_bundle(notify, providers=[provider("a", first.url), provider("b", second.url)], quiet_hours=None)
        for number in range(12):  # its health does not fall: it is asked first each time
            dossier = Intake(notify, f"H55.242-301012-{60 + number:04}")
            await dossier.say(dossier.contact(**CANARY), dossier.received())
            [item] = await reach(notify, dossier.code, "failed")
            assert item["reason"] == "no such subscriber …"
        assert (len(first.calls), len(second.calls)) == (12, 0)


@pytest.mark.parametrize(
    "answer", [None, b"220 mail.example ESMTP\r\n\r\n", b"HTTP/1.1 2"], ids=["hang", "garbage", "cut"]
)
async def test_an_unknown_outcome_stays_with_its_provider(notify: RunningSite, answer: Answer) -> None:
    async with gateway() as first, gateway() as second:

        async def behave(document: dict[str, Any], call: int) -> Answer:
            return answer

        first.behave = behave
        await load_bundle(notify, providers=[provider("a", first.url), provider("b", second.url)], quiet_hours=None)
        dossier = Intake(notify, "H55.242-301012-0080")
        await dossier.say(dossier.contact(**CANARY), dossier.received())
        [item] = await reach(notify, dossier.code, "unknown")
        assert (item["provider"], len(first.calls), len(second.calls)) == ("a", 1, 0)
        assert await receipt(notify, "a", id=item["id"], status="delivered", at="2026-10-10T08:00:00+07:00") == 200
        await reach(notify, dossier.code, "delivered")
        assert await said(notify, dossier.code, 3) == ["notice.planned", "notice.sent", "notice.delivered"]


async def test_an_unknown_outcome_is_repeated_under_its_id_where_the_provider_dedupes(notify: RunningSite) -> None:
    async with gateway() as first, gateway() as second:
        first.answers(None, status(500), OK)
        await load_bundle(
            notify,
            providers=[provider("a", first.url, dedupes=True), provider("b", second.url)],
            quiet_hours=None,
        )
        dossier = Intake(notify, "H55.242-301012-0081")
        await dossier.say(dossier.contact(**CANARY), dossier.received())
        [item] = await reach(notify, dossier.code, "sent")
        # Also after its 500 it stays there: the first call may have gone out.
        assert [call["id"] for call in first.calls] == [item["id"]] * 3
        assert second.calls == []


async def test_an_unknown_outcome_without_a_receipt_ends_as_failed(notify: RunningSite) -> None:
    async with gateway() as sms:
        sms.answers(None)
        await load_bundle(
            notify,
            providers=[provider("a", sms.url)],
            quiet_hours=None,
            sms={"sender": "THAINGUYEN", "expire_hours": 1.5 / 3600},
        )
        dossier = Intake(notify, "H55.242-301012-0082")
        await dossier.say(dossier.contact(**CANARY), dossier.received())
        [item] = await reach(notify, dossier.code, "failed")
        assert item["reason"] == "unknown"
        assert len(sms.calls) == 1
        # What is heard after all is believed.
        assert await receipt(notify, "a", id=item["id"], status="delivered", at="2026-10-10T08:00:00+07:00") == 200
        await reach(notify, dossier.code, "delivered")


async def test_what_nobody_takes_expires(notify: RunningSite) -> None:
    expire = {"sender": "THAINGUYEN", "expire_hours": 4 / 3600}  # it is to be tried before, on a busy machine too
    await load_bundle(notify, providers=[provider("a", "http://127.0.0.1:1/sms")], quiet_hours=None, sms=expire)
    dossier = Intake(notify, "H55.242-301012-0083")
    await dossier.say(dossier.contact(**CANARY), dossier.received())
    [item] = await reach(notify, dossier.code, "expired")
    assert item["reason"] == "no-provider"
    assert await said(notify, dossier.code, 2) == ["notice.planned", "notice.expired"]


async def test_a_huge_body_is_cut_and_a_2xx_is_a_2xx(notify: RunningSite) -> None:
    async with gateway() as sms:
        sms.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n" + b"x" * 8_000_000)
        await load_bundle(notify, providers=[provider("a", sms.url)], quiet_hours=None)
        dossier = Intake(notify, "H55.242-301012-0084")
        await dossier.say(dossier.contact(**CANARY), dossier.received())
        await reach(notify, dossier.code, "sent")
        assert len(sms.calls) == 1


DRIP = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"


@pytest.mark.parametrize(
    ("hostility", "state"),
    [
        ("answers too late", "unknown"),
        ("drips its head", "unknown"),
        ("drips its body", "sent"),
        ("sends a head without end", "unknown"),
        ("says another id", "sent"),
    ],
)
async def test_a_hostile_answer_is_one_call_and_one_answer(notify: RunningSite, hostility: str, state: str) -> None:
    async with gateway() as first, gateway() as second:
        known = asyncio.Event()

        async def behave(document: dict[str, Any], call: int) -> Answer:
            [writer] = first.writers
            match hostility:
                case "answers too late":
                    await known.wait()
                    return OK
                case "says another id":
                    return status(200, json.dumps({"id": str(uuid7()), "status": "queued"}).encode())
                case "drips its body":
                    writer.write(DRIP)
                case "drips its head":
                    for byte in DRIP[:-1]:
                        writer.write(bytes([byte]))
                        await writer.drain()
                        await asyncio.sleep(0.02)  # its pace: the whole takes longer than a call may
                case _:
                    writer.write(DRIP[:17])
                    while not known.is_set():
                        writer.write(b"X-More: and more\r\n")
                        await writer.drain()
                        await asyncio.sleep(0.001)
            return None

        first.behave = behave
        await load_bundle(notify, providers=[provider("a", first.url), provider("b", second.url)], quiet_hours=None)
        dossier = Intake(notify, "H55.242-301012-0085")
        await dossier.say(dossier.contact(**CANARY), dossier.received())
        [item] = await reach(notify, dossier.code, state)
        known.set()
        assert (item["provider"], len(first.calls), len(second.calls)) == ("a", 1, 0)


async def test_a_connection_is_used_again_once_its_gateway_had_the_time_to_close_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with gateway() as sms:
        line = Line(sms.url, 5.0)
        answers = await asyncio.gather(*(line.ask("POST", body=b"{}", within=5.0) for _ in range(3)))
        assert [answer.status for answer in answers] == [200] * 3
        await line.ask("POST", body=b"{}", within=5.0)
        assert sms.connections == 4  # a moment after its answer none is trusted
        monkeypatch.setattr("services.notify.line.SETTLED", 0.0)
        for _ in range(9):
            await line.ask("POST", body=b"{}", within=5.0)
        assert sms.connections == 4
        line.close()


async def test_a_time_that_is_over_before_there_is_a_connection_leaves_nothing_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio, "open_connection", never)
    with pytest.raises(NotReached):
        await Line("http://127.0.0.1:9/sms", 60.0).ask("POST", body=b"{}", kind="application/json", within=0.01)


async def test_a_gateway_that_closes_without_a_word_loses_no_call() -> None:
    async with gateway() as sms:

        async def behave(document: dict[str, Any], call: int) -> Answer:
            for writer in [*sms.writers]:
                writer.write(OK)
                writer.close()
            return None

        sms.behave = behave
        line = Line(sms.url, 5.0)
        ended = asyncio.get_running_loop().time() + 3 * SETTLED
        while asyncio.get_running_loop().time() < ended or sms.connections < 9:
            assert (await line.ask("POST", body=b"{}", within=5.0)).status == 200
        assert sms.connections == len(sms.calls)
        line.close()


@pytest.mark.parametrize("when", ["at once", "later"])
async def test_an_answer_that_nobody_asked_for_is_not_the_next_ones(notify: RunningSite, when: str) -> None:
    async with gateway() as sms:
        no = status(422, b'{"reason": "no such subscriber"}')
        sms.answers(OK + status(503) if when == "at once" else OK, no)
        await load_bundle(notify, providers=[provider("a", sms.url)], quiet_hours=None)
        dossier, other = (Intake(notify, f"H55.242-301012-008{number}") for number in (6, 7))
        await dossier.say(dossier.contact(**CANARY), dossier.received())
        await reach(notify, dossier.code, "sent")
        if when == "later":
            for writer in sms.writers:
                writer.write(OK)
                await writer.drain()
        await other.say(other.contact(**CANARY), other.received())
        [item] = await reach(notify, other.code, "failed")
        assert item["reason"] == "no such subscriber"
        assert len(sms.calls) == 2


async def test_receipts(notify: RunningSite) -> None:
    async with gateway() as sms:
        early: list[int] = []

        async def receipt_first(document: dict[str, Any], call: int) -> Answer:
            at = "2026-10-10T08:00:00+07:00"
            early.append(await receipt(notify, "a", id=document["id"], status="delivered", at=at))
            early.append(await receipt(notify, "a", id=document["id"], status="failed", reason="late", at=at))
            early.append(await receipt(notify, "a", id=document["id"], status="delivered", at=at))
            return OK

        sms.behave = receipt_first
        await load_bundle(
            notify, providers=[provider("a", sms.url), provider("b", "http://127.0.0.1:1/")], quiet_hours=None
        )
        dossier = Intake(notify, "H55.242-301012-0090")
        await dossier.say(dossier.contact(**CANARY), dossier.received())
        [item] = await reach(notify, dossier.code, "delivered")
        await notify.until(lambda: early == [200, 200, 200])
        assert (item["delivered_at"], "reason" in item) == ("2026-10-10T08:00:00+07:00", False)

        failing = Intake(notify, "H55.242-301012-0091")
        sms.answers(OK)
        await failing.say(failing.contact(**CANARY), failing.received())
        [item] = await reach(notify, failing.code, "sent")
        assert await receipt(notify, "a", secret="other", id=item["id"], status="failed") == 401
        assert await receipt(notify, "nobody", id=item["id"], status="failed") == 401
        assert await receipt(notify, "b", id=item["id"], status="delivered") == 404  # b was never given it
        assert await receipt(notify, "a", id=str(uuid7()), status="failed") == 404
        assert await receipt(notify, "a", id="x", status="failed") == 404
        assert await receipt(notify, "a", id=item["id"], status="lost") == 422
        assert await receipt(notify, "a", id=item["id"], status="failed", reason="absent") == 200
        [item] = await reach(notify, failing.code, "failed")
        assert item["reason"] == "absent"
        unsigned = await notify.client("notify", None).post("/v1/receipts/a", json={"id": item["id"]})
        assert (unsigned.status_code, unsigned.json()["code"]) == (401, "unauthorized")


async def test_kannel(notify: RunningSite) -> None:
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode().split()[1])
        body = b"0: Accepted for delivery"
        writer.write(b"HTTP/1.1 202 Accepted\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/cgi-bin/sendsms"
        entry = {"name": "k", "kind": "kannel", "url": url, "username": "u", "password": "p", "secret": SECRET}
        await load_bundle(notify, providers=[entry], quiet_hours=None)
        dossier = Intake(notify, "H55.242-301012-0095")
        await dossier.say(dossier.contact(**CANARY), dossier.received())
        await reach(notify, dossier.code, "sent")
        query = httpx.URL(f"http://kannel{asked[0]}").params
        assert (query["username"], query["to"], query["dlr-mask"]) == ("u", PHONE, "19")
        report = query["dlr-url"].replace("%d", "1")
        client = notify.client("notify", None)
        assert (await client.get(report.replace("sig=", "sig=0"))).status_code == 401
        assert (await client.get(report)).status_code == 200
        await reach(notify, dossier.code, "delivered")


# ----------------------------------------------------------------------------------------------- quiet hours, overtaken


def around_now(before: float, after: float) -> dict[str, str]:
    """Quiet hours from so many minutes ago for so many minutes."""
    now = datetime.now(LOCAL_ZONE)
    return {
        "from": f"{now - timedelta(minutes=before):%H:%M}",
        "to": f"{now + timedelta(minutes=after):%H:%M}",
    }


async def test_held_notices_go_out_in_the_order_planned(notify: RunningSite) -> None:
    async with gateway() as sms:
        await load_bundle(notify, providers=[provider("a", sms.url)], quiet_hours=around_now(60, 60))
        dossiers = [Intake(notify, f"H55.242-301012-{100 + n:04}") for n in range(6)]
        for dossier in dossiers:
            await dossier.say(dossier.contact(**CANARY), dossier.received())
            await reach(notify, dossier.code, "held")
        assert await said(notify, dossiers[0].code, 2) == ["notice.planned", "notice.held"]
        assert sms.calls == []
        await load_bundle(notify, quiet_hours=None)
        for dossier in dossiers:
            await reach(notify, dossier.code, "sent")
        ids = [call["id"] for call in sms.calls]
        assert ids == sorted(ids)
        assert len(ids) == 6


async def test_what_was_settled_while_it_was_held_is_not_sent(notify: RunningSite) -> None:
    async with gateway() as sms:
        await load_bundle(notify, providers=[provider("a", sms.url)], quiet_hours=around_now(60, 60))
        met, moved, late = (Intake(notify, f"H55.242-301012-{110 + n:04}") for n in range(3))
        await met.say(met.contact(**CANARY), met.received(), met.supplement_requested())
        await reach(notify, met.code, "held", "held")
        await met.say(met.supplemented())
        await moved.say(moved.contact(**CANARY), moved.received(), moved.extended())
        await reach(notify, moved.code, "held", "held")
        await moved.say(moved.extended())
        # The same when the contact comes after all of it.
        await late.say(late.received(), late.supplement_requested(), late.supplemented())
        await holds(lambda: notify.value("SELECT count(*) > 1 FROM notify.telling"))
        await late.say(late.contact(**CANARY))
        await reach(notify, met.code, "held", "superseded")
        await reach(notify, moved.code, "held", "superseded", "held")
        await reach(notify, late.code, "held", "superseded")
        assert (await said(notify, met.code, 5))[-1] == "notice.superseded"
        await load_bundle(notify, quiet_hours=None)
        await reach(notify, moved.code, "sent", "superseded", "sent")
        await reach(notify, late.code, "sent", "superseded")
        assert len(sms.calls) == 4


EXAMPLES = count(1)


# To explain a failure Hypothesis traces every line that runs: too slow with a database.
@settings(
    max_examples=20,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(chance=st.integers(0, 2**32).map(random.Random))
async def test_the_same_is_planned_whatever_order_and_repetition(notify: RunningSite, chance: random.Random) -> None:
    service = notify.services["notify"]
    if service.directory.current.quiet_hours is None:
        await load_bundle(notify, quiet_hours=around_now(60, 60))
    dossier = Intake(notify, f"H55.242-301018-{next(EXAMPLES):04}")
    acts = [
        dossier.received(),
        dossier.supplement_requested(),
        dossier.supplemented(),
        dossier.extended(),
        dossier.extended(),
        dossier.started(),
        dossier.resolved(),
    ]
    # Each key in its order, the keys mixed, some again, cut into batches.
    left, mixed = [list(acts), [dossier.contact(**CANARY)]], list[Envelope]()
    while any(left):
        mixed.append(chance.choice([each for each in left if each]).pop(0))
        if chance.random() < 0.3:
            mixed.append(chance.choice(mixed))
    records = [record_of(each) for each in mixed]
    while records:
        cut = chance.randint(1, len(records))
        async with service.pool.acquire() as connection, connection.transaction():
            room = RoomInPostgres(connection, service.store_queries)
            outcome = await Inbox(app_handlers(service)).process(room, connection, records[:cut])
            assert outcome.parked == []
        del records[:cut]
    items = await reach(notify, dossier.code, "held", "superseded", "superseded", "held", "held")
    assert [item["act"] for item in items] == ["received", "supplement-requested", "extended", "extended", "resolved"]


def app_handlers(service: Service) -> Apply:
    """The effect that the service's consumer has."""
    assert service._apply is not None
    return service._apply


async def test_what_is_urgent_does_not_wait_for_the_morning_nor_behind_what_does(notify: RunningSite) -> None:
    async with gateway() as sms:
        rules = [
            {"act": "received", "template": "received"},
            {"act": "supplement-requested", "template": "supplement-requested", "urgent": True},
        ]
        await load_bundle(notify, providers=[provider("a", sms.url)], notices=rules, quiet_hours=around_now(60, 60))
        dossier = Intake(notify, "H55.242-301012-0300")
        await dossier.say(dossier.contact(**CANARY), dossier.received(), dossier.supplement_requested())
        held, urgent = await reach(notify, dossier.code, "held", "sent")
        assert [call["id"] for call in sms.calls] == [urgent["id"]]
        assert ("urgent" in held, urgent["urgent"]) == (False, True)
        page = (await notify.client("notify").get("/notices", params={"dossier": dossier.code})).text
        assert (page.count("(khẩn)"), "supplement-requested (khẩn)" in page) == (1, True)
        await load_bundle(notify, quiet_hours=None)
        await reach(notify, dossier.code, "sent", "sent")
        assert [call["id"] for call in sms.calls] == [urgent["id"], held["id"]]


async def test_what_is_over_an_agencys_daily_budget_waits(notify: RunningSite) -> None:
    async with gateway() as sms:
        budget = {"sender": "THAINGUYEN", "budgets": [{"agency": "H55", "parts_per_day": 2}]}
        rules = [
            {"act": "received", "template": "received"},
            {"act": "supplement-requested", "template": "supplement-requested", "urgent": True},
        ]
        await load_bundle(notify, providers=[provider("a", sms.url)], notices=rules, quiet_hours=None, sms=budget)
        sms.answers(status(500), OK)  # what nobody took is not spent
        dossiers = [Intake(notify, f"H55.242-301012-{310 + n:04}") for n in range(3)]
        for dossier in dossiers[:2]:
            await dossier.say(dossier.contact(**CANARY), dossier.received())
            await reach(notify, dossier.code, "sent")
        last = dossiers[2]
        await last.say(last.contact(**CANARY), last.received())

        async def waits(code: str = last.code) -> bool:
            items = await notices(notify, code)
            return bool(items) and items[0].get("reason") == "over-budget" and items[0]["state"] == "planned"

        await holds(waits)
        # What was spent is known to the next process; the urgent one does not wait.
        await notify.stop_service("notify")
        notify.services["notify"] = app.create(NotifySettings(**notify.settings()))
        await notify.services["notify"].start()
        await notify.reading()
        late = Intake(notify, "H55.242-301012-0319")
        await late.say(late.contact(**CANARY), late.received(), late.supplement_requested())
        states = "SELECT string_agg(state || coalesce(' ' || reason, ''), ',' ORDER BY id) FROM notify.notice WHERE dossier = $1"

        async def urgent_alone() -> bool:
            return bool(await notify.value(states, late.code) == "planned over-budget,sent")

        await holds(urgent_alone)
        budget["budgets"] = [{"agency": "H55", "parts_per_day": 100}]
        await load_bundle(notify, sms=budget)

        async def all_sent() -> bool:
            return bool(await notify.value("SELECT count(*) = 5 FROM notify.notice WHERE state = 'sent'"))

        await holds(all_sent)


async def test_who_wants_no_sms_gets_a_letter_or_nothing_with_the_reason(notify: RunningSite) -> None:
    async with gateway() as sms:
        await load_bundle(notify, providers=[provider("a", sms.url)], quiet_hours=around_now(60, 60))
        before, written, silent = (Intake(notify, f"H55.242-301012-{320 + n:04}") for n in range(3))
        await before.say(before.contact(**CANARY), before.received())
        await reach(notify, before.code, "held")
        desk = notify.client("notify", Role.DESK, COMMUNE)
        assert (await desk.post("/v1/opt-outs", json={"phone": "0912 345 678"})).json() == {"out": True}
        assert (await desk.post("/v1/opt-outs", json={"phone": "123"})).status_code == 422
        officer = notify.client("notify", Role.OFFICER, COMMUNE)
        assert (await officer.post("/v1/opt-outs", json={"phone": PHONE})).status_code == 403
        stored = [str(row) for row in await notify.fetch("SELECT t::text FROM notify.opt_out t")]
        assert len(stored) == 1
        assert PHONE[-9:] not in stored[0]
        assert sha256(PHONE.encode()).hexdigest() not in stored[0]
        await written.say(written.contact(**CANARY), written.received())
        await silent.say(silent.contact(name=NAME, phone=PHONE), silent.received())
        [letter] = await reach(notify, written.code, "sent")
        assert letter["channel"] == "postal"
        why = "SELECT reason FROM notify.untold WHERE dossier = $1"
        assert await holds(lambda: notify.value(why, silent.code)) == "opted-out"
        await load_bundle(notify, quiet_hours=None)
        [item] = await reach(notify, before.code, "failed")  # it was held when she said so
        assert (item["reason"], sms.calls) == ("opted-out", [])
        assert (await desk.post("/v1/opt-outs", json={"phone": PHONE, "out": False})).json() == {"out": False}
        again = Intake(notify, "H55.242-301012-0329")
        await again.say(again.contact(**CANARY), again.received())
        [item] = await reach(notify, again.code, "sent")
        assert item["channel"] == "sms"


async def test_who_wants_letters_or_no_more_than_must_be_is_told_so(notify: RunningSite) -> None:
    async with gateway() as sms:
        await load_bundle(notify, providers=[provider("a", sms.url)], quiet_hours=None)
        post, least = (Intake(notify, f"H55.242-301012-{340 + n:04}") for n in range(2))
        await post.say(post.contact(**CANARY, notify="postal"), post.received())
        [letter] = await reach(notify, post.code, "sent")
        assert letter["channel"] == "postal"
        await least.say(least.contact(**CANARY, notify="required"), least.received(), least.supplement_requested())
        [item] = await reach(notify, least.code, "sent")
        assert (item["channel"], item["act"], len(sms.calls)) == ("sms", "supplement-requested", 1)
        assert await notify.value("SELECT reason FROM notify.untold WHERE dossier = $1", least.code) == "not-wanted"
        await least.say(least.contact(**CANARY, notify="sms"))  # they have thought better of it
        await least.say(least.supplemented(), least.started(), least.resolved())

        async def told_of_both() -> bool:
            items = await notices(notify, least.code)
            return [(each["act"], each["state"]) for each in items] == [
                ("supplement-requested", "sent"),
                ("resolved", "sent"),
            ]

        await holds(told_of_both)


async def test_texts_are_forgotten_after_their_days_and_what_waits_keeps_its_own(notify: RunningSite) -> None:
    await load_bundle(notify, quiet_hours=None, providers=[{"name": "file", "kind": "file"}])
    waits, gone, kept = (Intake(notify, f"H55.242-301012-{350 + n:04}") for n in range(3))
    for dossier in (waits, gone, kept):
        await dossier.say(dossier.contact(**CANARY), dossier.received())
        await reach(notify, dossier.code, "sent")
    await notify.stop_service("notify")
    # An id begins with the time at which it was made: these are a day too old, and one of them never went out.
    old = f"{int((datetime.now(UTC) - timedelta(days=91)).timestamp() * 1000):012x}"
    for dossier in (waits, gone):
        await notify.fetch(
            "UPDATE notify.notice SET id = (overlay(id::text placing $2 from 1 for 13))::uuid WHERE dossier = $1",
            dossier.code,
            f"{old[:8]}-{old[8:]}",
        )
    await notify.fetch(
        "UPDATE notify.notice SET state = 'held', sent_at = NULL, due = false, next_at = now() + interval '1 hour',"
        " expires_at = now() + interval '1 day' WHERE dossier = $1",
        waits.code,
    )
    await restart(notify)
    sealed = "SELECT dossier FROM notify.notice WHERE wrapped IS NOT NULL ORDER BY dossier"

    async def two_are_left() -> bool:
        return [row["dossier"] for row in await notify.fetch(sealed)] == [waits.code, kept.code]

    await holds(two_are_left)
    assert (
        await notify.value("SELECT count(*) FROM notify.notice WHERE state = 'sent'") == 2
    )  # that they were told stays known


async def test_what_has_not_gone_out_goes_to_the_new_number(notify: RunningSite) -> None:
    async with gateway() as sms:
        await load_bundle(notify, providers=[provider("a", sms.url)], quiet_hours=around_now(60, 60))
        dossier = Intake(notify, "H55.242-301012-0330")
        await dossier.say(dossier.contact(**CANARY), dossier.received())
        await reach(notify, dossier.code, "held")
        other = Intake(notify, "H55.242-301012-0331")
        await dossier.say(dossier.contact(**CANARY | {"phone": "+84987654321"}))
        await other.say(other.contact(**CANARY), other.received())
        await reach(notify, other.code, "held")
        await load_bundle(notify, quiet_hours=None)
        await reach(notify, dossier.code, "sent")
        await reach(notify, other.code, "sent")
        assert [call["to"] for call in sms.calls] == ["+84987654321", PHONE]
        assert dossier.code in sms.calls[0]["text"]


# ------------------------------------------------------------------------------------------------------------ crashes


async def leave_in_flight(site: RunningSite, code: str, sent_file: Path | None = None) -> UUID:
    """As if the sender had died between the attempt's beginning and its outcome."""
    await site.stop_service("notify")
    identity: UUID = await site.value("SELECT id FROM notify.notice WHERE dossier = $1", code)
    await site.database.execute(
        "UPDATE notify.notice SET state = 'planned', due = false, in_flight = true, next_at = NULL, attempts = 1,"
        " tried = '{}', mark = 0, sent_at = NULL WHERE id = $1",
        identity,
    )
    return identity


async def restart(site: RunningSite, **more: Any) -> None:
    site.services["notify"] = app.create(NotifySettings(**site.settings(**more)))
    await site.services["notify"].start()
    await site.reading()


@pytest.mark.parametrize("was_written", [True, False])
async def test_promise_9_after_a_crash_the_file_is_looked_up(
    notify: RunningSite, tmp_path: Path, was_written: bool
) -> None:
    dossier = Intake(notify, "H55.242-301012-0120")
    await dossier.say(dossier.contact(**CANARY), dossier.received())
    await reach(notify, dossier.code, "sent")
    identity = await leave_in_flight(notify, dossier.code)
    path = tmp_path / "sent.ndjson"
    whole = path.read_bytes()
    if not was_written:
        path.write_bytes(whole[:-30])  # the crash has torn the line
    await restart(notify)

    async def sent() -> bool:
        return bool(await notify.value("SELECT state = 'sent' FROM notify.notice WHERE id = $1", identity))

    await holds(sent)
    good = [line for line in path.read_bytes().splitlines() if line.endswith(b"}")]
    assert [json.loads(line)["id"] for line in good] == [str(identity)]


@pytest.mark.parametrize("dedupes", [True, False])
async def test_promise_9_after_a_crash_only_what_the_provider_dedupes_is_repeated(
    notify: RunningSite, dedupes: bool
) -> None:
    async with gateway() as sms:
        await load_bundle(notify, providers=[provider("a", sms.url, dedupes=dedupes)], quiet_hours=None)
        dossier = Intake(notify, "H55.242-301012-0121")
        await dossier.say(dossier.contact(**CANARY), dossier.received())
        await reach(notify, dossier.code, "sent")
        identity = await leave_in_flight(notify, dossier.code)
        await restart(notify)
        wanted = "sent" if dedupes else "unknown"

        async def there() -> bool:
            return bool(await notify.value("SELECT state = $2 FROM notify.notice WHERE id = $1", identity, wanted))

        await holds(there)
        assert [call["id"] for call in sms.calls] == [str(identity)] * (2 if dedupes else 1)


# ------------------------------------------------------------------------------------------------------------ the post


async def test_a_result_is_brought_by_post_and_tracked(notify: RunningSite, tmp_path: Path) -> None:
    await load_bundle(
        notify, carriers=[{"name": "vnpost", "kind": "file", "secret": SECRET, "charge": 30000}], quiet_hours=None
    )
    dossier = Intake(notify, "H55.242-301012-0130")
    await dossier.say(
        dossier.contact(**CANARY),
        dossier.received(return_by="postal", fee=50000),
        dossier.started(),
        dossier.paid(20000),
        dossier.resolved(),
    )
    client = notify.client("notify")

    async def ordered() -> dict[str, Any] | None:
        items = (await client.get("/v1/postal-orders", params={"dossier": dossier.code})).json()["items"]
        return items[0] if items and items[0]["state"] == "ordered" else None

    order = await holds(ordered)
    assert (order["kind"], order["carrier"], order["fee_to_collect"]) == ("deliver", "vnpost", 60000)
    [line] = lines(tmp_path / "postal.ndjson")
    assert (line["id"], line["to"]["name"], line["to"]["address"]) == (order["id"], NAME, ADDRESS)

    async def report(**document: Any) -> int:
        body = json.dumps({"id": order["id"], **document}).encode()
        signature = f"sha256={hmac.new(SECRET.encode(), body, sha256).hexdigest()}"
        headers = {"Content-Type": "application/json", "X-Signature": signature}
        path = "/v1/postal-events/vnpost"
        return (await notify.client("notify", None).post(path, content=body, headers=headers)).status_code

    assert await report(state="in-transit") == 200
    assert await report(state="collected") == 200  # late: it only moves on
    assert await report(state="delivered", amount=60000) == 200
    assert await report(state="returned", reason="x") == 200
    assert await report(id=str(uuid7()), state="delivered") == 404
    [order] = (await client.get("/v1/postal-orders", params={"dossier": dossier.code})).json()["items"]
    assert (order["state"], order["amount"]) == ("delivered", 60000)
    types = [each for each in await said(notify, dossier.code, 7) if each.startswith("postal.")]
    assert types == ["postal.ordered", "postal.in-transit", "postal.delivered"]


async def test_a_letter_follows_an_sms_that_did_not_arrive(notify: RunningSite, tmp_path: Path) -> None:
    async with gateway() as sms:
        sms.answers(status(400, b'{"reason": "absent subscriber"}'))
        rule = {"act": "resolved", "template": "resolved", "post_if_undelivered": True}
        await load_bundle(notify, providers=[provider("a", sms.url)], notices=[rule], quiet_hours=None)
        dossier = Intake(notify, "H55.242-301012-0131")
        await dossier.say(dossier.contact(**CANARY), dossier.received(), dossier.started(), dossier.resolved())
        first, letter = await reach(notify, dossier.code, "failed", "sent")
        assert (first["channel"], letter["channel"], letter["act"]) == ("sms", "postal", "resolved")
        [line] = lines(tmp_path / "postal.ndjson")
        assert dossier.code in line["text"]


async def brought_by_post(notify: RunningSite, code: str, **carrier: Any) -> tuple[Intake, dict[str, Any]]:
    """A resolved dossier whose result the carrier has, and its order."""
    await load_bundle(
        notify, carriers=[{"name": "vnpost", "kind": "file", "secret": SECRET, **carrier}], quiet_hours=None
    )
    dossier = Intake(notify, code)
    await dossier.say(
        dossier.contact(**CANARY | {"name": "=Đàm Thị Hoàng Yến"}),
        dossier.received(return_by="postal", fee=50000),
        dossier.started(),
        dossier.resolved(),
    )

    async def ordered() -> dict[str, Any] | None:
        answer = await notify.client("notify").get("/v1/postal-orders", params={"dossier": code})
        return next((item for item in answer.json()["items"] if item["state"] == "ordered"), None)

    return dossier, await holds(ordered)


async def test_a_carrier_is_asked_for_its_orders_in_its_own_words(notify: RunningSite) -> None:
    words, asked = ["posted", "lost in the rain", "on the road", "brought back"], list[str]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode().split()[1])
        body = json.dumps(
            {"state": words[min(len(asked), 4) - 1], "reason": f"={NAME.upper()}: nobody at home", "theirs": 1}
        ).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/orders"
        states = {"posted": "collected", "on the road": "in-transit", "brought back": "returned"}
        settings = notify.services["notify"].settings
        assert isinstance(settings, NotifySettings)
        settings.track_first = settings.track_most = 0.05
        dossier, order = await brought_by_post(notify, "H55.242-301012-0140", track_url=url, states=states)
        types = [each for each in await said(notify, dossier.code, 8) if each.startswith("postal.")]
        assert types == ["postal.ordered", "postal.collected", "postal.in-transit", "postal.returned"]
        assert set(asked) == {f"/orders?id={order['id']}"}
        assert await notify.value("SELECT track_at IS NULL FROM notify.postal_order") is True
    # What came back is a task of the desk until it says what it did.
    desk = notify.client("notify", Role.DESK, COMMUNE)
    [task] = (await desk.get("/v1/postal-tasks")).json()["items"]
    assert (task["id"], task["reason"]) == (order["id"], "…: nobody at home")
    named = "SELECT count(*) FROM notify.event WHERE payload LIKE '%' || $1 || '%'"
    assert [await notify.value(named, words) for words in (NAME.upper(), "nobody at home")] == [0, 1]
    path = f"/v1/postal-orders/{order['id']}/handled"
    stranger = notify.client("notify", Role.DESK, "H55.21")
    assert (await stranger.get("/v1/postal-tasks")).json()["items"] == []
    assert (await stranger.post(path, json={"note": "x"})).status_code == 404
    assert (await desk.post(path, json={"note": "đã gọi điện"})).status_code == 200
    assert (await desk.get("/v1/postal-tasks")).json()["items"] == []


@pytest.mark.parametrize("answer", [status(503), None], ids=["takes nothing", "answers nothing"])
async def test_what_a_carrier_takes_not_goes_to_the_next_and_what_it_may_have_stays(
    notify: RunningSite, answer: Answer
) -> None:
    settings = notify.services["notify"].settings
    assert isinstance(settings, NotifySettings)
    settings.carrier_patience, settings.carrier_again = 0.3, 600.0
    async with gateway() as first, gateway() as second:

        async def behave(document: dict[str, Any], call: int) -> Answer:
            return answer

        first.behave = behave
        carriers = [
            {"name": "vnpost", "kind": "http", "url": first.url, "charge": 30000},
            {"name": "other", "kind": "http", "url": second.url, "charge": 20000},
        ]
        await load_bundle(notify, carriers=carriers, quiet_hours=None)
        dossier = Intake(notify, "H55.242-301012-0141")
        await dossier.say(
            dossier.contact(**CANARY),
            dossier.received(return_by="postal", fee=50000),
            dossier.started(),
            dossier.resolved(),
        )
        if answer is None:
            await notify.until(lambda: len(first.calls) >= 4)  # under its id, by which a carrier takes an order once
            first.behave = first._well
        types = [each for each in await said(notify, dossier.code, 5) if each.startswith("postal.")]
        assert types == ["postal.ordered"]
        [order] = (await notify.client("notify").get("/v1/postal-orders", params={"dossier": dossier.code})).json()[
            "items"
        ]
        assert {call["id"] for call in first.calls} == {order["id"]}
        if answer is None:
            assert (order["carrier"], order["fee_to_collect"], second.calls) == ("vnpost", 80000, [])
        else:
            assert (order["carrier"], order["fee_to_collect"]) == ("other", 70000)
            assert [(call["id"], call["fee_to_collect"]) for call in second.calls] == [(order["id"], 70000)]


async def test_the_days_papers_for_the_carrier(notify: RunningSite) -> None:
    _, order = await brought_by_post(notify, "H55.242-301012-0141", charge=20000)
    desk, day = notify.client("notify", Role.DESK, COMMUNE), f"{datetime.now(LOCAL_ZONE):%Y-%m-%d}"
    answer = await desk.get("/v1/postal-orders/manifest", params={"day": day})
    assert answer.headers["content-type"].startswith("text/csv")
    header, row = csv.reader(io.StringIO(answer.text.removeprefix("\ufeff")))
    assert header[0] == "Mã đơn"
    assert row[0] == order["id"]
    assert row[6:] == ["'=Đàm Thị Hoàng Yến", ADDRESS, "0912345678", "70000"]
    labels = (await desk.get("/v1/postal-orders/labels", params={"day": day})).text
    assert ADDRESS in labels
    assert "70.000 đồng" in labels
    assert "data:image/svg+xml" in labels
    record = "SELECT count(*) FROM notify.access_record WHERE what = 'postal-address'"
    assert await notify.value(record) == 2
    auditor = notify.client("notify", Role.AUDITOR)
    assert (await auditor.get("/v1/postal-orders/manifest", params={"day": day})).status_code == 403
    stranger = notify.client("notify", Role.DESK, "H55.21")
    assert (await stranger.get("/v1/postal-orders/manifest", params={"day": day})).text.count("\n") == 1


async def test_what_was_sent_and_what_it_costs(notify: RunningSite) -> None:
    async with gateway() as sms:
        sms.answers(OK, status(422, b'{"reason": "blocked"}'), OK)
        providers = [provider("a", sms.url, price=350)]
        carriers = [{"name": "vnpost", "kind": "file", "secret": SECRET, "price": 12000}]
        await load_bundle(notify, providers=providers, carriers=carriers, quiet_hours=None)
        for number, state in enumerate(("sent", "failed", "sent")):
            dossier = Intake(notify, f"H55.242-301012-{340 + number:04}")
            await dossier.say(dossier.contact(**CANARY), dossier.received())
            await reach(notify, dossier.code, state)
        written = Intake(notify, "H55.242-301012-0349")
        await written.say(written.contact(name=NAME, address=ADDRESS), written.received())
        await reach(notify, written.code, "sent")
    leader, day = notify.client("notify", Role.LEADER, "H55"), f"{datetime.now(LOCAL_ZONE):%Y-%m-%d}"
    shown = (await leader.get("/v1/notices/statement", params={"day": day})).json()
    assert [(i["agency"], i["channel"], i["provider"], i["notices"], i["cost"]) for i in shown["items"]] == [
        (COMMUNE, "postal", "vnpost", 1, 12000),
        (COMMUNE, "sms", "a", 2, 700),
    ]
    assert shown["total"] == {"notices": 3, "parts": 2, "cost": 12700}
    counts = (await leader.get("/v1/notices/counts", params={"from": day, "to": day})).json()["items"]
    assert {(c["provider"], c["state"], c["reason"], c["notices"]) for c in counts} == {
        ("a", "sent", None, 2),
        ("a", "failed", "blocked", 1),
        ("vnpost", "sent", None, 1),
    }
    metrics = (await notify.client("notify", None).get("/metrics")).text
    assert 'lienthong_notices_total{channel="sms",service="notify",state="sent"} 2.0' in metrics
    assert 'lienthong_notice_seconds_count{channel="sms",service="notify",until="sent"} 2.0' in metrics


async def test_the_page_of_notices(notify: RunningSite) -> None:
    dossier = Intake(notify, "H55.242-301012-0360")
    await dossier.say(dossier.contact(**CANARY), dossier.received())
    await reach(notify, dossier.code, "sent")
    nobody = await notify.client("notify", None).get("/notices")
    assert (nobody.status_code, 'lang="vi"' in nobody.text) == (401, True)
    desk = notify.client("notify", Role.DESK, COMMUNE)
    shown = await desk.get("/notices", params={"state": "sent", "channel": "", "dossier": ""})
    assert shown.status_code == 200
    assert dossier.code in shown.text
    assert "09•••••678" in shown.text
    assert PHONE[-9:] not in shown.text
    assert dossier.code not in (await desk.get("/notices", params={"state": "failed"})).text
    auditor = notify.client("notify", Role.AUDITOR)
    assert "•" not in (await auditor.get("/notices")).text.replace("<title>", "")
    session = desk.headers["Authorization"].removeprefix("Bearer ")
    by_session = await notify.client("notify", None).get("/notices", headers={"Cookie": f"lienthong_desk={session}"})
    assert dossier.code in by_session.text
    assert (await notify.client("notify", Role.DESK, "H55.21").get("/notices")).text.count(dossier.code) == 0


# ------------------------------------------------------------------------------------------------------------- preview


async def test_preview(notify: RunningSite) -> None:
    desk = notify.client("notify", Role.DESK, COMMUNE)

    async def ask(**body: Any) -> dict[str, Any]:
        answer = await desk.post("/v1/preview", json=body)
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    assert await ask(text="Hồ sơ đủ điều kiện") == {
        "text": "Hồ sơ đủ điều kiện",
        "encoding": "ucs2",
        "parts": 1,
        "characters": 18,
    }
    assert await ask(text="Hồ sơ đủ điều kiện", tones="drop") == {
        "text": "Ho so du dieu kien",
        "encoding": "gsm7",
        "parts": 1,
        "characters": 18,
    }
    shown = await ask(template="received", data={"code": "H55.242-301012-0001", "due": "05/03/2031 17:00"})
    assert (shown["encoding"], shown["parts"]) == ("gsm7", 1)
    assert "H55.242-301012-0001" in shown["text"]
    prices = {entry.name: entry.price for entry in notify.services["notify"].directory.current.providers}
    long = await ask(text="Hồ sơ " * 30, costs=True)
    assert long["parts"] > 1
    assert {each["provider"]: each["cost"] for each in long["costs"]} == {
        name: price * long["parts"] for name, price in prices.items()
    }
    for wrong in (
        {},
        {"text": "a", "template": "received"},
        {"text": " "},
        {"template": "none"},
        {"text": "a", "x": 1},
    ):
        assert (await desk.post("/v1/preview", json=wrong)).status_code == 422
