"""The end of the report: the rules compared, and every number. What would be the same row is one."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from mla_serve.export import charts
from mla_serve.export.sections import box, section
from mla_serve.export.wording import MEANINGS, SHARES, joined, points_text, score_cell
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.tasks import Task

Scores = Mapping[str, float]
Conditions = Mapping[str, Mapping[str, Scores]]
Cells = tuple[str, ...]


def rules_compared(curves: Mapping[str, Mapping[str, Scores]], score: str, task: Task) -> str:
    """Draw the score and the NLL of every rule against the share of inputs that is missing."""
    caption = f"A rule makes one answer of the inputs’ own; <em>{DEFAULT_RULE}</em> is what a request gets that names none. Rules that are nearly equal everywhere are one line."
    drawings = "".join(
        f"<div>{charts.missing_curves(curves, key, task)}<p>{_same(charts.same_curves(curves, key))}</p></div>"
        for key in (score, "nll")
    )
    return section("The rules compared", caption, f'<div class="two rules">{drawings}</div>', "experts")


def _same(groups: Sequence[Sequence[str]]) -> str:
    """Say which rules are one line; "" where none are."""
    return " ".join(f"{html.escape(joined(group))}: the same." for group in groups if len(group) > 1)


def all_numbers(conditions: Conditions, leave_one_out: Conditions, task: Task) -> str:
    """Return the section with every condition and rule, folded."""
    keys = [key for key in _keys(conditions) if key != "pooled" or any(_values(conditions, key))]
    words = "".join(
        f"<dt>{html.escape(task.title(key))}</dt><dd>{html.escape(MEANINGS[key])}</dd>"
        for key in keys
        if key in MEANINGS
    )
    tables = conditions_table(conditions, keys, task) + _lost_table(leave_one_out, task)
    caption = "What has the same numbers is one row. Also in report.json, with the ranges of every rule."
    body = f'<dl class="meanings">{words}</dl>{tables}'
    return section(
        "All numbers",
        caption,
        f"<details><summary>Every combination of inputs and every rule</summary>{body}</details>",
        "experts",
    )


def _keys(conditions: Conditions) -> list[str]:
    return list(dict.fromkeys(key for rules in conditions.values() for scores in rules.values() for key in scores))


def _values(conditions: Conditions, key: str) -> list[float]:
    return [scores[key] for rules in conditions.values() for scores in rules.values() if key in scores]


def conditions_table(conditions: Conditions, keys: Sequence[str], task: Task) -> str:
    """Return a row for each condition and rule; conditions, and rules within one, with the same cells share it."""
    blocks: dict[tuple[tuple[str, Cells], ...], list[str]] = {}
    for condition, rules in conditions.items():
        cells = {rule: tuple(score_cell(task, key, scores) for key in keys) for rule, scores in rules.items()}
        blocks.setdefault(same_rows(cells), []).append(condition)
    rows = "".join(
        _row([", ".join(names) if first == 0 else "", rules], cells)
        for block, names in blocks.items()
        for first, (rules, cells) in enumerate(block)
    )
    return _table(("inputs", "rule", *(task.title(key) for key in keys)), rows)


def same_rows(cells: Mapping[str, Cells]) -> tuple[tuple[str, Cells], ...]:
    """Join the names of those with the same cells: (("calibrated, paper", cells), ...)."""
    names: dict[Cells, list[str]] = {}
    for name, own in cells.items():
        names.setdefault(own, []).append(name)
    return tuple((", ".join(same), own) for own, same in names.items())


def _lost_table(leave_one_out: Conditions, task: Task) -> str:
    if not leave_one_out:
        return ""
    rules = list(dict.fromkeys(rule for by_rule in leave_one_out.values() for rule in by_rule))
    score = task.main_scores[0]
    write = points_text if score in SHARES else "{:+.3f}".format
    columns = same_rows({rule: tuple(write(own[rule]["lost"]) for own in leave_one_out.values()) for rule in rules})
    rows = "".join(_row([name], tuple(cells[at] for _, cells in columns)) for at, name in enumerate(leave_one_out))
    lost = f"<h3>{html.escape(task.title(score))} that is lost without an input{', in points' if score in SHARES else ''}</h3>"
    return lost + _table(("input", *(names for names, _ in columns)), rows)


def _row(names: Sequence[str], cells: Cells) -> str:
    heads = "".join(f'<th scope="row">{html.escape(name)}</th>' if name else "<td></td>" for name in names)
    return f"<tr>{heads}{''.join(f'<td class=number>{cell}</td>' for cell in cells)}</tr>"


def _table(head: Sequence[str], rows: str) -> str:
    cells = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in head)
    return box(f'<table class="numbers"><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table>')
