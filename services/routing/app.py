"""Composition root of routing: settings, wiring, probes; nothing else wires."""

from services.routing.api import routes
from services.routing.closures import Closures
from services.routing.crossing import Crossing
from services.routing.directories import Directories
from services.routing.dispatch import Dispatch
from services.routing.documents import Documents
from services.routing.handlers import CONSUMES, Handlers
from services.routing.link_store import LinkStore
from services.routing.links import Links
from services.routing.links_api import link_routes
from services.routing.proofs_api import proof_routes
from services.routing.restoring import Restoring
from services.routing.settings import RoutingSettings
from services.routing.store import Store
from services.routing.subscribers_api import subscriber_routes
from services.routing.views import Views
from services.routing.worklist_api import worklist_routes
from shared.security.peers import Identity
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
    store, link_store = Store(service.schema), LinkStore(service.schema)
    identity = Identity(settings.site, settings.keys_dir)
    directories = Directories(service, link_store, identity)
    views = Views(service)
    documents = Documents(service, store, link_store, identity)
    crossing = Crossing(service, store, link_store, directories, documents, views)
    links = Links(service, settings, link_store, crossing, directories, identity)
    service.consume(CONSUMES, Handlers(service, store, crossing).apply)
    service.include(routes(service, store, crossing, identity))
    service.include(worklist_routes(service, store))
    service.include(link_routes(service, link_store, links, identity))
    service.include(proof_routes(service, link_store, links, identity))
    service.include(subscriber_routes(service, views))
    service.include(common_routes(service))
    service.on_start(links.refresh)
    service.on_observe(links.observe)
    service.run_always("peers", links.keep)
    service.run_always("links-lower", links.run_own)
    service.run_always("links-upper", links.run_upper)
    restoring = Restoring(service, store, link_store, crossing, documents)
    service.on_unready(restoring.unready)
    service.run_always("restoring", restoring.run)
    service.run_always("dispatch", Dispatch(service, store, link_store, crossing, identity).run)
    closures = Closures(service, store, crossing, settings.closure_poll)
    service.on_start(closures.watch)
    service.run_always("closures", closures.run)
    service.run_always("views", views.run)
    return service
