"""Who asks: bearer tokens (JWT, EdDSA, the site's key) and what a principal may see."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import OKPKey
from joserfc.jws import JWSRegistry

from shared.security.keys import SiteKeys

# RFC 9864 gives EdDSA over Ed25519 the name Ed25519; the contract's tokens keep the old one, which libraries of other
# agencies know. The signature is the same.
JWSRegistry.algorithms["EdDSA"].security_warning = None

_CACHED = 10_000  # verified tokens: checking one costs 171 µs, finding it again 1 µs
LEEWAY = 5  # seconds of clock difference


class Role(StrEnum):
    """Roles of 'Principals' in the contract, and `service` for calls between the services of one site."""

    DESK = "desk"
    OFFICER = "officer"
    LEADER = "leader"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    PORTAL = "portal"
    ADMIN = "admin"
    SERVICE = "service"


SITE_WIDE = frozenset({Role.ADMIN, Role.AUDITOR, Role.OPERATOR, Role.PORTAL, Role.SERVICE})
"""Roles whose token may stand without an agency: it then means the whole site."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `agency` None: the whole site; with `subtree` also the agencies below."""

    subject: str
    role: Role
    agency: str | None
    subtree: bool


class TokenRefused(Exception):
    """No token that this site accepts; the message says why, without the token."""


def _key(signing: Ed25519PrivateKey) -> OKPKey:
    pem = signing.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return OKPKey.import_key(pem)


class Tokens:
    """Issues and verifies the site's tokens."""

    def __init__(self, keys: SiteKeys, site: str, refresh: Callable[[], SiteKeys | None] = lambda: None) -> None:
        self._site, self._refresh = site, refresh
        self.use(keys)

    def use(self, keys: SiteKeys) -> None:
        """From now on these keys; what was verified is verified again."""
        self._key = _key(keys.signing)
        self._keys = [self._key, *(_key(old) for old in keys.old_signing)]
        self._verified: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()

    def issue(
        self, role: Role, *, agency: str | None = None, subtree: bool = False, name: str = "", hours: float = 8.0
    ) -> str:
        """A bearer token. Raises ValueError when the role needs an agency."""
        if agency is None and role not in SITE_WIDE:
            raise ValueError(f"a token for {role} needs an agency")
        now = time.time()
        claims: dict[str, Any] = {
            "iss": self._site,
            "sub": name or f"{role}@{agency or self._site}",
            "role": str(role),
            "subtree": subtree,
            "iat": int(now),
            "exp": int(now + hours * 3600),
        }
        if agency is not None:
            claims["agency"] = agency
        return jwt.encode({"alg": "EdDSA", "typ": "JWT"}, claims, self._key, algorithms=["EdDSA"])

    def verify(self, token: str) -> Principal:
        """The principal of a token; raises TokenRefused."""
        digest = sha256(token.encode("utf-8", "replace")).digest()
        now = time.time()
        if found := self._verified.get(digest):
            principal, expires = found
            if now > expires + LEEWAY:
                raise TokenRefused("the token has expired")
            return principal
        try:
            claims = self._claims(token)
            expires = float(claims["exp"])
            agency = claims.get("agency")
            principal = Principal(
                str(claims["sub"])[:200],
                Role(claims["role"]),
                None if agency is None else str(agency),
                bool(claims.get("subtree", False)),
            )
            issuer = claims["iss"]
        except (JoseError, ValueError, KeyError, TypeError, UnicodeError) as error:
            raise TokenRefused("the token is not one of this site") from error
        if issuer != self._site or (principal.agency is None and principal.role not in SITE_WIDE):
            raise TokenRefused("the token is not one of this site")
        if now > expires + LEEWAY:
            raise TokenRefused("the token has expired")
        self._verified[digest] = (principal, expires)
        if len(self._verified) > _CACHED:
            self._verified.popitem(last=False)
        return principal

    def _claims(self, token: str) -> dict[str, Any]:
        """The claims of a token that one of the keys has signed; a rotation may just have brought a new one."""
        refused: JoseError | None = None
        for key in self._keys:
            try:
                return jwt.decode(token, key, algorithms=["EdDSA"]).claims
            except BadSignatureError as error:
                refused = error
        if (keys := self._refresh()) is not None:
            self.use(keys)
            return self._claims(token)
        assert refused is not None
        raise refused
