"""An owner's events as the services of a site ask each other for them."""

from base64 import b64decode, b64encode
from typing import Any
from uuid import UUID

from shared.contracts.codes import format_instant, parse_instant
from shared.contracts.envelope import Envelope


def envelope_to_json(envelope: Envelope) -> dict[str, Any]:
    return {
        "id": str(envelope.id),
        "source": envelope.source,
        "type": envelope.type,
        "key": envelope.subject,
        "time": format_instant(envelope.time),
        "recorded": format_instant(envelope.recorded),
        "sequence": envelope.sequence,
        "mode": envelope.mode,
        "data": None if envelope.data is None else b64encode(envelope.data).decode(),
        **({} if envelope.traceparent is None else {"traceparent": envelope.traceparent}),
    }


def envelope_from_json(topic: str, item: dict[str, Any]) -> Envelope:
    return Envelope(
        topic=topic,
        id=UUID(item["id"]),
        source=item["source"],
        type=item["type"],
        subject=item["key"],
        time=parse_instant(item["time"]),
        recorded=parse_instant(item["recorded"]),
        sequence=item["sequence"],
        mode=item["mode"],
        data=None if item["data"] is None else b64decode(item["data"]),
        traceparent=item.get("traceparent"),
    )
