"""`lienthong`: the whole command, and how it fails."""

import sys
from importlib import import_module
from typing import Annotated, Any, Final

import typer
import typer.core

from deploy.cli.errors import CommandFailed

# Where each command is, in the order of the help: a module is read when its command is called, which is most of the time
# that a short command takes.
COMMANDS: Final = {
    "up": "up:up",
    "run": "run:run",
    "token": "token:token",
    "explain": "explain:explain",
    "reconcile": "reconcile:reconcile",
    "migrate": "migrate:migrate",
    "doctor": "doctor:doctor",
    "erase": "erase:erase",
    "backup": "backup:backup",
    "restore": "backup:restore",
    "verify": "verify:verify",
    "export": "export:export",
    "import": "imports:import_",
    "demo": "demo:demo",
    "site": "load:app",
    "link": "link:app",
    "rebuild": "rebuild:app",
    "parked": "parked:app",
    "keys": "keys:app",
    "topics": "topics:app",
    "subscriber": "subscriber:app",
    "schemas": "schemas:app",
    "portal": "portal:app",
}


class Commands(typer.core.TyperGroup):
    """The commands of COMMANDS."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        found = getattr(import_module(f"deploy.cli.{module}"), name)
        if isinstance(found, typer.Typer):
            found.rich_markup_mode = None
            group = typer.main.get_group(found)
            group.name = cmd_name
            return group
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(cmd_name)(found)
        return typer.main.get_command(alone)


app = typer.Typer(
    cls=Commands,
    name="lienthong",
    help="Carries administrative dossiers between commune, district and province.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Start with `lienthong demo`, or with `lienthong up --data ./data/site`. Exit status: 0 done, 1 the answer is"
    " bad, 2 wrong use.",
)


def _say_version(asked: bool) -> None:
    if asked:
        from deploy.version import version_text

        print(version_text())
        raise typer.Exit


@app.callback()
def _lienthong(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    pass


def run() -> None:
    """The entry point. What a user can mend is told in a sentence; only our own mistakes show a traceback."""
    try:
        app()
    except CommandFailed as error:
        print(f"lienthong: {error}", file=sys.stderr)
        sys.exit(error.status)
    except BrokenPipeError:  # `lienthong … | head`
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    run()
