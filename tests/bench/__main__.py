"""`make bench`: every figure beside its floor, in one run, on real processes.

    python -m tests.bench [--only P1,P3] [--bus kafka|embedded] [--scale 1.0] [--others] [--write-readme]

Prints a table, writes a JSON file of the run and drawings of the long ones under build/bench/, and
with --write-readme puts the table into README.md.
"""

import argparse
import asyncio
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from shared.service import SERVICES
from tests.bench.handover import p9
from tests.bench.keeping import p10, p15
from tests.bench.many_sites import s2
from tests.bench.measure import Context, Figure
from tests.bench.path import p3
from tests.bench.receive import p1, p2
from tests.bench.relay import p5
from tests.bench.spike import s1
from tests.bench.stored import p12, stored
from tests.bench.told import n1
from tests.bench.work import p4, p6, p8, p11, p13
from tests.stack import BusKind, Stack

ROOT = Path(__file__).parent.parent.parent
Measure = Callable[[Context], Awaitable[Figure | list[Figure]]]
MEASURES: dict[tuple[str, ...], Measure] = {
    ("P1",): p1, ("P2",): p2, ("P3",): p3, ("P4",): p4, ("P5",): p5, ("P6",): p6, ("P7", "P14"): stored,
    ("P8",): p8, ("P9",): p9, ("P10",): p10, ("P11",): p11, ("P12",): p12, ("P13",): p13, ("P15",): p15, ("S1",): s1,
    ("S2",): s2, ("N1",): n1,
}  # fmt: skip
# What is one service's own work is measured without the others on the two cores; the whole path is P3, P6 and P8.
ALONE: tuple[tuple[set[str], Sequence[str]], ...] = (({"P1", "P2", "P5"}, ("intake",)), ({"N1"}, ("intake", "notify")))
EVERY = sorted((name for names in MEASURES for name in names), key=lambda i: (i[0], int(i[1:])))
FOLDER = ROOT / "build" / "bench"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def machine() -> dict[str, object]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30),
        "cpu": model,
        "python": platform.python_version(),
    }


def commit() -> str:
    git = shutil.which("git") or "git"
    found = subprocess.run([git, "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def rows_of(figures: list[Figure]) -> list[list[str]]:
    rows = []
    for figure in sorted(figures, key=lambda f: EVERY.index(f.id)):
        met = {True: "yes", False: "no", None: "-"}[figure.met]
        ratio = "-" if figure.ratio is None else f"{figure.ratio:.2f}"
        rows.append(
            [figure.id, figure.work, number(figure.ours), number(figure.floor), figure.unit, ratio, figure.target, met,
             figure.note]
        )  # fmt: skip
    return rows


HEAD = ["id", "work", "ours", "floor", "unit", "ratio", "target", "met", "note"]


def markdown(figures: list[Figure], settings: dict[str, object]) -> str:
    where = settings["machine"]
    lines = [
        f"Measured {settings['at']} at commit {settings['commit']} by `make bench SCALE={settings['scale']}`, bus"
        f" {settings['bus']}, on {where['cores']} cores ({where['cpu']}), {where['memory_gib']} GiB; load generator,"  # type: ignore[index]
        " PostgreSQL and broker on the same cores.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
        *("| " + " | ".join(row) + " |" for row in rows_of(figures)),
    ]
    return "\n".join(lines)


def write_readme(text: str) -> None:
    readme = ROOT / "README.md"
    content = readme.read_text(encoding="utf-8")
    start, rest = content.split(BEGIN, 1)
    readme.write_text(f"{start}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")


async def run(arguments: argparse.Namespace, only: list[str], console: Console) -> list[Figure]:
    """Each measurement on a site of its own, so that none stands on another's data."""
    figures: list[Figure] = []
    others = arguments.others and arguments.bus == "kafka"  # they were made for Apache Kafka
    wanted = {names: measure for names, measure in MEASURES.items() if set(names) & set(only)}
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        whole = progress.add_task("bench", total=len(wanted))
        for names, measure in wanted.items():
            name = ", ".join(names)

            def say(what: str) -> None:
                progress.update(whole, description=what)

            say(f"{name} starts")
            folder = Path(tempfile.mkdtemp(prefix="lienthong-bench-"))
            folder.chmod(0o755)  # PostgreSQL may run as another account
            # Debezium, to whom P5 is compared, reads the database's log.
            logical = {"wal_level": "logical"} if "P5" in names and others else {}
            bus: BusKind = "kafka" if arguments.bus == "kafka" else "embedded"
            services = next((some for few, some in ALONE if few.issuperset(names)), SERVICES)
            replicas = {"notify": 2} if "N1" in names and bus == "kafka" else {}
            stack = Stack(folder, bus=bus, postgres_settings=logical, services=services, replicas=replicas)
            context = Context(stack, arguments.scale, say, others, FOLDER, len(only) == 1)
            try:
                await stack.start()
                found = await measure(context)
                some = found if isinstance(found, list) else [found]
                figures += [figure for figure in some if figure.id in only]
                for figure in some:
                    ratio = "" if figure.ratio is None else f", ratio {figure.ratio:.2f}"
                    console.print(f"{figure.id} {number(figure.ours)} {figure.unit}{ratio}", highlight=False)
            finally:
                await stack.stop()
                shutil.rmtree(folder, ignore_errors=True)
            progress.advance(whole)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(EVERY), help="for example P1,P3")
    parser.add_argument("--bus", choices=["kafka", "embedded"], default="kafka")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the sizes of the long ones")
    parser.add_argument("--others", action="store_true", help="beside comparators by other hands, from .venv-bench")
    parser.add_argument("--write-readme", action="store_true")
    arguments = parser.parse_args()
    only = [name.strip().upper() for name in arguments.only.split(",") if name.strip()]
    if unknown := set(only) - set(EVERY):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(EVERY)}")
    console = Console(stderr=True)
    settings: dict[str, object] = {
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "machine": machine(),
        "bus": arguments.bus,
        "scale": arguments.scale,
        "others": arguments.others,
        "only": only,
    }
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the sites are taken down, as after Ctrl-C
    began = time.monotonic()
    figures = asyncio.run(run(arguments, only, console))
    table = Table(*HEAD)
    for row in rows_of(figures):
        table.add_row(*row)
    Console(width=200).print(table)
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    document = settings | {
        "seconds": round(time.monotonic() - began, 1),
        "figures": [asdict(f) | {"ratio": f.ratio} for f in figures],
    }
    file.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    console.print(f"written: {file.relative_to(ROOT)}")
    if arguments.write_readme:
        write_readme(markdown(figures, settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
