"""How envelopes stand in a link's records, and what makes a record good. Pure but for the keys that it is given.

A record's value is JSON: {manifest, jws, envelopes} or {manifest, jws}. The manifest is the exact text that was signed:
who sends to whom on which link, and either the place, the chain before it and the digest of each envelope, or what the
sides tell each other (kind "control"). An envelope is text, too; its digest is SHA-256 of that text, so that each stays
verifiable alone with the manifest and the signature.

An envelope from which a person was taken, because that person was erased, keeps the digest that it was signed under; the
manifest says so (`without`, the digest of its text as it is now, by its index).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field

from services.routing.link import BATCH, Place
from shared.contracts.codes import format_instant, parse_instant, uuid7
from shared.security.peers import MOST_KEYS, Identity, Jwk, PeerRefused, canonical, verify

Direction = Literal["up", "down"]
MAX_RECORD: Final = 4 << 20  # bytes; what a topic of ours takes
MAX_ENVELOPE: Final = 2 << 20
MAX_HOPS: Final = 8


REASONS: Final = (
    "bad-digest",
    "bad-directory",
    "bad-envelope",
    "bad-event",
    "bad-signature",
    "digest-differs",
    "duplicate",
    "expired-key",
    "failed",
    "fork",
    "loop",
    "no-way",
    "not-below",
    "not-ours",
    "not-readable",
    "not-theirs",
    "not-wrapped-to-us",
    "out-of-order",
    "oversize",
    "replayed",
    "truncated",
    "unknown-key",
    "unknown-kind",
    "wrong-address",
    "wrong-source",
)
"""Why what came over a link is not taken."""


class Refused(Exception):
    """A record or an envelope that is not taken; `reason` is a stable code that is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


_CONTACT_REF: Final = re.compile(r"[0-9A-Za-z._:-]{1,100}")

UNREADABLE: Final = "unreadable"
"""The kind of an envelope that is none; it takes its number, and has no effect."""


class PublicKeys(BaseModel):
    """A site's public halves, as JWKs: its signing keys with their `until`, of sealing keys the newest."""

    model_config = ConfigDict(extra="forbid")

    sign: Annotated[list[dict[str, str]], Field(min_length=1, max_length=MOST_KEYS)]
    seal: dict[str, str]


@dataclass(frozen=True, slots=True)
class Letter:
    """One envelope. `origin` and `to` are sites, `hops` those that it has passed through, `at` when it was recorded at
    the site that sends it on this link; `text` is what was signed. `kept`: the digest it was signed under, when a person has
    been taken out of it since."""

    id: UUID
    kind: str
    at: datetime
    origin: str
    to: str
    hops: tuple[str, ...]
    body: Mapping[str, Any]
    text: str
    kept: str | None = None

    @property
    def digest(self) -> str:
        return self.kept or digest_of(self.text)

    @property
    def person(self) -> str | None:
        """The contact_ref of the person that goes along, sealed."""
        sealed = self.body.get("sealed")
        ref = sealed.get("contact_ref") if self.kind == "ask" and isinstance(sealed, Mapping) else None
        return ref if isinstance(ref, str) and _CONTACT_REF.fullmatch(ref) else None

    def without_person(self) -> "Letter":
        """The same envelope, with nobody in it."""
        body = {**self.body, "sealed": None}
        text = canonical({**orjson.loads(self.text), "body": body}).decode()
        return replace(self, body=body, text=text, kept=self.digest)


def digest_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def letter(
    kind: str,
    body: Mapping[str, Any],
    *,
    origin: str,
    to: str,
    at: datetime,
    hops: Sequence[str] = (),
    id: UUID | None = None,  # noqa: A002 - what it is called
) -> Letter:
    """A new envelope, or one that is passed on under its own id."""
    which = id or uuid7()
    text = canonical(
        {
            "id": str(which),
            "kind": kind,
            "at": format_instant(at),
            "from": origin,
            "to": to,
            "hops": list(hops),
            "body": body,
        }
    ).decode()
    return Letter(which, kind, at, origin, to, tuple(hops), body, text)


