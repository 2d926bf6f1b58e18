"""A commune and its province, two real sites: handed over, answered, cut off and caught up, forged and refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.security.tokens import Role
from tests.acceptance.command import Up, lienthong, reconciled, until
from tests.acceptance.linked import (
    COMMUNE,
    DOWNWARDS,
    LAND,
    NAME,
    PROCEDURE,
    PROVINCE,
    Proxy,
    act,
    bundles,
    bus_port,
    drained,
    link,
    links_over_http,
    on_leg,
    receive,
    receive_with_pin,
    states,
    status,
    transfers,
)
from tests.collector import Collector
from tests.ports import base_port

HANDED_OVER = {  # the start of processing, as one trace over both sites
    (COMMUNE, "lienthong-routing", "apply dossier.processing-started"),
    (PROVINCE, "lienthong-routing", "link transfer.requested"),
    (PROVINCE, "lienthong-routing", "publish transfer.delivered"),
    (COMMUNE, "lienthong-routing", "link transfer.delivered"),
    (COMMUNE, "lienthong-intake", "apply transfer.delivered"),
}

SECRET = "Về việc xác minh nguồn gốc thửa đất số 7"  # a document's title: for the two sites alone


class Pair:
    def __init__(self, province: Up, commune: Up, line: Proxy, collector: Collector) -> None:
        self.province, self.commune, self.line, self.collector = province, commune, line, collector


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("linked")
    upper, lower = bundles(folder)
    collector = Collector()
    province = Up.start(folder / "province", "--bundle", upper, told={"traces_url": collector.url})
    commune = Up.start(folder / "commune", "--bundle", lower, told={"traces_url": collector.url})
    line = Proxy(bus_port(province))
    both = Pair(province, commune, line, collector)
    try:
        link(province, commune, folder, line.port)
        with commune.http("intake") as http:
            until(lambda: http.get(f"/v1/procedures/{PROCEDURE}").status_code == 200, "the directory has come down")
        yield both
    finally:
        line.mend()
        both.commune.stop()  # another one by now, perhaps: one that was restored
        both.province.stop()
        line.close()
        collector.close()


def test_a_dossier_is_handed_over_and_its_answer_comes_back(pair: Pair) -> None:
    code = receive(pair.commune)
    act(pair.commune, code, "start")
    until(lambda: states(pair.province, code) == ["delivered"], "the transfer is delivered at the province")
    until(lambda: states(pair.commune, code) == ["delivered"], "home has heard of it")
    [there] = transfers(pair.province, code)
    assert (there["from"], there["to"], there["home"]) == (COMMUNE, LAND, COMMUNE)
    with pair.province.http("intake", Role.OFFICER, LAND) as http:
        page = http.get("/desk/transfers").text
    assert code in page
    assert NAME not in page
    with pair.province.http("routing", Role.OFFICER, LAND) as http:
        shown = http.get(f"/v1/transfers/{there['id']}").json()
    assert shown["applicant"]["name"] == NAME
    on_leg(pair.province, code, "accept")
    on_leg(pair.province, code, "complete", result="granted")
    with pair.commune.http("intake") as http:
        until(lambda: http.get(f"/v1/dossiers/{code}").json()["state"] == 9, "the route is complete: resolved at home")
    assert states(pair.commune, code) == ["completed"]
    across = {(COMMUNE, "lienthong-intake", "POST /v1/dossiers/{code}/start"), *HANDED_OVER}
    until(
        lambda: across <= pair.collector.trace_of(code, "apply dossier.processing-started").keys(),
        f"one trace: {across}",
    )


def test_a_hand_over_is_proven_where_only_a_root_is_known(pair: Pair, tmp_path: Path) -> None:
    code = receive(pair.commune)
    act(pair.commune, code, "start")
    until(lambda: states(pair.province, code) == ["delivered"], "delivered")
    on_leg(pair.province, code, "accept")
    until(lambda: states(pair.commune, code) == ["accepted"], "home knows")
    root = json.loads(lienthong("keys", "show", "--json", data=pair.province.data).stdout)["link"]
    for site, events in ((pair.commune, 2), (pair.province, 0)):
        file = tmp_path / f"{site.ready['site']}.json"
        done = lienthong("export", code, "--out", file, "--json", data=site.data)
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout)
        assert (made["events"], root in {made["signed_by"], *made["roots"]}) == (events, True)
        assert made["receipts"] == (
            2 if site is pair.commune else 0
        )  # delivered, accepted; an ask has the person in it
        assert NAME not in file.read_text()
        assert lienthong("verify", file, "--key", root).returncode == 0
        assert lienthong("verify", file, "--key", "0" * 16).returncode == 1
        proof = json.loads(file.read_text())
        proof["transfers"][-1]["data"] = proof["transfers"][-1]["data"].replace(LAND, "H55.25")
        file.write_text(json.dumps(proof))
        changed = json.loads(lienthong("verify", file, "--key", root, "--json").stdout)
        assert not changed["intact"]
        assert [(f["part"], f["item"]) for f in changed["faults"]] == [("transfers", made["transfers"])]


def document(site: Up, which: str) -> dict[str, Any]:
    with site.http("routing") as http:
        answer = http.get(f"/v1/documents/{which}")
        found: dict[str, Any] = answer.json() if answer.status_code == 200 else {"state": None}
        return found


def act_on(site: Up, which: str, operation: str, **body: str) -> int:
    with site.http("routing") as http:
        return http.post(f"/v1/documents/{which}/{operation}", json=body).status_code


def send_document(home: Up, there: Up, number: str, sender: str, receiver: str) -> str:
    """A document that has arrived at the other site; its id."""
    body = {"number": number, "date": "2026-11-23", "kind": 0, "from": sender, "to": receiver, "title": SECRET}
    with home.http("routing") as http:
        made = http.post("/v1/documents", json=body)
    assert (made.status_code, made.json()["state"]) == (201, "01"), made.text
    which = str(made.json()["id"])
    until(lambda: document(there, which)["state"] == "01", "it has arrived")
    until(lambda: document(home, which)["arrived"], "and its sender knows")
    return which


@pytest.mark.parametrize("upwards", [True, False])
def test_a_document_is_sent_and_its_states_come_back(pair: Pair, upwards: bool) -> None:
    home, there = (pair.commune, pair.province) if upwards else (pair.province, pair.commune)
    which = send_document(home, there, "7/CV", *((COMMUNE, LAND) if upwards else (LAND, COMMUNE)))
    assert (document(there, which)["title"], document(there, which)["home"]) == (SECRET, home.ready["site"])
    assert (act_on(home, which, "accept"), act_on(there, which, "recall", reason="x")) == (409, 409)
    assert act_on(there, which, "accept") == act_on(there, which, "start") == 200
    until(lambda: document(home, which)["state"] == "05", "home follows")
    assert act_on(home, which, "recall", reason="Nhầm số văn bản") == 200
    until(lambda: document(there, which)["state"] == "13", "it is asked back")
    assert act_on(there, which, "recall-refuse", reason="Đã giải quyết") == act_on(there, which, "finish") == 200
    until(lambda: document(home, which)["state"] == "06", "done")
    assert act_on(there, which, "accept") == 409


async def test_no_hop_reads_what_a_document_says(pair: Pair) -> None:
    for site in (pair.commune, pair.province):
        for table in ("link_sent", "link_received"):
            assert await site.rows(f"SELECT id FROM routing.{table} WHERE body LIKE $1", f"%{SECRET}%") == []
            assert await site.rows(f"SELECT id FROM routing.{table} WHERE kind = 'document'") != []


def test_a_refusal_is_read_with_its_reason_on_both_sites(pair: Pair) -> None:
    code = receive(pair.commune)
    act(pair.commune, code, "start")
    until(lambda: states(pair.province, code) == ["delivered"], "delivered")
    on_leg(pair.province, code, "refuse", reason="Thiếu trích lục bản đồ")
    until(lambda: states(pair.commune, code) == ["refused"], "home knows")
    with pair.commune.http("intake", Role.DESK, COMMUNE) as http:
        page = http.get("/desk/transfers", params={"show": "back"}).text
    assert code in page
    assert "Thiếu trích lục bản đồ" in page
    assert "Văn phòng Đăng ký đất đai tỉnh Thái Nguyên" in page
    assert "yêu cầu lại" in page
    with pair.commune.http("intake", Role.DESK, COMMUNE) as http:
        page = http.get(f"/desk/dossiers/{code}").text  # the dossier's own page shows its legs
    assert "Các bước liên thông" in page
    assert "Văn phòng Đăng ký đất đai tỉnh Thái Nguyên" in page
    assert "Bị từ chối" in page
    assert "Thiếu trích lục bản đồ" in page
    for site in (pair.commune, pair.province):
        assert transfers(site, code)[0]["reason"] == "Thiếu trích lục bản đồ"
    assert "request-again" in transfers(pair.commune, code)[0]["next_steps"]
    assert transfers(pair.province, code)[0]["next_steps"] == []


def test_a_leg_is_handed_down_and_its_answer_comes_up(pair: Pair) -> None:
    code = receive(pair.province, DOWNWARDS, LAND)
    act(pair.province, code, "start")
    until(lambda: states(pair.commune, code) == ["delivered"], "the transfer is delivered at the commune")
    until(lambda: states(pair.province, code) == ["delivered"], "home has heard of it")
    [there] = transfers(pair.commune, code)
    assert (there["from"], there["to"], there["home"]) == (LAND, COMMUNE, PROVINCE)
    with pair.commune.http("routing", Role.OFFICER, COMMUNE) as http:
        assert http.get(f"/v1/transfers/{there['id']}").json()["applicant"]["name"] == NAME
    on_leg(pair.commune, code, "return", COMMUNE, reason="Thiếu giấy tờ", need="supplement")
    until(lambda: states(pair.province, code) == ["returned"], "home knows that more is needed")
    with pair.province.http("routing") as http:
        again = http.post(f"/v1/transfers/{there['id']}/request-again", json={})
        assert again.status_code == 200, again.text
    until(lambda: states(pair.commune, code) == ["returned", "delivered"], "it is asked for again")
    on_leg(pair.commune, code, "accept", COMMUNE)
    on_leg(pair.commune, code, "complete", COMMUNE, result="granted")
    with pair.province.http("intake") as http:
        until(lambda: http.get(f"/v1/dossiers/{code}").json()["state"] == 9, "resolved at home")
    assert states(pair.province, code) == ["returned", "completed"]


def test_a_stopped_dossier_is_recalled_at_the_receiver(pair: Pair) -> None:
    code = receive(pair.commune)
    act(pair.commune, code, "start")
    until(lambda: states(pair.province, code) == ["delivered"], "delivered")
    act(pair.commune, code, "stop", reason="Theo đơn của công dân")
    until(lambda: states(pair.province, code) == ["recalled"], "recalled at the receiver")
    assert states(pair.commune, code) == ["recalled"]


def test_elsewhere_than_home_nothing_is_done(pair: Pair) -> None:
    code = receive(pair.commune)
    act(pair.commune, code, "start")
    until(lambda: states(pair.province, code) == ["delivered"], "delivered")
    with pair.province.http("intake") as http:
        until(
            lambda: http.post(f"/v1/dossiers/{code}/stop", json={"reason": "x"}).status_code == 409, "the copy is known"
        )
        refused = http.post(f"/v1/dossiers/{code}/stop", json={"reason": "x"})
    assert refused.json()["code"] == "not-home"
    which = transfers(pair.province, code)[0]["id"]
    for site, operation, body in (
        (pair.province, "recall", {"reason": "x"}),
        (pair.commune, "accept", {}),
    ):
        with site.http("routing") as http:
            done = http.post(f"/v1/transfers/{which}/{operation}", json=body)
        assert (done.status_code, done.json()["code"]) == (409, "not-home")


def test_the_upper_site_shows_a_lower_sites_dossier_as_its_home_does(pair: Pair) -> None:
    code, pin = receive_with_pin(pair.commune)
    act(pair.commune, code, "supplement-request", reason="Thiếu giấy ủy quyền")
    with pair.commune.http("intake") as home, pair.province.http("intake") as above:
        until(lambda: above.get(f"/v1/dossiers/{code}").json().get("state") == 5, "the copy has followed")
        shown, there = home.get(f"/v1/dossiers/{code}").json(), above.get(f"/v1/dossiers/{code}").json()
        assert "applicant" in shown
        assert "applicant" not in there
        assert there["home"] == COMMUNE
        assert there["allowed"] == []
        assert "Nơi quản lý hồ sơ" in above.get(f"/desk/dossiers/{code}").text
        for name in ("state", "receiving_agency", "received_at", "due_at", "version", "paused"):
            assert there[name] == shown[name], name
        queries: list[dict[str, str]] = [{"agency": COMMUNE}, {"q": code}, {"q": code[-4:]}, {"state": "5"}, {}]
        for query in queries:
            listed = [item for item in above.get("/v1/dossiers", params=query).json()["items"] if item["code"] == code]
            assert [(item["state"], item["home"]) for item in listed] == [(5, COMMUNE)], query
        assert code not in above.get("/v1/dossiers", params={"agency": LAND}).text
        histories = [site.get(f"/v1/dossiers/{code}/history").json()["items"] for site in (home, above)]
        for items in histories:
            for item in items:
                del item["recorded_at"]  # by each site's own clock
        assert histories[0] == histories[1]
        assert [item["sequence"] for item in histories[1]] == [1, 2]
        tracked = [
            site.get(f"/track/{code}", params={"pin": pin}, headers={"Accept": "application/json"}).json()
            for site in (home, above)
        ]
        assert tracked[0] == tracked[1]
        assert tracked[1]["state"] == 5
        wrong = above.get(f"/track/{code}?pin={(int(pin) + 1) % 1_000_000:06}", headers={"Accept": "application/json"})
        assert wrong.status_code == 404
        rated = above.post(f"/track/{code}", json={"pin": pin, "level": "satisfied"})
        assert (rated.status_code, rated.json()["code"]) == (409, "not-home")


def a_commune_alone(commune: Up) -> None:
    """With its line down it receives, returns, prints, and tells its citizens; due dates do not care."""
    code = receive(commune)
    with commune.http("intake") as http:
        due = http.get(f"/v1/dossiers/{code}").json()["due_at"]
        slip = http.get(f"/desk/dossiers/{code}/forms/receipt.pdf")
        assert slip.content.startswith(b"%PDF")
        act(commune, code, "resolution", result="granted")
        act(commune, code, "return", by="counter")
        shown = http.get(f"/v1/dossiers/{code}").json()
    assert (shown["state"], shown["due_at"]) == (10, due)

    def told() -> bool:
        with commune.http("notify") as http:
            items = http.get("/v1/notices", params={"dossier": code}).json()["items"]
        return {"received", "resolved"} <= {n["act"] for n in items if n["state"] in ("sent", "delivered")}

    until(told, "its citizen was told of the receipt and of the result")


def test_a_cut_line_delays_and_loses_nothing(pair: Pair) -> None:
    pair.line.cut()
    until(lambda: not links_over_http(pair.commune)[0]["up"], "the line is seen to be down")
    assert not status(pair.commune)["up"]
    with pair.commune.http("intake", Role.OPERATOR) as http:
        assert "Mất đường truyền" in http.get("/links").text
    a_commune_alone(pair.commune)
    codes = [receive(pair.commune) for _ in range(5)]
    for code in codes:
        act(pair.commune, code, "start")
    until(lambda: links_over_http(pair.commune)[0]["waiting"] >= 3 * len(codes), "envelopes wait")
    with pair.commune.http("routing") as http:
        assert http.get("/readyz").status_code == 200
    assert [states(pair.province, code) for code in codes] == [[]] * len(codes)
    pair.line.mend()
    for code in codes:
        until(lambda code=code: states(pair.province, code) == ["delivered"], "delivered after the cut")  # type: ignore[misc]
    delivered = [transfers(pair.province, code)[0] for code in codes]
    assert [each["asked_at"] for each in delivered] == sorted(each["asked_at"] for each in delivered)
    until(lambda: drained(pair.commune, pair.province), "nothing waits any more")
    digests = [
        json.loads(lienthong("link", "digest", "--json", data=s.data).stdout) for s in (pair.commune, pair.province)
    ]
    assert all(each["equal"] for items in digests for each in items)
    keyed = [{(e["link"], e["day"], e["direction"]): e["ours"] for e in items} for items in digests]
    assert keyed[0] == keyed[1] != {}


def test_what_is_sent_again_changes_nothing(pair: Pair) -> None:
    until(lambda: drained(pair.commune, pair.province), "nothing waits any more")

    def known() -> list[object]:
        with pair.province.http("routing") as routing, pair.province.http("intake") as intake:
            return [routing.get("/v1/transfers").json(), intake.get("/v1/dossiers").json()]

    before, seen = known(), links_over_http(pair.province)[0]
    done = lienthong("link", "resend", "--after", "0", "--json", data=pair.commune.data)
    assert json.loads(done.stdout)["envelopes"] == seen["received"]["number"]
    until(
        lambda: links_over_http(pair.province)[0]["refused"].get("duplicate", 0) > seen["refused"].get("duplicate", 0),
        "it has come again",
    )
    until(lambda: drained(pair.commune, pair.province), "nothing waits any more")
    assert links_over_http(pair.province)[0]["received"] == seen["received"]
    assert known() == before


async def test_an_erasure_reaches_the_site_that_was_given_the_person(pair: Pair) -> None:
    code = receive(pair.commune)
    act(pair.commune, code, "start")
    until(lambda: states(pair.province, code) == ["delivered"], "delivered")
    [there] = transfers(pair.province, code)

    def applicant() -> Any:
        with pair.province.http("routing", Role.OFFICER, LAND) as http:
            return http.get(f"/v1/transfers/{there['id']}").json().get("applicant")

    assert applicant()["name"] == NAME
    erased = lienthong("erase", code, "--json", data=pair.commune.data)
    ref = json.loads(erased.stdout)["contact_ref"]
    until(lambda: not applicant(), "the officer of the other site reads nothing any more")
    assert states(pair.province, code) == ["delivered"]
    lienthong("link", "resend", "--after", "0", data=pair.commune.data)
    until(lambda: drained(pair.commune, pair.province), "all has come again")
    for site in (pair.commune, pair.province):
        assert await site.rows("SELECT 1 FROM routing.sealed WHERE contact_ref = $1", ref) == []
        for table in ("link_sent", "link_received"):
            kept = f"SELECT 1 FROM routing.{table} WHERE kind = 'ask' AND body LIKE $1"
            assert await site.rows(kept, f"%{ref}%") == [], (site.ready["site"], table)
    for site in (pair.commune, pair.province):
        assert lienthong("link", "digest", data=site.data).returncode == 0
    assert not applicant()


def test_the_keys_change_while_the_link_is_in_use(pair: Pair) -> None:
    earlier = receive(pair.commune)
    act(pair.commune, earlier, "start")
    until(lambda: states(pair.province, earlier) == ["delivered"], "delivered under the old keys")
    for site in (pair.province, pair.commune):
        assert lienthong("keys", "rotate", data=site.data).returncode == 0
    later = receive(pair.commune)
    act(pair.commune, later, "start")
    until(lambda: states(pair.province, later) == ["delivered"], "delivered under the new keys")
    with pair.province.http("routing", Role.OFFICER, LAND) as http:
        for code in (earlier, later):
            shown = http.get(f"/v1/transfers/{transfers(pair.province, code)[0]['id']}").json()
            assert shown["applicant"]["name"] == NAME
    until(lambda: drained(pair.commune, pair.province), "both sides hear each other")
    for site in (pair.province, pair.commune):
        assert not {"unknown-key", "expired-key", "bad-signature"} & links_over_http(site)[0]["refused"].keys()


def test_the_upper_sites_figures_are_the_lower_ones(pair: Pair) -> None:
    until(lambda: drained(pair.commune, pair.province), "nothing waits any more")
    for site in (pair.commune, pair.province):
        reconciled(site.data)
    answers = []
    for site in (pair.commune, pair.province):
        with site.http("stats") as http:
            query = {"agency": COMMUNE, "subtree": "true", "by": "receiving", "from": "2026-01-01", "to": "2099-12-31"}
            answers.append(http.get("/v1/indicators", params=query).json())
    for each in answers:
        for name in ("as_of", "known_at", "freshness"):
            del each[name]
    assert answers[0]["received"]["total"] > 0
    assert answers[0] == answers[1]
    assert PROVINCE != COMMUNE


async def test_nothing_personal_lies_in_the_clear_at_the_upper_site(pair: Pair) -> None:
    tables = await pair.province.rows(
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname IN "
        "('site', 'intake', 'routing', 'notify', 'stats')"
    )
    for row in tables:
        found = await pair.province.rows(f"SELECT 1 FROM {row['name']} t WHERE t::text LIKE $1 LIMIT 1", f"%{NAME}%")
        assert found == [], row["name"]
    for file in (pair.province.data / "logs").iterdir():
        assert NAME not in file.read_text(encoding="utf-8"), file


def test_pause_and_resume(pair: Pair) -> None:
    assert lienthong("link", "pause", data=pair.commune.data).returncode == 0
    assert status(pair.commune)["state"] == "paused"
    code = receive(pair.commune)
    act(pair.commune, code, "start")
    until(lambda: states(pair.commune, code) == ["sent"], "it waits in the ledger")
    assert states(pair.province, code) == []
    assert lienthong("link", "resume", data=pair.commune.data).returncode == 0
    until(lambda: states(pair.province, code) == ["delivered"], "delivered")


def restored(site: Up, backup: Path, folder: Path, at: int | None = None) -> Up:
    """The site from its older backup, in a folder of its own; it is ready when what it had said has come back."""
    site.stop()
    ports = at or base_port()
    done = lienthong("restore", backup, "--keys-dir", site.data / "keys", "--base-port", ports, data=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return Up.start(folder, at=ports)


def back_up(site: Up, folder: Path) -> Path:
    done = lienthong("backup", folder, "--json", data=site.data)
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(json.loads(done.stdout)["backup"])


def known_of(site: Up, code: str) -> list[Any]:
    """A dossier's history, and each of its transfers, as the site has them."""
    with site.http("intake") as http:
        answer = http.get(f"/v1/dossiers/{code}/history")
        history = answer.json()["items"] if answer.status_code == 200 else []
    seen = ("id", "state", "from", "to", "step", "asked_at", "due_at", "next_steps")
    return [history, [{name: each[name] for name in seen} for each in transfers(site, code)]]


