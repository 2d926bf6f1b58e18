"""`lienthong verify`: whether a history is what was stored, of a dossier, of a day, or of an exported file."""

import asyncio
import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from deploy.cli.console import print_json, say
from deploy.cli.errors import CommandFailed, WrongUse
from deploy.cli.options import AsJson, Data
from deploy.cli.site import SiteClient, find_site
from shared.contracts.envelope import Envelope
from shared.security import proofs
from shared.security.keys import load_keys
from shared.security.peers import Identity, PeerRefused, fingerprint
from shared.security.seals import Seal, key_id
from shared.store.chain import broken, leaf, root_by

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def verify(
    target: Annotated[
        str, typer.Argument(metavar="CODE|DAY|FILE", help="A dossier's code, a local day (2026-03-02), or an export.")
    ],
    data: Data = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Of a dossier: write its export.")] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="ID", help="Of a file: the id of the key that must have signed, or certified."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify that a history was not rewritten: every event's hash, the dossier's row, the signed seals of its days.

    A file is verified offline, without a site: its chain, its proofs, the signatures. Its keys are checked against the
    site's when --data names one, else against --key; else the file's own are shown. Of an export (`lienthong export`) --key
    is a root's: certificates lead from the keys that signed to it. Exit status 1: something differs, and it is named.

    \b
    Examples:
      lienthong verify H55.242-260302-0001 --data ./data/site
      lienthong verify 2026-03-02 --data ./data/site
      lienthong verify H55.242-260302-0001 --out history.json --data ./data/site
      lienthong verify history.json --key 3f0c6f0f2a9b1d77
      lienthong verify proof.json --key 5b1a90c2d4e6f718
    """
    file = Path(target)
    answer = verify_file(file, _trusted(data), key) if file.is_file() else asyncio.run(_ask(target, data, out))
    if as_json:
        print_json(answer)
    else:
        _show(answer)
    if not answer["intact"]:
        raise typer.Exit(1)


def _show(answer: Mapping[str, Any]) -> None:
    name = answer.get("code") or answer["day"]
    say(f"{name}: {answer['events']} events, {'intact' if answer['intact'] else 'NOT as it was stored'}")
    if answer.get("not_chained"):
        say(f"  {answer['not_chained']} events were stored before there was a chain")
    for fault in answer["faults"]:
        what = f"{fault['part']} {fault['item']}" if "part" in fault else f"event {fault['sequence']}"
        say(f"  {fault['code']} {what}: {fault['reason']}")
    if "signed_by" in answer:
        say(f"  signed by key {answer['signed_by']} of {answer['site']}, certified by {', '.join(answer['roots'])}")
    for seal in answer["seals"]:
        state = f"sealed by key {seal['key_id']}" if seal["sealed"] else "not sealed yet"
        say(f"  {seal['day']}: {state if seal['intact'] else seal['reason']}")


async def _ask(target: str, data: Path | None, out: Path | None) -> Any:
    async with SiteClient(find_site(data), who="verify", timeout=600.0) as client:
        if _DAY.fullmatch(target):
            if out is not None:
                raise WrongUse("--out exports a dossier, not a day.")
            return await client.get("intake", f"/v1/verify/days/{target}")
        path = f"/v1/verify/dossiers/{quote(target, safe='')}"
        answer = await client.get("intake", path)
        if out is not None:
            exported = await client.get("intake", f"{path}/export")
            text = json.dumps(exported, ensure_ascii=False, indent=1) + "\n"
            await asyncio.to_thread(out.write_text, text, encoding="utf-8")
        return answer


def _trusted(data: Path | None) -> frozenset[str] | None:
    """The ids of the keys that a site here has signed with; None: no site is named."""
    if data is None:
        return None
    site = find_site(data)
    site.tokens()
    keys = load_keys(site.keys)
    links = (fingerprint(jwk) for jwk in Identity("", site.keys).announced["sign"])
    return frozenset({key_id(keys.signing.public_key()), *keys.public, *links})


def verify_file(file: Path, trusted: frozenset[str] | None, key: str | None) -> dict[str, Any]:
    """An exported history or proof, offline. Raises CommandFailed when the file is none."""
    try:
        exported = json.loads(file.read_text(encoding="utf-8"))
        if proofs.is_proof(exported):
            return _verify_proof(exported, trusted, key)
        return _verify_history(exported, trusted, key)
    except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError, PeerRefused):
        raise CommandFailed(f"{file} is nothing that `lienthong export` or `verify CODE --out` has written.") from None


def _verify_proof(proof: Mapping[str, Any], trusted: frozenset[str] | None, root: str | None) -> dict[str, Any]:
    """Every item against what was signed, the history's own chain, each signing key against the root's."""
    said, signer, changed = proofs.check(proof, proofs.keys_in(proof))
    faults = [{"code": said["code"], "part": c.part, "item": c.item, "reason": c.reason} for c in changed]
    certificates = proof["certificates"]
    wanted = frozenset({root}) if root is not None else trusted
    faults += [
        {"code": said["code"], "part": "key", "item": kid, "reason": "key-not-trusted"}
        for kid in sorted(proofs.signers(proof, signer))
        if wanted is not None and not wanted & proofs.roots_of(kid, certificates)
    ]
    # The seals' keys are vouched for by the signature over all.
    history = None
    if proof["history"] is not None:
        try:
            history = _verify_history(proof["history"], None, None)
        except (ValueError, KeyError, TypeError):
            if not faults:
                raise
    events = 0 if history is None else history["events"]
    faults += [] if history is None else history["faults"]
    seals = [] if history is None else history["seals"]
    return {
        "code": said["code"],
        "site": said["site"],
        "made": said["made"],
        "events": events,
        "transfers": len(proof["transfers"]),
        "receipts": len(proof["receipts"]),
        "signed_by": signer,
        "roots": sorted(proofs.roots_of(signer, certificates) - {signer}) or [signer],
        "faults": faults,
        "seals": seals,
        "intact": not faults and all(seal["intact"] for seal in seals),
    }


def _verify_history(exported: Mapping[str, Any], trusted: frozenset[str] | None, key: str | None) -> dict[str, Any]:
    code, site = exported["code"], exported["site"]
    events = [_event(each) for each in exported["events"]]
    faults = [{"code": f.key, "sequence": f.sequence, "reason": f.reason} for f in broken(events)]
    faults += [
        {"code": code, "sequence": event.sequence, "reason": "foreign"} for event, _ in events if event.subject != code
    ]
    chains = {event.sequence: chain for event, chain in events}
    seals = [_seal(each, site, code, chains, trusted, key) for each in exported["seals"]]
    sequences = [event.sequence for event, _ in events]
    return {
        "code": code,
        "events": len(sequences),
        "not_chained": sum(chain is None for chain in chains.values()),
        "faults": faults,
        "seals": seals,
        "intact": bool(sequences) and not faults and all(seal["intact"] for seal in seals),
    }


def _event(each: Mapping[str, Any]) -> tuple[Envelope, str | None]:
    data = each["data"]
    event = Envelope(
        topic=each["topic"],
        id=UUID(each["id"]),
        source=each["source"],
        type=each["type"],
        subject=each["key"],
        time=datetime.fromisoformat(each["time"]),
        recorded=datetime.fromisoformat(each["recorded"]),
        sequence=each["sequence"],
        mode=each["mode"],
        data=None if data is None else data.encode(),
    )
    return event, each["chain"]


def _seal(
    each: Mapping[str, Any],
    site: str,
    code: str,
    chains: Mapping[int, str | None],
    trusted: frozenset[str] | None,
    wanted: str | None,
) -> dict[str, Any]:
    """One day's seal of a file: its signature, its key, and that the dossier's head of that day lies under its root."""
    names = ("day", "dossiers", "events", "root", "previous", "key_id")
    seal = Seal(site, **{name: each[name] for name in names}, signature=bytes.fromhex(each["signature"]))
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(each["public_key"]))
    way = [(side, sibling) for side, sibling in each["proof"]]
    heads = (leaf(code, sequence, chain or "") for sequence, chain in chains.items())
    reason = None
    if key_id(public) != seal.key_id or not seal.signed_by(public):
        reason = "signature-wrong"
    elif (wanted is not None and seal.key_id != wanted) or (trusted is not None and seal.key_id not in trusted):
        reason = "key-not-trusted"
    elif not any(root_by(head, way).hex() == seal.root for head in heads):
        reason = "not-under-the-seal"
    return {"day": seal.day, "sealed": True, "intact": reason is None, "reason": reason, "key_id": seal.key_id}
