"""Draw small plots as SVG. Positions across are in per cent and heights in pixels, so text keeps its size at every width.

The page's CSS sets all colours: a line has the class `accent`, `quiet` or the hue of a modality, and may be `dashed`.
"""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Iterable, Sequence

HEIGHT = 180  # pixels
ACROSS = 1000  # units of the nested drawing, which is stretched to the width
LABEL_GAP = 15  # pixels between two labels of lines
STEPS = (1, 2, 2.5, 5, 10)
Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Axis:
    """What an axis is called, its ends, and where it has ticks. log: equal distances are equal ratios."""

    name: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value is, from 0 to 1; a value beyond an end is at the end."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return min(max((value - low) / ((high - low) or 1), 0.0), 1.0)


@dataclasses.dataclass(frozen=True)
class Line:
    """A line through points. style: CSS classes; label: written at its end; radii: of a dot at each point, in pixels."""

    points: Sequence[Point]
    style: str = "accent"
    label: str = ""
    radii: Sequence[float] = ()


def share_axis(name: str) -> Axis:
    """Return the axis of a share, from 0 to 100 %."""
    return Axis(name, 0, 1, [(tick / 100, f"{tick} %") for tick in (0, 25, 50, 75, 100)])


def axis_from_zero(name: str, values: Iterable[float], write: str = ",g") -> Axis:
    """Return an axis with round ticks that begins at 0, or below it where a value is negative."""
    values = [*values, 0.0]
    low, high = min(values), max(values)
    step = _round_step((high - low) or 1.0)
    ticks = [step * i for i in range(math.floor(low / step), math.ceil(high / step) + 1)]
    return Axis(name, ticks[0], ticks[-1], [(tick, format(round(tick, 12), write)) for tick in ticks])


def _round_step(span: float) -> float:
    """Return a round number that divides a span into three to five parts."""
    size = 10.0 ** math.floor(math.log10(span / 4))
    return next(step * size for step in STEPS if step * size >= span / 4)


def plot(
    title: str, message: str, x: Axis, y: Axis, lines: Sequence[Line], *, height: int = HEIGHT, more: str = ""
) -> str:
    """Draw lines and dots over two axes.

    Args: title, message: plain text, what is drawn and what it says, for screen readers; more, SVG that is drawn first.
    """
    stretched = "".join(_polyline(line, x, y) for line in lines)
    dots = "".join(dots_of(line, x, y, height) for line in lines if line.radii)
    return (
        f'<svg class="plot" role="img" height="{height}"><title>{html.escape(title)}</title><desc>{html.escape(message)}</desc>'
        f"{_grid(x, y, height)}{more}"
        f'<svg width="100%" height="{height}" viewBox="0 0 {ACROSS} {ACROSS}" preserveAspectRatio="none">{stretched}</svg>'
        f"{dots}{_labels(lines, y, height)}</svg>"
    )


def _polyline(line: Line, x: Axis, y: Axis) -> str:
    points = " ".join(f"{ACROSS * x.place(a):.0f},{ACROSS * (1 - y.place(b)):.0f}" for a, b in line.points)
    return f'<polyline class="line {line.style}" points="{points}"/>'


def dots_of(line: Line, x: Axis, y: Axis, height: int) -> str:
    """Draw the dots of a line."""
    return "".join(
        f'<circle class="dot {line.style}" cx="{100 * x.place(a):.1f}%" cy="{height * (1 - y.place(b)):.1f}" r="{radius:.1f}"/>'
        for (a, b), radius in zip(line.points, line.radii, strict=True)
    )


def _grid(x: Axis, y: Axis, height: int) -> str:
    across = "".join(
        f'<line class="grid" x1="0" x2="100%" y1="{at}" y2="{at}"/><text class="tick" x="-8" y="{at}" dy="4" text-anchor="end">{text}</text>'
        for value, text in y.ticks
        for at in [f"{height * (1 - y.place(value)):.1f}"]
    )
    below = "".join(
        f'<text class="tick" x="{100 * x.place(value):.1f}%" y="{height + 18}" text-anchor="middle">{text}</text>'
        for value, text in x.ticks
    )
    names = (
        f'<text class="axis" x="50%" y="{height + 36}" text-anchor="middle">{html.escape(x.name)}</text>'
        f'<text class="axis" x="-40" y="-12">{html.escape(y.name)}</text>'
    )
    return across + below + names


def _labels(lines: Sequence[Line], y: Axis, height: int) -> str:
    """Write the labels behind the ends of their lines, one above the other where the ends are close."""
    ends = [(height * (1 - y.place(line.points[-1][1])), line) for line in lines if line.label]
    ends.sort(key=lambda end: end[0])
    placed: list[float] = []
    for at, _ in ends:
        placed.append(max(at, placed[-1] + LABEL_GAP) if placed else at)
    return "".join(
        f'<text class="label {line.style}" x="100%" dx="8" y="{at:.1f}" dy="4">{html.escape(line.label)}</text>'
        for at, (_, line) in zip(placed, ends, strict=True)
    )
