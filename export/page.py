"""Render report.html: one file without network access, for light and dark screens and for print."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mla_serve.evaluation.analysis import worst_first
from mla_serve.export import charts
from mla_serve.export.media import payload_as_html
from mla_serve.export.sections import SECTIONS, section
from mla_serve.inputs import Payload
from mla_serve.tasks import Task
from mla_serve.train.notes import DATA

COVERAGE = 0.9  # that bundles of older versions were measured with
NUMBERS = "Also in report.json, with intervals."
POOLED = " Pooled: the share of prediction sets or intervals that rest on validation rows with other modalities."
STYLE = Path(__file__).with_name("report.css")
SHOWN_GROUPS = 20
Case = tuple[Mapping[str, Any], Mapping[str, Payload]]
Results = Mapping[str, Any]


def render(results: Results, task: Task, kinds: Mapping[str, str], shown: Sequence[Case]) -> str:
    """Return the page. Args: shown, the most confidently wrong cases with their payloads; empty if they must not be shown."""
    own = SECTIONS[task.name]
    sections = [
        _head(results, task, kinds),
        _patterns(results, task),
        _missing(results, task),
        own.reliability(results, task),
        _learning(results, task, kinds),
        _corruptions(results, task),
        *_importance(results["metrics"].get("importance", {})),
        *_groups(results.get("groups", {}), task),
        own.table(results, task),
        _wrongest(shown, own.wrongest),
        _numbers(results["metrics"]["conditions"], task)
        + _worth(results["leave_one_out"], list(results["missing_rates"]), task),
        _configuration(results),
    ]
    title = html.escape(results["model"])
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}: report</title><style>{STYLE.read_text(encoding='utf-8')}</style></head><body><main>"
        + "\n".join(sections)
        + "</main></body></html>\n"
    )


def _head(results: Results, task: Task, kinds: Mapping[str, str]) -> str:
    metrics = results["metrics"]
    cells = "".join(
        f"<div><b>{value}</b><span>{html.escape(caption)}</span></div>" for value, caption in _tiles(metrics, task)
    )
    warnings = "".join(f'<p class="warning">{html.escape(n)}</p>' for n in _notes(results) if n.startswith(DATA))
    return (
        f"<header><h1>{html.escape(results['model'])}</h1><p>{metrics['rows']} rows of <em>{metrics['split']}</em>, "
        f"any of {html.escape(', '.join(kinds))} &rarr; {html.escape(task.describe())}; measured through the exported graphs.</p>{warnings}"
        f'<div class="tiles">{cells}</div></header>'
    )


def _notes(results: Results) -> list[str]:
    """Return the notes of training, and those of later extensions."""
    training = results["training"]
    return [note for step in (training, *training.get("extended", [])) for note in step.get("notes", [])]


def _tiles(metrics: Mapping[str, Any], task: Task) -> list[tuple[str, str]]:
    """Return the most important figures, each with its meaning."""
    full, half = (metrics["conditions"][name]["calibrated"] for name in ("full", "missing50"))
    main = task.main_scores[0]
    tiles = [
        (charts.score_text(main, full[main]), f"{task.title(main)} with all modalities"),
        (charts.score_text(main, half[main]), f"{task.title(main)} with half of them missing"),
    ]
    return tiles + SECTIONS[task.name].tiles(task, full, half, metrics.get("asked_coverage", COVERAGE))


def _patterns(results: Results, task: Task) -> str:
    title = _first_upper(task.title(task.main_scores[0]))
    caption = f"{title} for each set of modalities. Line: 95% of bootstrap resamples; mark: the paper’s rule."
    drawing = charts.pattern_bars(results["metrics"]["conditions"], results["intervals"], task)
    return section(f"{title} by set of modalities", caption, drawing)


def _first_upper(text: str) -> str:
    """Begin a text with a capital letter, but leave a name such as mAP."""
    return text if any(letter.isupper() for letter in text) else text.capitalize()


def _missing(results: Results, task: Task) -> str:
    caption = "Each modality is dropped independently, but one at least is kept. Mean over random masks."
    return section("When modalities go missing", caption, charts.missing_curves(results["missing_rates"], task))


def _learning(results: Results, task: Task, kinds: Mapping[str, str]) -> str:
    if not results["epochs"]:
        return ""
    caption = f"Validation {task.title(task.main_scores[0])} of each modality alone (dotted: all together). Below: the part of the head’s step that is kept after the projection that protects the other modalities."
    names = [name for name in kinds if any(name in record["val"] for record in results["epochs"])]
    return section("Learning curves", caption, charts.learning_curves(results["epochs"], names, task))


def _corruptions(results: Results, task: Task) -> str:
    if not results["corruptions"]:
        return ""
    title = task.title(task.main_scores[0])
    caption = f"{_first_upper(title)} over {results['corruption_rows']} rows, with one modality corrupted from severity 0 (not at all) to 5. A good fusion stays above the dashed line, its {title} without that modality."
    drawing = charts.corruption_curves(results["corruptions"], results["corruption_baseline"], task)
    return section("When one modality is corrupted", caption, drawing)


def _importance(importance: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Return a section for each modality with columns."""
    caption = "How much log-probability the truth loses when the cells of a column are shuffled among the rows. Columns that say the same share their worth."
    head = "<tr><th></th><th>alone</th><th>with all modalities</th></tr>"
    sections = []
    for name, columns in importance.items():
        most = max((abs(loss) for losses in columns.values() for loss in losses.values()), default=0.0)
        rows = "".join(
            f'<tr><th scope="row">{html.escape(column)}</th>{_loss(losses["alone"], most)}{_loss(losses["fused"], most)}</tr>'
            for column, losses in columns.items()
        )
        table = f'<table class="importance">{head}{rows}</table>'
        sections.append(section(f"Which columns of {name} mattered", caption, table))
    return sections


