"""Bearer tokens: who is let through as whom."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt

from shared.security.keys import SiteKeys, load_keys
from shared.security.tokens import LEEWAY, Principal, Role, TokenRefused, Tokens, _key


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> SiteKeys:
    return load_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def tokens(keys: SiteKeys) -> Tokens:
    return Tokens(keys, "H55")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock forward by so many seconds."""
    began = time.time()

    def move(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: began + seconds)

    return move


def forged(keys: SiteKeys, **changed: Any) -> str:
    """A token with the site's own signature and these claims changed, or left out where None."""
    now = int(time.time())
    claims: dict[str, Any] = {"iss": "H55", "sub": "x", "role": "admin", "iat": now, "exp": now + 60} | changed
    return jwt.encode(
        {"alg": "EdDSA"}, {n: v for n, v in claims.items() if v is not None}, _key(keys.signing), algorithms=["EdDSA"]
    )


def test_a_token_says_who_asks(tokens: Tokens) -> None:
    token = tokens.issue(Role.LEADER, agency="H55.242", subtree=True, name="chủ tịch")
    assert tokens.verify(token) == Principal("chủ tịch", Role.LEADER, "H55.242", True)
    assert tokens.verify(token) == Principal("chủ tịch", Role.LEADER, "H55.242", True)  # found again, not checked again
    assert tokens.verify(tokens.issue(Role.ADMIN)) == Principal("admin@H55", Role.ADMIN, None, False)


@pytest.mark.parametrize("role", [Role.DESK, Role.OFFICER, Role.LEADER])
def test_roles_of_an_agency_need_one(tokens: Tokens, keys: SiteKeys, role: Role) -> None:
    with pytest.raises(ValueError, match="agency"):
        tokens.issue(role)
    with pytest.raises(TokenRefused):
        tokens.verify(forged(keys, role=str(role)))


def test_a_token_ends(tokens: Tokens, clock: Callable[[float], None]) -> None:
    token, unseen = tokens.issue(Role.ADMIN, hours=0.5), tokens.issue(Role.AUDITOR, hours=0.5)
    clock(1800 + LEEWAY - 1)
    assert tokens.verify(token).role is Role.ADMIN
    clock(1800 + LEEWAY + 2)
    for late in (token, unseen):
        with pytest.raises(TokenRefused, match="expired"):
            tokens.verify(late)


def test_only_this_site_signs(keys: SiteKeys, tokens: Tokens, tmp_path: Path) -> None:
    other = load_keys(tmp_path)
    with pytest.raises(TokenRefused):
        tokens.verify(Tokens(other, "H55").issue(Role.ADMIN))
    with pytest.raises(TokenRefused):
        tokens.verify(Tokens(keys, "H56").issue(Role.ADMIN))


@pytest.mark.parametrize(
    "changed",
    [
        {"role": "king"},
        {"role": None},
        {"role": ["admin"]},
        {"exp": None},
        {"exp": "never"},
        {"iss": None},
        {"sub": None},
    ],
    ids=str,
)
def test_claims_that_are_no_principal_are_refused(keys: SiteKeys, tokens: Tokens, changed: dict[str, Any]) -> None:
    with pytest.raises(TokenRefused):
        tokens.verify(forged(keys, **changed))


def test_other_algorithms_are_refused(keys: SiteKeys, tokens: Tokens) -> None:
    """Neither a token without a signature nor one that takes the public key for a shared secret."""

    def part(content: bytes) -> str:
        return base64.urlsafe_b64encode(content).decode().rstrip("=")

    claims = part(json.dumps({"iss": "H55", "sub": "x", "role": "admin", "exp": int(time.time()) + 60}).encode())
    public = _key(keys.signing).as_pem(private=False)
    signed = part(b'{"alg":"HS256"}') + "." + claims
    for token in (
        part(b'{"alg":"none"}') + "." + claims + ".",
        f"{signed}.{part(hmac.new(public, signed.encode(), hashlib.sha256).digest())}",
    ):
        with pytest.raises(TokenRefused):
            tokens.verify(token)


@pytest.mark.parametrize("text", ["", "x", "a.b", "a.b.c", "....", "ý.ý.ý", "\ud800", "\0", "a" * 100_000], ids=ascii)
def test_what_is_no_token_is_refused(tokens: Tokens, text: str) -> None:
    with pytest.raises(TokenRefused):
        tokens.verify(text)


def test_a_token_that_was_altered_is_refused(tokens: Tokens) -> None:
    head, claims, signature = tokens.issue(Role.AUDITOR).split(".")
    admin = base64.urlsafe_b64encode(
        base64.urlsafe_b64decode(claims + "==").replace(b'"auditor"', b'"admin"')
    ).decode().rstrip("=")  # fmt: skip
    for altered in (f"{head}.{admin}.{signature}", f"{head}.{claims}.{signature[:-2]}", f"{head}.{claims}."):
        with pytest.raises(TokenRefused):
            tokens.verify(altered)


def test_two_processes_that_start_together_end_with_the_same_keys(tmp_path: Path) -> None:
    first, second = load_keys(tmp_path / "keys"), load_keys(tmp_path / "keys")
    assert (first.data, first.hashing) == (second.data, second.hashing)
    assert Tokens(second, "H55").verify(Tokens(first, "H55").issue(Role.ADMIN)).role is Role.ADMIN
    assert all(file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "keys").iterdir())
    assert sorted(file.name for file in (tmp_path / "keys").iterdir()) == ["data.key", "hash.key", "site.pem"]
