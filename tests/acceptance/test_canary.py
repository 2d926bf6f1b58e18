"""Promise 10 by a canary: a person whose data are searched for everywhere, and found in their tier alone."""

import asyncio
import base64
import hashlib
import io
import json
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import asyncpg
import pytest

from shared.contracts.codes import uuid7
from shared.contracts.events import TOPICS
from shared.security.tokens import Role
from tests.acceptance.command import Up, has_parked, lienthong, receipt, running, until
from tests.collector import Collector

NAME, ADDRESS, REMARK = "Hoàng Yến Chim", "Ngõ Bạch Yến 77", "Chim Hoàng Yến hót hay"
PHONE, CITIZEN_ID = "0987654321", "034099777123"
CANARY = {"kind": "citizen", "name": NAME, "phone": PHONE, "address": ADDRESS, "citizen_id": CITIZEN_ID}


def without_tones(text: str) -> str:
    bare = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
    return bare.replace("đ", "d").replace("Đ", "D")


def needles() -> list[bytes]:
    """What may give the person away, in lower case: as said, without tones, the last nine digits, base64 at each of its
    three alignments, and unsalted digests."""
    said = [NAME, ADDRESS, REMARK, PHONE, CITIZEN_ID, "+84" + PHONE[1:], PHONE[-9:], CITIZEN_ID[-9:]]
    plain = {text for word in said for text in (word, without_tones(word), unicodedata.normalize("NFD", word))}
    plain |= {json.dumps(text)[1:-1] for text in plain}
    found = {text.encode().lower() for text in plain}
    for text in plain:
        raw = text.encode()
        for offset in range(3):
            coded = base64.b64encode(b"\0" * offset + raw)
            found.add(coded[(0, 2, 3)[offset] : len(coded) - 4].lower())  # less what its neighbours decide
        for algorithm in ("md5", "sha1", "sha256", "sha512"):
            digest = hashlib.new(algorithm, raw).digest()
            found |= {digest.hex().encode(), base64.b64encode(digest).rstrip(b"=").lower(), digest.lower()}
    return [needle for needle in found if len(needle) >= 8]


NEEDLES = needles()


def given_away(content: bytes) -> list[bytes]:
    low = content.lower()
    return [needle for needle in NEEDLES if needle in low]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Any:
    """A site on which the canary has lived a whole dossier's life, with every mistake that a client makes."""
    with running(tmp_path_factory.mktemp("canary") / "data", told={"traces_url": collector.url}) as up:
        code = life(up)
        yield up, code


def life(up: Up) -> str:
    with up.http("intake") as http:
        code = str(http.post("/v1/dossiers", json=receipt(applicant=CANARY)).json()["code"])
        # Of two events of a dossier in one batch, what follows is in the trace of the later one: so the first is waited for.
        with up.http("notify") as notify:
            about = {"dossier": code, "state": "sent"}
            until(lambda: notify.get("/v1/notices", params=about).json()["items"], "the receipt is told")
        again = receipt(applicant=CANARY) | {"channel": "online"}
        assert http.post("/v1/submissions", json=again).status_code == 201
        for operation, body in (
            ("start", {}),
            ("supplement-request", {"reason": "thiếu giấy"}),
            ("supplement", {}),
            ("resolution", {"result": "granted"}),
            ("return", {"by": "counter"}),
            ("rating", {"level": "satisfied", "comment": REMARK}),
        ):
            assert http.post(f"/v1/dossiers/{code}/{operation}", json=body).status_code == 200
        # what is wrong is answered and logged, and its content is in neither
        assert http.post("/v1/dossiers", json=receipt(applicant=CANARY | {"phone": NAME})).status_code == 422
        assert http.post("/v1/dossiers", json={NAME: PHONE}).status_code == 422
        assert http.get("/v1/dossiers", params={"q": PHONE, "x": NAME}).status_code == 422
        assert http.get(f"/v1/dossiers/{PHONE}").status_code == 404
        assert http.post("/v1/dossiers/search", json={"phone": PHONE}).json()["items"]
        line = json.dumps({"op": "receive", "ref": "1", "at": NAME, **receipt(applicant=CANARY)})
        lines = {"content-type": "application/x-ndjson"}
        sent = http.post("/v1/imports", params={"source": "s"}, content=line.encode(), headers=lines)
        assert sent.json()["status"] == "refused"
        http.get(f"/v1/dossiers/{code}")
        petition = {"agency": "H55.242", "kind": "letter", "text": f"Tôi là {NAME}", "contact": {"phone": PHONE}}
        assert http.post("/v1/petitions", json=petition).status_code == 201
    park(up, code)
    with up.http("notify") as http:
        until(lambda: http.get("/v1/notices", params={"dossier": code}).json()["items"], "the canary is told")
    return code


