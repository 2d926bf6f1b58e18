"""`lienthong schemas`: may the event schemas be published as they stand?"""

import json
import subprocess
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.cli.console import print_json, say
from deploy.cli.errors import CommandFailed
from deploy.cli.options import AsJson

app = typer.Typer(help="The schemas of the events.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def schemas() -> None:
    """The schemas of the events: a contract with everybody who reads them."""


@app.command()
def check(
    against: Annotated[
        str | None,
        typer.Option(
            metavar="REF", help="A folder of schemas, or a commit or tag of this repository.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the schemas with every earlier version: exit 1 for a change that a reader of either side would not stand.

    Without --against: with every version that lies in shared/contracts/published.

    \b
    Examples:
      lienthong schemas check
      lienthong schemas check --against v0.1.0
    """
    from shared.contracts.compatibility import breaks
    from shared.contracts.schema import all_schemas

    new: dict[str, Any] = json.loads(json.dumps(all_schemas()))
    found = [
        {"version": version, "schema": b.schema, "pointer": b.pointer, "detail": b.detail}
        for version, earlier in _versions(against).items()
        for b in breaks(earlier, new)
    ]
    if as_json:
        print_json({"compatible": not found, "schemas": len(new), "breaks": found})
    else:
        for line in found:
            say(f"{line['schema']}{line['pointer']}: {line['detail']} (published in {line['version']})")
        say("Not compatible: make a new type instead." if found else f"{len(new)} schemas are compatible both ways.")
    if found:
        raise typer.Exit(1)


def _versions(against: str | None) -> dict[str, dict[str, Any]]:
    """The earlier versions by name."""
    from shared.contracts.schema import FOLDER, read_schemas

    if against is None:
        published = FOLDER.parent / "published"
        found = {folder.name: read_schemas(folder) for folder in sorted(published.iterdir()) if folder.is_dir()}
        if not found:
            raise CommandFailed(f"{published} holds no earlier version.")
        return found
    if Path(against).is_dir():
        return {against: read_schemas(Path(against))}
    return {against: _at(against)}


def _at(ref: str) -> dict[str, Any]:
    """The schemas as a commit of the repository has them."""
    from shared.contracts.schema import FOLDER

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=FOLDER, capture_output=True, text=True)  # noqa: S607
        if done.returncode:
            raise CommandFailed(f"{ref} is neither a folder nor a commit here: {done.stderr.strip()}")
        return done.stdout

    names = git("ls-tree", "-r", "--name-only", "--end-of-options", ref, ".").split()
    found = {name: json.loads(git("show", f"{ref}:./{name}")) for name in names if name.endswith(".json")}
    if not found:
        raise CommandFailed(f"{ref} holds no schemas.")
    return found
