"""The site's keys: one folder, readable by the services' user alone.

site.pem       Ed25519, signs tokens
link.pem       Ed25519, signs what goes over links; seal.pem: X25519, opens what other sites wrapped (shared.security.peers)
data.key       wraps the data keys of persons (AES-256 key wrap, RFC 3394)
hash.key       keyed hashes for search by phone or citizen id, and tracking pins; it is not rotated: pins are on paper
others/        keys beside the present ones: what is to come in a rotation, and what was; `ring.json` says which is what

A rotation (`prepare`, `swap`) has an overlap: every process knows the new key before any uses it, and reads what the old
one signed or wrapped for KEPT afterwards.
"""

import hmac
import json
import os
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from shared.security.seals import key_id

Kind = Literal["site", "data", "link", "seal"]
KEPT = timedelta(days=400)
"""How long an old private key stays: what is wrapped under it is wrapped anew long before."""
RELOADED_WITHIN = 5.0  # seconds after which every process has seen a change in the folder
FILES: Mapping[Kind, str] = {"site": "site.pem", "data": "data.key", "link": "link.pem", "seal": "seal.pem"}
LINE_DOWN = timedelta(days=30)
"""How long peers take what an old link.pem signed: a line may be down for days, and what lies on it is still to be read."""


@dataclass(frozen=True, slots=True)
class Other:
    """A key beside the present one. `until`: what it signed is accepted up to then; None: it is to come."""

    kind: Kind
    id: str
    since: str
    until: str | None

    @property
    def file(self) -> str:
        return f"{self.kind}-{self.id}"

    def accepted(self, now: datetime) -> bool:
        return self.until is None or now < datetime.fromisoformat(self.until)


@dataclass(frozen=True, slots=True)
class SiteKeys:
    """What the services of one site share; it never leaves the machine.

    `old_signing` are other keys whose tokens are accepted now, `old_data` other keys that may have wrapped something,
    `public` all public keys that the site has signed with, by their id.
    """

    signing: Ed25519PrivateKey
    data: bytes
    hashing: bytes
    old_signing: tuple[Ed25519PrivateKey, ...] = ()
    old_data: tuple[bytes, ...] = ()
    public: Mapping[str, Ed25519PublicKey] = field(default_factory=dict)

    @property
    def data_key_id(self) -> str:
        return data_key_id(self.data)

    @property
    def data_key_ids(self) -> frozenset[str]:
        """Whatever is wrapped for one of these can be opened here."""
        return frozenset(data_key_id(key) for key in (self.data, *self.old_data))

    def public_key(self, name: str) -> Ed25519PublicKey | None:
        """A key that this site signs or has signed with."""
        own = self.signing.public_key()
        return own if key_id(own) == name else self.public.get(name)

    def keyed_hash(self, purpose: str, text: str) -> str:
        """A hash that only this site can make: 64 hex digits."""
        return hmac.digest(self.hashing, f"{purpose}\0{text}".encode(), "sha256").hex()

    def track_pin(self, code: str) -> str:
        """The six digits on a dossier's receipt."""
        number = int.from_bytes(hmac.digest(self.hashing, f"pin\0{code}".encode(), "sha256")[:8], "big")
        return f"{number % 1_000_000:06}"


def pin_digest(code: str, pin: str) -> str:
    """By which a site that has a copy of the dossier knows its pin: 16 hex digits. A pin is one of a million: this keeps it
    from being read, not from being tried; and it opens nothing that a site with the copy does not have."""
    return sha256(f"pin\0{code}\0{pin}".encode()).hexdigest()[:16]


