"""Tokens of a province's own OpenID provider: whose, for whom, how long, and which role they give here."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from shared.security import oidc
from shared.security.keys import load_keys
from shared.security.oidc import Provider
from shared.security.tokens import Principal, Role, TokenRefused, Tokens
from shared.settings import Settings
from shared.web.gate import Gate

ISSUER = "https://sso.thainguyen.example"
KEY = RSAKey.generate_key(2048, parameters={"kid": "k1"})


def token(key: Any = KEY, algorithm: str = "RS256", **claims: Any) -> str:
    given = {"iss": ISSUER, "aud": "lienthong", "sub": "bình", "exp": int(time.time()) + 600}
    given |= {"role": "desk", "agency": "H55.242"} | claims
    header = {"alg": algorithm, "kid": key.kid}
    return jwt.encode(header, {k: v for k, v in given.items() if v is not None}, key, algorithms=[algorithm])


class Site:
    """The provider's own site: its discovery document and its keys, and how often they were asked for."""

    def __init__(self, *keys: Any) -> None:
        self.keys, self.asked, self.away = list(keys), 0, False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("away")
        if request.url.path == "/.well-known/openid-configuration":
            return httpx.Response(200, json={"jwks_uri": f"{ISSUER}/keys"})
        self.asked += 1
        return httpx.Response(200, json=KeySet(self.keys).as_dict(private=False))


def provider(site: Callable[[httpx.Request], httpx.Response] | None = None, **more: Any) -> Provider:
    settings = Settings(**({"oidc_issuer": ISSUER, "oidc_audience": "lienthong"} | more))
    return Provider(settings, httpx.MockTransport(site or Site(KEY)))


async def test_claims_give_the_principal_with_the_agency_in_the_new_form() -> None:
    found = await provider().verify(token(agency="000.00.15.H55", subtree=True))
    assert found == Principal("bình", Role.DESK, "H55.15", True)


async def test_roles_and_nested_claims_are_mapped_the_strongest_first() -> None:
    mapped = provider(
        oidc_role_claim="realm_access.roles",
        oidc_roles={"lanh-dao": "leader", "mot-cua": "desk"},
        oidc_name_claim="email",
    )
    given = token(role=None, realm_access={"roles": ["mot-cua", "lanh-dao", "offline"]}, email="b@example")
    assert await mapped.verify(given) == Principal("b@example", Role.LEADER, "H55.242", False)


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"aud": "other"},
        {"aud": None},
        {"exp": 1},
        {"exp": None},
        {"nbf": 1 << 33},
        {"role": "service"},
        {"role": "king"},
        {"role": None},
        {"sub": ""},
        {"agency": "nonsense"},
        {"agency": None},
    ],
)
async def test_what_a_token_may_not_say(claims: dict[str, Any]) -> None:
    with pytest.raises(TokenRefused):
        await provider().verify(token(**claims))


async def test_only_the_providers_key_pairs_sign() -> None:
    with pytest.raises(TokenRefused):
        await provider().verify(token(RSAKey.generate_key(2048, parameters={"kid": "k1"})))
    shared_secret = OctKey.generate_key(256, parameters={"kid": "k1"})
    with pytest.raises(TokenRefused):
        await provider().verify(token(shared_secret, "HS256"))
    with pytest.raises(TokenRefused):
        await provider().verify("a.b.c")


async def test_a_new_key_is_fetched_once_it_is_needed_and_not_for_every_invention(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site, new = Site(KEY), ECKey.generate_key("P-256", parameters={"kid": "k2"})
    found = provider(site)
    await found.verify(token())
    await found.verify(token())
    assert site.asked == 1
    for _ in range(3):
        with pytest.raises(TokenRefused):
            await found.verify(token(new, "ES256"))
    assert site.asked == 1
    site.keys.append(new)
    monkeypatch.setattr(oidc, "ASKED_AGAIN_AFTER", 0)
    await found.verify(token(new, "ES256"))
    assert site.asked == 2


async def test_while_the_provider_is_away_the_known_keys_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "ASKED_AGAIN_AFTER", 0)
    site = Site(KEY)
    found = provider(site)
    site.away = True
    with pytest.raises(TokenRefused):
        await found.verify(token())
    site.away = False
    await found.verify(token())
    site.away = True
    monkeypatch.setattr(oidc, "KEYS_KEPT", 0)
    await found.verify(token())


async def test_keys_may_lie_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(orjson.dumps(KeySet([KEY]).as_dict(private=False)))

    def nobody(_: httpx.Request) -> httpx.Response:
        raise AssertionError("the network was asked")

    assert (await provider(nobody, oidc_jwks=str(file)).verify(token())).role is Role.DESK


async def test_the_gate_takes_both_kinds_of_tokens(tmp_path: Path) -> None:
    app = FastAPI()

    @app.get("/v1/x")
    async def x() -> dict[str, str]:
        return {}

    tokens = Tokens(load_keys(tmp_path), "H55")
    gate = Gate(app, verify=tokens.verify, provider=provider().verify)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://x") as http:
        for good in (tokens.issue(Role.ADMIN), token()):
            assert (await http.get("/v1/x", headers={"authorization": f"Bearer {good}"})).status_code == 200
        for bad in ("x", token(exp=1)):
            assert (await http.get("/v1/x", headers={"authorization": f"Bearer {bad}"})).status_code == 401
