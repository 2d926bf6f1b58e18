"""P9: hand-over between two sites, each with its own database and bus: transfers, their answers, and a backlog in order."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import orjson
import psutil

from shared.security.tokens import Role
from tests.acceptance.linked import COMMUNE, LAND, PROCEDURE, bundles
from tests.bench.keeping import command
from tests.bench.measure import Context, Figure, closed_load, post, until
from tests.bench.receive import dossier
from tests.stack import Stack

CHUNK = 1250


async def p9(context: Context) -> Figure:
    """A commune's transfers to the land office at the province: requested there, delivered here and known as delivered
    there; accepted over HTTP and known as accepted; then a backlog of a paused line."""
    number, backlog = max(500, int(3_000 * context.scale)), max(1_000, int(10_000 * context.scale))
    upper = context.stack
    async with _lower(context) as lower:
        home, away = await asyncpg.connect(lower.database_url), await asyncpg.connect(upper.database_url)
        try:
            context.say(f"P9 {number} transfers")
            before, began = _spent(upper, lower), time.monotonic()
            await _receive(lower, "handed", number)
            await until(lambda: _in_state(home, "delivered", number), 600, "the transfers are delivered")
            ours = number / (time.monotonic() - began)
            spent = {part: 1000 * (s - before.get(part, 0.0)) / number for part, s in _spent(upper, lower).items()}
            context.say("P9 answers")
            began = time.monotonic()
            await _accept(upper, away)
            await until(lambda: _in_state(home, "accepted", number), 600, "the answers are there")
            answered = number / (time.monotonic() - began)
            context.say(f"P9 backlog of {backlog}")
            await command(lower, "link", "pause", COMMUNE)
            await _receive(lower, "waited", backlog)
            await until(lambda: _in_state(home, "sent", backlog), 600, "the transfers wait")
            began = time.monotonic()
            await command(lower, "link", "resume", COMMUNE)
            await until(lambda: _in_state(home, "delivered", backlog), 1200, "the backlog is drained")
            drained = backlog / (time.monotonic() - began)
            in_order = await _asked(home) == await _delivered(away)
            assert in_order, "a transfer was delivered before one that was asked for earlier"
        finally:
            await home.close()
            await away.close()
    return Figure(
        "P9", "hand-over between two sites: received, requested, delivered", ours, None, "transfers/s",
        "≥ 500 transfers/s; a backlog of 100,000 drains in order", ours >= 500 if backlog >= 100_000 else None,
        f"{sum(spent.values()):.1f} ms of CPU each;"
        f" accepted over HTTP and known at home: {answered:.0f}/s; a backlog of {backlog:,} drained in order at"
        f" {drained:.0f}/s{'' if backlog >= 100_000 else ' (100,000 with SCALE=10)'}",
        {
            "answered": answered,
            "drained": drained,
            "backlog": backlog,
            "cpu_ms_of_each": {part: round(milliseconds, 3) for part, milliseconds in spent.items()},
        },
    )  # fmt: skip


def _spent(upper: Stack, lower: Stack) -> dict[str, float]:
    """Seconds of CPU so far, by service and site, of PostgreSQL (its sessions that live on, too) and of the rest: the buses, and
    the load itself."""
    named = {
        process.pid: f"{name} {where}"
        for stack, where in ((upper, "above"), (lower, "below"))
        for name, process in stack.processes.items()
    }
    found: dict[str, float] = {}
    here = psutil.Process()
    for each in (here, *here.children(recursive=True)):
        with suppress(psutil.Error):
            part = named.get(each.pid) or ("postgres" if "postgres" in each.name() else "buses and load")
            found[part] = found.get(part, 0.0) + sum(each.cpu_times()[:2])
    return found


@asynccontextmanager
async def _lower(context: Context) -> AsyncIterator[Stack]:
    """The commune's site, linked to the one that the measurement was given."""
    upper = context.stack
    folder = upper.data / "lower"
    folder.mkdir()
    province, commune = bundles(folder)
    await command(upper, "site", "load", str(province))
    lower = Stack(folder, bus=upper.bus, bundle=commune, services=("intake", "routing"))
    try:
        await lower.start()
        invitation, reply = str(folder / "invitation.json"), str(folder / "reply.json")
        await command(upper, "link", "invite", "--site", COMMUNE, "--out", invitation)
        await command(lower, "link", "join", invitation, "--out", reply)
        await command(upper, "link", "confirm", reply)
        await until(lambda: _knows_the_procedure(lower), 60, "the directory has come down")
        yield lower
    finally:
        await lower.stop()


async def _knows_the_procedure(lower: Stack) -> bool:
    answer = await lower.http.get(f"{lower.url('intake')}/v1/procedures/{PROCEDURE}", headers=lower.token())
    return answer.status_code == 200


async def _receive(lower: Stack, source: str, number: int) -> None:
    for start in range(0, number, CHUNK):
        lines = [
            line
            for n in range(start, min(start + CHUNK, number))
            for line in (
                {"op": "receive", "ref": f"{n}", **dossier(n), "procedure": PROCEDURE},
                {"op": "start", "ref": f"{n}"},
            )
        ]
        answer = await lower.http.post(
            f"{lower.url('intake')}/v1/imports",
            params={"source": source},
            content=b"\n".join(map(orjson.dumps, lines)),
            headers=lower.token() | {"Content-Type": "application/x-ndjson"},
        )
        answer.raise_for_status()
        if b'"refused"' in answer.content:
            raise AssertionError(next(x for x in answer.text.splitlines() if '"refused"' in x))


async def _accept(upper: Stack, away: asyncpg.Connection) -> None:
    """Every transfer that has come, each by a request of an officer of the land office."""
    waiting = await away.fetch("SELECT id FROM routing.transfer WHERE receiver = $1 AND state = 'delivered'", LAND)
    token = upper.token(Role.OFFICER, LAND)["Authorization"]
    requests = (post(f"/v1/transfers/{transfer['id']}/accept", token, b"{}") for transfer in waiting)
    await closed_load(upper.url("routing"), requests, 16, 3600, 200)


async def _in_state(connection: asyncpg.Connection, state: str, number: int) -> bool:
    held: int = await connection.fetchval("SELECT count(*) FROM routing.transfer WHERE state = $1", state)
    return held >= number


async def _asked(home: asyncpg.Connection) -> list[str]:
    """The dossiers in the order in which their transfers were asked for; those of one instant by their ids."""
    return [row["dossier"] for row in await home.fetch("SELECT dossier FROM routing.transfer ORDER BY asked_at, id")]


async def _delivered(away: asyncpg.Connection) -> list[str]:
    """The dossiers in the order in which their transfers were delivered."""
    kind = "transfer.delivered"
    rows = await away.fetch("SELECT aggregateid FROM routing.event WHERE type = $1 ORDER BY position", kind)
    return [row["aggregateid"] for row in rows]
