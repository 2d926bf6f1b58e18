"""Proofs of hand-overs: what was signed is found whole, a changed byte is named, a foreign root is not believed."""

import json
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deploy.cli.errors import CommandFailed
from deploy.cli.verify import verify_file
from services.routing.carried import event_json
from services.routing.link import BEGIN, Place
from services.routing.wire import Way, batch_record, letter
from shared.contracts.codes import uuid7
from shared.contracts.envelope import Envelope
from shared.security.peers import Identity, fingerprint
from shared.security.proofs import certify, make
from shared.store.chain import link

CODE, COMMUNE, PROVINCE, NATION = "H55.242-261012-0001", "H55.242", "H55", "A01"
NOW = datetime(2026, 10, 12, 2, 30, tzinfo=UTC)


def event(sequence: int, topic: str = "lienthong.dossier.v1") -> Envelope:
    return Envelope(
        topic=topic, id=uuid7(), source=f"/sites/{COMMUNE}/intake", type="dossier.started", subject=CODE, time=NOW,
        recorded=NOW, sequence=sequence, mode="live", data=b'{"state":4}',
    )  # fmt: skip


class Sites:
    """A commune, its province and what stands above; each with its keys, the upper one's word on the lower one's."""

    def __init__(self, folder: Path) -> None:
        for site in (COMMUNE, PROVINCE, NATION):
            (folder / site).mkdir(parents=True)
        self.commune, self.province, self.nation = (Identity(s, folder / s) for s in (COMMUNE, PROVINCE, NATION))
        self.certificates = [
            certify(self.commune, COMMUNE, self.commune.public["sign"]),
            certify(self.commune, PROVINCE, self.province.public["sign"]),
            certify(self.province, COMMUNE, self.commune.public["sign"]),
            certify(self.nation, PROVINCE, self.province.public["sign"]),
        ]

    def root(self, identity: Identity) -> str:
        return fingerprint(identity.public["sign"])

    def receipt(self) -> dict[str, Any]:
        """The province says that the transfer was delivered, in a record with other envelopes."""
        said = [
            letter("leg", {"event": event_json(event(n))}, origin=PROVINCE, to=COMMUNE, at=NOW).text for n in (1, 2, 3)
        ]
        record = json.loads(
            batch_record(self.province, Way(COMMUNE, "down", PROVINCE, COMMUNE), Place(1, 5), BEGIN, said)
        )
        return {
            "from": PROVINCE,
            "kind": "leg",
            "envelope": said[1],
            "manifest": record["manifest"],
            "jws": record["jws"],
        }

    def proof(self) -> dict[str, Any]:
        history, chain = [], ""
        for number in (1, 2, 3):
            chain = link(chain, made := event(number))
            history.append({**event_json(made), "chain": chain})
        return make(
            self.commune,
            CODE,
            NOW,
            {"site": COMMUNE, "code": CODE, "events": history, "seals": []},
            [event_json(event(n, "lienthong.transfer.v1")) for n in (1, 2)],
            [self.receipt()],
            self.certificates,
        )


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Sites:
    return Sites(tmp_path_factory.mktemp("keys"))


def verified(proof: dict[str, Any], tmp_path: Path, root: str | None = None) -> tuple[bool, set[str]]:
    file = tmp_path / "proof.json"
    file.write_text(json.dumps(proof), encoding="utf-8")
    answer = verify_file(file, None, root)
    return answer["intact"], {f"{f['part']} {f['item']} {f['reason']}" for f in answer["faults"] if "part" in f}


def test_a_proof_is_good_under_each_key_that_vouches_for_it(sites: Sites, tmp_path: Path) -> None:
    proof = sites.proof()
    for root in (None, *(sites.root(each) for each in (sites.commune, sites.province, sites.nation))):
        assert verified(proof, tmp_path, root) == (True, set())


def test_a_stranger_who_makes_his_own_proof_is_not_believed(sites: Sites, tmp_path: Path) -> None:
    others = Sites(tmp_path / "others")
    forged = others.proof()
    whole, faults = verified(forged, tmp_path, sites.root(sites.nation))
    assert not whole
    assert {fault.split()[-1] for fault in faults} == {"key-not-trusted"}
    forged["certificates"].append(sites.certificates[3])  # a good one, which does not vouch for his key
    assert not verified(forged, tmp_path, sites.root(sites.nation))[0]


@pytest.mark.parametrize(
    ("where", "named"),
    [
        (("history", "events", 1, "data"), "events 2 changed"),
        (("history", "events", 2, "id"), "events 3 changed"),
        (("history", "events", 0, "chain"), "events 1 changed"),
        (("history", "code"), "history 0 changed"),
        (("transfers", 1, "data"), "transfers 2 changed"),
        (("receipts", 0, "envelope"), "receipts 1 not-in-manifest"),
        (("receipts", 0, "manifest"), "receipts 1 bad-signature"),
        (("receipts", 0, "jws"), "receipts 1 bad-signature"),
        (("receipts", 0, "from"), "receipts 1 changed"),
        (("certificates", 2, "site"), "certificates 3 changed"),
        (("certificates", 3, "jws"), "certificates 4 changed"),
        (("manifest",), "manifest 0 bad-signature"),
        (("jws",), "manifest 0 bad-signature"),
    ],
)
def test_a_changed_byte_is_found_and_named(sites: Sites, tmp_path: Path, where: Any, named: str) -> None:
    proof = deepcopy(sites.proof())
    place: Any = proof
    for step in where[:-1]:
        place = place[step]
    text = place[where[-1]]
    at = text.index('"v":1') + 4 if where[-1] == "manifest" else len(text) // 2
    place[where[-1]] = text[:at] + ("2" if text[at] != "2" else "a") + text[at + 1 :]
    whole, faults = verified(proof, tmp_path)
    assert not whole
    assert named in faults


def test_what_was_taken_out_or_added_is_named(sites: Sites, tmp_path: Path) -> None:
    proof = sites.proof()
    proof["history"]["events"].pop()
    proof["transfers"].append(proof["transfers"][0])
    assert verified(proof, tmp_path) == (False, {"events 3 missing", "transfers 3 added"})


def test_what_is_no_proof_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for text in ('{"manifest": "{}", "receipts": []}', '{"manifest": 1, "receipts": 2}', "[]", "x"):
        (tmp_path / "file").write_text(text)
        with pytest.raises(CommandFailed, match="file is nothing that"):
            verify_file(tmp_path / "file", None, None)
