"""A day's seal: the root over its heads and the seal before it, signed by the site (Ed25519).

Whoever has the site's public key verifies a dossier's history offline: its chain, its proof, the signature.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Seal:
    """`root`, `previous` and `key_id` in hex; `previous` is the digest of the seal of the day before."""

    site: str
    day: str  # local
    dossiers: int
    events: int
    root: str
    previous: str | None
    key_id: str
    signature: bytes = b""

    def payload(self) -> bytes:
        """What is signed."""
        return orjson.dumps(
            {
                "site": self.site,
                "day": self.day,
                "dossiers": self.dossiers,
                "events": self.events,
                "root": self.root,
                "previous": self.previous,
                "key_id": self.key_id,
            }
        )

    def digest(self) -> str:
        return sha256(self.payload() + self.signature).hexdigest()

    def signed_by(self, key: Ed25519PublicKey) -> bool:
        try:
            key.verify(self.signature, self.payload())
        except InvalidSignature:
            return False
        return True


def key_id(key: Ed25519PublicKey) -> str:
    """Names a public key: 16 hex digits of its digest."""
    return sha256(key.public_bytes_raw()).hexdigest()[:16]


def sign(key: Ed25519PrivateKey, seal: dict[str, Any]) -> Seal:
    """The fields of a seal but key_id and signature → the seal."""
    drawn = Seal(**seal, key_id=key_id(key.public_key()))
    return Seal(**seal, key_id=drawn.key_id, signature=key.sign(drawn.payload()))
