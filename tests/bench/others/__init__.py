"""The same work by other hands, for comparison: scripts that run in a virtual environment of their own (`make bench` installs
requirements-bench.txt into .venv-bench), since what their libraries ask for does not fit the project's.

Each is given (database URL, bootstrap, topic, number), does its work on a copy of the first `number` events of intake's log,
and prints one JSON line: {"rate": events a second, "events": n}.
"""

import asyncio
from pathlib import Path

import orjson
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

import shared.bus.connection  # noqa: F401 - no client of ours makes a topic by naming it
from tests.stack import Stack

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-bench" / "bin" / "python"
TAKES_AT_MOST = 300.0  # seconds


async def by_others(stack: Stack, script: str, topic: str, number: int, *, make: bool = False) -> float | str:
    """Events a second of one of the scripts, or why there is no figure. `make`: the topic is made for it first."""
    if not PYTHON.exists():
        return "not installed"
    if make:
        admin = AIOKafkaAdminClient(bootstrap_servers=stack.bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic(topic, 3, 1)])
        await admin.close()
    log = stack.data / f"{script}.log"
    with log.open("wb") as complaints:
        process = await asyncio.create_subprocess_exec(
            str(PYTHON), str(Path(__file__).with_name(f"{script}.py")), stack.database_url, stack.bootstrap, topic,
            str(number), stdout=asyncio.subprocess.PIPE, stderr=complaints, start_new_session=True,
        )  # fmt: skip
    try:
        async with asyncio.timeout(TAKES_AT_MOST):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"not done within {TAKES_AT_MOST:.0f} s"
    lines = [line for line in output.splitlines() if line.startswith(b"{")]
    if process.returncode != 0 or not lines:
        last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no answer"]
        return f"failed: {last[0][:120]}"
    answer = orjson.loads(lines[-1])
    return float(answer["rate"]) if "rate" in answer else str(answer["error"])


def told(name: str, rate: float | str) -> str:
    return f"{name} {rate:,.0f}/s" if isinstance(rate, float) else f"{name} {rate}"
