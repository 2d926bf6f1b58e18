"""P10 and P15: a commune's node over time, and keeping: reconcile of a day, restore of a year."""

import asyncio
import time

import asyncpg
import orjson

from deploy.embedded.postgres import binaries
from tests.bench.commune_node import measure
from tests.bench.measure import Context, Figure, until
from tests.bench.path import reconciled, send_lifecycles
from tests.bench.plot import Series, write
from tests.ports import base_port
from tests.stack import COMMAND, Stack


async def p10(context: Context) -> Figure:
    """A commune's whole node by `lienthong up`: idle, then five dossiers a second. Its own site: the stack is not used."""
    idle, busy = (30.0, 90.0) if context.alone else (2.5, 2.5)
    idle, busy = max(0.6, idle * context.scale), max(0.6, busy * context.scale)
    context.say(f"P10 {idle:.1f} min idle, {busy:.1f} min at 5 dossiers/s")
    found = await measure(idle, busy, 5.0)
    samples = found["samples"]
    assert isinstance(samples, list)
    memory, cpu = Series("memory (PSS)", "MB"), Series("CPU", "% of one core")
    for sample in samples:
        at = sample["minute"] * 60 + (idle * 60 if sample["phase"] == "busy" else 0)
        memory.add(at, sample["pss_mb"])
        cpu.add(at, sample["cpu_percent_of_one_core"])
    write(context.plots, "commune_node", "A commune's node", [memory, cpu], [(idle * 60, "5 dossiers/s")])
    most = found["most_pss_mb"]
    idle_cpu = max((s["cpu_percent_of_one_core"] for s in samples if s["phase"] == "idle"), default=0.0)
    ready = found["ready_again_s"]
    assert isinstance(most, float)
    assert isinstance(ready, float)
    return Figure(
        "P10", f"commune node, {idle:.1f} minutes idle and {busy:.1f} at 5 dossiers/s", most, None, "MB (PSS)",
        "≤ 350 MB, idle ≤ 5 % of one core, ready ≤ 5 s (30 and 90 minutes with ONLY=P10)",
        (most <= 350 and idle_cpu <= 5 and ready <= 5) if busy >= 90 else None,
        f"idle {idle_cpu:.1f} % of a core; ready {found['ready_first_s']} s at first, {ready} s again", dict(found),
    )  # fmt: skip


async def command(stack: Stack, *arguments: str, elsewhere: bool = False) -> bytes:
    """The command on the stack's site, by its settings; `elsewhere`: without them, on the folder that it names."""
    environment = stack.processes["intake"].environment
    if elsewhere:
        environment = {name: value for name, value in environment.items() if not name.startswith("LIENTHONG_")}
    process = await asyncio.create_subprocess_exec(
        str(COMMAND), *arguments, env=environment, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise AssertionError(f"lienthong {' '.join(arguments)} ended with {process.returncode}: {output[-500:]!r}")
    return output


async def p15(context: Context) -> list[Figure]:
    """Reconcile of a day by the command; and its restore from a backup, beside PostgreSQL's own tools on the same database."""
    stack, number = context.stack, max(1_000, int(10_000 * context.scale))
    context.say(f"P15 {number} dossiers")
    await send_lifecycles(stack, f"p15-{time.time_ns()}", number)
    await until(lambda: reconciled(stack), 600, "P15", every=0.3)
    context.say("P15 reconcile")
    began = time.monotonic()
    books = orjson.loads(await command(stack, "reconcile", "--json"))
    seconds = time.monotonic() - began
    assert books["reconciled"] is True
    context.say("P15 pg_restore")
    floor = await _pg_restore(context)
    context.say("P15 restore")
    restored = await _restore(context)
    whole = number >= 265_883
    size = "" if whole else f" (with {number:,} dossiers; SCALE=27 for a province's year)"
    return [
        Figure("P15", "reconcile of a day", seconds, None, "s", "≤ 10 s", seconds <= 10 if whole else None, size.strip()),
        Figure(
            "P15", "restore from a backup, by the command", restored, floor, "s", "at most twice the floor (pg_restore)",
            restored <= 2 * floor if whole else None, f"with the start of a new PostgreSQL{size}",
        ),
    ]  # fmt: skip


async def _restore(context: Context) -> float:
    """Seconds that `lienthong restore` takes from a backup to a folder that can be started."""
    backups, folder = context.stack.data / "backups", context.stack.data / "restored"
    taken = orjson.loads(await command(context.stack, "backup", str(backups), "--json"))
    keys = context.stack.processes["intake"].environment["LIENTHONG_KEYS_DIR"]
    began = time.monotonic()
    await command(
        context.stack, "restore", taken["backup"], "--keys-dir", keys, "--data", str(folder),
        "--base-port", str(base_port()), "--json", elsewhere=True,
    )  # fmt: skip
    return time.monotonic() - began


async def _pg_restore(context: Context) -> float:
    """Seconds that PostgreSQL's own tools take to restore the same database."""
    tools, url, dump = binaries(), context.stack.database_url, context.stack.data / "bench.dump"
    await _run(tools / "pg_dump", "-Fc", "-Z1", "-f", dump, url)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE DATABASE bench_restore")
        began = time.monotonic()
        await _run(tools / "pg_restore", "--no-owner", "-d", url.rsplit("/", 1)[0] + "/bench_restore", dump)
        seconds = time.monotonic() - began
        await connection.execute("DROP DATABASE bench_restore")
    finally:
        await connection.close()
    return seconds


async def _run(*command: object) -> None:
    process = await asyncio.create_subprocess_exec(*map(str, command), stderr=asyncio.subprocess.PIPE)
    _, complaints = await process.communicate()
    if process.returncode != 0:
        raise AssertionError(complaints.decode(errors="replace")[-500:])
