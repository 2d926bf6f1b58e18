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

import hmac
import os
from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode
from uuid import UUID

import orjson

from services.notify.line import Answer, Line, LineBroke, NotReached
from services.notify.notice import NoAnswer, NotTaken, Outcome, Refused, Taken
from services.notify.text import encoding_of
from shared.directory.bundle import CarrierEntry, ProviderEntry

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

    def __init__(self, line: Line, within: float) -> None:
        self._line, self._within = line, within

    async def send(self, sms: Sms) -> Outcome:
        return await self.post({"id": str(sms.id), "to": sms.to, "text": sms.text, "sender": sms.sender})

    async def post(self, document: Mapping[str, Any]) -> Outcome:
        body = orjson.dumps(document)
        answer = await _asked(self._line.ask("POST", body=body, kind="application/json", within=self._within))
        if not isinstance(answer, Answer):
            return answer
        if 200 <= answer.status < 300:
            return Taken()
        if 400 <= answer.status < 500 and (reason := _reason_in(answer.body)) is not None:
            return Refused(reason)
        return NotTaken(f"status-{answer.status}")


class Kannel:
    """Kannel's sendsms interface: GET with a dlr-url that comes back as our receipt.

    Its refusals are of our request or configuration: it learns of a bad recipient later, by a receipt.
    """

    def __init__(self, line: Line, entry: ProviderEntry, within: float, receipts_url: str, secret: str | None) -> None:
        self._line, self._entry, self._within = line, entry, within
        self._receipts_url, self._secret = receipts_url, secret

    async def send(self, sms: Sms) -> Outcome:
        entry = self._entry
        query = {
            "username": entry.username or "",
            "password": entry.password or os.environ.get(entry.password_env or "", ""),
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
        answer = await _asked(self._line.ask("GET", query=urlencode(query), within=self._within))
        if not isinstance(answer, Answer):
            return answer
        return Taken() if 200 <= answer.status < 300 else NotTaken(f"status-{answer.status}")


async def _asked(call: Coroutine[Any, Any, Answer]) -> Answer | NotTaken | NoAnswer:
    try:
        return await call
    except NotReached:
        return NotTaken("not-reached")
    except TimeoutError:
        return NoAnswer("no-answer")
    except LineBroke:
        return NoAnswer("line-broke")


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
