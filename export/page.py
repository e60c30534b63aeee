"""Render report.html: one file without network access or scripts, for light and dark screens, phones, and print.

First what the model is for and what not, then how good it is, then where it is bad, and last what experts look up.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mla_serve import palette
from mla_serve.bundle.markdown import line_to_html
from mla_serve.evaluation.analysis import MIN_GROUP, worst_first
from mla_serve.evaluation.share_interval import exact_interval
from mla_serve.export import charts
from mla_serve.export.combinations import by_what_is_sent, rows_of_sets, score_axis
from mla_serve.export.media import payload_as_html
from mla_serve.export.numbers import all_numbers, rules_compared
from mla_serve.export.plot import axis_from_zero
from mla_serve.export.sections import FIRST, MOST, SECTIONS, bar_row, bar_table, listed_of, section
from mla_serve.export.wording import date_text, joined, likely_text, markdown, points_text, score_text, share_of_rows
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.inputs import Payload
from mla_serve.tasks import Task
from mla_serve.tasks.base import LOWER_IS_BETTER
from mla_serve.train.notes import DATA

MOST_NAMED = 12  # classes or labels
STYLE = Path(__file__).with_name("report.css")
ROWS = {
    "test": "{0:,} test rows, which it did not learn from",
    "val": "{0:,} validation rows, which its settings were chosen by; expect less of new rows",
    "held_out": "{0:,} rows that were held out of training, and which its settings were chosen by; expect less of new rows",
    "fitted": "{0:,} rows that its fusion was fitted to; expect less of new rows",
}
ELSEWHERE = "All figures hold for inputs from where these rows come from; expect less of others."
Case = tuple[Mapping[str, Any], Mapping[str, Payload]]
Results = Mapping[str, Any]


def render(results: Results, task: Task, kinds: Mapping[str, str], shown: Sequence[Case]) -> str:
    """Return the page. Args: kinds, of the modalities, in the model's order; shown, the most confidently wrong cases with
    their payloads; empty if they must not be shown.
    """
    own, names = SECTIONS[task.name], list(kinds)
    sections = [
        _head(results, task, names),
        _tiles(results["metrics"], task, results["intervals"], names),
        _sent(results, task, names),
        own.wrong(results, task),
        _groups(results.get("groups", {}), task),
        _wrongest(shown, own.wrongest),
        _missing(results, task) if len(names) > 1 else "",
        _corruptions(results, task, names),
        own.believe(results, task),
        *_importance(results["metrics"].get("importance", {})),
        _made_from(results),
        _training(results, task, names),
        rules_compared(results["missing_rates"], own.score, task),
        all_numbers(results["metrics"]["conditions"], results["leave_one_out"], task),
    ]
    title = html.escape(results["model"])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}: report</title><style>{palette.style()}{STYLE.read_text(encoding='utf-8')}</style></head><body><main>"
        + "\n".join(section for section in sections if section).replace(" %", "&nbsp;%")
        + "</main></body></html>\n"
    )


# ---- what it is for, and how good it is


def _head(results: Results, task: Task, names: Sequence[str]) -> str:
    about, metrics = results["about"], results["metrics"]
    answers = f"From any of {html.escape(joined(names))} it answers with {html.escape(_described(task))}."
    of_split = next((key for key in ("fitted", "held_out") if metrics.get(key)), metrics["split"])
    rows = ROWS.get(of_split, "{0:,} rows of another split").format(metrics["rows"])
    again = results["training"].get("recalibrated")
    made = f"{date_text(again['trained'])}, fitted again on " if again else ""
    measured = f"Made on {made}{date_text(results['created'])}. Measured on {rows}."
    warnings = "".join(
        f'<p class="warning">{html.escape(note)}</p>' for note in _notes(results) if note.startswith(DATA)
    )
    return (
        f'<header><h1>{html.escape(results["model"])}</h1><div class="purpose">{markdown(about["purpose"])}</div>'
        f"<p>{answers} {measured}</p></header>{_limits(about['limits'])}{warnings}"
    )


def _described(task: Task) -> str:
    """Say what it answers with: "one of 3 classes: red, green, blue"."""
    named = f": {', '.join(task.names)}" if 0 < len(task.names) <= MOST_NAMED else ""
    return f"{'one of ' if task.exclusive else ''}{task.describe()}{named}"


def _limits(limits: Sequence[str]) -> str:
    listed = "".join(f"<li>{line_to_html(limit)}</li>" for limit in limits)
    body = f"<ul>{listed}</ul>" if limits else "<p>Whoever trained it named nothing.</p>"
    return f'<section class="limits"><h2>Do not use it for</h2>{body}<p class="muted">{ELSEWHERE}</p></section>'


def _notes(results: Results) -> list[str]:
    """Return the notes of training, and those of later extensions and fits, in the order in which they were made."""
    training = results["training"]
    steps = [training]
    for step in training.get("extended", []):
        steps += [step.get("recalibrated", {}), step]
    return [note for step in (*steps, training.get("recalibrated", {})) for note in step.get("notes", [])]


def _tiles(metrics: Results, task: Task, intervals: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the most important figures, each with its meaning."""
    own = SECTIONS[task.name]
    (value, caption), *others = own.tiles(task, metrics, len(names) > 1)
    if ends := intervals.get("full", {}).get(DEFAULT_RULE, {}).get(own.score):
        value_of = metrics["conditions"]["full"][DEFAULT_RULE][own.score]
        likely = likely_text(task, own.score, value_of, ends)
        caption += f" (likely {likely})" if likely else ""
    cells = "".join(
        f"<div><b>{html.escape(value)}</b><span>{html.escape(caption)}</span></div>"
        for value, caption in ((value, caption), *others)
    )
    return f'<div class="tiles">{cells}</div>'


