"""Structured logs without personal data: only fields that are named here are written."""

import logging
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, TextIO

import orjson
import structlog

# Field names that a log line may carry. Whatever else a call passes is left out: a name or a phone number cannot get
# into a log by a careless keyword. Exceptions are logged by type and place, never by message.
FIELDS = frozenset(
    [
        "event",
        "level",
        "logger",
        "timestamp",
        "service",
        "site",
        "topic",
        "topics",
        "key_hash",
        "sequence",
        "reason",
        "error",
        "where",
        "pause",
        "rest",
        "status",
        "method",
        "path",
        "seconds",
        "count",
        "number",
        "code",
        "version",
        "pid",
        "port",
        "signal",
        "restarts",
        "rss_mb",
        "group",
        "partition",
        "offset",
        "url",
        "state",
        "step",
        "records",
        "lines",
        "applied",
        "refused",
        "duplicates",
        "shard",
        "provider",
        "kind",
        "day",
        "root",
    ]
)


def _only_known(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    info = event.pop("exc_info", None)
    kept = {name: value for name, value in event.items() if name in FIELDS}
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        trace, places = error.__traceback__, []
        while trace is not None:
            places.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
            trace = trace.tb_next
        kept |= {"error": type(error).__name__, "where": " > ".join(places[-8:])}
    return kept


def _render(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    return orjson.dumps(event, default=str).decode()


class _FromStandard(logging.Handler):
    """Libraries' records (uvicorn, aiokafka, FastStream): level, logger and the message's template, never its values."""

    def emit(self, record: logging.LogRecord) -> None:
        info = record.exc_info[1] if record.exc_info else None
        structlog.get_logger(record.name).log(
            record.levelno, str(record.msg)[:300], logger=record.name, **({"exc_info": info} if info else {})
        )


def configure_logs(level: str = "info", stream: TextIO | None = None) -> None:
    """JSON lines on `stream` (standard error unless told otherwise)."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _only_known,
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_FromStandard()]
    root.setLevel(max(threshold, logging.WARNING))
