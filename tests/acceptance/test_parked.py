"""Promise 4 by hand: bad records on the topic are parked with their reason, and only their dossier waits."""

import asyncio
import getpass
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.contracts.codes import uuid7
from shared.security.keys import load_keys
from shared.security.tokens import Role, Tokens
from tests.acceptance.command import Up, has_parked, lienthong, receipt, reconciled, running, until
from tests.harness import BusRecord

TOPIC = "lienthong.dossier.v1"
CONSUMERS = ("notify", "routing", "stats")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A site of its own: what is put on its bus by hand stays there."""
    folder: Path = tmp_path_factory.mktemp("parked") / "data"
    with running(folder) as up:
        yield up


def receive(up: Up) -> str:
    with up.http("intake") as http:
        return str(http.post("/v1/dossiers", json=receipt()).json()["code"])


def operate(up: Up, code: str, operation: str, body: dict[str, Any] | None = None) -> None:
    with up.http("intake") as http:
        assert http.post(f"/v1/dossiers/{code}/{operation}", json=body or {}).status_code == 200


def last_record(up: Up, key: str) -> BusRecord:
    """The newest record of a key on the bus, when there is one."""

    def records() -> list[BusRecord]:
        return [record for record in asyncio.run(up.bus().records(TOPIC)) if record.key == key.encode()]

    return (until(records, f"{key} is on the bus") or [])[-1]


def put_after(up: Up, code: str, *, value: bytes | None = None, **changed: str) -> None:
    """Puts on the topic a copy of the dossier's last event as if it were the next, with these headers or this value."""
    record = last_record(up, code)
    headers = record.header | {"ce_id": str(uuid7()), "ce_sequence": str(record.sequence + 1), **changed}
    put(up, code, record.value if value is None else value, headers)


def put(up: Up, key: str, value: bytes | None, headers: Mapping[str, str]) -> None:
    encoded = [(name, text.encode()) for name, text in headers.items()]
    asyncio.run(up.bus().send((TOPIC, key.encode(), value, encoded)))


def parked(up: Up, key: str) -> list[dict[str, Any]]:
    done = lienthong("parked", "list", "--json", data=up.data)
    assert done.returncode == 0, done.stderr
    return [item for item in json.loads(done.stdout) if item["key"] == key]


def until_parked(up: Up, key: str) -> Sequence[dict[str, Any]]:
    """What the consumers have parked of a key, when all of them have."""
    until(lambda: all(has_parked(up, service, key) for service in CONSUMERS), f"{key} is parked everywhere")
    items = [item for item in parked(up, key) if item["state"] == "parked"]
    assert {item["service"] for item in items} == set(CONSUMERS)
    return items


async def places(up: Up, key: str) -> dict[str, int]:
    """How far each consumer has applied a dossier's events."""
    found = {}
    for service in CONSUMERS:
        rows = await up.rows(f"SELECT sequence FROM {service}.inbox WHERE topic = $1 AND key = $2", TOPIC, key)
        found[service] = rows[0]["sequence"] if rows else 0
    return found


def until_applied(up: Up, key: str, sequence: int) -> None:
    wanted = dict.fromkeys(CONSUMERS, sequence)
    until(lambda: asyncio.run(places(up, key)) == wanted, f"{key} is applied up to {sequence}")


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"value": b"{broken"}, "not-json"),
    ({"value": b'{"agency": 7}'}, "not-valid"),
    ({"ce_sequence": "minus one"}, "bad-header"),
    ({"ce_time": "yesterday"}, "bad-header"),
    ({}, "state-contradiction"),  # received once more
)


def test_bad_events_stop_their_dossiers_and_no_other(site: Up) -> None:
    bad = {receive(site): wrong for wrong in WRONG}
    other = receive(site)
    for code, (changes, _) in bad.items():
        until_applied(site, code, 1)
        put_after(site, code, **changes)
    for code, (_, reason) in bad.items():
        for item in until_parked(site, code):
            assert item["reason"] == reason
            assert "Nguyễn" not in json.dumps(item, ensure_ascii=False)

    for code in (*bad, other):
        operate(site, code, "start")
    until_applied(site, other, 2)
    for code in bad:
        assert asyncio.run(places(site, code)) == dict.fromkeys(CONSUMERS, 1)
    books = lienthong("reconcile", "--json", data=site.data)
    assert books.returncode == 1
    assert bad.keys() <= {item["key"] for item in json.loads(books.stdout)["parked"]}

    code, (_, reason) = next(iter(bad.items()))
    shown = lienthong("parked", "show", code, data=site.data)
    assert shown.returncode == 0
    assert reason in shown.stdout
    tried = json.loads(lienthong("parked", "replay", code, "--dry-run", "--json", data=site.data).stdout)
    assert {done["service"] for done in tried} == set(CONSUMERS)
    assert asyncio.run(places(site, code)) == dict.fromkeys(CONSUMERS, 1)

    for code in bad:
        healed = lienthong("parked", "replay", code, data=site.data)
        assert healed.returncode == 0, healed.stdout + healed.stderr
        until_applied(site, code, 2)
        assert parked(site, code) == []
    reconciled(site.data)


