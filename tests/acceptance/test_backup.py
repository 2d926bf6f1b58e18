"""A site backed up at work and restored into an empty folder: whole, reconciled, and who was erased stays erased."""

import json
from pathlib import Path
from typing import Any

from deploy.demo.child import free_base_port
from shared.security.tokens import Role
from tests.acceptance.command import Up, lienthong, receipt, reconciled, running


def receive(up: Up, **fields: Any) -> str:
    with up.http("intake") as http:
        return str(http.post("/v1/dossiers", json=receipt(**fields)).json()["code"])


def applicant(up: Up, code: str) -> Any:
    with up.http("intake") as http:
        return http.get(f"/v1/dossiers/{code}").json()["applicant"]


def test_backup_and_restore(tmp_path: Path) -> None:
    safe, backups = tmp_path / "safe", tmp_path / "backups"
    recipient = json.loads(lienthong("keys", "recipient", "--out", tmp_path / "recovery.key", "--json").stdout)
    with running(tmp_path / "data") as up:
        kept, forgotten = receive(up), receive(up, applicant={"kind": "citizen", "name": "Lê Thị Quên"})
        with up.http("intake") as http:
            for operation, body in (("start", {}), ("resolution", {"result": "granted"})):
                assert http.post(f"/v1/dossiers/{kept}/{operation}", json=body).status_code == 200
            history = http.get(f"/v1/dossiers/{kept}/history").json()
        reconciled(up.data)
        taken = lienthong(
            "backup", backups, "--recipient", recipient["recipient"], "--keys-to", safe, "--json", data=up.data
        )
        assert taken.returncode == 0, taken.stderr
        folder = Path(json.loads(taken.stdout)["backup"])
        erased = json.loads(lienthong("erase", forgotten, "--json", data=up.data).stdout)
        lost = receive(up)  # after the backup
    (sealed,) = safe.iterdir()
    # the backup without the keys shows nobody, and the keys lie in no file of it
    everything = b"".join(file.read_bytes() for file in folder.iterdir())
    assert (up.data / "keys" / "data.key").read_bytes() not in everything + sealed.read_bytes()

    wrong = lienthong("restore", folder, "--identity", tmp_path / "recovery.key", data=tmp_path / "none")
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (1, False)
    back = tmp_path / "restored"
    done = lienthong(
        *("restore", folder, "--identity", tmp_path / "recovery.key", "--keys", sealed),
        *("--erasures", up.data / "erasures.ndjson", "--base-port", free_base_port(), "--json"),
        data=back,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["erased"] == [erased["contact_ref"]]
    again = lienthong("restore", folder, "--identity", tmp_path / "recovery.key", "--keys", sealed, data=back)
    assert again.returncode == 1

    with running(back) as restored:
        reconciled(back)
        assert applicant(restored, kept)["name"] == "Nguyễn Văn Mẫu"
        assert applicant(restored, forgotten) is None
        with restored.http("intake") as http:
            assert http.get(f"/v1/dossiers/{kept}/history").json() == history
            assert http.get(f"/v1/dossiers/{lost}").status_code == 404
        assert lienthong("verify", kept, data=back).returncode == 0
        # numbers that were issued after the backup are not issued again
        assert int(receive(restored).rpartition("-")[2]) > 5000
        with restored.http("notify", Role.ADMIN) as http:
            (notice, *_) = http.get("/v1/notices", params={"dossier": forgotten}).json()["items"] or [None]
            assert notice is None or notice.get("recipient") is None


def test_a_backup_that_was_changed_is_refused(up: Up, tmp_path: Path) -> None:
    taken = lienthong("backup", tmp_path, "--json", data=up.data)
    folder = Path(json.loads(taken.stdout)["backup"])
    dump = folder / "database.dump"
    dump.write_bytes(dump.read_bytes()[:-1] + b"x")
    refused = lienthong("restore", folder, "--keys-dir", up.data / "keys", data=tmp_path / "new")
    assert (refused.returncode, "not as it was written" in refused.stderr) == (1, True)
    assert lienthong("restore", tmp_path, "--keys-dir", up.data / "keys", data=tmp_path / "new").returncode == 1
    assert lienthong("backup", tmp_path, "--keys-to", tmp_path, data=up.data).returncode == 2
