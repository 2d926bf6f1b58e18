"""Notify's composition root."""

from services.notify.api import CALLBACKS, routes
from services.notify.handlers import CONTACT_TOPIC, DOSSIER_TOPIC, Handlers
from services.notify.seen_api import OPEN, seen_routes
from services.notify.sender import Sender
from services.notify.settings import NotifySettings
from services.notify.store import Store
from shared.service import Service
from shared.store.housekeeping import Wrapped
from shared.web.common import common_routes

MIGRATIONS = ("shared.store", "services.notify")


def create(settings: NotifySettings | None = None) -> Service:
    """Notify, ready to start."""
    settings = settings or NotifySettings()
    service = Service(
        "notify",
        settings,
        title="Liên Thông: notify",
        description="Tells the applicant by SMS or by public post, once, and knows whether it arrived.",
        open_paths=(*CALLBACKS, *OPEN),
    )
    store = Store(service)
    handlers = Handlers(service, store, settings)
    sender = Sender(service, store, handlers, settings)
    service.on_start(handlers.recall_restorations)
    service.consume([DOSSIER_TOPIC, CONTACT_TOPIC], handlers.apply)
    service.on_applied(sender.wake)
    service.include(seen_routes(service, store))
    service.include(routes(service, store))
    service.include(common_routes(service))
    service.on_observe(sender.observe)
    service.wraps(Wrapped("contact", "contact_ref", "text"), Wrapped("notice", "id", "uuid"))
    service.run_always("sender", sender.run)
    return service