def _sent(results: Results, task: Task, names: Sequence[str]) -> str:
    own = SECTIONS[task.name]
    counted = rows_of_sets(results["metrics"], names)
    same = f"{next(iter(counted.values())):,} rows each. " if len(set(counted.values())) == 1 else ""
    caption = f"{own.explained} {same}Thin line: where it likely lies for other rows like these, 95 % sure."
    return section(own.how_good, caption, by_what_is_sent(results, task, names, own.score))


# ---- where it is bad


def _groups(groups: Mapping[str, Mapping[str, Any]], task: Task) -> str:
    """Return the section of the groups of rows that the data name, such as speakers: the worst first, those of few rows last."""
    parts = "".join(_by_group(name, found, task) for name, found in groups.items())
    caption = "With all inputs, for each group of rows that the data name, such as the rows of one person."
    return section("By group", caption, parts) if parts else ""


def _by_group(name: str, found: Mapping[str, Any], task: Task) -> str:
    score, counts = task.row_score, found["rows"]
    scored = {group: value for group, value in found[score].items() if value is not None}
    if score == "accuracy" and min(scored.values()) == 1:
        return f"<p>Groups of {html.escape(name)}: no answer was wrong in any of the {len(scored):,}.</p>"
    order = worst_first(task, scored)
    enough = [group for group in order if counts[group] >= MIN_GROUP]
    first = [group for group in enough[:FIRST] if score != "accuracy" or scored[group] < 1]
    others = [*enough[len(first) :], *(group for group in order if counts[group] < MIN_GROUP)][:MOST]
    axis = score_axis(task, score, [*scored.values()])
    rows = {
        group: bar_row(group, scored[group], axis, _group_cells(score, scored[group], counts[group], task))
        for group in (*first, *others)
    }
    titles = ("right", "likely") if score == "accuracy" else (task.title(score),)
    head = (f"group of {name}", *titles, "rows")
    left_out = listed_of(len(rows), len(scored))
    more = f"{len(others)} more; those with fewer than {MIN_GROUP} rows, which vary by chance, come last{left_out}"
    return bar_table(head, axis, [rows[group] for group in first], [rows[group] for group in others], more)


def _group_cells(score: str, value: float, rows: int, task: Task) -> list[str]:
    count = f"{rows:,}{' (few)' if rows < MIN_GROUP else ''}"
    if score != "accuracy":
        return [f"<b>{score_text(task, score, value)}</b>", count]
    ends = exact_interval(round(value * rows), rows)
    return [f"<b>{share_of_rows(score, value, rows)}</b>", likely_text(task, score, value, ends), count]


def _wrongest(shown: Sequence[Case], title: str) -> str:
    if not shown:
        return ""
    caption = "With all inputs of a row; if there are few such answers, also with one input alone. Look whether the label in the table is wrong."
    cards = "".join(_card(case, sample) for case, sample in shown)
    return section(title, caption, f'<div class="cards">{cards}</div>')


def _card(case: Mapping[str, Any], sample: Mapping[str, Payload]) -> str:
    outputs = "".join(payload_as_html(name, sample[name]) for name in case["outputs"])
    return (
        f"<figure>{outputs}<figcaption><b>{html.escape(case['answer'])}</b> {html.escape(case['how'])}; the truth is "
        f"<b>{html.escape(case['label'])}</b>. <small>{html.escape(case['place'])}, from {html.escape(', '.join(case['outputs']))}</small></figcaption></figure>"
    )


