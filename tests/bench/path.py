"""P3: whole lifecycles by import through all four services until reconcile is clean, beside hand-written loops that do the
same inserts and messages without logic."""

import asyncio
import sys
import time

import httpx
import orjson

from shared.service import SERVICES
from tests.bench.measure import Context, Figure, until
from tests.bench.receive import dossier
from tests.stack import Stack

OPERATIONS: tuple[tuple[str, dict[str, str]], ...] = (
    ("start", {}),
    ("resolution", {"result": "granted"}),
    ("return", {"by": "counter"}),
)
HOPS = (
    ("lienthong.dossier.v1", "intake", ("routing", "notify", "stats")),
    ("lienthong.contact.v1", "intake", ("notify",)),
    ("lienthong.transfer.v1", "routing", ("intake", "stats")),
)


def lifecycles(first: int, number: int) -> bytes:
    """Import lines of whole lifecycles: receive, start, resolution, return."""
    lines = []
    for n in range(first, first + number):
        ref = f"{n}"
        lines.append(orjson.dumps({"op": "receive", "ref": ref, **dossier(n)}))
        lines += [orjson.dumps({"op": op, "ref": ref, **body}) for op, body in OPERATIONS]
    return b"\n".join(lines)


async def heads(stack: Stack, service: str, topic: str, side: str) -> list[dict[str, object]]:
    answer = await stack.http.get(
        f"{stack.url(service)}/v1/heads", params={"topic": topic, "side": side}, headers=stack.token()
    )
    answer.raise_for_status()
    items: list[dict[str, object]] = answer.json()["items"]
    return items


async def reconciled(stack: Stack) -> bool:
    """Every consumer holds what every owner published, and everybody who is to be told has been."""
    for topic, owner, consumers in HOPS:
        owned = await heads(stack, owner, topic, "owned")
        for consumer in consumers:
            if await heads(stack, consumer, topic, "consumed") != owned:
                return False
    answer = await stack.http.get(
        f"{stack.url('notify')}/v1/notices", params={"state": "planned"}, headers=stack.token()
    )
    answer.raise_for_status()
    return not answer.json()["items"]


async def send_lifecycles(stack: Stack, source: str, number: int, chunk: int = 1250) -> None:
    """`number` lifecycles, four lines each, one request after another."""
    for start in range(0, number, chunk):
        answer = await stack.http.post(
            f"{stack.url('intake')}/v1/imports",
            params={"source": source},
            content=lifecycles(start, min(chunk, number - start)),
            headers=stack.token() | {"Content-Type": "application/x-ndjson"},
        )
        answer.raise_for_status()
        if b'"refused"' in answer.content:
            raise AssertionError(next(x for x in answer.text.splitlines() if '"refused"' in x))


async def cpu_by_process(stack: Stack) -> dict[str, float]:
    """Seconds of CPU that each service process has used."""
    import psutil

    used = {}
    for name, process in stack.processes.items():
        times = psutil.Process(process.pid).cpu_times()
        used[name] = times.user + times.system
    return used


async def p3(context: Context) -> Figure:
    stack, number = context.stack, max(2000, int(10_000 * context.scale))
    context.say("P3 warms up")  # the floor comes second and finds the broker's code compiled and its pages in memory
    await send_lifecycles(stack, f"p3-warm-{time.time_ns()}", 1000)
    await until(lambda: reconciled(stack), 600, "P3 warmed up", every=0.2)
    context.say(f"P3 {number} lifecycles")
    before = await cpu_by_process(stack)
    began = time.monotonic()
    await send_lifecycles(stack, f"p3-{time.time_ns()}", number)
    await until(lambda: reconciled(stack), 600, "P3 reconcile", every=0.2)
    ours = number / (time.monotonic() - began)
    after = await cpu_by_process(stack)
    context.say("P3 floor")
    floor = await floor_path(stack, number)
    cpu = {name: round((after[name] - before[name]) / number * 1e6) for name in SERVICES}
    return Figure(
        "P3", "whole lifecycles through all four services", ours, floor, "dossiers/s",
        "ratio ≥ 0.4 and ≥ 600 dossiers/s", ours / floor >= 0.4 and ours >= 600,
        "CPU µs a dossier: " + ", ".join(f"{name} {value}" for name, value in cpu.items()), {"cpu_us": cpu},
    )  # fmt: skip


async def floor_path(stack: Stack, number: int) -> float:
    """Dossiers a second of `floor_loops` on the same database and bus: a writer with its relay, and three consumers."""
    prefix = f"floor{time.time_ns()}."
    roles = ["writer", "routing", "notify", "stats"]
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.floor_loops", role, prefix, str(number),
            env=stack.processes["intake"].environment, stdout=asyncio.subprocess.PIPE, start_new_session=True,
        )
        for role in roles
    ]  # fmt: skip
    try:
        spans = [orjson.loads((await process.communicate())[0].splitlines()[-1]) for process in processes]
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    last: float = max(end for _, end in spans)
    return number / (last - float(spans[0][0]))


async def probe(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(f"{url}/readyz", timeout=2.0)).status_code == 200
    except httpx.HTTPError:
        return False
