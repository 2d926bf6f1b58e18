"""`lienthong up`: ready, found, refused, ended."""

import asyncio
import json
import signal
import socket
import subprocess
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest

from deploy.demo.sample import SAMPLE
from shared.service import SERVICES
from tests.acceptance.command import (
    BUS,
    COMMAND,
    Up,
    bus_settings,
    environment,
    lienthong,
    processes_on,
    receipt,
    running,
    until,
)
from tests.ports import base_port


def test_the_ready_line_describes_a_site_that_answers(up: Up) -> None:
    assert set(up.ready) == {"ready", "site", "services", "bus", "database"}
    assert up.ready["ready"] is True
    assert up.ready["site"] == "H55"
    base = httpx.URL(up.url("intake")).port
    assert base is not None
    assert [httpx.URL(up.url(name)).port for name in SERVICES] == [base, base + 1, base + 2, base + 3]
    assert up.ready["bus"] == (BUS or f"127.0.0.1:{base + 4}")
    for name in SERVICES:
        with up.http(name) as http:
            assert http.get("/readyz").status_code == 200
            assert http.get("/healthz").status_code == 200


async def test_the_database_url_reads_every_table(up: Up) -> None:
    tables = await up.rows(
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname = ANY ($1)",
        ["site", *SERVICES],
    )
    assert {f"{name}.event" for name in SERVICES} <= {row["name"] for row in tables}
    for row in tables:
        await up.rows(f"SELECT * FROM {row['name']} LIMIT 1")


def test_logs_lie_in_the_folder(up: Up) -> None:
    lines = [json.loads(line) for line in (up.data / "logs" / "site.log").read_text().splitlines()]
    assert any(line["event"] == "site-ready" for line in lines)


def test_secrets_are_their_owners(up: Up) -> None:
    for path in (up.data / "site.json", *(up.data / "keys").iterdir()):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_second_up_on_the_folder_is_refused(up: Up) -> None:
    done = lienthong("up", data=up.data)
    assert done.returncode == 1
    assert str(up.process.pid) in done.stderr
    assert "Traceback" not in done.stderr
    assert httpx.get(f"{up.url('intake')}/readyz").status_code == 200


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    base = base_port()
    with socket.create_server(("127.0.0.1", base + 1)):
        done = lienthong("up", "--base-port", base, data=tmp_path)
    assert done.returncode == 1
    assert str(base + 1) in done.stderr
    assert "Traceback" not in done.stderr
    assert processes_on(tmp_path) == []


def test_up_without_a_folder_is_wrong_use() -> None:
    done = lienthong("up")
    assert done.returncode == 2
    assert "--data" in done.stderr


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        (("level: commune, parent: H55, site: H55", "level: comune, parent: H55, site: H55"), "/agencies/14/level"),
        (("code: H55.242,", "code: H55.241,"), "/agencies/"),
        (("sector: land}", "sector: sea}"), "/procedures/"),
    ],
)
def test_a_bundle_with_faults_is_refused_with_their_places(
    tmp_path: Path, change: tuple[str, str], pointer: str
) -> None:
    bundle = tmp_path / "wrong.yaml"
    bundle.write_text(SAMPLE.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    data = tmp_path / "data"
    done = lienthong("up", "--bundle", bundle, "--base-port", base_port(), data=data)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if pointer in line]
    assert lines
    assert all(line.startswith("wrong.yaml: /") for line in lines)
    assert processes_on(data) == []


@pytest.mark.parametrize("content", ["site: [", "[]", "\x00", "site: {code: H55, name: x"])
def test_a_file_that_is_no_bundle_is_told_in_a_sentence(tmp_path: Path, content: str) -> None:
    bundle = tmp_path / "broken.yaml"
    bundle.write_text(content)
    done = lienthong("up", "--bundle", bundle, "--base-port", base_port(), data=tmp_path / "data")
    assert done.returncode == 1
    assert "broken.yaml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    data = tmp_path / "data"
    with running(data) as site:
        assert len(processes_on(data)) >= (2 if BUS else 3)  # the site, PostgreSQL, the broker of its own
        assert site.signal(number) == 0
    assert processes_on(data) == []


def test_a_signal_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    process = subprocess.Popen(
        [COMMAND, "up", "--data", str(data), "--base-port", str(base_port())],
        env=environment(data),
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: (data / "run" / "postgres.json").exists(), "PostgreSQL starts")
    process.terminate()
    _, complaints = process.communicate(timeout=30)
    assert "Traceback" not in complaints
    assert processes_on(data) == []


def test_killed_it_takes_its_children_along_and_comes_back_with_all(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = Up.start(data)
    with first.http("intake") as http:
        answered = http.post("/v1/dossiers", json=receipt())
        assert answered.status_code == 201
    children = [child for child in psutil.Process(first.process.pid).children(recursive=True) if child.is_running()]
    first.signal(signal.SIGKILL)
    with running(data) as second:
        assert second.ready == first.ready
        assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        with second.http("intake") as http:
            assert http.get(f"/v1/dossiers/{answered.json()['code']}").status_code == 200


def test_an_orphan_of_a_killed_site_is_ended(tmp_path: Path) -> None:
    """The database as it would be left by a machine whose kernel did not end it with its parent."""
    data = tmp_path / "data"
    first = Up.start(data)
    children = psutil.Process(first.process.pid).children(recursive=True)
    for child in children:  # stopped, they hear no signal but SIGKILL
        child.send_signal(signal.SIGSTOP)
    first.signal(signal.SIGKILL)
    with running(data) as second:
        assert second.ready["bus"] == first.ready["bus"]
        gone, alive = psutil.wait_procs(children, timeout=5)
        assert alive == []
        assert len(gone) == len(children)


def test_a_database_and_a_bus_of_ones_own_take_the_embedded_ones_place(up: Up, tmp_path: Path) -> None:
    async def make_database() -> None:
        connection = await asyncpg.connect(up.ready["database"])
        await connection.execute("CREATE DATABASE other")
        await connection.close()

    asyncio.run(make_database())
    url = up.ready["database"].rsplit("/", 1)[0] + "/other"
    given = {
        "LIENTHONG_DATABASE_URL": url,
        "LIENTHONG_BUS_BOOTSTRAP": up.ready["bus"],
        "LIENTHONG_BUS_PREFIX": "other.",
        "LIENTHONG_BUS_GROUPS": "false",
    }
    data = tmp_path / "data"
    given |= bus_settings(data)
    process = subprocess.Popen(
        [COMMAND, "up", "--data", str(data), "--base-port", str(base_port()), "--json"],
        env=environment() | given,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    assert ready["database"] == url
    assert ready["bus"] == up.ready["bus"]
    assert not (data / "postgres").exists()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0
