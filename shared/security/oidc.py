"""Tokens of a province's own OpenID provider: read by its published keys, and mapped to the roles of the contract.

Off unless `LIENTHONG_OIDC_ISSUER` is set. The provider's keys (JWKS) are fetched when they are first needed, again when a
token names a key that is not known, and once an hour; while the provider is away the keys that are known go on working.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from shared.contracts.codes import normalise_agency
from shared.security.tokens import LEEWAY, SITE_WIDE, Principal, Role, TokenRefused
from shared.settings import Settings

ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
"""Signatures by a key pair alone: with a shared secret whoever verifies could also issue."""

KEYS_KEPT: Final = 3600.0
ASKED_AGAIN_AFTER: Final = 30.0
"""Seconds between two questions to the provider at least: tokens with invented key ids must not become its load."""

_TIMEOUT: Final = 5.0


class Provider:
    """The OpenID provider that the settings name; `configured` is false when they name none."""

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._settings, self._transport = settings, transport
        self._keys: KeySet | None = None
        self._read_at = self._asked_at = float("-inf")
        self._metadata: dict[str, Any] | None = None
        self._asking = asyncio.Lock()

    @property
    def configured(self) -> bool:
        return bool(self._settings.oidc_issuer)

    async def verify(self, token: str, *, audience: str | None = None, nonce: str | None = None) -> Principal:
        """The principal of a token. `audience`: another one than the settings'. Raises TokenRefused."""
        claims = await self._claims(token)
        settings = self._settings
        wanted = audience or settings.oidc_audience
        given = claims.get("aud")
        try:
            expires = float(claims["exp"])
            begins = float(claims.get("nbf", 0))
        except (KeyError, TypeError, ValueError) as error:
            raise TokenRefused("the token does not say how long it is good") from error
        now = time.time()
        if claims.get("iss") != settings.oidc_issuer:
            raise TokenRefused("the token is not from this site's provider")
        if not wanted or wanted not in (given if isinstance(given, list) else [given]):
            raise TokenRefused("the token is meant for somebody else")
        if not begins - LEEWAY <= now <= expires + LEEWAY:
            raise TokenRefused("the token has expired")
        if nonce is not None and claims.get("nonce") != nonce:
            raise TokenRefused("the token does not belong to this login")
        return self._principal(claims)

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        """Claims as the settings map them; of several roles the first that the mapping names."""
        settings = self._settings
        subject = _claim(claims, settings.oidc_name_claim)
        given = _claim(claims, settings.oidc_role_claim)
        names = [str(name) for name in (given if isinstance(given, list) else [given])]
        mapping = settings.oidc_roles or {str(role): str(role) for role in Role}
        role = next((mapping[name] for name in mapping if name in names), None)
        agency = _claim(claims, settings.oidc_agency_claim)
        if role not in set(Role) - {Role.SERVICE} or not isinstance(subject, str) or not subject:
            raise TokenRefused("the token gives no role at this site")
        try:
            code = normalise_agency(str(agency)) if agency else None
        except ValueError as error:
            raise TokenRefused("the token's agency is no agency code") from error
        if code is None and role not in SITE_WIDE:
            raise TokenRefused("the token names no agency, which its role needs")
        return Principal(subject[:200], Role(role), code, _claim(claims, settings.oidc_subtree_claim) is True)

    # -- keys

    async def _claims(self, token: str) -> dict[str, Any]:
        if self._keys is None or time.monotonic() - self._read_at > KEYS_KEPT:
            await self._read_keys()
        try:
            return self._decoded(token)
        except TokenRefused:
            if not await self._read_keys():
                raise
            return self._decoded(token)

    def _decoded(self, token: str) -> dict[str, Any]:
        if self._keys is None:
            raise TokenRefused("the provider's keys cannot be read now")
        try:
            return dict(jwt.decode(token, self._keys, algorithms=ALGORITHMS).claims)
        except (JoseError, ValueError, KeyError, TypeError, UnicodeError) as error:
            raise TokenRefused("the token is neither of this site nor of its provider") from error

    async def _read_keys(self) -> bool:
        """Whether the keys were read now; not again so soon, and what is known stays when the provider is away."""
        async with self._asking:
            if time.monotonic() - self._asked_at < ASKED_AGAIN_AFTER:
                return False
            self._asked_at = time.monotonic()
            place = self._settings.oidc_jwks
            try:
                if place and "://" not in place:
                    content = await asyncio.to_thread(Path(place).read_bytes)
                else:
                    content = await self._get(place or str((await self.metadata())["jwks_uri"]))
                self._keys = KeySet.import_key_set(orjson.loads(content))
            except (httpx.HTTPError, JoseError, OSError, ValueError, KeyError, TypeError):
                return False
            self._read_at = time.monotonic()
            return True

    async def metadata(self) -> dict[str, Any]:
        """What the provider says of itself: its endpoints. Raises httpx.HTTPError, ValueError."""
        if self._metadata is None:
            address = self._settings.oidc_issuer.rstrip("/") + "/.well-known/openid-configuration"
            found = orjson.loads(await self._get(address))
            if not isinstance(found, dict):
                raise ValueError("the provider's configuration is no object")
            self._metadata = found
        return self._metadata

    async def _get(self, address: str) -> bytes:
        async with httpx.AsyncClient(transport=self._transport, timeout=_TIMEOUT) as http:
            answer = await http.get(address)
            answer.raise_for_status()
            return answer.content

    # -- the login of a page (authorization code with PKCE)

    async def id_token(self, code: str, verifier: str, redirect: str) -> str:
        """The id token that a code is exchanged for. Raises TokenRefused."""
        settings = self._settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect,
            "client_id": settings.oidc_client_id,
            "code_verifier": verifier,
        }
        if settings.oidc_client_secret is not None:
            form["client_secret"] = settings.oidc_client_secret.get_secret_value()
        try:
            address = str((await self.metadata())["token_endpoint"])
            async with httpx.AsyncClient(transport=self._transport, timeout=_TIMEOUT) as http:
                answer = await http.post(address, data=form)
                answer.raise_for_status()
                return str(answer.json()["id_token"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise TokenRefused("the provider did not confirm this login") from error


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by a path with dots where providers nest them (`realm_access.roles`)."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