def park(up: Up, code: str) -> None:
    """Somebody puts a record with the person in it on the topic: the consumers park it."""
    topic = "lienthong.dossier.v1"

    def records() -> list[Any]:
        return [r for r in asyncio.run(up.bus().records(topic)) if r.key == code.encode()]

    last = (until(records, "the dossier is on the bus") or [])[-1]
    headers = last.header | {"ce_id": str(uuid7()), "ce_sequence": str(last.sequence + 1)}
    value = json.dumps({NAME: PHONE, "agency": NAME, "state": CITIZEN_ID}, ensure_ascii=False).encode()
    encoded = [(name, text.encode()) for name, text in headers.items()]
    asyncio.run(up.bus().send((topic, code.encode(), value, encoded)))

    until(
        lambda: all(has_parked(up, service, code) for service in ("routing", "notify", "stats")),
        "it is parked everywhere",
    )


def test_the_needles_find_what_they_are_to_find() -> None:
    for text in (NAME, without_tones(NAME), PHONE, "84987654321", CITIZEN_ID, json.dumps(NAME)):
        assert given_away(b"xx" + text.encode() + b"yy")
        for offset in range(3):
            assert given_away(base64.b64encode(b"a" * offset + text.encode() + b"zz")), (text, offset)
    assert given_away(hashlib.sha256(PHONE.encode()).hexdigest().encode())
    assert not given_away(json.dumps(receipt()).encode())


def test_not_on_any_topic(lived: tuple[Up, str]) -> None:
    up, code = lived
    put_by_hand = 0
    for topic in TOPICS:
        for record in asyncio.run(up.bus().records(topic)):
            everything = b"\0".join([record.key or b"", record.value or b"", *(h for _, h in record.headers)])
            if given_away(everything):
                assert topic == "lienthong.dossier.v1"
                assert record.key == code.encode()
                put_by_hand += 1
    assert put_by_hand == 1  # what the test itself has put there


def test_not_in_any_log(lived: tuple[Up, str]) -> None:
    up, _ = lived
    files = [file for file in up.data.rglob("*") if file.is_file() and (file.suffix in (".log", ".err", ".out"))]
    files += [file for file in (up.data / "logs").rglob("*") if file.is_file()]
    assert files
    for file in files:
        assert not given_away(file.read_bytes()), file


def test_not_in_any_trace_and_its_dossier_in_one(lived: tuple[Up, str], collector: Collector) -> None:
    """From the desk's request over outbox and topics to the provider's call: one trace, of names, codes and times."""
    up, code = lived
    wanted = {
        ("lienthong-intake", "POST /v1/dossiers"),
        ("lienthong-intake", "publish dossier.received"),
        ("lienthong-intake", "publish contact.recorded"),
        ("lienthong-routing", "apply dossier.received"),
        ("lienthong-stats", "apply dossier.received"),
        ("lienthong-notify", "apply dossier.received"),
        ("lienthong-notify", "publish notice.planned"),
        ("lienthong-notify", "send file"),
        ("lienthong-notify", "publish notice.sent"),
        ("lienthong-intake", "apply notice.sent"),
    }

    def seen() -> set[tuple[str, str]]:
        return {(service, name) for _, service, name in collector.trace_of(code)}

    until(lambda: wanted <= seen(), "one trace from request to provider")
    trace = {(service, name): span for (_, service, name), span in collector.trace_of(code).items()}
    request = trace["lienthong-intake", "POST /v1/dossiers"]
    assert request.parent_span_id == b""
    assert trace["lienthong-notify", "apply dossier.received"].parent_span_id == request.span_id
    assert (
        trace["lienthong-intake", "apply notice.sent"].parent_span_id == trace["lienthong-notify", "send file"].span_id
    )
    with up.http("notify", Role.OPERATOR) as http:
        openmetrics = http.get("/metrics", headers={"accept": "application/openmetrics-text"}).text
    assert f'trace_id="{request.trace_id.hex()}"' in openmetrics  # beside a bucket of the delays
    assert not given_away(b"\0".join(collector.bodies))


