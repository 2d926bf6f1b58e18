"""What sites know of each other: signatures (JWS, EdDSA) and data keys wrapped to one site alone (JWE, X25519).

link.pem signs (site.pem is rotated, and a peer knows one key), seal.pem opens what was wrapped to this site. Of a peer the
public halves are known, as JWKs.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from joserfc import jwe, jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from joserfc.jws import JWSRegistry

from shared.security.keys import new_signing_key, read_or_make

JWSRegistry.algorithms["EdDSA"].security_warning = None  # as for tokens: the name that others know

Jwk = Mapping[str, Any]
_SIGNING: Final = "EdDSA"
_WRAPPING: Final = {"alg": "ECDH-ES+A256KW", "enc": "A256GCM"}


class PeerRefused(Exception):
    """A signature or a wrapped key that is not good; `reason` is a stable code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: what is signed."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def fingerprint(jwk: Jwk) -> str:
    """The name of a public key: 16 hex digits."""
    return sha256(str(jwk["x"]).encode()).hexdigest()[:16]


class Identity:
    """This site's own keys towards other sites."""

    def __init__(self, site: str, folder: Path) -> None:
        self.site = site
        self._signing = OKPKey.import_key(read_or_make(folder / "link.pem", new_signing_key))
        self._sealing = OKPKey.import_key(read_or_make(folder / "seal.pem", _new_sealing_key))
        self.public: dict[str, Jwk] = {
            "sign": dict(self._signing.as_dict(private=False)),
            "seal": dict(self._sealing.as_dict(private=False)),
        }
        self._kid = fingerprint(self.public["sign"])

    def sign(self, content: bytes) -> str:
        """A detached JWS (RFC 7515, appendix F): header, nothing, signature."""
        header = {"alg": _SIGNING, "kid": self._kid}
        return jws.detach_content(jws.serialize_compact(header, content, self._signing, algorithms=[_SIGNING]))

    def open(self, wrapped: str) -> bytes:
        """A data key that was wrapped to this site. Raises PeerRefused."""
        try:
            opened = jwe.decrypt_compact(wrapped, self._sealing, algorithms=list(_WRAPPING.values()))
        except (JoseError, ValueError) as error:
            raise PeerRefused("not-wrapped-to-us") from error
        assert opened.plaintext is not None
        return opened.plaintext


def verify(content: bytes, signature: str, keys: Mapping[str, Jwk]) -> None:
    """Whether `content` was signed by one of the peer's keys, given by their fingerprints. Raises PeerRefused."""
    head, dot, tail = signature.partition("..")
    try:
        kid = orjson.loads(_decoded(head))["kid"]
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise PeerRefused("bad-signature") from None
    jwk = keys.get(str(kid))
    if jwk is None or not dot:
        raise PeerRefused("unknown-key")
    body = urlsafe_b64encode(content).rstrip(b"=").decode()
    try:
        jws.deserialize_compact(f"{head}.{body}.{tail}", OKPKey.import_key(dict(jwk)), algorithms=[_SIGNING])
    except (JoseError, ValueError) as error:
        raise PeerRefused("bad-signature") from error


def wrap_to(data_key: bytes, jwk: Jwk) -> str:
    """A data key that only the owner of `jwk` can open (JWE compact)."""
    return jwe.encrypt_compact(
        dict(_WRAPPING), data_key, OKPKey.import_key(dict(jwk)), algorithms=list(_WRAPPING.values())
    )


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _new_sealing_key() -> bytes:
    return X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