def _loss(loss: float, most: float) -> str:
    return f'<td style="--share:{100 * max(loss, 0) / (most or 1):.0f}%">{loss:+.3f}</td>'


def _groups(groups: Mapping[str, Mapping[str, Any]], task: Task) -> list[str]:
    """Return a section for each modality with groups, such as speakers: the worst scores first."""
    score, title = task.row_score, task.title(task.row_score)
    caption = "With all modalities of a row, by group of its rows, the worst first. Groups of few rows vary by chance."
    head = f"<tr><th></th><th>{html.escape(title)}</th><th>rows</th></tr>"
    sections = []
    for name, found in groups.items():
        rows = "".join(
            f'<tr><th scope="row">{html.escape(group)}</th><td>{task.shown(score, found[score][group])}</td><td>{found["rows"][group]}</td></tr>'
            for group in worst_first(task, found[score])[:SHOWN_GROUPS]
        )
        sections.append(section(f"{_first_upper(title)} by group of {name}", caption, f"<table>{head}{rows}</table>"))
    return sections


def _wrongest(shown: Sequence[Case], title: str) -> str:
    if not shown:
        return ""
    caption = "With all modalities of a row; if there are few such answers, also with one modality alone."
    cards = "".join(_card(case, sample) for case, sample in shown)
    return section(title, caption, f'<div class="cards">{cards}</div>')


def _card(case: Mapping[str, Any], sample: Mapping[str, Payload]) -> str:
    outputs = "".join(payload_as_html(name, sample[name]) for name in case["outputs"])
    return (
        f"<figure>{outputs}<figcaption><b>{html.escape(case['answer'])}</b> {html.escape(case['how'])}; the truth is "
        f"<b>{html.escape(case['label'])}</b>. <small>{html.escape(case['place'])}, from {html.escape(', '.join(case['outputs']))}</small></figcaption></figure>"
    )


def _numbers(conditions: Mapping[str, Mapping[str, Mapping[str, float]]], task: Task) -> str:
    keys = list(dict.fromkeys(key for rules in conditions.values() for scores in rules.values() for key in scores))
    head = "".join(f"<th>{html.escape(task.title(key))}</th>" for key in keys)
    body = ""
    for condition, rules in conditions.items():
        for rule, scores in rules.items():
            cells = "".join(f"<td>{task.cell(key, scores)}</td>" for key in keys)
            body += f'<tr><th scope="row">{html.escape(condition)}</th><th scope="row">{rule}</th>{cells}</tr>'
    table = f"<table><tr><th></th><th></th>{head}</tr>{body}</table>"
    return section("All numbers", NUMBERS + (POOLED if "pooled" in keys else ""), table)


def _worth(leave_one_out: Mapping[str, Mapping[str, Mapping[str, float]]], rules: Sequence[str], task: Task) -> str:
    if not leave_one_out:
        return ""
    head = "".join(f"<th>{rule}</th>" for rule in rules)
    body = ""
    for name, scores in leave_one_out.items():
        cells = "".join(f"<td>{one['lost']:+.3f}</td>" for one in scores.values())
        body += f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>'
    table = f"<table><tr><th></th>{head}</tr>{body}</table>"
    return section(
        "What each modality is worth",
        f"{_first_upper(task.title(task.main_scores[0]))} that is lost when it is left out.",
        table,
    )


def _configuration(results: Results) -> str:
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in _notes(results))
    text = json.dumps({"training": results["training"], "fusion": results["fusion"]}, indent=1, ensure_ascii=False)
    return f"<section><h2>Training</h2><ul>{notes}</ul><details><summary>Full configuration</summary><pre>{html.escape(text)}</pre></details></section>"
