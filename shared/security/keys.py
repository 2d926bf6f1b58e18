"""The site's keys: one folder, readable by the services' user alone.

site.pem       Ed25519, signs tokens (and what goes over links)
data.key       wraps the data keys of persons (AES-256 key wrap, RFC 3394)
hash.key       keyed hashes for search by phone or citizen id, and tracking pins
"""

import hmac
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class SiteKeys:
    """What the services of one site share; it never leaves the machine."""

    signing: Ed25519PrivateKey
    data: bytes
    hashing: bytes

    @property
    def data_key_id(self) -> str:
        return sha256(b"data-key-id:" + self.data).hexdigest()[:16]

    def keyed_hash(self, purpose: str, text: str) -> str:
        """A hash that only this site can make: 64 hex digits."""
        return hmac.digest(self.hashing, f"{purpose}\0{text}".encode(), "sha256").hex()

    def track_pin(self, code: str) -> str:
        """The six digits on a dossier's receipt."""
        number = int.from_bytes(hmac.new(self.hashing, f"pin\0{code}".encode(), sha256).digest()[:8], "big")
        return f"{number % 1_000_000:06}"


def load_keys(folder: Path) -> SiteKeys:
    """Reads the keys; makes those that are missing. Two processes that start together end with the same keys."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = _read_or_make(folder / "site.pem", _new_signing_key)
    signing = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(signing, Ed25519PrivateKey):
        raise TypeError(f"{folder / 'site.pem'} is no Ed25519 key")
    data = _read_or_make(folder / "data.key", lambda: os.urandom(32))
    hashing = _read_or_make(folder / "hash.key", lambda: os.urandom(32))
    return SiteKeys(signing, data, hashing)


def _new_signing_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _read_or_make(path: Path, make: Callable[[], bytes]) -> bytes:
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
