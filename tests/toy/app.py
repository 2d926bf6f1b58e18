"""The toy's two services, made with the kit as the real ones are."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from shared.contracts.codes import AgencyCode, Instant, Name, Phone
from shared.security.tokens import Role
from shared.service import Service
from shared.settings import Settings
from shared.store.inbox import Fault, Received
from shared.store.pool import Connection
from shared.web.app import Asking, Body, allow, router
from shared.web.common import common_routes
from shared.web.problem import Problem
from shared.web.writes import Answer, Writes
from tests.toy.events import DOSSIERS, RAISES, REFUSED, TOO_LARGE, event

SCHEMAS = {
    "site": ("shared.directory",),
    "intake": ("shared.store", "tests.toy"),
    "routing": ("shared.store", "tests.toy"),
}


class Thing(Body):
    key: Name
    count: Annotated[int, Field(ge=1, le=1000)] = 1
    procedure: Name = "1.001193"
    agency: AgencyCode | None = None
    phone: Phone | None = None
    at: Instant | None = None
    papers: tuple["Paper", ...] = ()
    conflict: bool = False


class Paper(Body):
    path: Name
    pages: Annotated[float, Field(allow_inf_nan=False)] = 1


def routes(service: Service) -> APIRouter:
    things = router()
    writes = Writes(service)

    @things.post("/v1/things")
    async def create(request: Request, who: Asking, thing: Thing) -> Response:
        allow(who, Role.DESK)

        async def act(connection: Connection) -> Answer:
            sequence = await append(service, connection, thing.key, thing.count, thing.procedure)
            if thing.conflict:
                raise Problem(409, "move-not-allowed", "Not now.", extra={"state": sequence})
            location = {"Location": f"/v1/things/{thing.key}", "ETag": f'"{sequence}"'}
            return Answer(201, {"key": thing.key, "sequence": sequence}, location)

        return await writes.write(request, who, act)

    @things.get("/v1/things/{key}")
    async def get(who: Asking, key: str, at: Instant | None = None) -> dict[str, Any]:
        async with service.pool.acquire() as connection:
            sequence = await connection.fetchval(f"SELECT sequence FROM {service.schema}.thing WHERE key = $1", key)
        return {"key": key, "sequence": sequence}

    return things


async def append(service: Service, connection: Connection, key: str, count: int, procedure: str = "1.001193") -> int:
    """Locks the key, appends as many events to it, and says its last sequence."""
    recorded = await service.log.now(connection)
    last: int = await connection.fetchval(
        f"""INSERT INTO {service.schema}.thing AS t (key, sequence, recorded) VALUES ($1, $2, $3)
            ON CONFLICT (key) DO UPDATE SET sequence = t.sequence + $2, recorded = greatest(t.recorded, $3)
            RETURNING sequence""",
        key,
        count,
        recorded,
    )
    await service.log.append(
        connection,
        [
            event(key, sequence, procedure=procedure, source=service.source, recorded=recorded)
            for sequence in range(last - count + 1, last + 1)
        ],
    )
    return last


class Effects:
    """The consumer: one row an event."""

    def __init__(self, service: Service) -> None:
        self._schema = service.schema

    async def apply(self, connection: Connection, events: Sequence[Received]) -> dict[int, Fault]:
        faults: dict[int, Fault] = {}
        stopped: set[tuple[str, str]] = set()
        rows: list[Received] = []
        widest = 0
        for index, received in enumerate(events):
            name = (received.envelope.topic, received.envelope.subject)
            procedure = getattr(received.data, "procedure", None)
            if name in stopped:
                continue
            if procedure == REFUSED:
                stopped.add(name)
                faults[index] = Fault("state-contradiction", "the toy does not like it")
                continue
            if procedure == RAISES:
                raise ZeroDivisionError
            if procedure == TOO_LARGE:
                widest = 1 << 40
            rows.append(received)
        if rows:
            await connection.execute(
                f"""INSERT INTO {self._schema}.effect (topic, key, sequence, event, type)
                    SELECT * FROM unnest($1::text[], $2::text[], $3::smallint[], $4::uuid[], $5::text[])""",
                [r.envelope.topic for r in rows],
                [r.envelope.subject for r in rows],
                [r.envelope.sequence + widest for r in rows],
                [r.envelope.id for r in rows],
                [r.envelope.type for r in rows],
            )
        return faults


def owner(settings: Settings) -> Service:
    service = Service("intake", settings, title="Toy", description="Owns things.", plain={"/v1/plain": ("text/plain",)})
    service.include(common_routes(service))
    service.include(routes(service))
    return service


def consumer(settings: Settings, topics: Sequence[str] = (DOSSIERS,)) -> Service:
    service = Service("routing", settings, title="Toy", description="Makes rows of them.")
    service.consume(topics, Effects(service).apply)
    service.include(common_routes(service))
    return service
