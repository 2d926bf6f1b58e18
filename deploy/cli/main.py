"""`lienthong`: the whole command, and how it fails."""

import sys

import typer

from deploy.cli import (
    backup,
    demo,
    doctor,
    erase,
    explain,
    export,
    imports,
    keys,
    link,
    load,
    migrate,
    parked,
    portal,
    rebuild,
    reconcile,
    schemas,
    subscriber,
    token,
    topics,
    up,
    verify,
)
from deploy.cli import run as run_service
from deploy.cli.errors import CommandFailed

app = typer.Typer(
    name="lienthong",
    help="Carries administrative dossiers between commune, district and province.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Start with `lienthong demo`, or with `lienthong up --data ./data/site`. Exit status: 0 done, 1 the answer is"
    " bad, 2 wrong use.",
)
for _command in (
    up.up,
    run_service.run,
    token.token,
    explain.explain,
    reconcile.reconcile,
    migrate.migrate,
    doctor.doctor,
    erase.erase,
    backup.backup,
    backup.restore,
    export.export,
    verify.verify,
):
    app.command()(_command)
app.command("import")(imports.import_)
app.command()(demo.demo)
app.add_typer(load.app, name="site")
app.add_typer(link.app, name="link")
app.add_typer(rebuild.app, name="rebuild")
app.add_typer(parked.app, name="parked")
app.add_typer(keys.app, name="keys")
app.add_typer(topics.app, name="topics")
app.add_typer(subscriber.app, name="subscriber")
app.add_typer(schemas.app, name="schemas")
app.add_typer(portal.app, name="portal")


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
