"""What commands print: answers on standard output, progress and complaints on standard error."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
_WIDEST = 10_000


def print_json(value: Any) -> None:
    """One line, as it is: no colours, no wrapping."""
    print(json.dumps(value, ensure_ascii=False, default=str), flush=True)


def say(text: str) -> None:
    """A plain line on standard output that is never wrapped."""
    print(text, flush=True)


def complain(lines: Iterable[str]) -> None:
    """Plain lines on standard error that are never wrapped."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], console: Console = out) -> None:
    """A table as wide as the terminal; in a pipe or a file as wide as its cells, so that each row stays one line."""
    shown = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for name in columns:
        shown.add_column(name, overflow="fold")
    for row in rows:
        shown.add_row(*("" if cell is None else str(cell) for cell in row))
    if not console.is_terminal:
        whole = Measurement.get(console, console.options.update(max_width=_WIDEST), shown).maximum
        console = Console(file=console.file, highlight=False, width=whole)
    console.print(shown)


def progress() -> Progress:
    """A bar on standard error, for long work; silent when nobody watches."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )
