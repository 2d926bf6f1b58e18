"""Events as they stand inside the envelopes of a link, and whose site an agency is."""

from typing import Any, Final
from uuid import UUID

from services.routing.document import DOCUMENT_TOPIC
from services.routing.dossier import TRANSFER_TOPIC
from services.routing.wire import Refused
from shared.contracts.codes import format_instant, parse_instant
from shared.contracts.envelope import ContractError, Envelope, parse
from shared.contracts.events import DocumentEvent, DossierEvent, TransferEvent
from shared.directory.directory import Directory, DirectoryError
from shared.observe.traces import cause_of, readable

DOSSIER_TOPIC: Final = "lienthong.dossier.v1"


def event_json(envelope: Envelope) -> dict[str, Any]:
    """An event inside an envelope: its headers, and its data as the very text that was published."""
    return {
        "topic": envelope.topic,
        "id": str(envelope.id),
        "source": envelope.source,
        "type": envelope.type,
        "key": envelope.subject,
        "time": format_instant(envelope.time),
        "recorded": format_instant(envelope.recorded),
        "sequence": envelope.sequence,
        "mode": envelope.mode,
        "data": (envelope.data or b"").decode(),
        **({} if (cause := envelope.traceparent or cause_of(envelope.subject)) is None else {"traceparent": cause}),
    }


def event_of(value: Any) -> tuple[Envelope, DossierEvent | TransferEvent | DocumentEvent]:
    """Raises Refused (`bad-event`)."""
    try:
        envelope = Envelope(
            topic=str(value["topic"]),
            id=UUID(value["id"]),
            source=str(value["source"]),
            type=str(value["type"]),
            subject=str(value["key"]),
            time=parse_instant(value["time"]),
            recorded=parse_instant(value["recorded"]),
            sequence=int(value["sequence"]),
            mode="history" if value["mode"] == "history" else "live",
            data=str(value["data"]).encode(),
            traceparent=readable(value.get("traceparent")),
        )
        data = parse(envelope) if envelope.topic in (DOSSIER_TOPIC, TRANSFER_TOPIC, DOCUMENT_TOPIC) else None
    except (ValueError, KeyError, TypeError, ContractError):
        raise Refused("bad-event") from None
    if not isinstance(data, DossierEvent | TransferEvent | DocumentEvent) or envelope.sequence < 1:
        raise Refused("bad-event")
    return envelope, data


def site_of(directory: Directory, agency: str) -> str | None:
    try:
        return directory.site_of(agency)
    except DirectoryError:
        return None
