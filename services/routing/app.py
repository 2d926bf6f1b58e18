"""Composition root of routing: settings, wiring, probes; nothing else wires."""

from services.routing.api import routes
from services.routing.closures import Closures
from services.routing.handlers import CONSUMES, Handlers
from services.routing.settings import RoutingSettings
from services.routing.store import Store
from services.routing.subscribers_api import subscriber_routes
from services.routing.views import Views
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
    views = Views(service)
    service.consume(CONSUMES, Handlers(service, store, views).apply)
    service.app.include_router(common_routes(service))
    service.app.include_router(routes(service, store, views))
    service.app.include_router(subscriber_routes(service, views))
    closures = Closures(service, store, views, settings.closure_poll)
    service.on_start(closures.watch)
    service.run_always("closures", closures.run)
    service.run_always("views", views.run)
    return service
