"""Attachments by reference: the file stays in storage (a folder, an S3-compatible address), its digest is checked and its
size read there.

A reference is followed only below a root that the deployment has named, so that nobody makes intake read another file or
ask another address; redirects are not followed. It is done beside: no request waits for storage.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, quote, unquote, urlsplit

import httpx

from services.intake.dossier import Dossier
from services.intake.s3 import encoded, signed
from services.intake.settings import IntakeSettings
from services.intake.store import Store
from shared.contracts import events as ev
from shared.service import Service

State = Literal["waiting", "whole", "differs", "missing", "not-allowed", "too-large", "too-slow", "no-digest"]
_DIGEST = re.compile(r"(?:sha-?256[:=-])?([0-9a-fA-F]{64})")
_PORTS = {"http": 80, "https": 443}
_S3 = "s3://"
_CHUNK = 1 << 16
_PAGE = 500
AGAIN = timedelta(minutes=5)
"""After which storage that did not answer is asked again."""


class NotAllowed(Exception):
    """The reference lies below no root."""


class Away(Exception):
    """Storage does not answer now."""


@dataclass(frozen=True, slots=True)
class Found:
    """What lies under a reference."""

    state: State
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Roots:
    """Folders and addresses below which references are followed."""

    folders: tuple[Path, ...]
    addresses: tuple[SplitResult, ...]
    endpoint: str = ""
    """Where `s3://bucket/key` lies: at this address, under bucket/key."""

    @classmethod
    def of(cls, given: Sequence[str], endpoint: str = "") -> "Roots":
        endpoint = endpoint.rstrip("/")
        named = [_in_endpoint(root, endpoint) for root in given]
        addresses = tuple(
            urlsplit(root.rstrip("/") + "/") for root in named if root.startswith(("http://", "https://"))
        )
        folders = tuple(
            Path(unquote(urlsplit(root).path) if root.startswith("file://") else root).resolve()
            for root in named
            if not root.startswith(("http://", "https://", _S3))
        )
        return cls(folders, addresses, endpoint)

    def __bool__(self) -> bool:
        return bool(self.folders or self.addresses)

    def place(self, ref: str) -> Path | str:
        """The file or the address of a reference. Raises NotAllowed."""
        ref = _in_endpoint(ref, self.endpoint)
        parts = urlsplit(ref)
        if parts.scheme in _PORTS:
            return self._address(ref, parts)
        if parts.scheme not in ("", "file") or (parts.scheme == "file" and parts.netloc not in ("", "localhost")):
            raise NotAllowed
        named = Path(unquote(parts.path) if parts.scheme == "file" else ref)
        if "\0" in str(named):
            raise NotAllowed
        for root in self.folders:
            file = (root / named).resolve()  # links are followed before it is compared
            if file.is_relative_to(root) and file != root:
                return file
        raise NotAllowed

    def _address(self, ref: str, parts: SplitResult) -> str:
        """Scheme, host and port equal to a root's, the path below it as it stands: no way up, in whatever writing."""
        path = unquote(unquote(parts.path))
        strange = parts.username is not None or parts.query or parts.fragment or "\\" in path or "\0" in path
        if strange or ".." in path.split("/") or any(c.isspace() for c in ref):
            raise NotAllowed
        for root in self.addresses:
            if _origin(root) == _origin(parts) and parts.path.startswith(root.path):
                return ref
        raise NotAllowed


def _in_endpoint(ref: str, endpoint: str) -> str:
    """`s3://bucket/key` as its address; everything else as it is."""
    if not ref.startswith(_S3) or not endpoint:
        return ref
    return f"{endpoint}/{quote(ref.removeprefix(_S3), safe='/%')}"


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    try:
        port = parts.port
    except ValueError:
        raise NotAllowed from None
    return parts.scheme, (parts.hostname or "").lower(), port or _PORTS[parts.scheme]


def judged(size: int, found: str, digest: str | None) -> Found:
    """What was read against the digest that came with the reference (SHA-256 in hex)."""
    if digest is None:
        return Found("no-digest", size, found)
    match = _DIGEST.fullmatch(digest.strip())
    return Found("whole" if match and match[1].lower() == found else "differs", size, found)


def references(dossier: Dossier, result: ev.DossierResolved | None) -> list[tuple[str, str, str | None]]:
    """(name, reference, digest) of a dossier's components and of its result."""
    found = [(c["name"], c["ref"], c.get("digest")) for c in dossier.components if c.get("ref")]
    if result is not None and result.ref:
        found.append(("result", result.ref, result.digest))
    return found


