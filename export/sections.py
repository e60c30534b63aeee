"""The parts of report.html that differ by task, in SECTIONS. A new task is its functions and its entry.

Symbols: results are those of report.py.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mla_serve.export import charts
from mla_serve.tasks import Task

MAX_CLASSES = 30  # in the confusion matrix
MAX_LABELS = 200  # in the table of labels
Results = Mapping[str, Any]
Scores = Mapping[str, float]
Tile = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class TaskSections:
    """What a report draws for one task.

    tiles: (task, scores with all modalities, scores with half of them missing, asked coverage) -> figures and their meanings.
    reliability, table: (results, task) -> a section; table may return "".
    wrongest: the title of the section with the worst answers.
    """

    tiles: Callable[[Task, Scores, Scores, float], list[Tile]]
    reliability: Callable[[Results, Task], str]
    table: Callable[[Results, Task], str]
    wrongest: str


def section(title: str, caption: str, body: str) -> str:
    """Return a section of the page. Args: title, plain text; caption and body, HTML."""
    return f'<section><h2>{html.escape(title)}</h2><p>{caption}</p><div class="wide">{body}</div></section>'


# ---- classes


def _class_tiles(task: Task, full: Scores, half: Scores, asked: float) -> list[Tile]:  # noqa: ARG001
    tiles = [(f"{full['ece']:.1%} / {half['ece']:.1%}", "calibration error, all / half missing")]
    if "set_size" in half:
        caption = f"in a {asked:.0%} prediction set, half missing; it contains the true one in {half['coverage']:.0%}"
        tiles.append((f"{half['set_size']:.2f} labels", caption))
    return tiles


def _confidence(results: Results, task: Task) -> str:  # noqa: ARG001
    caption = "Over all sets of modalities. On the diagonal, answers given with 80% are right in 80% of cases. The area of a dot shows how many answers it stands for."
    drawing = charts.reliability(*_before_after(results), "confidence", "accuracy")
    return section("Reliability of the probabilities", caption, drawing)


def _before_after(results: Results) -> tuple[Any, Any]:
    return results["reliability"]["paper"], results["reliability"]["calibrated"]


def _confusion(results: Results, task: Task) -> str:
    if len(task.names) > MAX_CLASSES:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in task.names)
    body = ""
    for name, row in zip(task.names, results["confusion"]["rows"], strict=True):
        cells = "".join(_shade(count, sum(row)) for count in row)
        body += f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>'
    table = f'<table class="confusion"><tr><th></th>{head}</tr>{body}</table>'
    return section("Confusion matrix", "Rows: true class; columns: answer. With all modalities of a row.", table)


def _shade(count: int, total: int) -> str:
    share = round(100 * count / max(total, 1))
    return f'<td style="--share:{share}%"{" class=dark" if share > 55 else ""}>{count or ""}</td>'


# ---- labels


def _label_tiles(task: Task, full: Scores, half: Scores, asked: float) -> list[Tile]:
    f1 = (task.shown("micro_f1", one["micro_f1"]) for one in (full, half))
    tiles = [(" / ".join(f1), "micro F1, all / half missing")]
    if "set_fnr" in half:
        caption = f"in a {asked:.0%} set, half missing; it misses {half['set_fnr']:.0%} of a row’s labels"
        tiles.append((f"{half['set_size']:.1f} labels", caption))
    return tiles


def _label_probabilities(results: Results, task: Task) -> str:  # noqa: ARG001
    caption = "Of every label of every row, over all sets of modalities. On the diagonal, of labels given 80%, 80% are right. The area of a dot shows how many labels it stands for."
    drawing = charts.reliability(*_before_after(results), "probability of a label", "share of rows that have it")
    return section("Reliability of the probabilities", caption, drawing)


def _label_table(results: Results, task: Task) -> str:  # noqa: ARG001
    """List the labels, the most frequent first. The bar behind a number is as long as its share of 1."""
    rows = results["labels"]["rows"]
    order = sorted(rows, key=lambda name: -rows[name]["rows"])[:MAX_LABELS]
    head = "".join(f"<th>{title}</th>" for title in ("", "rows", "precision", "recall", "F1", "threshold"))
    body = "".join(_label_row(name, rows[name]) for name in order)
    left_out = f" The {MAX_LABELS} most frequent of {len(rows)}." if len(rows) > MAX_LABELS else ""
    caption = f"With all modalities of a row. A label is answered from its threshold on.{left_out}"
    return section("By label", caption, f'<table class="importance"><tr>{head}</tr>{body}</table>')


def _label_row(name: str, found: Scores) -> str:
    shares = "".join(
        f'<td style="--share:{100 * found[key]:.0f}%">{found[key]:.3f}</td>' for key in ("precision", "recall", "f1")
    )
    cells = f"<td>{found['rows']:,}</td>{shares}<td>{found['threshold']:.2f}</td>"
    return f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>'


# ---- numbers


def _number_tiles(task: Task, full: Scores, half: Scores, asked: float) -> list[Tile]:
    errors = (task.shown("mae", one["mae"]) for one in (full, half))
    tiles = [(" / ".join(errors), f"mean absolute error{_in_unit(task)}, all / half missing")]
    if "width" in half:  # too few validation rows give intervals without an end
        shown = f"{half['coverage']:.0%}"
        caption = f"{asked:.0%} intervals of this mean width, half missing; they contain the true one in {shown}"
        tiles.append((task.shown("width", half["width"]), caption))
    return tiles


def _in_unit(task: Task) -> str:
    return task.title("mae").removeprefix("MAE").replace(", ", " in ")


def _deviations(results: Results, task: Task) -> str:  # noqa: ARG001
    caption = "Over all sets of modalities, a fifth of the answers per dot, in standard deviations of the training values. On the diagonal, errors are as large as the answers’ own deviations say."
    return section("Are large deviations large errors?", caption, charts.deviations(*_before_after(results)))


def _residuals(results: Results, task: Task) -> str:
    quintiles = _quintile_table(results["residuals"]["rows"]["quintiles"], task)
    points = results["residuals"]["rows"]["points"]
    caption = "With all modalities of a row. Each fifth of the rows, from the smallest predicted deviation to the largest, and how many of its true values lie in the central 90% of the answers. Deviation and error are root mean squares, in standard deviations of the training values."
    table = section("Errors by predicted deviation", caption, quintiles)
    if not points:
        return table
    caption = f"With all modalities of a row; {len(points)} rows. Lines are the central 90% of an answer."
    return section("Predicted against true values", caption, charts.scatter(points, task)) + table


def _quintile_table(quintiles: Sequence[Scores], task: Task) -> str:
    head = "".join(
        f"<th>{title}</th>"
        for title in ("fifth", "rows", "deviation", "error", html.escape(task.title("mae")), "in the 90%")
    )
    body = "".join(
        f'<tr><th scope="row">{number}</th><td>{q["rows"]}</td><td>{q["deviation"]:.3f}</td><td>{q["rmse"]:.3f}</td>'
        f"<td>{task.shown('mae', q['mae'])}</td><td>{q['coverage']:.0%}</td></tr>"
        for number, q in enumerate(quintiles, start=1)
    )
    return f"<table><tr>{head}</tr>{body}</table>"


SECTIONS = {
    "classes": TaskSections(_class_tiles, _confidence, _confusion, "Most confidently wrong"),
    "labels": TaskSections(_label_tiles, _label_probabilities, _label_table, "Most confidently wrong"),
    "number": TaskSections(_number_tiles, _deviations, _residuals, "Furthest off for how sure they are"),
}
