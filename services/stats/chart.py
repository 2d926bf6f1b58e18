"""Charts as SVG, drawn on the server from numbers. Pure: shapes in the units of the drawing, for the templates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

WIDTH, HEIGHT = 600, 160


@dataclass(frozen=True, slots=True)
class Bar:
    """One day of a chart: how high its two bars stand; None is not shown."""

    day: date
    x: float
    first: float | None
    second: float | None


@dataclass(frozen=True, slots=True)
class Chart:
    """Two bars a day, the highest as high as the drawing; `rows` are the same numbers for a table."""

    bars: Sequence[Bar]
    rows: Sequence[tuple[date, int | None, int | None]]
    highest: int
    step: float
    width: int = WIDTH
    height: int = HEIGHT


def hidden(count: int, group: int) -> int | None:
    """A count as anybody may see it: None for a small group. A group of 1 hides nothing."""
    return None if 0 < count < group else count


def drawn(span: Sequence[date], counts: Mapping[date, tuple[int, int]], group: int) -> Chart:
    """Two counts a day as bars."""
    rows = [(day, hidden(counts.get(day, (0, 0))[0], group), hidden(counts.get(day, (0, 0))[1], group)) for day in span]
    highest = max((count for _, *pair in rows for count in pair if count is not None), default=0)
    step = WIDTH / len(span)
    bars = [
        Bar(day, round(at * step, 1), _high(first, highest), _high(second, highest))
        for at, (day, first, second) in enumerate(rows)
    ]
    return Chart(bars, rows, highest, step)


def _high(count: int | None, highest: int) -> float | None:
    return None if count is None else round(count * HEIGHT / (highest or 1), 1)


def days_up_to(today: date, count: int) -> list[date]:
    return [today - timedelta(days=back) for back in reversed(range(count))]
