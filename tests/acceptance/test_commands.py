"""The commands that act on a running site."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from deploy.cli.main import app
from deploy.demo.sample import SAMPLE
from shared.security.tokens import Role
from tests.acceptance.command import Up, lienthong, receipt, reconciled, running


def test_every_command_explains_itself() -> None:
    def explained(command: Any, *names: str) -> None:
        shown = CliRunner().invoke(app, [*names, "--help"])
        assert shown.exit_code == 0, names
        assert "Usage:" in shown.output
        if not hasattr(command, "list_commands"):
            assert re.search("^  Examples?:$", shown.output, re.MULTILINE), names
            return
        for name in command.list_commands(None):
            explained(command.get_command(None, name), *names, name)

    explained(get_command(app))
    assert lienthong("--help").returncode == 0


def test_a_command_without_a_site_says_how_to_start_one(tmp_path: Path) -> None:
    for command in (("parked", "list"), ("reconcile",), ("doctor",), ("token", "--role", "admin")):
        done = lienthong(*command, data=tmp_path)
        assert done.returncode == 1
        assert "lienthong up" in done.stderr


# -- token


def test_a_token_is_printed_alone_and_is_good(up: Up) -> None:
    assert lienthong("token", "--role", "leader", "--agency", "000.00.24.H55", data=up.data).returncode == 0
    done = lienthong("token", "--role", "desk", "--agency", "H55.242", data=up.data)
    assert done.returncode == 0
    assert done.stderr == ""
    token = done.stdout.removesuffix("\n")
    assert token.count(".") == 2
    answer = httpx.post(
        f"{up.url('intake')}/v1/dossiers", json=receipt(), headers={"Authorization": f"Bearer {token}"}, timeout=30
    )
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "wrong",
    [
        (),
        ("--role", "king"),
        ("--role", "desk"),
        ("--role", "leader", "--hours", "1"),
        ("--role", "admin", "--agency", "no code"),
        ("--role", "desk", "--agency", "H55.9999"),
        ("--role", "admin", "--hours", "0"),
    ],
)
def test_a_token_that_makes_no_sense_is_wrong_use(up: Up, wrong: tuple[str, ...]) -> None:
    done = lienthong("token", *wrong, data=up.data)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_hours_take_fractions(up: Up) -> None:
    done = lienthong("token", "--role", "auditor", "--hours", "0.5", data=up.data)
    assert done.returncode == 0


# -- site load


def test_a_load_is_shown_first_applied_once_and_seen_at_once(up: Up, tmp_path: Path) -> None:
    bundle = tmp_path / "renamed.yaml"
    text = SAMPLE.read_text(encoding="utf-8").replace("name: Xã Định Hóa", "name: Xã Định Hóa mới")
    bundle.write_text(text, encoding="utf-8")
    shown = json.loads(lienthong("site", "load", bundle, "--dry-run", "--json", data=up.data).stdout)
    assert [(change["kind"], change["id"]) for change in shown["differences"]] == [("agency", "H55.241")]
    assert shown["applied"] is False
    loaded = json.loads(lienthong("site", "load", bundle, "--json", data=up.data).stdout)
    assert loaded["version"] == shown["version"] + 1
    assert loaded["seen"] is True
    names = [item["name"] for item in httpx.get(f"{up.url('intake')}/v1/agencies", timeout=30).json()["items"]]
    assert "Xã Định Hóa mới" in names
    again = json.loads(lienthong("site", "load", bundle, "--json", data=up.data).stdout)
    assert again["differences"] == []
    assert again["version"] == loaded["version"]


def test_a_refused_load_changes_nothing_and_names_every_place(up: Up, tmp_path: Path) -> None:
    bundle = tmp_path / "wrong.yaml"
    bundle.write_text(
        SAMPLE.read_text(encoding="utf-8")
        .replace("level: sector", "level: sektor")
        .replace("unit: months", "unit: weeks"),
        encoding="utf-8",
    )
    done = lienthong("site", "load", bundle, data=up.data)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert any(line.startswith("wrong.yaml: /agencies/2/level: ") for line in lines)
    assert any(line.startswith("wrong.yaml: /procedures/") and "/limit/unit: " in line for line in lines)
    shown = json.loads(lienthong("site", "load", SAMPLE, "--dry-run", "--json", data=up.data).stdout)
    assert not [change for change in shown["differences"] if change["after"].get("level") == "sektor"]


def test_a_calendar_version_that_is_loaded_is_refused_with_other_content(up: Up, tmp_path: Path) -> None:
    bundle = tmp_path / "calendar.yaml"
    text = SAMPLE.read_text(encoding="utf-8").replace('same_day_cutoff: "15:00"', 'same_day_cutoff: "14:00"')
    bundle.write_text(text, encoding="utf-8")
    done = lienthong("site", "load", bundle, data=up.data)
    assert done.returncode == 1
    assert "calendar.yaml: /calendars/0" in done.stderr


# -- what reports


def test_explain_says_why(up: Up) -> None:
    with up.http("intake", Role.DESK, "H55.242") as http:
        code = http.post("/v1/dossiers", json=receipt()).json()["code"]
    done = lienthong("explain", code, data=up.data)
    assert done.returncode == 0
    assert code in done.stdout
    answer = json.loads(lienthong("explain", code, "--json", data=up.data).stdout)
    assert answer["explain"]
    assert lienthong("explain", "H55.242-250101-9999", data=up.data).returncode == 1


def test_nothing_is_parked(up: Up) -> None:
    done = lienthong("parked", "list", "--json", data=up.data)
    assert done.returncode == 0
    assert json.loads(done.stdout) == []


def test_the_books_agree(up: Up) -> None:
    with up.http("intake") as http:
        assert http.post("/v1/dossiers", json=receipt()).status_code == 201
    books = reconciled(up.data)
    ways = {(hop["from"], hop["to"]) for hop in books["hops"]}
    assert {("intake", "routing"), ("intake", "notify"), ("intake", "stats")} <= ways
    for hop in books["hops"]:
        assert hop["equal"]
        assert hop["missing"] == []
        assert {"hop", "from", "to", "events", "applied", "keys"} <= set(hop)
    assert books["parked"] == []


def test_promise_5_what_is_missing_is_named_with_its_hop_and_dossier(tmp_path: Path) -> None:
    """A consumer that forgot a dossier, as after a table was restored from an older copy."""
    with running(tmp_path / "data") as site:
        with site.http("intake") as http:
            codes = [http.post("/v1/dossiers", json=receipt()).json()["code"] for _ in range(3)]
        reconciled(site.data)
        asyncio.run(site.rows("DELETE FROM stats.inbox WHERE key = $1", codes[1]))
        done = lienthong("reconcile", "--json", data=site.data)
        assert done.returncode == 1
        books = json.loads(done.stdout)
        assert books["reconciled"] is False
        unequal = [(hop["hop"], hop["topic"], hop["to"], hop["missing"]) for hop in books["hops"] if not hop["equal"]]
        assert unequal == [("applied", "lienthong.dossier.v1", "stats", [codes[1]])]


def test_what_is_rebuilt_is_what_is_live(up: Up) -> None:
    reconciled(up.data)
    done = lienthong("rebuild", "stats", "--json", data=up.data)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["equal"] is True
    assert report["events"] > 0
    looked = lienthong("rebuild", "stats", "--from", "topics", "--dry-run", "--json", data=up.data)
    assert looked.returncode == 0, looked.stdout + looked.stderr
    from_topics = json.loads(looked.stdout)
    assert {name: from_topics[name] for name in ("source", "events", "equal", "switched", "incomplete")} == {
        "source": "topics",
        "events": report["events"],
        "equal": True,
        "switched": False,
        "incomplete": 0,
    }


def test_the_schemas_are_up_to_date(up: Up) -> None:
    assert lienthong("migrate", "--check", data=up.data).returncode == 0
    assert json.loads(lienthong("migrate", "--json", data=up.data).stdout) == {"applied": []}


def test_doctor_finds_nothing_wrong_and_then_the_open_key(up: Up) -> None:
    done = lienthong("doctor", "--json", data=up.data)
    assert done.returncode == 0, done.stdout
    looked_at = {finding["what"] for finding in json.loads(done.stdout)}
    assert {"python", "keys", "database", "schema", "bus", "clock", "disk", "intake healthz"} <= looked_at
    key = up.data / "keys" / "hash.key"
    key.chmod(0o644)
    try:
        done = lienthong("doctor", data=up.data)
    finally:
        key.chmod(0o600)
    assert done.returncode == 1
    assert "chmod 600" in done.stdout


# -- subscribers, topics, schemas


def test_the_embedded_broker_lets_no_subscriber_in_and_says_why(up: Up, tmp_path: Path) -> None:
    file = tmp_path / "secret.json"
    done = lienthong("subscriber", "add", "H55.17", "--tier", "agency", "--topics", "own", "--out", file, data=up.data)
    assert done.returncode == 1
    assert "has no access control" in done.stderr
    assert "Traceback" not in done.stderr
    assert not file.exists()
    assert json.loads(lienthong("subscriber", "list", "--json", data=up.data).stdout) == []
    assert lienthong("subscriber", "add", "H55.17", "--tier", "all", "--out", file, data=up.data).returncode == 2


def test_topics_of_a_running_site_are_as_planned(up: Up) -> None:
    done = lienthong("topics", "plan", "--json", data=up.data)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["create"], found["repartition"], found["access_control"]) == ([], {}, False)
    assert "no access control" in lienthong("topics", "plan", data=up.data).stdout
    assert lienthong("topics", "apply", data=up.data).returncode == 0


def test_schemas_may_be_published_as_they_stand() -> None:
    done = lienthong("schemas", "check", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["compatible"] is True
