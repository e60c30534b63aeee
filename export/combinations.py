"""The table of the report that says how good answers are by what is sent: a row with a bar for each set of modalities."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping, Sequence
from typing import Any

from mla_serve import palette
from mla_serve.export.plot import Axis, axis_from_zero, share_axis
from mla_serve.export.wording import SHARES, likely_text, score_text, share_of_rows
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.tasks import Task

MOST_ROWS = 16  # with more, those that have neither one modality nor nearly all are folded
Results = Mapping[str, Any]
Ends = Sequence[float]


@dataclasses.dataclass(frozen=True)
class _Columns:
    """What the tables have in common: ranges, whether there is a column of intervals; counted, one of rows."""

    task: Task
    score: str
    names: Sequence[str]
    axis: Axis
    ranges: bool
    counted: bool

    def head(self) -> str:
        title = "right" if self.score == "accuracy" else self.task.title(self.score)
        drawn = f'<td class="drawn">{ticks(self.axis)}</td>'
        cells = f'<th scope="col">sent</th>{drawn}<th scope="col" class="number main">{html.escape(title)}</th>'
        cells += '<th scope="col" class="number">likely</th>' if self.ranges else ""
        return cells + ('<th scope="col" class="number">rows</th>' if self.counted else "")

    def row(self, chosen: Sequence[str], value: float, ends: Ends | None, rows: int | None) -> str:
        written = share_of_rows(self.score, value, rows) if self.score in SHARES else self._text(value)
        cells = f'<td class="number main"><b>{written}</b></td>'
        if self.ranges:
            cells += f'<td class="number muted">{likely_text(self.task, self.score, value, ends) if ends else ""}</td>'
        if self.counted:
            cells += f'<td class="number muted">{rows:,}</td>'
        drawn = f'<td class="drawn">{bar(value, ends, self.axis)}</td>'
        return f'<tr><th scope="row">{chips(chosen, self.names)}</th>{drawn}{cells}</tr>'

    def _text(self, value: float) -> str:
        return score_text(self.task, self.score, value)


def by_what_is_sent(results: Results, task: Task, names: Sequence[str], score: str) -> str:
    """Return the tables, HTML. Args: names, the modalities in the model's order; score, what the bars show."""
    metrics = results["metrics"]
    sets, counted = _sets(metrics["conditions"], names), rows_of_sets(metrics, names)
    values = {name: metrics["conditions"][name][DEFAULT_RULE][score] for name in sets}
    ranges = {name: results["intervals"].get(name, {}).get(DEFAULT_RULE, {}).get(score) for name in sets}
    axis = score_axis(task, score, [*values.values(), *(end for ends in ranges.values() if ends for end in ends)])
    columns = _Columns(task, score, names, axis, any(ranges.values()), len({*counted.values()}) > 1)
    rows = {name: columns.row(sets[name], values[name], ranges[name], counted.get(name)) for name in sets}
    first = [name for name in rows if len(rows) <= MOST_ROWS or len(sets[name]) in (1, len(names) - 1, len(names))]
    others = [row for name, row in rows.items() if name not in first]
    table = _table(columns.head(), [rows[name] for name in first])
    if not others:
        return table
    folded = _table(columns.head(), others)
    return f"{table}<details><summary>The other {len(others)} combinations</summary>{folded}</details>"


def rows_of_sets(metrics: Results, names: Sequence[str]) -> dict[str, int]:
    """Return how many rows each set of modalities was measured on; empty for a bundle of an older version."""
    counted = metrics.get("condition_rows", {})
    return {name: counted[name] for name in _sets(metrics["conditions"], names) if name in counted}


def score_axis(task: Task, score: str, values: Sequence[float]) -> Axis:
    """Return an axis for a score, from 0."""
    if score in SHARES and min(values, default=0) >= 0:
        return share_axis(task.title(score))
    return axis_from_zero(task.title(score), values)


def bar(value: float, ends: Ends | None, axis: Axis) -> str:
    """Draw a bar from 0, and a line for its interval. Numbers beside it say the same, so screen readers leave it out."""
    zero, at = axis.place(0), axis.place(value)
    spread = ""
    if ends:
        low, high = (f"{100 * axis.place(end):.1f}%" for end in ends)
        spread = f'<line class="spread" x1="{low}" x2="{high}" y1="8" y2="8"/>'
    return (
        '<svg class="bar" aria-hidden="true" height="16"><rect class="track" width="100%" height="16" rx="3"/>'
        f'<rect class="fill" x="{100 * min(zero, at):.1f}%" width="{100 * abs(at - zero):.1f}%" height="16" rx="3"/>{spread}</svg>'
    )


def ticks(axis: Axis) -> str:
    """Draw the ends and the middle of an axis above bars."""
    return (
        '<svg class="ticks" aria-hidden="true" height="14">'
        + "".join(
            f'<text x="{100 * axis.place(value):.0f}%" y="11" text-anchor="{anchor}">{text}</text>'
            for (value, text), anchor in zip((axis.ticks[0], axis.ticks[-1]), ("start", "end"), strict=True)
        )
        + "</svg>"
    )


def _sets(conditions: Results, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the modalities of each condition that is a set of them: the largest sets first, then in the order of the model."""
    known = {"+".join(chosen): chosen for name in conditions for chosen in [_split(name, names)] if chosen}
    return dict(sorted(known.items(), key=lambda one: -len(one[1])))


def _split(condition: str, names: Sequence[str]) -> list[str]:
    """Return the modalities that a condition names; none for "full" and the like. A name may hold a plus itself."""
    if condition in names:
        return [condition]
    for name in names:
        if condition.startswith(f"{name}+") and (rest := _split(condition[len(name) + 1 :], names)):
            return [name, *rest]
    return []


def chips(chosen: Sequence[str], names: Sequence[str]) -> str:
    """Write the names of modalities in their hues."""
    return " ".join(
        f'<span class="chip {palette.hue_class(names.index(name))}">{html.escape(name)}</span>' for name in chosen
    )


def _table(head: str, rows: Sequence[str]) -> str:
    return f'<div class="wide" tabindex="0"><table class="bars sent"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