def _missing(results: Results, task: Task) -> str:
    own = SECTIONS[task.name]
    caption = f"Each input is left out by chance, but one is always kept. {own.explained}"
    curve = {"0": results["metrics"]["conditions"]["full"][DEFAULT_RULE]} | results["missing_rates"][DEFAULT_RULE]
    drawing = f"<div>{charts.missing_curves({DEFAULT_RULE: curve}, own.score, task)}</div>"
    worth = _worth(results["leave_one_out"], task)
    return section("When inputs go missing", caption, f'<div class="two">{drawing}{worth}</div>')


def _worth(leave_one_out: Mapping[str, Mapping[str, Mapping[str, float]]], task: Task) -> str:
    """Say what is lost without each input, in the task's main score."""
    if not leave_one_out:
        return ""
    lost = {name: rules[DEFAULT_RULE]["lost"] for name, rules in leave_one_out.items()}
    axis = axis_from_zero("", lost.values())
    share = task.main_scores[0] != "r2"
    rows = [
        bar_row(name, value, axis, [f"<b>{points_text(value)} points</b>" if share else f"<b>{value:+.3f}</b>"])
        for name, value in sorted(lost.items(), key=lambda one: -one[1])
    ]
    title = task.title(task.main_scores[0])
    return f"<div><h3>What each input adds to all others</h3>{bar_table(('input', title), axis, rows)}</div>"


def _corruptions(results: Results, task: Task, names: Sequence[str]) -> str:
    if not results["corruptions"]:
        return ""
    score = SECTIONS[task.name].score
    better = "below" if score in LOWER_IS_BETTER else "above"
    title = html.escape(task.title(score))
    caption = f"The {title} over {results['corruption_rows']:,} rows, with one input spoiled from 0 (not at all) to 5. The line of all together should stay {better} the dashed one: otherwise the spoiled input is better left out. Shown is what harms each input most."
    drawing = charts.corruption_curves(results["corruptions"], results["corruption_baseline"], names, score, task)
    return section("When an input is spoiled", caption, drawing)


def _importance(importance: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Return a section for each modality with columns."""
    caption = "How much log-probability the truth loses when the cells of a column are shuffled among the rows, in nats. Columns that say the same share their worth."
    sections = []
    for name, columns in importance.items():
        axis = axis_from_zero("", [loss for losses in columns.values() for loss in losses.values()])
        rows = [
            bar_row(column, losses["alone"], axis, [f"<b>{losses['alone']:+.3f}</b>", f"{losses['fused']:+.3f}"])
            for column, losses in columns.items()
        ]
        head = ("column", f"{name} alone", "with all inputs")
        listed = bar_table(head, axis, rows[:FIRST], rows[FIRST:], f"{len(rows) - FIRST} more")
        sections.append(section(f"Which columns of {name} mattered", caption, listed))
    return sections


# ---- what it is made from


def _made_from(results: Results) -> str:
    about, training = results["about"], results["training"]
    again = training.get("recalibrated")
    entries = {
        "Data": markdown(about["data"]),
        "Licence": markdown(about["licence"]),
        "Made": f"<p>{_made(again['trained'] if again else results['created'], training)}</p>",
        "Fitted again": f"<p>{_made(results['created'], again)}, to {again['rows']:,} rows. The graphs stayed.</p>"
        if again
        else "",
    }
    listed = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in entries.items() if text)
    return f'<section><h2>Made from</h2><dl class="facts">{listed}</dl></section>'


def _made(date: str, facts: Mapping[str, Any]) -> str:
    """Say when something was made, and by which version."""
    version = facts.get("versions", {}).get("mla_serve")
    return f"{date_text(date)}{f' with mla_serve {html.escape(version)}' if version else ''}"


def _training(results: Results, task: Task, names: Sequence[str]) -> str:
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in _notes(results))
    text = json.dumps({"training": results["training"], "fusion": results["fusion"]}, indent=1, ensure_ascii=False)
    known = [name for name in names if any(name in record["val"] for record in results["epochs"])]
    title = html.escape(task.title(task.main_scores[0]))
    curves = (
        f"<h3>Learning curves</h3><p>{title} on validation rows by epoch. An input that still rises at the end needs more epochs; one that never rose needs another encoder or better data.</p>{charts.learning_curves(results['epochs'], names, task)}"
        if known
        else ""
    )
    folded = f'<details><summary>Every setting</summary><pre tabindex="0">{html.escape(text)}</pre></details>'
    return f'<section><h2>How it was trained</h2><ul class="notes">{notes}</ul>{curves}{folded}</section>'
