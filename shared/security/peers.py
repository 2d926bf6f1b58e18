"""What sites know of each other: signatures (JWS, EdDSA) and data keys wrapped to one site alone (JWE, X25519).

link.pem signs, seal.pem opens what was wrapped to this site; both are rotated with the site's other keys. Of a peer the
public halves are known, as JWKs.
"""

import binascii
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
from joserfc import jwe, jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from joserfc.jws import JWSRegistry

from shared.security.keys import (
    RELOADED_WITHIN,
    new_sealing_key,
    new_signing_key,
    peer_key_id,
    read_or_make,
    ring,
    stamp,
)

JWSRegistry.algorithms["EdDSA"].security_warning = None  # as for tokens: the name that others know

Jwk = Mapping[str, Any]
MOST_KEYS: Final = 8  # of one peer
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
    return peer_key_id(str(jwk["x"]))


class Identity:
    """This site's own keys towards other sites, as they are in the folder now: a rotation is seen within seconds.

    Of a peer each site knows the signing keys that were announced to it, and until when each is good. What goes to it is
    signed with the newest of ours that it is known to know, so that a rotation waits for no line.
    """

    def __init__(self, site: str, folder: Path) -> None:
        self.site, self._folder = site, folder
        read_or_make(folder / "link.pem", new_signing_key)
        read_or_make(folder / "seal.pem", new_sealing_key)
        self._stamp: object = None
        self._looked = 0.0
        self._read()

    def _read(self) -> None:
        """Present keys first, then those to come, then the old ones, the newest first."""
        now = time.monotonic()
        if self._stamp is not None and now - self._looked < RELOADED_WITHIN / 2:
            return
        self._looked = now
        if (found := stamp(self._folder)) == self._stamp:
            return
        others = sorted(ring(self._folder), key=lambda o: (o.until is None, o.since), reverse=True)
        self._signing: list[tuple[OKPKey, str | None]] = [(_key(self._folder / "link.pem"), None)]
        self._signing += [(_key(self._folder / "others" / o.file), o.until) for o in others if o.kind == "link"]
        self._coming = {o.id for o in others if o.until is None}
        self._sealing = [_key(self._folder / "seal.pem")]
        self._sealing += [_key(self._folder / "others" / o.file) for o in others if o.kind == "seal"]
        self._stamp = found

    @property
    def public(self) -> dict[str, Jwk]:
        """The present keys, as JWKs: {sign, seal}."""
        self._read()
        return {
            "sign": dict(self._signing[0][0].as_dict(private=False)),
            "seal": dict(self._sealing[0].as_dict(private=False)),
        }

    @property
    def announced(self) -> dict[str, Any]:
        """What peers are told: {sign: [JWK, with `until` (RFC 3339) when its time is over then], seal: JWK}."""
        self._read()
        sign = [
            {**key.as_dict(private=False), **({} if until is None else {"until": until})}
            for key, until in self._signing
        ]
        return {"sign": sign[:MOST_KEYS], "seal": dict(self._sealing[0].as_dict(private=False))}

    def sign(self, content: bytes, known: Collection[str] = ()) -> str:
        """A detached JWS (RFC 7515, appendix F): header, nothing, signature; by the newest key in use that the peer knows,
        the present one when nothing is known of it."""
        self._read()
        names = [(fingerprint(key.as_dict(private=False)), key) for key, _ in self._signing]
        in_use = [(name, key) for name, key in names if name not in self._coming]
        kid, key = next((pair for pair in in_use if pair[0] in known), in_use[0])
        header = {"alg": _SIGNING, "kid": kid}
        return jws.detach_content(jws.serialize_compact(header, content, key, algorithms=[_SIGNING]))

    def open(self, wrapped: str) -> bytes:
        """A data key that was wrapped to this site, under its present key or an old one. Raises PeerRefused."""
        self._read()
        for key in self._sealing:
            try:
                opened = jwe.decrypt_compact(wrapped, key, algorithms=list(_WRAPPING.values()))
            except (JoseError, ValueError):
                continue
            assert opened.plaintext is not None
            return opened.plaintext
        raise PeerRefused("not-wrapped-to-us")


def _key(file: Path) -> OKPKey:
    return OKPKey.import_key(file.read_bytes())


def verify(content: bytes, signature: str, keys: Mapping[str, Jwk], now: datetime | None = None) -> None:
    """Whether `content` was signed by one of the peer's keys, given by their fingerprints, whose time is not over.

    Raises PeerRefused: bad-signature, unknown-key, expired-key."""
    head, dot, tail = signature.partition("..")
    jwk = keys.get(key_of(signature))
    if jwk is None or not dot:
        raise PeerRefused("unknown-key")
    body = urlsafe_b64encode(content).rstrip(b"=").decode()
    try:
        jws.deserialize_compact(f"{head}.{body}.{tail}", OKPKey.import_key(plain(jwk)), algorithms=[_SIGNING])
    except (JoseError, ValueError) as error:
        raise PeerRefused("bad-signature") from error
    if now is not None and (until := jwk.get("until")) is not None and datetime.fromisoformat(str(until)) <= now:
        raise PeerRefused("expired-key")


def plain(jwk: Jwk) -> dict[str, Any]:
    """The key alone, without until when it is good."""
    return {name: value for name, value in jwk.items() if name != "until"}


def key_of(signature: str) -> str:
    """The id of the key that a detached JWS names. Raises PeerRefused (`bad-signature`)."""
    try:
        return str(orjson.loads(_decoded(signature.partition("..")[0]))["kid"])
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise PeerRefused("bad-signature") from None


def wrap_to(data_key: bytes, jwk: Jwk) -> str:
    """A data key that only the owner of `jwk` can open (JWE compact)."""
    return jwe.encrypt_compact(
        dict(_WRAPPING), data_key, OKPKey.import_key(dict(jwk)), algorithms=list(_WRAPPING.values())
    )


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