def person_of(site: Up, code: str) -> Any:
    """The applicant's name, as the dossier's home shows it."""
    with site.http("intake") as http:
        return (http.get(f"/v1/dossiers/{code}").json().get("applicant") or {}).get("name")


def person_at_the_province(pair: Pair, code: str) -> Any:
    which = transfers(pair.province, code)[0]["id"]
    with pair.province.http("routing", Role.OFFICER, LAND) as http:
        return (http.get(f"/v1/transfers/{which}").json().get("applicant") or {}).get("name")


def test_what_a_restored_commune_had_said_comes_back(pair: Pair, tmp_path: Path) -> None:
    until(lambda: drained(pair.commune, pair.province), "nothing waits any more")
    started = receive(pair.commune)  # before the backup, and goes on after it
    erased = receive(pair.commune)  # known to the province before the backup, erased after it
    act(pair.commune, erased, "start")
    until(lambda: states(pair.commune, erased) == ["delivered"], "delivered")
    until(lambda: drained(pair.commune, pair.province), "nothing waits any more")
    backup = back_up(pair.commune, tmp_path)
    before = status(pair.commune)
    answered, asked_again, paused = (receive(pair.commune) for _ in range(3))
    for code in (started, answered, asked_again):
        act(pair.commune, code, "start")
        until(lambda code=code: states(pair.commune, code) == ["delivered"], "delivered")  # type: ignore[misc]
    on_leg(pair.province, answered, "accept")
    on_leg(pair.province, answered, "complete", result="granted")
    on_leg(pair.province, started, "refuse", reason="Thiếu trích lục bản đồ")
    act(pair.commune, paused, "supplement-request", reason="Thiếu giấy tờ")
    with pair.commune.http("routing") as http:
        which = transfers(pair.commune, asked_again)[0]["id"]
        for operation, body in (("recall", {"reason": "Nhầm cơ quan"}), ("request-again", {})):
            assert http.post(f"/v1/transfers/{which}/{operation}", json=body).status_code == 200
    until(lambda: states(pair.province, asked_again) == ["recalled", "delivered"], "asked for again")
    down = receive(pair.province, DOWNWARDS, LAND)
    act(pair.province, down, "start")
    until(lambda: states(pair.commune, down) == ["delivered"], "handed down")
    on_leg(pair.commune, down, "accept", COMMUNE)
    sent = send_document(pair.commune, pair.province, "8/CV", COMMUNE, LAND)
    assert act_on(pair.province, sent, "accept") == 200
    until(lambda: document(pair.commune, sent)["state"] == "03", "home follows")
    assert act_on(pair.commune, sent, "recall", reason="Nhầm số văn bản") == 200
    until(lambda: document(pair.province, sent)["state"] == "13", "it is asked back")
    assert act_on(pair.province, sent, "recall-refuse", reason="Đang giải quyết") == 200
    come = send_document(pair.province, pair.commune, "9/CV", LAND, COMMUNE)
    assert act_on(pair.commune, come, "accept") == act_on(pair.commune, come, "start") == 200
    until(lambda: document(pair.province, come)["state"] == "05", "home follows")
    until(lambda: document(pair.commune, sent)["state"] == "16", "home follows")
    papers = {which: document(pair.commune, which) for which in (sent, come)}
    assert lienthong("erase", erased, data=pair.commune.data).returncode == 0
    until(lambda: person_at_the_province(pair, erased) is None, "the officer there reads nothing any more")
    codes = (started, answered, asked_again, paused)
    with pair.commune.http("intake") as http:
        until(lambda: http.get(f"/v1/dossiers/{answered}").json()["state"] == 9, "resolved")
    until(lambda: states(pair.commune, started) == ["refused"], "home knows")
    until(lambda: states(pair.province, down) == ["accepted"], "home knows")
    until(lambda: drained(pair.commune, pair.province), "nothing waits any more")
    kept = {code: known_of(pair.commune, code) for code in codes}

    pair.commune = restored(pair.commune, backup, tmp_path / "restored")
    until(lambda: drained(pair.commune, pair.province), "nothing waits any more")
    until(lambda: not status(pair.commune)["recovering"], "the ledger is whole again")
    assert status(pair.commune)["sent"]["epoch"] == before["sent"]["epoch"] + 1
    assert {code: known_of(pair.commune, code) for code in codes} == kept
    until(lambda: states(pair.commune, down) == ["accepted"], "what was said here of another site's leg stands again")
    until(lambda: document(pair.commune, sent)["state"] == "16", "what was sent stands again, with what was answered")
    until(lambda: document(pair.commune, come)["state"] == "05", "what was done here to another site's document, too")
    unlike = ("sent_at", "arrived_at", "changed_at")  # heard again now
    for which, known in papers.items():
        there = document(pair.commune, which)
        assert {k: v for k, v in there.items() if k not in unlike} == {
            k: v for k, v in known.items() if k not in unlike
        }
    assert act_on(pair.commune, come, "finish") == act_on(pair.province, sent, "start") == 200
    assert act_on(pair.province, sent, "finish") == 200
    until(lambda: document(pair.province, come)["state"] == "06", "and work goes on from there")
    until(lambda: document(pair.commune, sent)["state"] == "06", "on both sides")
    # Who was given along is back; who was not is asked again; who was erased since the backup is told again, and gone.
    assert person_of(pair.commune, answered) == person_of(pair.commune, asked_again) == NAME
    assert person_of(pair.commune, paused) is None
    with pair.commune.http("intake", Role.DESK, COMMUNE) as http:
        page = http.get("/desk/missing").text
        assert paused in page
        assert answered not in page
        wrong = http.post(f"/desk/missing/{paused}", data={"name": NAME, "phone": "12"})
        assert (wrong.status_code, person_of(pair.commune, paused)) == (422, None)
        done = http.post(f"/desk/missing/{paused}", data={"name": NAME, "phone": "0912345678"})
        assert done.headers["location"] == f"/desk/dossiers/{paused}"
        assert paused not in http.get("/desk/missing").text
    assert person_of(pair.commune, paused) == NAME
    until(lambda: person_of(pair.commune, erased) is None, "erased again")
    assert person_at_the_province(pair, erased) is None
    on_leg(pair.commune, down, "complete", COMMUNE, result="granted")
    with pair.province.http("intake") as http:
        until(lambda: http.get(f"/v1/dossiers/{down}").json()["state"] == 9, "the answer is heard at home")

    fresh = receive(pair.commune)  # no code is issued twice
    assert fresh not in codes
    assert int(fresh.rpartition("-")[2]) > 5000
    act(pair.commune, fresh, "start")
    until(lambda: states(pair.province, fresh) == ["delivered"], "and the link goes on")
    reconciled(pair.commune.data)
    with pair.commune.http("notify") as http:  # told then, and not again
        assert [http.get("/v1/notices", params={"dossier": code}).json()["items"] for code in codes[1:]] == [[], [], []]
    assert lienthong("verify", answered, data=pair.commune.data).returncode == 0
    until(lambda: drained(pair.commune, pair.province), "nothing waits any more")
    digests = [
        json.loads(lienthong("link", "digest", "--json", data=s.data).stdout) for s in (pair.commune, pair.province)
    ]
    keyed = [{(e["link"], e["day"], e["direction"]): e["ours"] for e in items} for items in digests]
    assert keyed[0] == keyed[1] != {}
    test_the_upper_sites_figures_are_the_lower_ones(pair)


