"""`lienthong keys`: the site's keys are changed while it works."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import httpx
import typer

from deploy.cli.console import print_json, progress, say
from deploy.cli.errors import CommandFailed
from deploy.cli.options import AsJson, Data
from deploy.cli.site import KnownSite, find_site
from shared.security.keys import FILES, KEPT, RELOADED_WITHIN, load_keys, prepare, swap
from shared.security.seals import key_id

app = typer.Typer(help="The site's keys.", no_args_is_help=True)


@app.callback()
def _keys() -> None:
    """The site's keys."""


@app.command()
def rotate(
    data: Data = None,
    overlap: Annotated[
        float, typer.Option("--overlap", min=0, metavar="HOURS", help="How long tokens of the old key are accepted.")
    ] = 24.0,
    as_json: AsJson = False,
) -> None:
    """Change the keys that sign and those that wrap, for this site and towards linked ones, while the site works.

    First every process learns the new keys, then they are used. Tokens of the old key are accepted for --overlap hours
    (0 after a theft); what it wrapped stays readable, and is wrapped anew in the background; the old private keys are
    kept for 400 days, public ones for good. Linked sites are told, and take what the old key signed for 30 days more
    (after --overlap 0 no more than until they are told). The key of keyed hashes stays: tracking pins are printed on
    receipts.

    \b
    Example:
      lienthong keys rotate --data ./data/site
    """
    site = find_site(data)
    site.tokens()  # says what to do when there are no keys
    kinds = tuple(kind for kind, file in FILES.items() if (site.keys / file).exists())
    coming = prepare(site.keys, kinds, datetime.now(UTC))
    if _running(site):
        with progress() as bar:
            task = bar.add_task("every process learns the new keys", total=100)
            for _ in range(100):
                time.sleep(2 * RELOADED_WITHIN / 100)
                bar.advance(task)
    retired = swap(site.keys, datetime.now(UTC), timedelta(hours=overlap))
    answer = {
        "new": {new.kind: new.id for new in coming},
        "old": {old.kind: old.id for old in retired},
        "tokens_accepted_until": retired[0].until if retired else None,
        "kept_days": KEPT.days,
    }
    if as_json:
        print_json(answer)
        return
    for new in coming:
        say(f"{new.kind}: {new.id} is used now")
    say(f"old keys: {', '.join(o.id for o in retired)}; tokens accepted until {answer['tokens_accepted_until']}")


@app.command()
def show(data: Data = None, as_json: AsJson = False) -> None:
    """Show the ids of the keys in use. The link key's is what proofs (`lienthong export`) are verified by.

    \b
    Example:
      lienthong keys show --data ./data/site
    """
    from shared.security.peers import Identity, fingerprint

    site = find_site(data)
    site.tokens()
    keys, identity = load_keys(site.keys), Identity("", site.keys)
    answer = {
        "site": key_id(keys.signing.public_key()),
        "data": keys.data_key_id,
        **{kind: fingerprint(identity.public[name]) for kind, name in (("link", "sign"), ("seal", "seal"))},
    }
    if as_json:
        print_json(answer)
        return
    for kind, name in answer.items():
        say(f"{kind}: {name}")


@app.command()
def recipient(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The private key; keep it where no backup is.")],
    as_json: AsJson = False,
) -> None:
    """Make a recovery recipient: the key that opens the sealed keys of a backup. Prints the public half.

    \b
    Example:
      lienthong keys recipient --out recovery.key
    """
    from shared.security.recovery import make_recipient

    try:
        public = make_recipient(out)
    except FileExistsError:
        raise CommandFailed(f"{out} is there already: a recipient's key is never overwritten.") from None
    if as_json:
        print_json({"recipient": public, "identity": str(out)})
    else:
        say(public)


def _running(site: KnownSite) -> bool:
    """Whether any service of the site answers."""
    for url in site.urls.values():
        try:
            httpx.get(f"{url}/healthz", timeout=2.0, trust_env=False)
        except httpx.HTTPError:
            continue
        return True
    return False
