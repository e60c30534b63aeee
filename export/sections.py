"""The parts of report.html that differ by task, in SECTIONS. A new task is its functions and its entry.

Symbols: results are those of report.py.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mla_serve.decimals import percent
from mla_serve.export import charts
from mla_serve.export.combinations import bar, ticks
from mla_serve.export.plot import Axis, share_axis
from mla_serve.export.wording import share_of_rows
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.tasks import Task

COVERAGE = 0.9  # that bundles of older versions were measured with
MAX_CLASSES = 30  # in the confusion matrix
FIRST, MOST = 8, 200  # classes, labels or groups that are shown, and that are listed in all
ENOUGH = 5  # rows of a class, label or group; those with fewer are listed after the others
TENTHS = 10  # shades of the confusion matrix
BEFORE_AFTER = [("accent", "calibrated"), ("quiet dashed", "the paper’s rule")]
Results = Mapping[str, Any]
Scores = Mapping[str, float]
Tile = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class TaskSections:
    """What a report draws for one task.

    score: what its bars show; how_good, explained: the title above them, and what the score means, in plain words.
    tiles: (task, metrics, whether there are several modalities) -> the first figures and their meanings; the first one is
    `score` with all modalities.
    believe, wrong: (results, task) -> sections on whether to believe the answers, and where they are wrong.
    wrongest: the title of the section with the worst answers.
    """

    score: str
    how_good: str
    explained: str
    tiles: Callable[[Task, Results, bool], list[Tile]]
    believe: Callable[[Results, Task], str]
    wrong: Callable[[Results, Task], str]
    wrongest: str


def section(title: str, caption: str, body: str, name: str = "") -> str:
    """Return a section of the page. Args: title, plain text; caption and body, HTML; name, CSS class: "experts" is not printed."""
    return f"<section{f' class={name}' if name else ''}><h2>{html.escape(title)}</h2><p>{caption}</p>{body}</section>"


def table(head: Sequence[str], rows: Sequence[str], name: str = "") -> str:
    """Return a table that scrolls in a box of its own where it is too wide. Args: head, plain text; rows, HTML; name, CSS class."""
    cells = "".join(
        f'<th scope="col"{" class=number" if at else ""}>{html.escape(title)}</th>' for at, title in enumerate(head)
    )
    return box(f'<table class="{name}"><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table>')


def box(content: str) -> str:
    """Let something wide scroll by itself; the keyboard reaches it."""
    return f'<div class="wide" tabindex="0">{content}</div>'


def bar_table(head: Sequence[str], axis: Axis, rows: Sequence[str], folded: Sequence[str] = (), more: str = "") -> str:
    """Return a table whose second column are bars. Args: folded, more rows, which are shown when asked for; more, what they are.

    On a phone, a table with many other columns has no bars.
    """
    first, *others = (
        f'<th scope="col"{" class=number" if at else ""}>{html.escape(t)}</th>' for at, t in enumerate(head)
    )
    top = f'<thead><tr>{first}<td class="drawn">{ticks(axis)}</td>{"".join(others)}</tr></thead>'
    name = "bars many" if len(others) > 2 else "bars"
    tables = [
        box(f'<table class="{name}">{top}<tbody>{"".join(some)}</tbody></table>') for some in (rows, folded) if some
    ]
    if not folded:
        return "".join(tables)
    return f"{''.join(tables[:-1])}<details><summary>{html.escape(more)}</summary>{tables[-1]}</details>"


def bar_row(name: str, value: float, axis: Axis, cells: Sequence[str]) -> str:
    """Return a row of it. Args: name, plain text; cells, HTML."""
    rest = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    return f'<tr><th scope="row">{html.escape(name)}</th><td class="drawn">{bar(value, None, axis)}</td>{rest}</tr>'


def promise(asked: float) -> str:
    """Write a coverage: "9 in 10"."""
    return f"{10 * asked:.0f} in 10" if abs(10 * asked - round(10 * asked)) < 1e-9 else f"{100 * asked:g} in 100"


def listed_of(count: int, total: int) -> str:
    """Say that not all are listed; "" where all are."""
    return f"; {count:,} of {total:,} are listed" if count < total else ""


def _of_interest(metrics: Results, several: bool) -> tuple[Scores, Scores, str, str]:
    """Return the scores with all modalities, those with half of them missing, when the latter hold, and what is promised.

    One modality is never missing, so with no others the second scores are the first, and `when` is empty.
    """
    full = metrics["conditions"]["full"][DEFAULT_RULE]
    asked = f"({promise(metrics.get('asked_coverage', COVERAGE))} are promised)"
    if not several:
        return full, full, "", asked
    return full, metrics["conditions"]["missing50"][DEFAULT_RULE], ", with half of the inputs missing", asked


# ---- classes


def _class_tiles(task: Task, metrics: Results, several: bool) -> list[Tile]:  # noqa: ARG001
    full, half, when, asked = _of_interest(metrics, several)
    tiles = [(share_of_rows("accuracy", full["accuracy"], metrics["rows"]), "right, with all inputs")]
    if several:
        tiles.append((percent(half["accuracy"]), f"right{when}"))
    surer = f"lie on average between the percentage it gives and how often it is right{when}"
    tiles.append((f"{100 * half['ece']:.1f} points", surer))
    if "set_size" in half:
        caption = f"of the shortlists hold the right one{when} {asked}. A shortlist has {half['set_size']:.1f} labels on average"
        tiles.append((percent(half["coverage"]), caption))
    return tiles


def _confidence(results: Results, task: Task) -> str:  # noqa: ARG001
    caption = "On the diagonal, answers given with 80 % are right 80 % of the time; below it, the model is too sure. Over all combinations of inputs; a larger dot stands for more answers."
    return _believed(results, caption, "how sure it says it is", "how often it is right")


def _believed(results: Results, caption: str, x: str, y: str) -> str:
    """Compare the percentages of answers with how often they come true. Args: x, y, what the axes show."""
    drawing = charts.reliability(*_before_after(results), x, y)
    body = charts.legend_of(BEFORE_AFTER) + f'<div class="square">{drawing}</div>'
    return section("Can its percentages be believed?", caption, body)


def _before_after(results: Results) -> tuple[Any, Any]:
    return results["reliability"]["paper"], results["reliability"]["calibrated"]


def _wrong_classes(results: Results, task: Task) -> str:
    """List the classes with the lowest share of right answers first, each with what it is mostly mistaken for."""
    counts = results["confusion"]["rows"]
    found = {
        name: (row[at], sum(row), _mistaken(row, at, task))
        for at, (name, row) in enumerate(zip(task.names, counts, strict=True))
        if sum(row)
    }
    if all(right == rows for right, rows, _ in found.values()):
        caption = "With all inputs of a row, no answer was wrong. Mistakes with fewer inputs are below."
        return section("Where it goes wrong", caption, "")
    order = sorted(found, key=lambda name: (found[name][1] < ENOUGH, found[name][0] / found[name][1]))[:MOST]
    first = sum(found[name][0] < found[name][1] for name in order[:FIRST])
    axis = share_axis("")
    rows = [
        bar_row(
            name,
            right / count,
            axis,
            [f"<b>{share_of_rows('accuracy', right / count, count)}</b>", f"{count:,}", mistaken],
        )
        for name in order
        for right, count, mistaken in [found[name]]
    ]
    caption = "How often the rows of each class were answered right with all inputs, the worst first, and what they were answered instead."
    listed = bar_table(
        ("true class", "right", "rows", "mostly answered instead"),
        axis,
        rows[:first],
        rows[first:],
        f"{len(rows) - first} more{listed_of(len(rows), len(found))}",
    )
    return section("Where it goes wrong", caption, listed + _confusion(results, task))


def _mistaken(row: Sequence[int], at: int, task: Task) -> str:
    """Return the answer that most rows of a class got wrongly, and how many."""
    count, answer = max((count, -index) for index, count in enumerate(row) if index != at)
    return f'<span class="name">{html.escape(task.names[-answer])} ({count:,})</span>' if count else ""


def _confusion(results: Results, task: Task) -> str:
    if len(task.names) > MAX_CLASSES:
        return ""
    head = "".join(f'<th scope="col"><span>{html.escape(name)}</span></th>' for name in task.names)
    body = ""
    for name, row in zip(task.names, results["confusion"]["rows"], strict=True):
        cells = "".join(_shade(count, sum(row)) for count in row)
        body += f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>'
    drawn = f'<table class="confusion"><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f"<details><summary>Every class against every answer</summary><p>Rows: the true class; columns: the answer (confusion matrix).</p>{box(drawn)}</details>"


def _shade(count: int, total: int) -> str:
    return f'<td class="s{round(TENTHS * count / max(total, 1))}">{count or ""}</td>'


# ---- labels


def _label_tiles(task: Task, metrics: Results, several: bool) -> list[Tile]:  # noqa: ARG001
    full, half, when, asked = _of_interest(metrics, several)
    tiles = [(percent(full["micro_f1"]), "fit of the labels, with all inputs; 100 %: all right ones, no others")]
    if "fnr" in full:
        tiles.append((percent(1 - full["fnr"]), "of the right labels of a row are found, on average"))
    if several:
        tiles.append((percent(half["micro_f1"]), f"fit of the labels{when}"))
    if "set_fnr" in half:
        caption = f"of the right labels are in the shortlist{when} {asked}. A shortlist has {half['set_size']:.1f} labels on average"
        tiles.append((percent(1 - half["set_fnr"]), caption))
    return tiles


def _label_probabilities(results: Results, task: Task) -> str:  # noqa: ARG001
    caption = "On the diagonal, labels given 80 % are right 80 % of the time; below it, the model is too sure. Every label of every row, over all combinations of inputs; a larger dot stands for more of them."
    return _believed(results, caption, "probability of a label", "how often it is there")


def _label_table(results: Results, task: Task) -> str:  # noqa: ARG001
    """List the labels, those with the worst F1 first."""
    found = results["labels"]["rows"]
    order = sorted(found, key=lambda name: (found[name]["rows"] < ENOUGH, found[name]["f1"], name))[:MOST]
    rows = [_label_row(name, found[name]) for name in order]
    caption = "With all inputs, the worst F1 first. <em>right</em>: of the rows that got the label, how many have it (precision); <em>found</em>: of the rows that have it, how many got it (recall); it is answered from the threshold on."
    head = ("label", "F1", "right", "found", "rows", "threshold")
    return section(
        "Where it goes wrong",
        caption,
        bar_table(
            head,
            share_axis(""),
            rows[:FIRST],
            rows[FIRST:],
            f"{len(rows) - FIRST} more{listed_of(len(rows), len(found))}",
        ),
    )


def _label_row(name: str, found: Scores) -> str:
    shares = [f"<b>{percent(found['f1'])}</b>", percent(found["precision"]), percent(found["recall"])]
    return bar_row(name, found["f1"], share_axis(""), [*shares, f"{found['rows']:,}", percent(found["threshold"])])


# ---- numbers


def _number_tiles(task: Task, metrics: Results, several: bool) -> list[Tile]:
    full, half, when, asked = _of_interest(metrics, several)
    unit = task.to_dict()["unit"]
    unit = f" {unit}" if unit else ""
    tiles = [(task.shown("mae", full["mae"]) + unit, "off on average, with all inputs")]
    if several:
        tiles.append((task.shown("mae", half["mae"]) + unit, f"off on average{when}"))
    if full["r2"] > 0:
        tiles.append((percent(full["r2"]), "of the differences between rows are explained, with all inputs"))
    if "width" in half:  # too few validation rows give intervals without an end
        width = task.shown("width", half["width"]) + unit
        caption = f"of the true values lie in the range{when} {asked}. A range is {width} wide on average"
        tiles.append((percent(half["coverage"]), caption))
    return tiles


def _deviations(results: Results, task: Task) -> str:
    caption = "On the diagonal, errors are as large as the answers’ own deviations say; above it, the model is too sure. A fifth of the answers per dot, over all combinations of inputs, in standard deviations of the training values."
    drawing = charts.legend_of(BEFORE_AFTER) + charts.deviations(*_before_after(results))
    quintiles = _quintile_table(results["residuals"]["rows"]["quintiles"], task)
    more = "With all inputs: each fifth of the rows, from the surest to the least sure, and how many true values lie in the central 90 % of the answer."
    body = f'<div class="two"><div>{drawing}</div><div><p>{more}</p>{quintiles}</div></div>'
    return section("Does it know when it is unsure?", caption, body)


def _quintile_table(quintiles: Sequence[Scores], task: Task) -> str:
    rows = [
        f'<tr><th scope="row">{number}</th><td class="number">{q["rows"]:,}</td><td class="number">{q["deviation"]:.3f}</td><td class="number">{q["rmse"]:.3f}</td>'
        f'<td class="number">{task.shown("mae", q["mae"])}</td><td class="number">{percent(q["coverage"])}</td></tr>'
        for number, q in enumerate(quintiles, start=1)
    ]
    return table(("fifth", "rows", "deviation", "error", task.title("mae"), "in 90 %"), rows)


def _residuals(results: Results, task: Task) -> str:
    points = results["residuals"]["rows"]["points"]
    if not points:
        return ""
    caption = f"With all inputs, {len(points):,} rows: a dot on the diagonal is right. The lines are the central 90 % of an answer."
    return section("Where it goes wrong", caption, f'<div class="square">{charts.scatter(points, task)}</div>')


SECTIONS = {
    "classes": TaskSections(
        "accuracy",
        "How often it is right, by what is sent",
        "The share of right answers.",
        _class_tiles,
        _confidence,
        _wrong_classes,
        "Most confidently wrong",
    ),
    "labels": TaskSections(
        "micro_f1",
        "How well it labels, by what is sent",
        "How well its labels fit: 100 % where every label that is answered is right and none is missing (F1).",
        _label_tiles,
        _label_probabilities,
        _label_table,
        "Most confidently wrong",
    ),
    "number": TaskSections(
        "mae",
        "How far off it is, by what is sent",
        "The error of an answer, on average (mean absolute error): shorter is better.",
        _number_tiles,
        _deviations,
        _residuals,
        "Furthest off for how sure they are",
    ),
}
