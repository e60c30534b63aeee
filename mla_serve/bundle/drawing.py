"""Draw a prediction: results.py says what is shown, `to_rich` writes it for a terminal, `to_html` for a notebook."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Protocol

from mla_serve.bundle.html import FRAME, bar_cell, range_cell, table
from mla_serve.decimals import with_decimals

if TYPE_CHECKING:
    from rich.console import RenderableType

BAR_WIDTH = 24  # characters
DIGIT_COLUMNS = ("weight", "probability", "threshold", "deviation", "influence", "unfamiliar")
"""Columns that are aligned on the right."""


@dataclasses.dataclass(frozen=True)
class Bar:
    """A cell that shows a share of 1."""

    share: float


@dataclasses.dataclass(frozen=True)
class Range:
    """A cell that shows a point inside a range on an axis; all are shares of the axis, 0 to 1."""

    low: float
    at: float
    high: float


Cell = str | Bar | Range


@dataclasses.dataclass(frozen=True)
class Rows:
    """A table: titles, and rows of cells."""

    titles: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]


@dataclasses.dataclass(frozen=True)
class Drawing:
    """What is shown of a prediction: the answer, the rest of its line, the opinions, notes, and a table of the answer."""

    answer: str
    rest: str
    entropy: float
    opinions: Rows
    notes: Sequence[str]
    details: Rows


class Part(Protocol):
    """What is drawn of each modality, see Opinion in results.py."""

    @property
    def weight(self) -> float:
        """Its weight."""

    @property
    def influence(self) -> float:
        """Its influence."""

    @property
    def unfamiliarity(self) -> float | None:
        """How unfamiliar its input is."""


def opinion_rows(opinions: Mapping[str, Part], titles: tuple[str, ...], said: Mapping[str, tuple[str, ...]]) -> Rows:
    """List the modalities with weight and influence. Args: titles and said, what each says by itself."""
    known = any(each.unfamiliarity is not None for each in opinions.values())
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            f"{each.weight:.2f}",
            Bar(each.weight),
            *said[name],
            f"{each.influence:+.3f}",
            *(["" if each.unfamiliarity is None else f"{each.unfamiliarity:.0%}"] if known else []),
        )
        for name, each in opinions.items()
    ]
    return Rows(("modality", "weight", "", *titles, "influence", *(["unfamiliar"] if known else [])), rows)


def axis_rows(ranges: Mapping[str, tuple[float, float, float]]) -> Rows:
    """Put ranges (low, value, high) on one axis."""
    least, most = min(low for low, _, _ in ranges.values()), max(high for _, _, high in ranges.values())
    span = (most - least) or 1.0
    rows = [
        (
            name,
            format_number(low, at - low),
            Range(*((end - least) / span for end in (low, at, high))),
            format_number(high, high - at),
        )
        for name, (low, at, high) in ranges.items()
    ]
    return Rows(("", "from", "", "to"), rows)


def format_number(value: float, deviation: float | None = None) -> str:
    """Write a number to two significant digits of its deviation, or of its own where that is left out: "1,234" or "0.57"."""
    size = abs(value if deviation is None else deviation)
    return with_decimals(value, 1 - math.floor(math.log10(size)) if 0 < size < 10 else 0)


def in_unit(number: str, unit: str) -> str:
    """Write the unit behind a number."""
    return f"{number} {unit}".rstrip()


def bar(share: float, width: int = BAR_WIDTH) -> str:
    """Draw a share of 1 as a bar, to an eighth of a character."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")


def axis(low: float, at: float, high: float, width: int = BAR_WIDTH) -> str:
    """Draw a point in a range on an axis: "  ├──●─┤  ". Args: shares of the axis, 0 to 1."""
    first, point, last = (round(max(0.0, min(1.0, share)) * (width - 1)) for share in (low, at, high))
    drawn = [" "] * first + ["─"] * (last - first + 1) + [" "] * (width - 1 - last)
    drawn[first], drawn[last] = "├", "┤"
    drawn[point] = "●"
    return "".join(drawn)


def to_rich(drawing: Drawing) -> RenderableType:
    """Write a drawing for `rich.print`."""
    from rich.console import Group  # here, because only a terminal needs it
    from rich.text import Text

    headline = Text.assemble(
        (drawing.answer, "bold green"),
        f"  {drawing.rest}" if drawing.rest else "",
        (f"   entropy {drawing.entropy:.3f} nats", "dim"),
    )
    notes = [Text(note) for note in drawing.notes]
    return Group(headline, Text(), _rich_table(drawing.opinions), *notes, Text(), _rich_table(drawing.details))


def _rich_table(rows: Rows) -> RenderableType:
    from rich.table import Table

    drawn = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in rows.titles:
        drawn.add_column(title, justify="right" if title in DIGIT_COLUMNS else "left")
    for row in rows.rows:
        drawn.add_row(*map(_rich_cell, row))
    return drawn


def _rich_cell(cell: Cell) -> RenderableType:
    from rich.text import Text

    if isinstance(cell, Bar):
        return Text(bar(cell.share), "cyan")
    return Text(axis(cell.low, cell.at, cell.high), "cyan") if isinstance(cell, Range) else Text(cell)


def to_html(drawing: Drawing) -> str:
    """Write a drawing for a notebook."""
    headline = f"<b>{escape(drawing.answer)}</b> {escape(drawing.rest)}"
    parts = (
        f'<div>{headline} <span style="opacity:.7">entropy {drawing.entropy:.3f} nats</span></div>',
        _html_table(drawing.opinions),
        *(f'<div style="opacity:.7">{escape(note)}</div>' for note in drawing.notes),
        _html_table(drawing.details),
    )
    return FRAME.format("".join(parts))


def _html_table(rows: Rows) -> str:
    return table(rows.titles, [[_html_cell(cell) for cell in row] for row in rows.rows])


def _html_cell(cell: Cell) -> str:
    if isinstance(cell, Bar):
        return bar_cell(cell.share)
    return range_cell(cell.low, cell.at, cell.high) if isinstance(cell, Range) else escape(cell)
