"""Attachments by reference: the digest is checked, the size read in storage, and no other file or address is reached."""

import asyncio
import hashlib
import hmac
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from deploy.serving import HttpServer, listen
from services.intake import s3
from services.intake.attachments import NotAllowed, Roots
from services.intake.s3 import Credentials
from shared.security.tokens import Role
from tests.harness import Backing, RunningSite, real_services, running_site
from tests.integration.intake_site import HOME, client, done, received

CONTENT = "Giấy khai sinh".encode()
DIGEST = hashlib.sha256(CONTENT).hexdigest()


ACCESS, SECRET, REGION = "AKTEST", "khóa/bí+mật", "vn-hanoi-1"


def signature_is_good(request: Request) -> bool:
    """The signature of an S3 request as the storage counts it, by what came over the line (Signature Version 4)."""
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=AKTEST/(\d{8})/vn-hanoi-1/s3/aws4_request, SignedHeaders=([a-z0-9;-]+), "
        r"Signature=([0-9a-f]{64})",
        request.headers.get("authorization", ""),
    )
    if found is None or not {"host", "x-amz-date", "x-amz-content-sha256"} <= set(found[2].split(";")):
        return False
    at = request.headers["x-amz-date"]
    age = datetime.now(UTC) - datetime.strptime(at, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    headers = "".join(f"{name}:{request.headers[name]}\n" for name in found[2].split(";"))
    path = request.scope["raw_path"].decode()
    canonical = "\n".join((request.method, path, "", headers, found[2], request.headers["x-amz-content-sha256"]))
    scope = f"{found[1]}/{REGION}/s3/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", at, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = ("AWS4" + SECRET).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    good = hmac.new(key, text.encode(), hashlib.sha256).hexdigest() == found[3]
    return good and at.startswith(found[1]) and abs(age) < timedelta(minutes=15)


class Storage:
    """An S3-compatible address for the tests; it writes down what it is asked for. `signed`: it asks for signatures."""

    def __init__(self, *, signed: bool = False) -> None:
        self.signed = signed
        self.asked: list[str] = []
        self.methods: list[str] = []
        self.status = 200
        listener = listen("storage", "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.server = HttpServer(Starlette(routes=[Route("/{path:path}", self._answer)]), listener)

    async def _answer(self, request: Request) -> Response:
        self.asked.append(request.url.path)
        self.methods.append(request.method)
        if self.signed and not signature_is_good(request):
            return Response("<Error><Code>SignatureDoesNotMatch</Code></Error>", 403)
        if request.url.path == "/bucket/large.pdf":
            return Response(b"x" * ((1 << 20) + 1))
        if request.url.path == "/bucket/away":
            return RedirectResponse("/secret/a.pdf")
        if request.url.path == "/bucket/endless.pdf":
            return StreamingResponse(self._drip())
        if request.url.path == "/bucket/none.pdf":
            return Response(status_code=404)
        return Response(CONTENT, self.status)

    async def _drip(self) -> AsyncIterator[bytes]:
        """Something comes all the time, so that no single wait is long."""
        while True:
            yield b"."
            await asyncio.sleep(0.02)


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    found = Storage()
    found.server.start()
    yield found
    await found.server.stop()


@pytest.fixture
async def site(backing: Backing, storage: Storage, tmp_path: Path) -> AsyncIterator[RunningSite]:
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "a.pdf").write_bytes(CONTENT)
    (scans / "large.pdf").write_bytes(b"x" * ((1 << 20) + 1))
    (tmp_path / "secret.pdf").write_bytes(CONTENT)
    (scans / "link.pdf").symlink_to(tmp_path / "secret.pdf")
    told: dict[str, Any] = {
        "tick_seconds": 3600,
        "attachment_roots": [str(scans), f"{storage.url}/bucket"],
        "attachment_mb": 1,
        "attachment_seconds": 0.05,
    }
    async with running_site(backing, *real_services("intake"), **told) as running:
        yield running


async def test_every_reference_is_looked_at_in_storage_and_nowhere_else(
    site: RunningSite, storage: Storage, tmp_path: Path
) -> None:
    scans, other = tmp_path / "scans", "0" * 64
    refs = {
        str(scans / "a.pdf"): (DIGEST, "whole"),
        f"file://{scans}/a.pdf": (f"sha256:{DIGEST.upper()}", "whole"),
        "a.pdf": (None, "no-digest"),
        f"{storage.url}/bucket/a.pdf": (DIGEST, "whole"),
        f"{storage.url}/bucket/b.pdf": (other, "differs"),
        f"{storage.url}/bucket/none.pdf": (DIGEST, "missing"),
        f"{storage.url}/bucket/away": (DIGEST, "missing"),  # a redirect is not followed
        str(scans / "none.pdf"): (DIGEST, "missing"),
        "large.pdf": (DIGEST, "too-large"),
        str(tmp_path / "secret.pdf"): (DIGEST, "not-allowed"),
        "../secret.pdf": (DIGEST, "not-allowed"),
        "link.pdf": (DIGEST, "not-allowed"),
        f"{storage.url}/secret/a.pdf": (DIGEST, "not-allowed"),
        f"{storage.url}/bucket/../secret/a.pdf": (DIGEST, "not-allowed"),
        f"{storage.url}/bucket/%2e%2e/secret/a.pdf": (DIGEST, "not-allowed"),
        "/etc/passwd": (None, "not-allowed"),
    }
    components = [
        {"name": f"Giấy {number}", "ref": ref} | ({"digest": digest} if digest else {})
        for number, (ref, (digest, _)) in enumerate(refs.items())
    ]
    desk = client(site, Role.DESK, HOME)
    code = (await received(desk, components=components))["code"]

    async def checked() -> dict[str, Any] | None:
        answer = await desk.get(f"/v1/dossiers/{code}/attachments")
        items = {item["ref"]: item for item in answer.json()["items"]}
        return items if len(items) == len(refs) and all(i["state"] != "waiting" for i in items.values()) else None

    found: dict[str, Any] = await site.until(checked)
    assert {ref: item["state"] for ref, item in found.items()} == {ref: state for ref, (_, state) in refs.items()}
    for item in found.values():
        assert (item["size"] == len(CONTENT)) == (item["state"] in ("whole", "differs", "no-digest"))
    assert not [path for path in storage.asked if not path.startswith("/bucket/")]

    admin = client(site, Role.ADMIN)
    await done(admin, code, "start")
    await done(admin, code, "resolution", result="granted", electronic=True, ref=str(scans / "a.pdf"), digest=other)
    await site.until(lambda: site.value("SELECT state = 'differs' FROM intake.attachment WHERE name = 'result'"))


async def test_an_s3_storage_is_asked_with_a_signature_and_nobody_else(backing: Backing) -> None:
    signing, other = Storage(signed=True), Storage()
    signing.server.start()
    other.server.start()
    told: dict[str, Any] = {
        "tick_seconds": 3600,
        "attachment_roots": ["s3://bucket", f"{other.url}/bucket"],
        "attachment_mb": 1,
        "attachment_seconds": 0.05,
        "attachment_s3_endpoint": signing.url,
        "attachment_s3_region": REGION,
        "attachment_s3_access_key": ACCESS,
        "attachment_s3_secret_key": SECRET,
    }
    expected = {
        "s3://bucket/2026/Giấy khai sinh (1).pdf": ("whole", len(CONTENT)),
        f"{signing.url}/bucket/plain~a.pdf": ("whole", len(CONTENT)),
        "s3://bucket/none.pdf": ("missing", None),
        "s3://bucket/large.pdf": ("too-large", (1 << 20) + 1),
        "s3://elsewhere/a.pdf": ("not-allowed", None),
        "s3://bucket/../secret/a.pdf": ("not-allowed", None),
        f"{other.url}/bucket/a.pdf": ("whole", len(CONTENT)),
    }
    components = [{"name": f"Giấy {n}", "ref": ref, "digest": DIGEST} for n, ref in enumerate(expected)]
    try:
        async with running_site(backing, *real_services("intake"), **told) as site:
            desk = client(site, Role.DESK, HOME)
            code = (await received(desk, components=components))["code"]

            async def checked() -> dict[str, Any] | None:
                items = (await desk.get(f"/v1/dossiers/{code}/attachments")).json()["items"]
                done = len(items) == len(expected) and all(item["state"] != "waiting" for item in items)
                return {item["ref"]: (item["state"], item["size"]) for item in items} if done else None

            assert await site.until(checked) == expected
    finally:
        await signing.server.stop()
        await other.server.stop()
    assert set(signing.methods) == {"HEAD", "GET"}
    assert signing.methods.count("GET") == 2  # what is not there or too large is not read
    assert other.methods == ["GET"]


def test_a_request_is_signed_as_the_storages_maker_signs_his_example() -> None:
    """The first example of Amazon's "Authenticating Requests: Using the Authorization Header (Signature Version 4)"."""
    who = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    at = datetime(2013, 5, 24, tzinfo=UTC)
    headers = s3.signed("GET", "https://examplebucket.s3.amazonaws.com/test.txt", who, at, {"Range": "bytes=0-9"})
    assert headers["authorization"].endswith("f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")
    assert "wJalr" not in repr(who)


async def test_an_answer_that_does_not_end_is_refused_and_the_next_is_looked_at(
    backing: Backing, storage: Storage
) -> None:
    told: dict[str, Any] = {
        "tick_seconds": 3600,
        "attachment_roots": [f"{storage.url}/bucket"],
        "attachment_seconds": 0.05,
        "attachment_longest": 0.5,
    }
    async with running_site(backing, *real_services("intake"), **told) as site:
        desk = client(site, Role.DESK, HOME)
        parts = [
            {"name": name, "ref": f"{storage.url}/bucket/{name}.pdf", "digest": DIGEST} for name in ("endless", "next")
        ]
        await received(desk, components=parts)
        states = "SELECT string_agg(name || ' ' || state, ', ' ORDER BY name) FROM intake.attachment"

        async def both() -> bool:
            return bool(await site.value(states) == "endless too-slow, next whole")

        await site.until(both)


async def test_storage_that_is_away_is_asked_again(site: RunningSite, storage: Storage) -> None:
    storage.status = 503
    desk = client(site, Role.DESK, HOME)
    parts = [{"name": "Giấy", "ref": f"{storage.url}/bucket/c.pdf", "digest": DIGEST}]
    await received(desk, components=parts)
    await site.until(lambda: site.value("SELECT next_at > now() + interval '1 minute' FROM intake.attachment"))
    storage.status = 200
    await site.fetch("UPDATE intake.attachment SET next_at = now()")
    await site.until(lambda: site.value("SELECT state = 'whole' FROM intake.attachment"))


@pytest.mark.parametrize(
    "ref",
    [
        "http://s3.local.evil.test/bucket/a",
        "http://s3.local:81/bucket/a",
        "https://s3.local/bucket/a",
        "http://user@s3.local/bucket/a",
        "http://s3.local@evil.test/bucket/a",
        "http://s3.local/bucketother/a",
        "http://s3.local/bucket/..%2fa",
        "http://s3.local/bucket/%252e%252e/a",
        "http://s3.local/bucket/a?x=http://evil",
        "http://s3.local/bucket/\\..\\a",
        "http://s3.local:x/bucket/a",
        "http://169.254.169.254/latest/meta-data",
        "ftp://s3.local/bucket/a",
        "gopher://s3.local/bucket/a",
        "file://evil.test/scans/a",
        "/scans/../etc/passwd",
        "file:///scans/%2e%2e/etc/passwd",
        "/scans",
        "",
    ],
)
def test_nothing_but_what_lies_below_a_root(ref: str) -> None:
    roots = Roots.of(["/scans", "http://s3.local/bucket"])
    with pytest.raises(NotAllowed):
        roots.place(ref)


def test_what_lies_below_a_root() -> None:
    roots = Roots.of(["file:///scans", "http://s3.local/bucket/"])
    assert roots.place("http://S3.local:80/bucket/2026/a%20b.pdf") == "http://S3.local:80/bucket/2026/a%20b.pdf"
    assert roots.place("/scans/2026/a.pdf") == roots.place("2026/a.pdf") == Path("/scans/2026/a.pdf")
    assert not Roots.of([])
