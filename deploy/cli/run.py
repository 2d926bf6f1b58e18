"""`lienthong run SERVICE`: one service as a process of its own, for a site on Kafka and PostgreSQL."""

import asyncio
import signal
from typing import Annotated

import typer

from deploy.cli.errors import CommandFailed, WrongUse
from deploy.state import BASE_PORT, SERVICES, ServiceName


def run(
    service: Annotated[ServiceName, typer.Argument(help="Which of the four.")],
    host: Annotated[str, typer.Option(help="Where it listens.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Default: 8001 to 8004.", show_default=False)
    ] = None,
) -> None:
    """Run one service, with its settings from the environment (LIENTHONG_…), logging to standard error.

    Any number of each may run: they share the work by locks in the database and by the bus's groups.

    \b
    Examples:
      LIENTHONG_DATABASE_URL=postgresql://… LIENTHONG_BUS_BOOTSTRAP=kafka:9092 lienthong run intake
      lienthong run stats --host 0.0.0.0 --port 8004
    """
    import uvloop

    name = str(service)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(name, host, port or BASE_PORT + SERVICES.index(name)))


async def _serve(name: str, host: str, port: int) -> None:
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_stop.set)

    import asyncpg

    from deploy.embedded.process import EmbeddedError
    from deploy.schema import missing_for
    from deploy.serving import HttpServer, calm_garbage_collector, listen
    from deploy.site import create
    from shared.observe.logs import configure_logs
    from shared.settings import Settings
    from shared.store.grants import service_url
    from shared.store.pool import TRANSIENT_ERRORS

    settings = Settings()
    configure_logs(settings.log_level)
    if not settings.database_url or not settings.site:
        raise WrongUse("set LIENTHONG_DATABASE_URL and LIENTHONG_SITE: a service runs by its settings.")
    try:
        missing = await missing_for(settings.database_url, name)
        url = await service_url(settings.database_url)
    except (*TRANSIENT_ERRORS, asyncpg.PostgresError) as error:
        raise CommandFailed(
            f"the database does not answer ({type(error).__name__}): look at LIENTHONG_DATABASE_URL."
        ) from None
    if missing:
        raise CommandFailed(f"the schema of {name} lacks {len(missing)} migrations: run `lienthong migrate` first.")
    try:
        listener = listen(name, host, port)
    except EmbeddedError as error:
        raise CommandFailed(str(error)) from None
    running = create(name, {"database_url": url})
    server = HttpServer(running.asgi, listener)
    try:
        await running.start()
        server.start()
        calm_garbage_collector()
        await asked_to_stop.wait()
    finally:
        await server.stop()
        await running.stop()