def load_keys(folder: Path) -> SiteKeys:
    """Reads the keys; makes those that are missing. Two processes that start together end with the same keys."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = read_or_make(folder / "site.pem", new_signing_key)
    signing = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(signing, Ed25519PrivateKey):
        raise TypeError(f"{folder / 'site.pem'} is no Ed25519 key")
    data = read_or_make(folder / "data.key", lambda: os.urandom(32))
    hashing = read_or_make(folder / "hash.key", lambda: os.urandom(32))
    others = folder / "others"
    now = datetime.now(UTC)
    old_signing = [_signing(others / o.file) for o in ring(folder) if o.kind == "site" and o.accepted(now)]
    old_data = [(others / o.file).read_bytes() for o in ring(folder) if o.kind == "data"]
    public = {
        file.stem: Ed25519PublicKey.from_public_bytes(bytes.fromhex(file.read_text())) for file in others.glob("*.pub")
    }
    return SiteKeys(signing, data, hashing, tuple(old_signing), tuple(old_data), public)


def data_key_id(key: bytes) -> str:
    return sha256(b"data-key-id:" + key).hexdigest()[:16]


def ring(folder: Path) -> list[Other]:
    """The keys beside the present ones."""
    try:
        return [Other(**each) for each in json.loads((folder / "others" / "ring.json").read_text())]
    except FileNotFoundError:
        return []


def stamp(folder: Path) -> tuple[int, ...]:
    """Changes whenever the keys do, and when the tokens of an old one are no longer accepted."""
    found = [sum(other.accepted(datetime.now(UTC)) for other in ring(folder))]
    for name in (*FILES.values(), "others/ring.json"):
        with suppress(FileNotFoundError):
            found.append((folder / name).stat().st_mtime_ns)
    return tuple(found)


def prepare(folder: Path, kinds: tuple[Kind, ...], now: datetime) -> list[Other]:
    """The first half of a rotation: new keys that every process is to know before one of them is used."""
    others = folder / "others"
    others.mkdir(mode=0o700, exist_ok=True)
    coming = []
    for kind in kinds:
        content = NEW[kind]()
        new = Other(kind, _id_of(kind, content), now.isoformat(), None)
        _write(others / new.file, content)
        coming.append(new)
    _write_ring(folder, [o for o in ring(folder) if o.until is not None] + coming)
    return coming


def swap(folder: Path, now: datetime, overlap: timedelta) -> list[Other]:
    """The second half: what was to come is used, what was used is kept for KEPT; its tokens are accepted for `overlap`.

    It can be called again after it was cut: what has been swapped is then the present key.
    """
    others = folder / "others"
    known = ring(folder)
    retired = []
    for new in [o for o in known if o.until is None]:
        content = (folder / FILES[new.kind]).read_bytes()
        accepted = max(overlap, LINE_DOWN) if new.kind == "link" and overlap else overlap
        old = Other(new.kind, _id_of(new.kind, content), now.isoformat(), (now + accepted).isoformat())
        if old.id != new.id:
            _write(others / old.file, content)
            if new.kind == "site":
                _write(
                    others / f"{old.id}.pub", _signing(others / old.file).public_key().public_bytes_raw().hex().encode()
                )
            retired.append(old)
            _write_ring(folder, [*known, *retired])  # known as old before it is no longer the present one
            _write(folder / FILES[new.kind], (others / new.file).read_bytes())
    past = [o for o in known if o.until is not None and datetime.fromisoformat(o.since) < now - KEPT]
    _write_ring(folder, [o for o in known if o.until is not None and o not in past] + retired)
    for gone in [*past, *(o for o in known if o.until is None)]:
        (others / gone.file).unlink(missing_ok=True)
    return retired


def _id_of(kind: Kind, content: bytes) -> str:
    if kind == "data":
        return data_key_id(content)
    if kind == "site":
        return key_id(_load(content).public_key())
    key = serialization.load_pem_private_key(content, password=None)
    assert isinstance(key, Ed25519PrivateKey | X25519PrivateKey)
    return peer_key_id(urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b"=").decode())


def peer_key_id(x: str) -> str:
    """Names a public key that other sites know, by the `x` of its JWK: 16 hex digits."""
    return sha256(x.encode()).hexdigest()[:16]


def _signing(file: Path) -> Ed25519PrivateKey:
    return _load(file.read_bytes())


def _load(pem: bytes) -> Ed25519PrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError("this is no Ed25519 key")
    return key


def _write_ring(folder: Path, others: list[Other]) -> None:
    _write(folder / "others" / "ring.json", json.dumps([asdict(o) for o in others], indent=1).encode())


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing, readable by its owner alone."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    draft.replace(path)


def new_signing_key() -> bytes:
    """Ed25519, as PEM."""
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def new_sealing_key() -> bytes:
    """X25519, as PEM."""
    return X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


NEW: Mapping[Kind, Callable[[], bytes]] = {
    "site": new_signing_key,
    "data": lambda: os.urandom(32),
    "link": new_signing_key,
    "seal": new_sealing_key,
}


def read_or_make(path: Path, make: Callable[[], bytes]) -> bytes:
    if not path.exists():
        draft = path.with_suffix(f".{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, make())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with suppress(FileExistsError):  # another process was first: its key stands
            os.link(draft, path)
        draft.unlink()
    return path.read_bytes()