def test_a_foreign_event_is_dropped_with_a_reason(site: Up) -> None:
    code = receive(site)
    until_applied(site, code, 1)
    put_after(site, code, value=b"{broken")
    for item in until_parked(site, code):
        arguments = ("parked", "drop", item["number"], "--service", item["service"], "--reason", "put there by hand")
        assert lienthong(*arguments, "--dry-run", data=site.data).returncode == 0
        assert len(parked(site, code)) > 0
        done = lienthong(*arguments, "--json", data=site.data)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["skipped"] is False
    assert parked(site, code) == []
    acts = [
        act for act in json.loads(lienthong("parked", "acts", "--json", data=site.data).stdout) if act["key"] == code
    ]
    assert {act["service"] for act in acts} == set(CONSUMERS)
    assert {(act["act"], act["outcome"], act["reason"]) for act in acts} == {("drop", "discarded", "put there by hand")}
    assert all(act["who"].startswith(getpass.getuser()) for act in acts)
    operate(site, code, "start")
    until_applied(site, code, 2)
    reconciled(site.data)


def hidden(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None, page
    return unescape(found[1])


def test_on_the_page_it_is_looked_at_tried_replayed_and_dropped_by_name(site: Up) -> None:
    """As by the command; what an auditor sees, and may not do."""
    healed, foreign = receive(site), receive(site)
    for code in (healed, foreign):
        until_applied(site, code, 1)
        put_after(site, code, value=b'{"name": "Bich Ngoc Lan"}')
        until_parked(site, code)
    operate(site, healed, "start")
    tokens = Tokens(load_keys(site.data / "keys"), site.ready["site"])
    with httpx.Client(base_url=site.url("intake"), follow_redirects=True, trust_env=False, timeout=30) as web:
        token = tokens.issue(Role.OPERATOR, name="Chị Ba trực đêm")
        page = web.post("/desk/login", data={"token": token}).text
        links = [unescape(link) for link in re.findall(r'href="(/parked/key\?[^"]+)"', page)]
        of = [link for link in links if healed in link]
        assert len(of) == len(CONSUMERS)
        for link in of:
            page = web.get(link).text
            assert "not-valid" in page
            assert "Bich" not in page
            form = {name: hidden(page, name) for name in ("csrf", "at", "topic", "key")}
            tried = web.post("/parked/replay", data=form | {"dry_run": "1"}).text
            assert "Chạy thử: sẽ áp dụng" in tried
            assert "not-valid" in web.get(link).text  # it has changed nothing
            assert "không còn gì bị giữ" in web.post("/parked/replay", data=form).text
        until_applied(site, healed, 2)
        for link in [link for link in links if foreign in link]:
            page = web.get(link).text
            form = {name: hidden(page, name) for name in ("csrf", "at", "topic", "key", "number")}
            assert "Cần nêu lý do" in web.post("/parked/drop", data=form).text
            assert "sẽ bị loại" in web.post("/parked/drop", data=form | {"reason": "lạ", "dry_run": "1"}).text
            assert "Đã loại sự kiện lạ" in web.post("/parked/drop", data=form | {"reason": "ghi nhầm"}).text
        page = web.get("/parked").text
        assert page.count("Chị Ba trực đêm") >= 2 * len(CONSUMERS)  # each act has its doer
        assert "ghi nhầm" in page
        assert foreign not in [item["key"] for item in json.loads(listed(site))]
    auditor = {"Authorization": f"Bearer {tokens.issue(Role.AUDITOR)}"}
    with httpx.Client(base_url=site.url("intake"), headers=auditor, trust_env=False, timeout=30) as web:
        assert "ghi nhầm" in web.get("/parked").text
        refused = web.post("/parked/replay", data={"at": "stats", "topic": TOPIC, "key": healed})
        assert refused.status_code == 403
    reconciled(site.data)


def listed(up: Up) -> str:
    done = lienthong("parked", "list", "--json", data=up.data)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_unknown_type_or_field_parks_nothing(site: Up) -> None:
    """Last in this file: the dossiers are made up, so that this site's books agree no more."""
    code = receive(site)
    until_applied(site, code, 1)
    record = last_record(site, code)
    assert record.value is not None
    known, unknown = "H55.242-260101-9001", "H55.242-260101-9002"
    more = json.dumps(json.loads(record.value) | {"a_field_of_later": 1}).encode()
    for key, value, kind in (
        (known, more, record.header["ce_type"]),
        (unknown, record.value, "vn.lienthong.dossier.teleported.v1"),
    ):
        own = {"ce_id": str(uuid7()), "ce_subject": key, "ce_partitionkey": key, "ce_type": kind}
        put(site, key, value, record.header | own)
        until_applied(site, key, 1)
        assert parked(site, key) == []
