"""Two real sites and a line between them that can be cut."""

import json
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from deploy.demo.sample import SAMPLE
from shared.security.tokens import Role
from tests.acceptance.command import Up, lienthong, receipt, until

PROVINCE, COMMUNE, LAND, POLICE = "H55", "H55.242", "H55.24", "H55.21"
PROCEDURE, DOWNWARDS = "9.000001", "9.000002"  # handed over to the province's land office; to the commune
NAME = "Lường Thị Khuyên"  # nobody else's: it must not be found where it does not belong


def bundles(folder: Path) -> tuple[Path, Path]:
    """The sample province, in which one commune has a site of its own; and that commune, which knows only itself."""
    sample = yaml.safe_load(SAMPLE.read_text(encoding="utf-8"))
    procedure = {
        **deepcopy(sample["procedures"][0]),
        "code": PROCEDURE,
        "name": "Xác minh hồ sơ đất đai",
        "route": [{"step": 1, "to": LAND, "limit": {"value": 2, "unit": "working_days"}}],
        "valid_from": "2015-01-01",
        "valid_to": None,
        "limit": {"value": 5, "unit": "working_days"},
    }
    for agency in sample["agencies"]:
        if agency["code"] == COMMUNE:
            agency["site"] = COMMUNE
            own = deepcopy(agency)
    down = {
        **procedure,
        "code": DOWNWARDS,
        "name": "Niêm yết tại xã",
        "route": [{"step": 1, "to": COMMUNE, "limit": None}],
    }
    sample["procedures"] += [procedure, down]
    sample["quiet_hours"] = None
    commune = {
        "site": {"code": COMMUNE, "name": own["name"], "upper": PROVINCE},
        "agencies": [own],
        "quiet_hours": None,
    }
    files = folder / "province.yaml", folder / "commune.yaml"
    for file, content in zip(files, (sample, commune), strict=True):
        file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return files


class Proxy:
    """A line that can be cut and mended: TCP from a port of its own to another."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._cut = threading.Event()
        self._ends: list[socket.socket] = []
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._cut.set()
        self._drop()

    def mend(self) -> None:
        self._cut.clear()

    def close(self) -> None:
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._drop()

    def _drop(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._cut.is_set():
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self._ends += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while block := source.recv(1 << 16):
                sink.sendall(block)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def bus_port(up: Up) -> int:
    return int(str(up.ready["bus"]).rpartition(":")[2])


def link(upper: Up, lower: Up, folder: Path, via: int | None = None) -> None:
    """Invites, joins and confirms, by the command, while both are up."""
    invitation, reply = folder / "invitation.json", folder / "reply.json"
    given = ["--bus", f"127.0.0.1:{via}"] if via is not None else []
    site = str(lower.ready["site"])
    for done in (
        lienthong("link", "invite", "--site", site, "--out", invitation, *given, data=upper.data),
        lienthong("link", "join", invitation, "--out", reply, data=lower.data),
        lienthong("link", "confirm", reply, data=upper.data),
    ):
        assert done.returncode == 0, done.stdout + done.stderr
    until(
        lambda: all(link["up"] for up in (lower, upper) for link in links_over_http(up)), "both sites hear each other"
    )
    assert status(lower)["up"]


def status(up: Up) -> Mapping[str, Any]:
    """The only link of a site, as the command shows it."""
    done = lienthong("link", "status", "--json", data=up.data)
    assert done.returncode == 0, done.stdout + done.stderr
    items: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(items) == 1
    return items[0]


def links_over_http(up: Up) -> list[dict[str, Any]]:
    with up.http("routing", Role.OPERATOR) as http:
        items: list[dict[str, Any]] = http.get("/v1/links").json()["items"]
        return items


def drained(*sites: Up) -> bool:
    return all(link["waiting"] == 0 and link["up"] for up in sites for link in links_over_http(up))


def receive(site: Up, procedure: str = PROCEDURE, agency: str = COMMUNE, **fields: Any) -> str:
    return receive_with_pin(site, procedure, agency, **fields)[0]


def receive_with_pin(site: Up, procedure: str = PROCEDURE, agency: str = COMMUNE, **fields: Any) -> tuple[str, str]:
    """The code and the tracking pin of a new dossier."""
    with site.http("intake") as http:
        body = receipt(agency, procedure=procedure, **fields)
        body["applicant"] = {**body["applicant"], "name": NAME}
        done = http.post("/v1/dossiers", json=body)
        assert done.status_code == 201, done.text
        return str(done.json()["code"]), str(done.json()["track_pin"])


def act(up: Up, code: str, operation: str, **body: Any) -> dict[str, Any]:
    with up.http("intake") as http:
        done = http.post(f"/v1/dossiers/{code}/{operation}", json=body)
        assert done.status_code == 200, done.text
        answer: dict[str, Any] = done.json()
        return answer


def transfers(up: Up, code: str) -> list[dict[str, Any]]:
    with up.http("routing") as http:
        items: list[dict[str, Any]] = http.get("/v1/transfers", params={"dossier": code}).json()["items"]
        return items


def states(up: Up, code: str) -> list[str]:
    return [item["state"] for item in transfers(up, code)]


def on_leg(up: Up, code: str, operation: str, agency: str = LAND, **body: Any) -> None:
    """An act of the working agency's officer on the newest transfer of a dossier."""
    which = transfers(up, code)[-1]["id"]
    with up.http("routing", Role.OFFICER, agency) as http:
        done = http.post(f"/v1/transfers/{which}/{operation}", json=body)
        assert done.status_code == 200, done.text
