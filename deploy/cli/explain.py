"""`lienthong explain CODE`: why a dossier is due when it is."""

import asyncio
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer

from deploy.cli.console import print_json, say
from deploy.cli.options import AsJson, Data
from deploy.cli.site import SiteClient, find_site


class Language(StrEnum):
    VI = "vi"
    EN = "en"


def explain(
    code: Annotated[str, typer.Argument(metavar="CODE", help="The dossier's code.")],
    data: Data = None,
    lang: Annotated[Language, typer.Option(help="Of the sentences.")] = Language.VI,
    as_json: AsJson = False,
) -> None:
    """Say why a dossier is due when it is: every interval counted or skipped, with its rule and calendar version.

    \b
    Example:
      lienthong explain H55.242-260302-0001 --data ./data/site
    """
    answer = asyncio.run(_ask(code, lang, data))
    if as_json:
        print_json(answer)
        return
    say(f"{answer['code']}: due {answer['due_at']}")
    for sentence in answer["sentences"]:
        say(f"  {sentence}")


async def _ask(code: str, lang: Language, data: Any) -> Any:
    async with SiteClient(find_site(data), who="explain") as client:
        return await client.get("intake", f"/v1/dossiers/{quote(code, safe='')}/explain", lang=str(lang))
