"""Draw a prediction: `draw` says what is shown, `to_rich` writes it for a terminal, `to_html` for a notebook."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from mla_serve.bundle.html import FRAME, bar_cell, range_cell, table
from mla_serve.bundle.results import (
    ClassPrediction,
    LabelProbability,
    LabelsPrediction,
    NumberOpinion,
    NumberPrediction,
    Opinion,
    Prediction,
    PredictionSet,
    format_number,
    in_unit,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

BAR_WIDTH = 24  # characters
SHOWN_LABELS = 5
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


@functools.singledispatch
def draw(prediction: Prediction) -> Drawing:
    """Say what is shown of a prediction."""
    raise NotImplementedError(f"no drawing of {type(prediction).__name__}")


@draw.register
def _(prediction: ClassPrediction) -> Drawing:
    """Show the label, what each modality says by itself, and the most probable classes."""
    said = {name: (each.label, f"{each.probability:.1%}") for name, each in prediction.modalities.items()}
    classes = [
        (each.label, f"{each.probability:.1%}", Bar(each.probability))
        for each in prediction.probabilities[:SHOWN_LABELS]
    ]
    return Drawing(
        prediction.label,
        f"{prediction.probability:.1%}",
        prediction.entropy,
        _opinions(prediction.modalities, ("by itself", "probability"), said),
        _notes(prediction, _set_note(prediction.prediction_set)),
        Rows(("class", "probability", ""), classes),
    )


@draw.register
def _(prediction: LabelsPrediction) -> Drawing:
    """Show the answered labels, what each modality says by itself, and how probable each label is beside its threshold."""
    said = {name: (_listed(each.labels),) for name, each in prediction.modalities.items()}
    shown = prediction.probabilities[: max(SHOWN_LABELS, len(prediction.labels))]
    labels = [
        (each.label, f"{each.probability:.1%}", Bar(each.probability), f"{each.threshold:.1%}", "✓" * each.answered)
        for each in shown
    ]
    return Drawing(
        ", ".join(prediction.labels) or "no label",
        "",
        prediction.entropy,
        _opinions(prediction.modalities, ("by itself",), said),
        _notes(prediction, _set_note(prediction.prediction_set)),
        Rows(("label", "probability", "", "threshold", "answered"), labels),
    )


@draw.register
def _(prediction: NumberPrediction) -> Drawing:
    """Show the value, what each modality says by itself, and each value with its range on one axis."""
    said = {
        name: (format_number(each.value, each.deviation), format_number(each.deviation))
        for name, each in prediction.modalities.items()
    }
    interval = prediction.interval
    ends = "" if interval is None else _range_text(interval.low, interval.high, prediction.deviation)
    note = (
        []
        if interval is None
        else [f"interval: {in_unit(ends, prediction.unit)}{_basis(interval.coverage, interval.pooled)}"]
    )
    return Drawing(
        in_unit(format_number(prediction.value, prediction.deviation), prediction.unit),
        f"± {format_number(prediction.deviation)}",
        prediction.entropy,
        _opinions(prediction.modalities, ("by itself", "deviation"), said),
        _notes(prediction, note),
        _axis(prediction),
    )


def _axis(prediction: NumberPrediction) -> Rows:
    """Put the answer and the value of each modality on one axis: a point, and a range of one deviation on both sides.

    The range of the answer is its interval, where there is one.
    """
    given: dict[str, NumberPrediction | NumberOpinion] = {"answer": prediction, **prediction.modalities}
    ranges = {
        name: (each.value - each.deviation, each.value, each.value + each.deviation) for name, each in given.items()
    }
    if (found := prediction.interval) is not None:
        low, at, high = ranges["answer"]
        ranges["answer"] = (low if found.low is None else found.low, at, high if found.high is None else found.high)
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


def _opinions(opinions: Mapping[str, Opinion], titles: tuple[str, ...], said: Mapping[str, tuple[str, ...]]) -> Rows:
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


def _notes(prediction: Prediction, more: Sequence[str]) -> list[str]:
    return [*([f"missing: {', '.join(prediction.missing)}"] if prediction.missing else []), *more]


def _set_note(found: PredictionSet | None) -> list[str]:
    return [] if found is None else [f"prediction set: {', '.join(found.labels)}{_basis(found.coverage, found.pooled)}"]


def _basis(coverage: float, pooled: bool) -> str:
    """Say what a set or interval promises, and whether it rests on rows with other modalities too."""
    return f" ({coverage:.0%}{', from rows with other modalities too' if pooled else ''})"


def _range_text(low: float | None, high: float | None, deviation: float) -> str:
    ends = ("?" if end is None else format_number(end, deviation) for end in (low, high))
    return " to ".join(ends)


def _listed(labels: Sequence[LabelProbability]) -> str:
    shown = ", ".join(f"{each.label} {each.probability:.1%}" for each in labels[:SHOWN_LABELS])
    return shown + (", ..." if len(labels) > SHOWN_LABELS else "")


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
