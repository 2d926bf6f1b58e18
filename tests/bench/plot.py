"""A run over time as an SVG drawing: rate and lag, second by second, with nothing but text."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 360, 70, 70, 40, 40
COLOURS = ("#1f5fa8", "#c2571a", "#2e7d32", "#7b3fa0")


@dataclass
class Series:
    """What was seen over time: `points` are (seconds since the start, value)."""

    name: str
    unit: str
    points: list[tuple[float, float]] = field(default_factory=list)

    def add(self, at: float, value: float) -> None:
        self.points.append((round(at, 2), round(value, 2)))


def draw(title: str, series: Sequence[Series], marks: Sequence[tuple[float, str]] = ()) -> str:
    """The first series has its scale on the left, all others share one on the right."""
    end = max((at for each in series for at, _ in each.points), default=1.0) or 1.0
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def across(at: float) -> float:
        return LEFT + at / end * wide

    def top_of(group: Sequence[Series]) -> float:
        return max((value for each in group for _, value in each.points), default=1.0) or 1.0

    tops = [top_of(series[:1]), *[top_of(series[1:])] * (len(series) - 1)]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="15">{_safe(title)}</text>',
    ]
    for step in range(5):
        y = TOP + high * step / 4
        lines.append(f'<line x1="{LEFT}" x2="{LEFT + wide}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        for beside, anchor, top in ((LEFT - 6, "end", tops[0]), (LEFT + wide + 6, "start", tops[-1])):
            value = top * (4 - step) / 4
            lines.append(f'<text x="{beside}" y="{y + 4:.1f}" text-anchor="{anchor}" fill="#555">{value:,.0f}</text>')
    for second in range(6):
        at = end * second / 5
        lines.append(
            f'<text x="{across(at):.1f}" y="{HEIGHT - 18}" text-anchor="middle" fill="#555">{at:,.0f} s</text>'
        )
    for at, what in marks:
        x = across(at)
        lines.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + high}" stroke="#999" stroke-dasharray="4"/>'
        )
        lines.append(f'<text x="{x + 4:.1f}" y="{TOP + 12}" fill="#555">{_safe(what)}</text>')
    for each, top, colour in zip(series, tops, COLOURS, strict=False):
        path = " ".join(f"{across(at):.1f},{TOP + high * (1 - value / top):.1f}" for at, value in each.points)
        lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/>')
    x = float(LEFT)
    for each, colour in zip(series, COLOURS, strict=False):
        label = f"{each.name} ({each.unit})"
        lines.append(f'<text x="{x:.0f}" y="{HEIGHT - 4}" fill="{colour}">{_safe(label)}</text>')
        x += 9 * len(label)
    return "\n".join([*lines, "</svg>"])


def write(
    folder: Path, name: str, title: str, series: Sequence[Series], marks: Sequence[tuple[float, str]] = ()
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.svg"
    file.write_text(draw(title, series, marks), encoding="utf-8")
    return file


def _safe(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
