"""The composition root of stats: settings, wiring, loops. Nothing else wires."""

from services.stats.api import PAGES, routes
from services.stats.handlers import Handlers
from services.stats.published import ScheduledReports
from services.stats.session import FORMS
from services.stats.settings import StatsSettings
from services.stats.snapshots import Snapshots
from services.stats.store import Store
from shared.service import Service
from shared.web.common import common_routes

MIGRATIONS = ("shared.store", "services.stats")

TOPICS = (
    "lienthong.dossier.v1",
    "lienthong.transfer.v1",
    "lienthong.petition.v1",
    "lienthong.document.v1",
    "lienthong.copy.v1",  # what lower sites pass on: their dossiers count in the upper site's figures
)


def create(settings: StatsSettings | None = None) -> Service:
    """The service, ready to be started."""
    settings = settings or StatsSettings()
    service = Service(
        "stats",
        settings,
        title="Liên Thông: stats",
        description="Rolling processing indicators, report II.06a, the index of Decision 766, as known at any instant.",
        open_paths=("/", *PAGES),
        plain=FORMS,
    )
    store = Store()
    service.consume(TOPICS, Handlers(service, store).apply)
    service.include(routes(service, store, settings, TOPICS))
    service.include(common_routes(service))
    snapshots = Snapshots(service, store, settings.snapshot_every, settings.group)
    service.run_always("snapshots", snapshots.run)
    service.on_observe(snapshots.observe)
    reports = ScheduledReports(service, store, TOPICS, settings.reports_every)
    service.run_always("reports", reports.run, silent_for=60.0 + settings.reports_every)
    return service
