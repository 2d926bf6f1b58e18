"""The ways out: SMS gateways and postal carriers, by kind. What an answer means is decided here, once.

| what came                                         | outcome  |                                                  |
|---------------------------------------------------|----------|--------------------------------------------------|
| 2xx, whatever its body                            | Taken    |                                                  |
| 4xx with `{reason}`                               | Refused  | the recipient's fault                            |
| 4xx without one, 3xx, 5xx, other statuses         | NotTaken | the provider's own fault, or a wrong address     |
| no connection                                     | NotTaken | the request never left                           |
| nothing within the time, or the line broke, or    | NoAnswer | the request has left: nobody knows               |
| what came is no HTTP                              |          |                                                  |

Redirects are not followed, and no more of a body is read than a reason needs.
"""

import asyncio
import hmac
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID

import httpx
import orjson

from services.notify.notice import NoAnswer, NotTaken, Outcome, Refused, Taken
from services.notify.text import encoding_of
from shared.directory.bundle import CarrierEntry, ProviderEntry

MOST_OF_A_BODY: Final = 16 << 10
DELIVERED, FAILED, REJECTED = 1, 2, 16
"""Kannel's `dlr-mask`: delivered to the phone, not delivered, refused by the message centre."""


@dataclass(frozen=True, slots=True)
class Sms:
    """What a provider is given. `id` is the notice's own: an early receipt finds its row."""

    id: UUID
    to: str
    text: str
    sender: str


class Caller(Protocol):
    """A provider that is asked over the network, one SMS at a time."""

    async def send(self, sms: Sms) -> Outcome: ...


# ---------------------------------------------------------------------------------------------------------- over HTTP


class Http:
    """`POST url {id, to, text, sender}`."""

    def __init__(self, client: httpx.AsyncClient, url: str, timeout: float) -> None:
        self._client, self._url, self._timeout = client, url, timeout

    async def send(self, sms: Sms) -> Outcome:
        return await self.post({"id": str(sms.id), "to": sms.to, "text": sms.text, "sender": sms.sender})

    async def post(self, document: Mapping[str, Any]) -> Outcome:
        status, body = await _ask(
            self._client.build_request(
                "POST", self._url, content=orjson.dumps(document), headers={"Content-Type": "application/json"}
            ),
            self._client,
            self._timeout,
        )
        if isinstance(status, NotTaken | NoAnswer):
            return status
        if 200 <= status < 300:
            return Taken()
        if 400 <= status < 500 and (reason := _reason_in(body)) is not None:
            return Refused(reason)
        return NotTaken(f"status-{status}")


class Kannel:
    """Kannel's sendsms interface: GET with a dlr-url that comes back as our receipt.

    Its refusals are of our request or configuration: it learns of a bad recipient later, by a receipt.
    """

    def __init__(
        self, client: httpx.AsyncClient, entry: ProviderEntry, timeout: float, receipts_url: str, secret: str | None
    ) -> None:
        self._client, self._entry, self._timeout = client, entry, timeout
        self._receipts_url, self._secret = receipts_url, secret

    async def send(self, sms: Sms) -> Outcome:
        entry = self._entry
        assert entry.url is not None
        password = entry.password or os.environ.get(entry.password_env or "", "")
        query = {
            "username": entry.username or "",
            "password": password,
            "from": sms.sender,
            "to": sms.to,
            "text": sms.text,
            "charset": "UTF-8",
            "coding": "0" if encoding_of(sms.text) == "gsm7" else "2",
        }
        if entry.smsc is not None:
            query["smsc"] = entry.smsc
        if self._secret is not None:
            query["dlr-mask"] = str(DELIVERED | FAILED | REJECTED)
            query["dlr-url"] = f"{self._receipts_url}?id={sms.id}&type=%d&sig={signature_of_id(self._secret, sms.id)}"
        request = self._client.build_request("GET", entry.url, params=query)
        status, _ = await _ask(request, self._client, self._timeout)
        if isinstance(status, NotTaken | NoAnswer):
            return status
        return Taken() if 200 <= status < 300 else NotTaken(f"status-{status}")


async def _ask(
    request: httpx.Request, client: httpx.AsyncClient, timeout: float
) -> tuple[int | NotTaken | NoAnswer, bytes]:
    """The status and the beginning of the body, or why there is none. The status counts as soon as it is there."""
    status: int | None = None
    body = b""
    try:
        async with asyncio.timeout(timeout):
            answer = await client.send(request, stream=True)
            try:
                status = answer.status_code
                async with asyncio.timeout(min(timeout, 2.0)):
                    async for piece in answer.aiter_raw():
                        body += piece
                        if len(body) > MOST_OF_A_BODY:
                            break
            finally:
                await answer.aclose()
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
        return NotTaken(_code(error)), b""
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, TimeoutError) as error:
        if status is None:
            return NoAnswer(_code(error)), b""
    assert status is not None
    return status, body


def _code(error: Exception) -> str:
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return "not-reached"
        case httpx.TimeoutException() | TimeoutError():
            return "no-answer"
    return "line-broke"


def _reason_in(body: bytes) -> str | None:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    reason = document.get("reason") if isinstance(document, dict) else None
    return reason if isinstance(reason, str) and reason.strip() else None


# ------------------------------------------------------------------------------------------------------------ a file


class File:
    """Appends one JSON line for each `{id, …}` and syncs: nothing leaves the machine.

    A line is whole or it is none: what a crash cut off is closed before anything is added, and does not count.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def end(self) -> int:
        """Where the file ends now: what is written later lies behind it."""
        return self._path.stat().st_size if self._path.exists() else 0

    def append(self, documents: Sequence[Mapping[str, Any]]) -> None:
        """Raises OSError, such as for a full disk: what was written then is found again by `written`."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            torn = b"\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else b""
            data = memoryview(torn + b"".join(orjson.dumps(d, option=orjson.OPT_APPEND_NEWLINE) for d in documents))
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def written(self, ids: Collection[UUID], since: int) -> set[UUID]:
        """Those of the ids that stand in the file behind `since`; in a file that is shorter by now, anywhere."""
        wanted = {str(each): each for each in ids}
        found: set[UUID] = set()
        if not self._path.exists():
            return found
        with self._path.open("rb") as file:
            file.seek(since if since <= self.end() else 0)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    document = orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue
                if isinstance(document, dict) and document.get("id") in wanted:
                    found.add(wanted[document["id"]])
        return found


# --------------------------------------------------------------------------------------------------------- signatures


def secret_of(entry: ProviderEntry | CarrierEntry) -> str | None:
    """The secret that signs receipts, from the bundle or the environment variable that it names."""
    return entry.secret or (os.environ.get(entry.secret_env) if entry.secret_env else None)


def signed(secret: str, body: bytes, header: str) -> bool:
    """Whether `X-Signature: sha256=<hex>` is the HMAC-SHA256 of the body under the secret."""
    expected = f"sha256={hmac.new(secret.encode(), body, sha256).hexdigest()}"
    return hmac.compare_digest(expected.encode(), header.strip().encode("utf-8", "replace"))


def signature_of_id(secret: str, identity: UUID | str) -> str:
    """The `sig` of Kannel's dlr-url: hex HMAC-SHA256 of the notice's id."""
    return hmac.new(secret.encode(), str(identity).encode(), sha256).hexdigest()


def id_signed(secret: str, identity: str, signature: str) -> bool:
    return hmac.compare_digest(signature_of_id(secret, identity).encode(), signature.encode("utf-8", "replace"))
