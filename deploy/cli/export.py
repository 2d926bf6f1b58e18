"""`lienthong export`: a dossier's proof, to be verified where nobody knows this site."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from deploy.cli.console import print_json, say
from deploy.cli.options import AsJson, Data
from deploy.cli.site import SiteClient, find_site
from shared.security.peers import key_of
from shared.security.proofs import roots_of


def export(
    code: Annotated[str, typer.Argument(metavar="CODE", help="The dossier's code.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write it.")],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Export what happened to a dossier, with signatures, receipts of other sites and the keys' certificates.

    `lienthong verify FILE --key ROOT` checks it on any machine; ROOT is the id of the uppermost site's link key, which that
    site's operator tells (`lienthong keys show`). No personal data is in it.

    \b
    Examples:
      lienthong export H55.242-260302-0001 --out proof.json --data ./data/site
      lienthong verify proof.json --key 3f0c6f0f2a9b1d77
    """
    proof = asyncio.run(_proof(code, data))
    out.write_text(json.dumps(proof, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    signer = key_of(proof["jws"])
    roots = sorted(roots_of(signer, proof["certificates"]) - {signer}) or [signer]
    answer = {
        "code": code,
        "file": str(out),
        "events": 0 if proof["history"] is None else len(proof["history"]["events"]),
        "transfers": len(proof["transfers"]),
        "receipts": len(proof["receipts"]),
        "signed_by": signer,
        "roots": roots,
    }
    if as_json:
        print_json(answer)
        return
    say(
        f"{out}: {answer['events']} events, {answer['transfers']} of transfers, {answer['receipts']} receipts;"
        f" signed by key {signer}, certified by {', '.join(roots)}"
    )


async def _proof(code: str, data: Path | None) -> Any:
    async with SiteClient(find_site(data), who="export", timeout=60.0) as client:
        return await client.get("routing", f"/v1/proofs/{quote(code, safe='')}")
