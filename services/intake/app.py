"""Intake's composition root."""

from services.intake.api import routes
from services.intake.attachments import Attachments
from services.intake.catalogue import catalogue_routes
from services.intake.connector import Connector
from services.intake.deadlines import deadline_routes
from services.intake.desk_api import OPEN as DESK
from services.intake.desk_api import PLAIN as DESK_FORMS
from services.intake.desk_api import desk_routes
from services.intake.erasure_api import erasure_routes
from services.intake.handlers import TOPICS, Handlers
from services.intake.history import History
from services.intake.history_api import history_routes
from services.intake.imports import MAX_IMPORT
from services.intake.link_pages import OPEN as LINKS
from services.intake.link_pages import link_pages
from services.intake.missing_pages import missing_routes
from services.intake.pages import OPEN as STATIC
from services.intake.pages import Pages, page_routes
from services.intake.parked_pages import OPEN as PARKED
from services.intake.parked_pages import PLAIN as PARKED_FORMS
from services.intake.parked_pages import parked_routes
from services.intake.petition_pages import petition_pages
from services.intake.petitions import Petitions
from services.intake.petitions_api import petition_routes
from services.intake.portal_api import portal_routes
from services.intake.public_pages import OPEN as PUBLIC
from services.intake.public_pages import public_routes
from services.intake.restored import restored_routes
from services.intake.returned_pages import returned_routes
from services.intake.session import Sessions
from services.intake.settings import IntakeSettings
from services.intake.store import Store
from services.intake.tracking_api import PLAIN, tracking_routes
from services.intake.transfer_pages import transfer_pages
from services.intake.writer import Writer
from shared.service import Service
from shared.store.housekeeping import Wrapped
from shared.web.common import common_routes

MIGRATIONS = ("shared.store", "services.intake")

LINES = ("application/x-ndjson", "application/ndjson", "application/json", "text/plain", "application/octet-stream")


def create(settings: IntakeSettings | None = None) -> Service:
    """Intake, ready to start."""
    settings = settings or IntakeSettings()
    service = Service(
        "intake",
        settings,
        title="Liên Thông: intake",
        description="Receives dossiers, keeps their lifecycle and deadline, publishes dossier events.",
        open_paths=(
            r"/v1/procedures(/.*)?",
            r"/v1/agencies(/.*)?",
            r"/track/.*",
            *DESK,
            *PARKED,
            *LINKS,
            *STATIC,
            *PUBLIC,
        ),
        large={"/v1/imports": MAX_IMPORT},
        plain={"/v1/imports": LINES, **PLAIN, **DESK_FORMS, **PARKED_FORMS},
    )
    store = Store(service)
    writer = Writer(service, store, settings.batch_limit, settings.tick_seconds)
    service.consume(TOPICS, Handlers(service, store).apply)
    service.include(routes(service, store, writer, settings))
    service.include(deadline_routes(service))
    service.include(catalogue_routes(service))
    service.include(tracking_routes(service, store, writer, settings))
    service.include(erasure_routes(service, store, settings))
    service.include(restored_routes(service, store))
    history = History(service, store, settings.seal_seconds)
    service.include(history_routes(service, history))
    petitions = Petitions(service, store, settings)
    service.include(petition_routes(service, petitions))
    service.on_observe(writer.observe)
    pages = Pages(service)
    service.include(page_routes())
    service.include(public_routes(service, pages))
    sessions = Sessions(service, settings, pages)
    service.include(desk_routes(service, store, writer, settings, sessions))
    service.include(petition_pages(service, petitions, sessions))
    service.include(parked_routes(service, sessions))
    service.include(link_pages(sessions))
    service.include(missing_routes(service, store, sessions))
    service.include(returned_routes(service, sessions))
    service.include(transfer_pages(service, sessions))
    service.include(portal_routes(service, store))
    service.include(common_routes(service))
    service.wraps(Wrapped("contact", "contact_ref", "text"), Wrapped("petition", "id", "uuid"))
    service.run_always("writer", writer.run)
    service.run_always("ticks", writer.raise_due)
    attachments = Attachments(service, store, settings)
    service.run_always("attachments", attachments.run)
    portals = Connector(
        service,
        store,
        seconds=settings.portal_seconds,
        longest_pause=settings.portal_longest_pause,
        parallel=settings.portal_parallel,
    )
    service.run_always("portals", portals.run)
    service.run_always("seals", history.seal_always, silent_for=settings.seal_seconds + 600)
    return service
