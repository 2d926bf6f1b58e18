"""Misconfigurations, each planted: the doctor finds it, and says what to do."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from deploy.cli import doctor
from deploy.cli.doctor import Finding, Verdict
from deploy.demo.sample import SAMPLE
from deploy.kafka.plan import Plan
from shared.bus.connection import BusSettings
from shared.directory.reading import load_bundle
from shared.security.keys import load_keys
from shared.settings import Settings

NOW = datetime(2026, 11, 26, tzinfo=UTC)
AWAY = BusSettings("kafka:9093", replication=3, security_protocol="SASL_SSL", username="u", password="p")
POSTGRES = {
    "server_version_num": "180000", "fsync": "on", "full_page_writes": "on", "synchronous_commit": "on",
    "autovacuum": "on", "server_encoding": "UTF8", "max_connections": "100",
}  # fmt: skip
FINE = Plan((), {}, {}, {}, (), (), access_control=True)
HERE = {"intake": "http://127.0.0.1:8001"}
TOLD: dict[str, dict[str, Any]] = {name: {"site": "H55", "version": 3} for name in ("intake", "stats")}
KEYS = ("site.pem", "data.key", "hash.key")


def keys_without(folder: Path, name: str) -> list[Finding]:
    load_keys(folder)
    (folder / name).unlink()
    return doctor.keys(folder)


def keys_open(folder: Path) -> list[Finding]:
    load_keys(folder)
    (folder / "data.key").chmod(0o644)
    return doctor.keys(folder)


def open_folder(folder: Path) -> list[Finding]:
    folder.chmod(0o755)
    return [doctor.folder(folder)]


def authority(folder: Path, days: int) -> Path:
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bus")])
    begin, end = NOW - timedelta(days=400), NOW + timedelta(days=days)
    made = x509.CertificateBuilder(name, name, key.public_key(), 7, begin, end).sign(key, None)
    (folder / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return folder / "ca.pem"


def misspelt_file(folder: Path) -> list[Finding]:
    (folder / "lienthong_bus_pasword").write_text("x")
    found = doctor.secret_files({"LIENTHONG_SECRETS_DIR": str(folder)})
    return [doctor.names(found, doctor.known_names())]


def in_vietnamese(code: str) -> str:
    """As glibc orders text in a language: letters and digits first, whatever their case."""
    return "".join(character for character in code.lower() if character.isalnum())


PLANTED: dict[str, Callable[[Path], list[Finding]]] = {
    "an old Python": lambda _: [doctor.python((3, 10, 2))],
    "no signing key": lambda folder: keys_without(folder, "site.pem"),
    "no data key": lambda folder: keys_without(folder, "data.key"),
    "keys that others read": keys_open,
    "a folder that others read": open_folder,
    "a disk that is full": lambda folder: [doctor.disk(folder, 10 << 20)],
    "a setting misspelt": lambda _: [doctor.names({"LIENTHONG_BUS_BOOTSTRAPS": "x"}, doctor.known_names())],
    "a secret's file misspelt": misspelt_file,
    "a bus in clear": lambda _: doctor.bus_settings(replace(AWAY, security_protocol="PLAINTEXT"), AWAY.bootstrap),
    "one copy of the bus": lambda _: doctor.bus_settings(replace(AWAY, replication=1), AWAY.bootstrap),
    "no groups on a cluster": lambda _: doctor.bus_settings(replace(AWAY, groups=False), AWAY.bootstrap),
    "no password for the bus": lambda _: doctor.bus_settings(replace(AWAY, password=None), AWAY.bootstrap),
    "metrics open to the world": lambda _: [doctor.metrics_door(Settings(), {"intake": "http://10.0.0.5:8001"})],
    "no certificate": lambda folder: [doctor.certificate(folder / "none.pem", NOW)],
    "a certificate that has expired": lambda folder: [doctor.certificate(authority(folder, -3), NOW)],
    "a certificate that expires": lambda folder: [doctor.certificate(authority(folder, 5), NOW)],
    "an old PostgreSQL": lambda _: doctor.postgres(POSTGRES | {"server_version_num": "140009"}),
    "fsync off": lambda _: doctor.postgres(POSTGRES | {"fsync": "off"}),
    "full_page_writes off": lambda _: doctor.postgres(POSTGRES | {"full_page_writes": "off"}),
    "synchronous_commit off": lambda _: doctor.postgres(POSTGRES | {"synchronous_commit": "off"}),
    "autovacuum off": lambda _: doctor.postgres(POSTGRES | {"autovacuum": "off"}),
    "a database that knows no Vietnamese": lambda _: doctor.postgres(POSTGRES | {"server_encoding": "SQL_ASCII"}),
    "a log that its service may rewrite": lambda _: [doctor.append_only(["intake.event"])],
    "a language's order of codes": lambda _: [doctor.collation("vi_VN.UTF-8", sorted(doctor.CODES, key=in_vietnamese))],
    "too few connections": lambda _: doctor.postgres(POSTGRES | {"max_connections": "20"}),
    "no synchronous standby": lambda _: [doctor.standby(0)],
    "swapped working days not known from 1 November": lambda _: [doctor.swap_years({2026}, date(2026, 11, 1))],
    "nobody is told": lambda _: [doctor.telling({provider.kind for provider in load_bundle(SAMPLE).providers or ()} or {"file"})],
    "another site's database": lambda _: [doctor.same_site("H55", "H01")],
    "another site's service": lambda _: doctor.of_one_site(TOLD | {"stats": {"site": "H01", "version": 3}}, "H55"),
    "a service behind the directory": lambda _: doctor.of_one_site(TOLD | {"stats": {"site": "H55", "version": 2}}, "H55"),
    "another site under the same names": lambda _: [doctor.own_names({"H55", "H55.242"}, "H55")],
    "topics not as planned": lambda _: doctor.against_plan(replace(FINE, repartition={"lienthong.dossier.v1": 12})),
    "a bus without access control": lambda _: doctor.against_plan(replace(FINE, access_control=False)),
    "parked events": lambda _: [doctor.parked_keys(2)],
}  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED, ids=lambda name: name.replace(" ", "-"))
def test_a_planted_misconfiguration_is_found_with_what_to_do(planted: str, tmp_path: Path) -> None:
    found = [finding for finding in PLANTED[planted](tmp_path) if finding.verdict is not Verdict.FINE]
    assert len(found) == 1, planted
    assert len(found[0].todo) > 10
    assert found[0].found


def test_twenty_at_least_are_planted() -> None:
    assert len(PLANTED) >= 20


def test_what_is_well_is_found_well(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    load_keys(tmp_path)
    findings = [
        doctor.python((3, 13, 0)),
        *doctor.keys(tmp_path),
        doctor.folder(tmp_path),
        doctor.disk(tmp_path, 1 << 40),
        doctor.names({"LIENTHONG_BUS_BOOTSTRAP": "x", "PATH": "/"}, doctor.known_names()),
        *doctor.bus_settings(AWAY, AWAY.bootstrap),
        *doctor.bus_settings(BusSettings("127.0.0.1:9092"), "127.0.0.1:9092"),
        doctor.metrics_door(Settings(), HERE),
        doctor.metrics_door(Settings(metrics_token=SecretStr("x")), {"intake": "http://10.0.0.5:8001"}),
        doctor.certificate(authority(tmp_path, 90), NOW),
        *doctor.postgres(POSTGRES),
        doctor.append_only([]),
        doctor.collation("C", sorted(doctor.CODES)),
        doctor.standby(1),
        doctor.swap_years({2026}, date(2026, 10, 31)),
        doctor.same_site("H55", "H55"),
        *doctor.of_one_site(TOLD, "H55"),
        doctor.own_names(set(), "H55"),
        doctor.own_names({"H55"}, "H55"),
        *doctor.against_plan(FINE),
        doctor.parked_keys(0),
    ]
    assert [finding for finding in findings if finding.verdict is not Verdict.FINE] == []
