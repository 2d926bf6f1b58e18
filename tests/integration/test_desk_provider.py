"""The desk's login through a province's OpenID provider: authorization code with PKCE, and what must not get through."""

import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from shared.security.oidc import Provider
from tests.harness import Backing, RunningSite, real_services, running_site
from tests.integration.intake_site import HOME

ISSUER = "https://sso.thainguyen.example"
KEY = RSAKey.generate_key(2048, parameters={"kid": "k1"})


class Sso:
    """The provider: gives one code, and a token for it to whom knows the verifier."""

    def __init__(self) -> None:
        self.asked: dict[str, str] = {}
        self.claims: dict[str, Any] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        match request.url.path:
            case "/.well-known/openid-configuration":
                ends = {"authorization_endpoint": "/login", "token_endpoint": "/token", "jwks_uri": "/keys"}
                return httpx.Response(200, json={name: ISSUER + path for name, path in ends.items()})
            case "/keys":
                return httpx.Response(200, json=KeySet([KEY]).as_dict(private=False))
            case "/token":
                form = dict(parse_qsl(request.content.decode()))
                digest = urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
                right = form["code"] == "good" and digest == self.asked["code_challenge"]
                return httpx.Response(200, json={"id_token": self.token()}) if right else httpx.Response(400)
        return httpx.Response(404)

    def token(self) -> str:
        claims = {
            "iss": ISSUER,
            "aud": "desk-pages",
            "sub": "bình",
            "exp": int(time.time()) + 60,
            "nonce": self.asked["nonce"],
            "role": "desk",
            "agency": HOME,
        } | self.claims
        return jwt.encode({"alg": "RS256", "kid": "k1"}, claims, KEY)


@pytest.fixture
def sso() -> Sso:
    return Sso()


@pytest.fixture
async def site(backing: Backing, sso: Sso) -> AsyncIterator[RunningSite]:
    told: dict[str, Any] = {"oidc_issuer": ISSUER, "oidc_audience": "lienthong", "oidc_client_id": "desk-pages"}
    async with running_site(backing, *real_services("intake"), tick_seconds=3600, **told) as running:
        intake = running.services["intake"]
        intake.provider = Provider(intake.settings, httpx.MockTransport(sso))
        yield running


async def started(site: RunningSite, sso: Sso) -> httpx.AsyncClient:
    """A browser that was sent to the provider."""
    web = site.client("intake", None)
    assert 'href="/desk/login/provider"' in (await web.get("/desk")).text
    away = await web.get("/desk/login/provider")
    assert away.status_code == 303
    there = urlsplit(away.headers["location"])
    assert f"{there.scheme}://{there.netloc}{there.path}" == f"{ISSUER}/login"
    sso.asked = {name: values[0] for name, values in parse_qs(there.query).items()}
    assert sso.asked["code_challenge_method"] == "S256"
    assert sso.asked["redirect_uri"] == f"{site.urls['intake']}/desk/callback"
    return web


async def back(web: httpx.AsyncClient, **params: str) -> httpx.Response:
    return await web.get("/desk/callback", params=params)


async def test_a_login_at_the_provider_becomes_a_session(site: RunningSite, sso: Sso) -> None:
    web = await started(site, sso)
    answer = await back(web, code="good", state=sso.asked["state"], session_state="x")
    assert (answer.status_code, answer.headers["location"]) == (303, "/desk")
    page = await web.get("/desk")
    assert page.status_code == 200
    assert f"bình · desk · {HOME}" in page.text
    again = await back(web, code="good", state=sso.asked["state"])
    assert again.status_code == 401  # what was kept for the login is gone


@pytest.mark.parametrize(
    ("params", "claims"),
    [
        ({"code": "good", "state": "other"}, {}),
        ({"code": "bad"}, {}),
        ({"code": ""}, {}),
        ({"code": "good"}, {"nonce": "other"}),
        ({"code": "good"}, {"aud": "lienthong"}),
        ({"code": "good"}, {"iss": "https://other.example"}),
        ({"code": "good"}, {"role": "king"}),
        ({"code": "good"}, {"exp": 1}),
    ],
)
async def test_what_does_not_belong_to_this_login_is_401(
    site: RunningSite, sso: Sso, params: dict[str, str], claims: dict[str, Any]
) -> None:
    web = await started(site, sso)
    sso.claims = claims
    answer = await back(web, **({"state": sso.asked["state"]} | params))
    assert answer.status_code == 401
    assert (await web.get("/desk")).status_code == 401


async def test_a_role_without_pages_is_told_so(site: RunningSite, sso: Sso) -> None:
    web = await started(site, sso)
    sso.claims = {"role": "portal"}
    assert (await back(web, code="good", state=sso.asked["state"])).status_code == 403