def test_not_in_metrics_reports_and_pages_outside_its_tier(lived: tuple[Up, str], tmp_path: Path) -> None:
    up, code = lived
    asked = {
        "intake": ["/metrics", "/v1/dossiers", f"/v1/dossiers/{code}", f"/v1/dossiers/{code}/history", "/v1/petitions"],
        "routing": ["/metrics", "/v1/transfers", "/v1/parked"],
        "notify": ["/metrics", f"/v1/notices?dossier={code}", "/v1/postal-orders", "/v1/parked"],
        "stats": ["/metrics", "/", "/v1/parked"],
    }
    held = urlencode({"at": "stats", "topic": "lienthong.dossier.v1", "key": code})
    pages = ["/desk", f"/desk/dossiers/{code}", "/desk/register", "/desk/petitions", "/desk/returned"]
    asked["intake"] += [*pages, "/parked", f"/parked/key?{held}"]
    asked["notify"] += ["/notices", f"/notices?dossier={code}", "/v1/postal-tasks"]
    asked["stats"] += ["/dossiers?agency=H55&subtree=true&from=2026-01-01&to=2026-12-31&cell=received.total"]
    report = "/v1/reports/II.06a?agency=H55&subtree=true&from=2026-01-01&to=2026-12-31&format="
    asked["stats"] += [report + form for form in ("json", "csv", "xlsx")]
    shown = set[tuple[str, str]]()
    for role in (Role.AUDITOR, Role.OPERATOR):
        for service, paths in asked.items():
            with up.http(service, role) as http:
                for path in paths:
                    answer = http.get(path)
                    assert answer.status_code in (200, 403), (path, answer.text)
                    if answer.status_code == 200:
                        shown.add((service, path))
                    content = answer.content
                    if content.startswith(b"PK"):
                        with zipfile.ZipFile(io.BytesIO(content)) as sheet:
                            content = b"".join(sheet.read(name) for name in sheet.namelist())
                    assert not given_away(content), (role, path)
    assert {(service, path) for service, paths in asked.items() for path in paths} - shown <= {
        ("intake", "/v1/petitions")  # neither of them may read petitions
    }
    for command in (["parked", "list"], ["verify", code, "--out", tmp_path / "export.json"], ["explain", code]):
        ran = lienthong(*command, "--json", data=up.data)
        assert not given_away((ran.stdout + ran.stderr).encode()), command
    assert not given_away((tmp_path / "export.json").read_bytes())


async def everything(up: Up) -> dict[str, bytes]:
    """Every table of the site's database, as text."""
    connection = await asyncpg.connect(up.ready["database"], ssl=False)
    try:
        tables = await connection.fetch(
            "SELECT table_schema || '.' || table_name AS name FROM information_schema.tables WHERE table_type = 'BASE TABLE'"
            " AND table_schema NOT IN ('pg_catalog', 'information_schema')"
        )
        return {
            table["name"]: "\n".join(
                row["t"] for row in await connection.fetch(f"SELECT t::text AS t FROM {table['name']} t")
            ).encode()
            for table in tables
        }
    finally:
        await connection.close()


def test_in_the_database_only_sealed(lived: tuple[Up, str]) -> None:
    """Not even the database shows the person to whoever has no keys; only the raw record that is parked holds what it
    brought, for its replay."""
    up, _ = lived
    tables = asyncio.run(everything(up))
    assert "intake.contact" in tables
    assert {name for name, content in tables.items() if given_away(content) or hex_given_away(content)} <= {
        f"{service}.pending" for service in ("routing", "notify", "stats")
    }


def hex_given_away(content: bytes) -> bool:
    """Bytes in a table are shown in hexadecimal digits."""
    return any(needle.hex().encode() in content for needle in NEEDLES if len(needle) >= 9)


def test_the_tier_itself_has_it(lived: tuple[Up, str]) -> None:
    """The search would find it: the desk sees the person, the provider is given number and text."""
    up, code = lived
    with up.http("intake", Role.DESK, "H55.242") as http:
        assert given_away(http.get(f"/v1/dossiers/{code}").content)
    until(lambda: given_away((up.data / "sent.ndjson").read_bytes()), "the SMS is sent")


def test_after_the_erasure_nowhere_any_more(lived: tuple[Up, str]) -> None:
    """Last of all: what was written by then stays written at the provider's, the person is gone here."""
    up, code = lived
    done = lienthong("erase", code, "--json", data=up.data)
    assert done.returncode == 0, done.stderr
    with up.http("intake") as http:
        assert not given_away(http.get(f"/v1/dossiers/{code}").content)
        assert http.post("/v1/dossiers/search", json={"phone": PHONE}).json()["items"] == []
