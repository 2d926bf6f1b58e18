"""A dossier's proof: what happened to it, as a file that is verified on a machine that knows a root's key alone.

A proof is {manifest, jws, history, transfers, receipts, certificates}. The manifest is the exact text that the site has
signed with its link key: who made it, about which dossier, and the digest of each item, so that a changed byte is found and
named. Beside the dossier's own events (chained and sealed, `shared.store.chain`, `shared.security.seals`) and those of its
transfers it has receipts: what other sites have said of it over links, each envelope with the manifest that its own site
signed. Certificates lead from the keys that signed to a root's: the upper site certifies the keys of the lower one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

import orjson
from pydantic import BaseModel, ConfigDict

from shared.contracts.codes import format_instant
from shared.security.peers import Identity, Jwk, PeerRefused, canonical, fingerprint, key_of, plain, verify

KIND: Final = "lienthong-proof"
PARTS: Final = ("events", "seals", "transfers", "receipts", "certificates")


@dataclass(frozen=True, slots=True)
class Changed:
    """What is not as it was signed: `part` and the item's number in it, from 1 (0: the part as a whole), and why."""

    part: str
    item: int
    reason: str


class Certificate(BaseModel):
    """A site's signed word that a key signs for another."""

    model_config = ConfigDict(extra="forbid")

    site: str
    key: dict[str, str]
    by: str
    by_key: dict[str, str]
    jws: str


def certify(identity: Identity, site: str, key: Jwk) -> dict[str, Any]:
    """This site's word that `key` signs for `site`."""
    content = {"site": site, "key": plain(key), "by": identity.site, "by_key": dict(identity.public["sign"])}
    return {**content, "jws": identity.sign(canonical(content))}


def make(
    identity: Identity,
    code: str,
    now: datetime,
    history: Mapping[str, Any] | None,
    transfers: Sequence[Any],
    receipts: Sequence[Any],
    certificates: Sequence[Any],
) -> dict[str, Any]:
    """The file. `history` is what intake exports; None: the dossier's home is another site."""
    parts = {"history": history, "transfers": transfers, "receipts": receipts, "certificates": certificates}
    manifest = canonical(
        {
            "kind": KIND,
            "v": 1,
            "site": identity.site,
            "code": code,
            "made": format_instant(now),
            "digests": {name: [_digest(item) for item in _items(parts, name)] for name in PARTS},
        }
    )
    return {"manifest": manifest.decode(), "jws": identity.sign(manifest), **parts}


def is_proof(value: Any) -> bool:
    return isinstance(value, dict) and "manifest" in value and "receipts" in value


def check(value: Mapping[str, Any], keys: Mapping[str, Jwk]) -> tuple[dict[str, Any], str, list[Changed]]:
    """The manifest's content, the id of the key that signed it, and what differs from it. `keys`: those that the file itself
    holds, by id. Raises ValueError, KeyError, TypeError when it is no proof."""
    manifest = str(value["manifest"]).encode()
    said = dict(orjson.loads(manifest))
    if said["kind"] != KIND:
        raise ValueError("no proof")
    kid = key_of(str(value["jws"]))
    found = []
    try:
        verify(manifest, str(value["jws"]), keys)
    except PeerRefused as refused:
        found.append(Changed("manifest", 0, refused.reason))
    history = value["history"]
    if history is not None and (history["code"], history["site"]) != (said["code"], said["site"]):
        found.append(Changed("history", 0, "changed"))
    for name in PARTS:
        digests, items = list(said["digests"][name]), _items(value, name)
        found += [
            Changed(name, number, "changed")
            for number, (digest, item) in enumerate(zip(digests, items, strict=False), start=1)
            if digest != _digest(item)
        ]
        if len(items) < len(digests):
            found.append(Changed(name, len(items) + 1, "missing"))
        elif len(items) > len(digests):
            found.append(Changed(name, len(digests) + 1, "added"))
    reasons = [_bad_receipt(receipt, keys) for receipt in value["receipts"]]
    found += [Changed("receipts", n, reason) for n, reason in enumerate(reasons, start=1) if reason is not None]
    return said, kid, found


def keys_in(value: Mapping[str, Any]) -> dict[str, Jwk]:
    """All public keys of a file, certified or not, by their ids."""
    found: dict[str, Jwk] = {}
    for each in value["certificates"]:
        for key in (each["key"], each["by_key"]):
            found[fingerprint(key)] = plain(key)
    return found


def roots_of(kid: str, certificates: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """The ids of the keys that vouch for a key, itself among them, through certificates that are good."""
    found, new = {kid}, [kid]
    while new:
        at = new.pop()
        for each in certificates:
            by = fingerprint(each["by_key"])
            if fingerprint(each["key"]) != at or by in found or not _good(each, by):
                continue
            found.add(by)
            new.append(by)
    return frozenset(found)


def _good(certificate: Mapping[str, Any], by: str) -> bool:
    content = {name: value for name, value in certificate.items() if name != "jws"}
    try:
        verify(canonical(content), str(certificate["jws"]), {by: certificate["by_key"]})
    except PeerRefused:
        return False
    return True


def _bad_receipt(receipt: Mapping[str, Any], keys: Mapping[str, Jwk]) -> str | None:
    """Why an envelope is not what its site has signed."""
    manifest = str(receipt["manifest"]).encode()
    try:
        verify(manifest, str(receipt["jws"]), keys)
    except PeerRefused as refused:
        return refused.reason
    digest = sha256(str(receipt["envelope"]).encode()).hexdigest()
    return None if digest in orjson.loads(manifest)["digests"] else "not-in-manifest"


def signers(value: Mapping[str, Any], kid: str) -> Collection[str]:
    """The ids of all keys that something in a file rests on."""
    return {kid, *(key_of(str(receipt["jws"])) for receipt in value["receipts"])}


def _items(parts: Mapping[str, Any], name: str) -> list[Any]:
    if name in ("events", "seals"):
        history = parts["history"]
        return [] if history is None else list(history[name])
    return list(parts[name])


def _digest(item: Any) -> str:
    return sha256(canonical(item)).hexdigest()
