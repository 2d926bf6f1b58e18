"""P10: a commune's whole node, idle and then at a steady load: memory of everything (PSS) and CPU, over time.

    python -m tests.bench.commune_node [--idle 5] [--busy 5] [--rate 5]      (minutes, dossiers a second)

Prints one JSON line a sample and the summary last. PSS is summed over the node's processes: one Python process,
PostgreSQL and the broker.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import orjson
import psutil

from tests.bench.measure import HttpClient, post
from tests.bench.one_process import token_of
from tests.bench.receive import dossier
from tests.ports import base_port
from tests.stack import COMMAND


class Usage:
    """What a process and all below it use; the CPU of those that have ended since (the broker is restarted) still counts."""

    def __init__(self, root: int) -> None:
        self._root = psutil.Process(root)
        self._cpu: dict[int, float] = {}

    def look(self) -> tuple[float, float]:
        """PSS in MB, and CPU seconds up to now."""
        pss = 0.0
        for process in [self._root, *self._root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess, FileNotFoundError):
                pss += process.memory_full_info().pss / 1e6
                times = process.cpu_times()
                self._cpu[process.pid] = times.user + times.system
        return pss, sum(self._cpu.values())


async def lifecycle(client: HttpClient, token: str, number: int) -> None:
    """One dossier: received, started, resolved, returned."""
    status, body = await client.send(post("/v1/dossiers", token, orjson.dumps(dossier(number))))
    assert status == 201, body
    code = orjson.loads(body)["code"]
    for op, content in (("start", {}), ("resolution", {"result": "granted"}), ("return", {"by": "counter"})):
        status, body = await client.send(post(f"/v1/dossiers/{code}/{op}", token, orjson.dumps(content)))
        assert status == 200, body


async def measure(idle: float, busy: float, rate: float, *, say: bool = False) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="lienthong-node-") as folder:
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            str(COMMAND), "up", "--data", folder, "--base-port", str(base_port()), "--json",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            ready = orjson.loads(await process.stdout.readline())
            first_start = time.monotonic() - began
            token = await token_of(folder)
            client = HttpClient(ready["services"]["intake"])
            samples: list[dict[str, float | str]] = []
            number, usage = 0, Usage(process.pid)
            every = min(30.0, max(idle, busy) * 6)  # seconds: ten samples at least
            for phase, minutes in (("idle", idle), ("busy", busy)):
                start, cpu_start = time.monotonic(), usage.look()[1]
                next_sample = start + every
                while (now := time.monotonic()) < start + minutes * 60:
                    if phase == "busy":
                        due = start + (number + 1) / rate
                        await lifecycle(client, token, number)
                        number += 1
                        await asyncio.sleep(max(0.0, due - time.monotonic()))
                    else:
                        await asyncio.sleep(1)
                    if now >= next_sample:
                        pss, cpu = usage.look()
                        share = (cpu - cpu_start) / (now - start)
                        sample: dict[str, float | str] = {
                            "phase": phase, "minute": round((now - start) / 60, 1), "pss_mb": round(pss, 1),
                            "cpu_percent_of_one_core": round(share * 100, 1),
                        }  # fmt: skip
                        samples.append(sample)
                        if say:
                            print(orjson.dumps(sample).decode(), flush=True)
                        next_sample += every
            await client.close()
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()
        began = time.monotonic()
        again = await asyncio.create_subprocess_exec(
            str(COMMAND), "up", "--data", folder, "--json",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert again.stdout is not None
        await again.stdout.readline()
        second_start = time.monotonic() - began
        again.send_signal(signal.SIGTERM)
        await again.wait()
        errors = _errors(Path(folder))
    return {
        "dossiers": number,
        "samples": samples,
        "most_pss_mb": max((s["pss_mb"] for s in samples), default=None),
        "ready_first_s": round(first_start, 1),
        "ready_again_s": round(second_start, 1),
        "log_errors": errors,
    }


def _errors(folder: Path) -> int:
    return sum(p.read_text(errors="replace").count('"level":"error"') for p in folder.glob("logs/*.log"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle", type=float, default=5, help="minutes")
    parser.add_argument("--busy", type=float, default=5, help="minutes")
    parser.add_argument("--rate", type=float, default=5, help="dossiers a second")
    arguments = parser.parse_args()
    print(orjson.dumps(asyncio.run(measure(arguments.idle, arguments.busy, arguments.rate, say=True))).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