class Attachments:
    """One loop: notes the references of dossiers that moved, and checks what waits."""

    def __init__(self, service: Service, store: Store, settings: IntakeSettings) -> None:
        self._service, self._store = service, store
        self._roots = Roots.of(settings.attachment_roots, settings.attachment_s3_endpoint)
        self._limit, self._seconds = settings.attachment_mb << 20, settings.attachment_seconds
        self._longest = settings.attachment_longest
        self._credentials = settings.s3_credentials

    async def run(self) -> None:
        """Without roots there is nothing to follow."""
        while True:
            self._service.beat("attachments")
            busy = bool(self._roots) and (await self.collect() or await self.check())
            if not busy:
                await asyncio.sleep(self._seconds)

    async def collect(self) -> bool:
        queries = self._store.queries
        async with self._service.pool.acquire() as connection, connection.transaction():
            await connection.execute(queries["attachments_begin"])
            at = await connection.fetchrow(queries["attachments_at"])
            assert at is not None
            settled = await connection.fetchval(self._service.store_queries["under_way"])
            rows = await connection.fetch(queries["moved_since"], at["since"], at["after"], settled, _PAGE)
            noted: list[tuple[str, str, str, str | None]] = []
            for row in rows:
                dossier = await self._store.read(connection, row["code"])
                assert dossier is not None
                result = None
                if dossier.state in (9, 10):
                    history = await self._store.history(connection, row["code"])
                    result = next((p.data for p in reversed(history) if isinstance(p.data, ev.DossierResolved)), None)
                noted += [(row["code"], ref, name, digest) for name, ref, digest in references(dossier, result)]
            if noted:
                unique = {(code, name, ref): (code, ref, name, digest) for code, ref, name, digest in noted}
                columns = [list(column) for column in zip(*unique.values(), strict=True)]
                await connection.execute(queries["attachments_note"], *columns)
            if rows:
                await connection.execute(queries["attachments_move"], rows[-1]["recorded"], rows[-1]["code"])
        return len(rows) == _PAGE

    async def check(self) -> bool:
        """Checks some of what waits; whether there was any."""
        async with self._service.pool.acquire() as connection:
            rows = await connection.fetch(self._store.queries["attachments_due"], 20)
        for row in rows:
            self._service.beat("attachments")
            try:
                found = await self.look(row["ref"], row["digest"])
            except Away:
                async with self._service.pool.acquire() as connection:
                    await connection.execute(
                        self._store.queries["attachment_later"], row["code"], row["name"], row["ref"], AGAIN
                    )
                continue
            async with self._service.pool.acquire() as connection:
                await connection.execute(
                    self._store.queries["attachment_checked"],
                    *(row["code"], row["name"], row["ref"], found.state, found.size, found.sha256),
                )
        return bool(rows)

    async def look(self, ref: str, digest: str | None) -> Found:
        """What lies under a reference now; an answer that does not end in time is a refusal, so that what waits behind it is
        looked at. Raises Away."""
        limit = asyncio.timeout(self._longest)
        try:
            async with limit:
                return await self._look(ref, digest)
        except TimeoutError as error:
            if limit.expired():
                return Found("too-slow")
            raise Away(type(error).__name__) from None

    async def _look(self, ref: str, digest: str | None) -> Found:
        try:
            place = await asyncio.to_thread(self._roots.place, ref)
        except (NotAllowed, ValueError, OSError):
            return Found("not-allowed")
        size, hashed = 0, sha256()
        try:
            told = await self._size(place)
            if told is not None and told > self._limit:
                return Found("too-large", told)
            async for part in self._parts(place):
                size += len(part)
                if size > self._limit:
                    return Found("too-large")
                hashed.update(part)
        except FileNotFoundError:
            return Found("missing")
        except (OSError, httpx.HTTPError) as error:
            raise Away(type(error).__name__) from None
        return judged(size, hashed.hexdigest(), digest)

    async def _size(self, place: Path | str) -> int | None:
        """The size in bytes as storage has it, where it says so without the content."""
        if isinstance(place, Path):
            return place.stat().st_size if place.is_file() else None  # noqa: ASYNC240 - one stat
        if not self._signs(place):
            return None
        async with self._asked("HEAD", place) as response:
            told = response.headers.get("content-length", "")
        return int(told) if told.isascii() and told.isdigit() else None

    def _signs(self, address: str) -> bool:
        """Whether this address is the S3 storage's, which knows us by a signature; nobody else is sent one."""
        return self._credentials is not None and address.startswith(f"{self._roots.endpoint}/")

    @asynccontextmanager
    async def _asked(self, method: str, address: str) -> AsyncIterator[httpx.Response]:
        """An answer of storage. Raises FileNotFoundError when nothing is there for us."""
        headers = {}
        if self._credentials is not None and self._signs(address):
            address = encoded(address)
            headers = signed(method, address, self._credentials, datetime.now(UTC))
        async with self._service.http.stream(method, address, headers=headers, follow_redirects=False) as response:
            if response.status_code in (403, 404, 410) or response.is_redirect:
                raise FileNotFoundError
            response.raise_for_status()
            yield response

    async def _parts(self, place: Path | str) -> AsyncIterator[bytes]:
        if isinstance(place, str):
            async with self._asked("GET", place) as response:
                async for part in response.aiter_raw():
                    yield part
            return
        if not place.is_file():  # noqa: ASYNC240 - one stat
            raise FileNotFoundError
        with place.open("rb") as file:
            while part := await asyncio.to_thread(file.read, _CHUNK):
                yield part


def described(row: Any) -> dict[str, Any]:
    return {name: row[name] for name in ("name", "ref", "digest", "state", "size", "sha256")}
