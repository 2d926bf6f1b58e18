"""Whether one process carries a commune: a heavy import beside HTTP requests and group heartbeats, on `lienthong up`.

    python -m tests.bench.one_process [--lines 50000] [--rate 20]

Prints the latency of single receipts with and without the import beside, the import's rate, and how often a consumer lost
its place in its group. If p99 or a session breaks, `up` needs a child process for imports.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import httpx
import orjson

from tests.bench.measure import open_load, percentile
from tests.bench.path import lifecycles
from tests.bench.receive import requests
from tests.ports import base_port
from tests.stack import COMMAND


async def measure(lines: int, rate: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="lienthong-one-") as folder:
        process = await asyncio.create_subprocess_exec(
            str(COMMAND), "up", "--data", folder, "--base-port", str(base_port()), "--json",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            ready = orjson.loads(await process.stdout.readline())
            intake = ready["services"]["intake"]
            token = await token_of(folder)
            prepared = requests(token)
            await open_load(intake, prepared, rate, 2, 201, clients=8)  # warm
            alone = await open_load(intake, prepared, rate, 10, 201, clients=16)
            began = time.monotonic()
            importing = asyncio.create_task(_import(intake, token, lines))
            beside: list[float] = []
            while not importing.done():
                beside += await open_load(intake, islice(prepared, rate * 2 + 1), rate, 2, 201, clients=16)
            await importing
            seconds = time.monotonic() - began
            log = "".join(p.read_text(errors="replace") for p in (Path(folder) / "logs").glob("*.log"))
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()
    return {
        "alone_ms": {"p50": _ms(alone, 0.5), "p99": _ms(alone, 0.99)},
        "beside_import_ms": {"p50": _ms(beside, 0.5), "p99": _ms(beside, 0.99), "longest": _ms(beside, 1.0)},
        "import_lines_per_second": round(lines / seconds),
        "sessions_lost": log.count("Heartbeat session expired") + log.count("UnknownMemberId"),
    }


def _ms(values: list[float], share: float) -> float:
    return round(percentile(values, share) * 1000, 1)


async def token_of(folder: str) -> str:
    process = await asyncio.create_subprocess_exec(
        str(COMMAND), "token", "--data", folder, "--role", "admin", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return f"Bearer {output.decode().strip()}"


async def _import(intake: str, token: str, lines: int) -> None:
    async with httpx.AsyncClient(timeout=120) as http:
        for start in range(0, lines // 4, 1250):
            answer = await http.post(
                f"{intake}/v1/imports",
                params={"source": "one-process"},
                content=lifecycles(10_000_000 + start, min(1250, lines // 4 - start)),
                headers={"Authorization": token, "Content-Type": "application/x-ndjson"},
            )
            answer.raise_for_status()
            if b'"refused"' in answer.content:
                raise AssertionError(next(x for x in answer.text.splitlines() if '"refused"' in x))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=50_000)
    parser.add_argument("--rate", type=int, default=20, help="single receipts a second beside the import")
    arguments = parser.parse_args()
    print(orjson.dumps(asyncio.run(measure(arguments.lines, arguments.rate)), option=orjson.OPT_INDENT_2).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
