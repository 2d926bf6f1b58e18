"""Composition root of routing: settings, wiring, probes; nothing else wires."""

from services.routing.api import routes
from services.routing.closures import Closures
from services.routing.handlers import CONSUMES, Handlers
from services.routing.settings import RoutingSettings
from services.routing.store import Store
from shared.service import Service
from shared.web.common import common_routes

MIGRATIONS = ("shared.store", "services.routing")


def create(settings: RoutingSettings | None = None) -> Service:
    """The service: forwards dossiers along their routes, keeps the public topic, carries documents between agencies."""
    settings = settings or RoutingSettings()
    service = Service(
        "routing",
        settings,
        title="Liên Thông: routing",
        description="Forwards a dossier to the agencies that must work on it and brings the answer back.",
    )
    store = Store(service.schema)
    service.consume(CONSUMES, Handlers(service, store).apply)
    service.app.include_router(common_routes(service))
    service.app.include_router(routes(service, store))
    closures = Closures(service, store, settings.closure_poll)
    service.on_start(closures.watch)
    service.run_always("closures", closures.run)
    return service