def read_letter(text: str, signed: str | None = None) -> Letter:
    """`signed`: the digest that stands in its manifest. Raises Refused (`bad-envelope`)."""
    try:
        value = orjson.loads(text)
        return Letter(
            UUID(value["id"]),
            str(value["kind"]),
            parse_instant(value["at"]),
            str(value["from"]),
            str(value["to"]),
            tuple(map(str, value["hops"])),
            dict(value["body"]),
            text,
            None if signed is None or signed == digest_of(text) else signed,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refused("bad-envelope") from None


def letter_of(text: str, signed: str, now: datetime) -> Letter:
    """An envelope as it stands in a good record; one that nobody can read is named by its digest."""
    try:
        return read_letter(text, signed)
    except Refused:
        name = UUID(bytes=sha256(text.encode()).digest()[:16], version=5)
        return Letter(name, UNREADABLE, now, "", "", (), {}, text, None if signed == digest_of(text) else signed)


@dataclass(frozen=True, slots=True)
class Way:
    """One direction of one link: `link` is the lower site's code."""

    link: str
    direction: Direction
    sender: str
    receiver: str

    def manifest(self, **more: Any) -> dict[str, Any]:
        return {
            "v": 1,
            "link": self.link,
            "direction": self.direction,
            "from": self.sender,
            "to": self.receiver,
            **more,
        }


@dataclass(frozen=True, slots=True)
class Batch:
    """A record that holds envelopes: their texts from `first` on, `before` being the sender's chain before it; with the text
    that was signed and its signature, by which each of them is verified elsewhere. `again`: the sender knows that the receiver
    has them, and sends them once more."""

    first: Place
    before: str
    digests: tuple[str, ...]
    texts: tuple[str, ...]
    manifest: str
    jws: str
    again: bool = False

    @property
    def last(self) -> Place:
        return Place(self.first.epoch, self.first.number + len(self.texts) - 1)


@dataclass(frozen=True, slots=True)
class Control:
    """A record by which the sides agree; `tick` rises, so that an old one has no effect."""

    tick: int
    said: Mapping[str, Any]


def batch_record(
    identity: Identity,
    way: Way,
    first: Place,
    before: str,
    texts: Sequence[str],
    known: Collection[str] = (),
    signed: Sequence[str] | None = None,
    *,
    again: bool = False,
) -> bytes:
    """`known`: the keys of ours that the receiver knows; `signed`: the digests of the ledger, if they may be others."""
    now = [digest_of(text) for text in texts]
    digests = now if signed is None else list(signed)
    without = {str(at): digest for at, digest in enumerate(now) if digest != digests[at]}
    more: dict[str, Any] = {"without": without} if without else {}
    if again:
        more["again"] = True
    manifest = canonical(
        way.manifest(kind="envelopes", epoch=first.epoch, first=first.number, before=before, digests=digests, **more)
    )
    return orjson.dumps(
        {"manifest": manifest.decode(), "jws": identity.sign(manifest, known), "envelopes": list(texts)}
    )


def control_record(
    identity: Identity, way: Way, tick: int, said: Mapping[str, Any], known: Collection[str] = ()
) -> bytes:
    manifest = canonical(way.manifest(kind="control", tick=tick, said=said))
    return orjson.dumps({"manifest": manifest.decode(), "jws": identity.sign(manifest, known)})


def open_record(value: bytes | None, way: Way, keys: Mapping[str, Jwk], now: datetime) -> Batch | Control:
    """What a record says, when it is good: signed by the peer, for this link, this direction and this site, and whole.

    Raises Refused: oversize, not-readable, bad-signature, unknown-key, expired-key, wrong-address, truncated, bad-digest.
    """
    if value is not None and len(value) > MAX_RECORD:
        raise Refused("oversize")
    try:
        outer = orjson.loads(value or b"")
        manifest, signature = str(outer["manifest"]).encode(), str(outer["jws"])
        inner = orjson.loads(manifest)
        kind = inner["kind"]
        address = (inner["v"], inner["link"], inner["direction"], inner["from"], inner["to"])
    except (ValueError, KeyError, TypeError):
        raise Refused("not-readable") from None
    try:
        verify(manifest, signature, keys, now)
    except PeerRefused as refused:
        raise Refused(refused.reason) from None
    if address != (1, way.link, way.direction, way.sender, way.receiver):
        raise Refused("wrong-address")
    try:
        if kind == "control":
            return Control(int(inner["tick"]), dict(inner["said"]))
        first = Place(int(inner["epoch"]), int(inner["first"]))
        digests, texts = tuple(map(str, inner["digests"])), tuple(map(str, outer["envelopes"]))
        before = str(inner["before"])
        without = {int(at): str(digest) for at, digest in dict(inner.get("without", {})).items()}
    except (ValueError, KeyError, TypeError):
        raise Refused("not-readable") from None
    if len(digests) != len(texts) or not texts:
        raise Refused("truncated")
    if len(texts) > BATCH or any(len(text) > MAX_ENVELOPE for text in texts):
        raise Refused("oversize")
    if any(digest_of(text) != without.get(at, digests[at]) for at, text in enumerate(texts)):
        raise Refused("bad-digest")
    return Batch(first, before, digests, texts, manifest.decode(), signature, inner.get("again") is True)
