"""`lienthong up`: a whole site on one machine."""

import asyncio
import signal
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.console import complain, print_json, say
from deploy.cli.errors import CommandFailed, WrongUse
from deploy.cli.options import AsJson, Data
from deploy.state import BASE_PORT, State


def up(
    data: Data = None,
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Loaded at the start; a new site without one is the sample province."),
    ] = None,
    base_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65530,
            help=f"intake here, then routing, notify, stats, bus, database. Default: as last time, at first {BASE_PORT}.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Where the four services listen.")] = "127.0.0.1",
    as_json: AsJson = False,
) -> None:
    """Start a whole site: database, bus and the four services, in one process under one folder.

    Prints one line when all are ready, and runs until SIGTERM or Ctrl-C. LIENTHONG_DATABASE_URL and
    LIENTHONG_BUS_BOOTSTRAP put a database and a bus of your own in the embedded ones' place.

    \b
    Examples:
      lienthong up --data ./data/site
      lienthong up --data /var/lib/lienthong --bundle commune.yaml --base-port 8101
      lienthong up --data ./data/site --json
    """
    if data is None:
        raise WrongUse("in which folder? lienthong up --data DIR (or set LIENTHONG_DATA).")
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(data, bundle, base_port, host, as_json))


async def _serve(data: Path, bundle: Path | None, base_port: int | None, host: str, as_json: bool) -> None:
    asked_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop.set)

    from deploy.embedded.process import EmbeddedError
    from deploy.site import NotReady, SiteProcess
    from shared.directory.faults import BundleFault
    from shared.store.migrations import MigrationRefused
    from shared.store.pool import TRANSIENT_ERRORS

    site = SiteProcess(data, bundle=bundle, base_port=base_port, host=host)
    starting = asyncio.create_task(site.start())
    asked = asyncio.create_task(asked_to_stop.wait())
    try:
        await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            _announce(starting.result(), as_json)
            await asked
    except BundleFault as fault:
        complain(fault.lines())
        raise typer.Exit(1) from None
    except (EmbeddedError, NotReady, MigrationRefused, *TRANSIENT_ERRORS) as error:
        raise CommandFailed(str(error) or type(error).__name__) from None
    finally:
        for task in (starting, asked):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
        await site.stop()


def _announce(state: State, as_json: bool) -> None:
    if as_json:
        ready = {"ready": True, **{name: asdict(state)[name] for name in ("site", "services", "bus", "database")}}
        print_json(ready)
    else:
        services = " ".join(f"{name} {url}" for name, url in state.services.items())
        say(f"{state.site} is ready: {services} bus {state.bus}")