def test_what_a_restored_province_had_said_comes_back(pair: Pair, tmp_path: Path) -> None:
    until(lambda: drained(pair.commune, pair.province), "nothing waits any more")
    waiting = receive(pair.commune)
    act(pair.commune, waiting, "start")
    until(lambda: states(pair.commune, waiting) == ["delivered"], "delivered")
    until(lambda: drained(pair.commune, pair.province), "nothing waits any more")
    backup = back_up(pair.province, tmp_path)
    before = status(pair.province)
    later = receive(pair.commune)
    act(pair.commune, later, "start")
    until(lambda: states(pair.commune, later) == ["delivered"], "delivered")
    for code in (waiting, later):
        on_leg(pair.province, code, "accept")
        on_leg(pair.province, code, "complete", result="denied")
        until(lambda code=code: states(pair.commune, code) == ["completed"], "home knows")  # type: ignore[misc]
    gone = receive(pair.province, DOWNWARDS, LAND)
    act(pair.province, gone, "start")
    until(lambda: states(pair.commune, gone) == ["delivered"], "handed down")
    until(lambda: drained(pair.commune, pair.province), "nothing waits any more")

    at = int(pair.province.url("intake").rpartition(":")[2])
    pair.province = restored(pair.province, backup, tmp_path / "restored", at)
    until(lambda: drained(pair.commune, pair.province), "nothing waits any more")
    until(lambda: not status(pair.province)["recovering"], "the ledger is whole again")
    assert status(pair.province)["sent"]["epoch"] == before["sent"]["epoch"] + 1
    for code in (waiting, later):  # the legs that were worked on here ended here, too
        until(lambda code=code: states(pair.province, code) == ["completed"], "said again")  # type: ignore[misc]
    # Nobody above has copies of a root's own dossiers: what is known of a lost one elsewhere is named, and nobody works in vain.
    until(lambda: states(pair.commune, gone) == ["recalled"], "recalled where it was worked on")
    assert status(pair.province)["lost"] == [gone]
    assert receive(pair.province, DOWNWARDS, LAND) != gone
    reconciled(pair.province.data)
    assert lienthong("link", "digest", data=pair.commune.data).returncode == 0
    test_the_upper_sites_figures_are_the_lower_ones(pair)
