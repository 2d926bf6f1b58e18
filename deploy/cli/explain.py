"""`lienthong explain CODE`: why a dossier is due when it is."""

import asyncio
from typing import Annotated, Any
from urllib.parse import quote

import typer

from deploy.cli.console import print_json, say
from deploy.cli.options import AsJson, Data
from deploy.cli.site import SiteClient, find_site


def explain(
    code: Annotated[str, typer.Argument(metavar="CODE", help="The dossier's code.")],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Say why a dossier is due when it is: every interval counted or skipped, with its rule and calendar version.

    \b
    Example:
      lienthong explain H55.242-260302-0001 --data ./data/site
    """
    answer = asyncio.run(_ask(code, data))
    if as_json:
        print_json(answer)
        return
    say(f"{answer.get('code', code)}: due {answer.get('due_at') or 'never set'}")
    for line in answer.get("explain", ()):
        say(f"  {_sentence(line)}")


async def _ask(code: str, data: Any) -> Any:
    async with SiteClient(find_site(data), who="explain") as client:
        return await client.get("intake", f"/v1/dossiers/{quote(code, safe='')}/explain")


def _sentence(line: Any) -> str:
    return str(line.get("sentence") or line) if isinstance(line, dict) else str(line)
