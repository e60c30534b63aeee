"""Render report.html: one file without network access, for light and dark screens and for print."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mla_serve.export import charts
from mla_serve.export.media import payload_as_html
from mla_serve.inputs import Payload
from mla_serve.train.notes import DATA

STYLE = Path(__file__).with_name("report.css")
MAX_CLASSES = 30  # in the confusion matrix
SHOWN_GROUPS = 20
COLUMNS = ("accuracy", "macro_f1", "nll", "brier", "ece", "coverage", "set_size")
Case = tuple[Mapping[str, Any], Mapping[str, Payload]]
Results = Mapping[str, Any]


def render(results: Results, classes: Sequence[str], kinds: Mapping[str, str], shown: Sequence[Case]) -> str:
    """Return the page. Args: shown, the most confidently wrong cases with their payloads; empty if they must not be shown."""
    sections = [
        _head(results, kinds),
        _patterns(results),
        _missing(results),
        _reliability(results),
        _learning(results, kinds),
        _corruptions(results),
        *_importance(results["metrics"].get("importance", {})),
        *_groups(results.get("groups", {})),
        _confusion(results["confusion"]["rows"], classes),
        _wrongest(shown),
        _numbers(results["metrics"]["conditions"]) + _worth(results["leave_one_out"], list(results["missing_rates"])),
        _configuration(results),
    ]
    title = html.escape(results["model"])
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}: report</title><style>{STYLE.read_text(encoding='utf-8')}</style></head><body><main>"
        + "\n".join(sections)
        + "</main></body></html>\n"
    )


def _section(title: str, caption: str, body: str) -> str:
    return f'<section><h2>{html.escape(title)}</h2><p>{caption}</p><div class="wide">{body}</div></section>'


def _head(results: Results, kinds: Mapping[str, str]) -> str:
    metrics = results["metrics"]
    cells = "".join(
        f"<div><b>{value}</b><span>{html.escape(caption)}</span></div>" for value, caption in _tiles(metrics)
    )
    warnings = "".join(f'<p class="warning">{html.escape(n)}</p>' for n in _notes(results) if n.startswith(DATA))
    return (
        f"<header><h1>{html.escape(results['model'])}</h1><p>{metrics['rows']} rows of <em>{metrics['split']}</em>, "
        f"any of {html.escape(', '.join(kinds))}; measured through the exported graphs.</p>{warnings}"
        f'<div class="tiles">{cells}</div></header>'
    )


def _notes(results: Results) -> list[str]:
    """Return the notes of training, and those of later extensions."""
    training = results["training"]
    return [note for step in (training, *training.get("extended", [])) for note in step.get("notes", [])]


def _tiles(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the most important figures, each with its meaning."""
    full, half = (metrics["conditions"][name]["calibrated"] for name in ("full", "missing50"))
    tiles = [
        (f"{full['accuracy']:.1%}", "accuracy with all modalities"),
        (f"{half['accuracy']:.1%}", "accuracy with half of them missing"),
        (f"{full['ece']:.1%} / {half['ece']:.1%}", "calibration error, all / half missing"),
    ]
    if "set_size" in half:
        caption = f"in a {metrics['asked_coverage']:.0%} prediction set, half missing; it contains the true one in {half['coverage']:.0%}"
        tiles.append((f"{half['set_size']:.2f} labels", caption))
    return tiles


def _patterns(results: Results) -> str:
    caption = "Accuracy for each set of modalities. Line: 95% of bootstrap resamples; mark: the paper’s rule."
    drawing = charts.pattern_bars(results["metrics"]["conditions"], results["intervals"])
    return _section("Accuracy by set of modalities", caption, drawing)


def _missing(results: Results) -> str:
    caption = "Each modality is dropped independently, but one at least is kept. Mean over random masks."
    return _section("When modalities go missing", caption, charts.missing_curves(results["missing_rates"]))


def _reliability(results: Results) -> str:
    caption = "Over all sets of modalities. On the diagonal, answers given with 80% are right in 80% of cases. The area of a dot shows how many answers it stands for."
    before, after = results["reliability"]["paper"], results["reliability"]["calibrated"]
    marks = ("Before: the paper’s rule", "After: calibrated")
    return _section("Reliability of the probabilities", caption, charts.reliability(before, after, marks))


def _learning(results: Results, kinds: Mapping[str, str]) -> str:
    if not results["epochs"]:
        return ""
    caption = "Validation accuracy of each modality alone (dotted: all together). Below: the part of the head’s step that is kept after the projection that protects the other modalities."
    names = [name for name in kinds if any(name in record["val"] for record in results["epochs"])]
    return _section("Learning curves", caption, charts.learning_curves(results["epochs"], names))


def _corruptions(results: Results) -> str:
    if not results["corruptions"]:
        return ""
    caption = f"Accuracy over {results['corruption_rows']} rows, with one modality corrupted from severity 0 (not at all) to 5. A good fusion stays above the dashed line, its accuracy without that modality."
    drawing = charts.corruption_curves(results["corruptions"], results["corruption_baseline"])
    return _section("When one modality is corrupted", caption, drawing)


def _importance(importance: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Return a section for each modality with columns."""
    caption = "How much log-probability the true class loses when the cells of a column are shuffled among the rows. Columns that say the same share their worth."
    head = "<tr><th></th><th>alone</th><th>with all modalities</th></tr>"
    sections = []
    for name, columns in importance.items():
        most = max((abs(loss) for losses in columns.values() for loss in losses.values()), default=0.0)
        rows = "".join(
            f'<tr><th scope="row">{html.escape(column)}</th>{_loss(losses["alone"], most)}{_loss(losses["fused"], most)}</tr>'
            for column, losses in columns.items()
        )
        table = f'<table class="importance">{head}{rows}</table>'
        sections.append(_section(f"Which columns of {name} mattered", caption, table))
    return sections


def _loss(loss: float, most: float) -> str:
    return f'<td style="--share:{100 * max(loss, 0) / (most or 1):.0f}%">{loss:+.3f}</td>'


def _groups(groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a section for each modality with groups, such as speakers: the lowest accuracies first."""
    caption = "With all modalities of a row, by group of its rows, the lowest accuracy first. Groups of few rows vary by chance."
    head = "<tr><th></th><th>accuracy</th><th>rows</th></tr>"
    sections = []
    for name, found in groups.items():
        accuracy = sorted(found["accuracy"].items(), key=lambda item: item[1])[:SHOWN_GROUPS]
        rows = "".join(
            f'<tr><th scope="row">{html.escape(group)}</th><td>{value:.3f}</td><td>{found["rows"][group]}</td></tr>'
            for group, value in accuracy
        )
        sections.append(_section(f"Accuracy by group of {name}", caption, f"<table>{head}{rows}</table>"))
    return sections


def _confusion(rows: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    if len(classes) > MAX_CLASSES:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in classes)
    body = ""
    for name, row in zip(classes, rows, strict=True):
        cells = "".join(_shade(count, sum(row)) for count in row)
        body += f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>'
    table = f'<table class="confusion"><tr><th></th>{head}</tr>{body}</table>'
    return _section("Confusion matrix", "Rows: true class; columns: answer. With all modalities of a row.", table)


def _shade(count: int, total: int) -> str:
    share = round(100 * count / max(total, 1))
    return f'<td style="--share:{share}%"{" class=dark" if share > 55 else ""}>{count or ""}</td>'


def _wrongest(shown: Sequence[Case]) -> str:
    if not shown:
        return ""
    caption = "With all modalities of a row; if there are few such answers, also with one modality alone."
    cards = "".join(_card(case, sample) for case, sample in shown)
    return _section("Most confidently wrong", caption, f'<div class="cards">{cards}</div>')


def _card(case: Mapping[str, Any], sample: Mapping[str, Payload]) -> str:
    outputs = "".join(payload_as_html(name, sample[name]) for name in case["outputs"])
    return (
        f"<figure>{outputs}<figcaption><b>{html.escape(case['answer'])}</b> was answered with {case['probability']:.0%}; the truth is "
        f"<b>{html.escape(case['label'])}</b>. <small>{html.escape(case['place'])}, from {html.escape(', '.join(case['outputs']))}</small></figcaption></figure>"
    )


def _numbers(conditions: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    keys = [key for key in COLUMNS if key in conditions["full"]["calibrated"]]
    head = "".join(f"<th>{key.replace('_', ' ')}</th>" for key in keys)
    body = ""
    for condition, rules in conditions.items():
        for rule, scores in rules.items():
            cells = "".join(f"<td>{scores[key]:.3f}</td>" for key in keys)
            body += f'<tr><th scope="row">{html.escape(condition)}</th><th scope="row">{rule}</th>{cells}</tr>'
    table = f"<table><tr><th></th><th></th>{head}</tr>{body}</table>"
    return _section("All numbers", "Also in report.json, with intervals.", table)


def _worth(leave_one_out: Mapping[str, Mapping[str, Mapping[str, float]]], rules: Sequence[str]) -> str:
    if not leave_one_out:
        return ""
    head = "".join(f"<th>{rule}</th>" for rule in rules)
    body = ""
    for name, scores in leave_one_out.items():
        cells = "".join(f"<td>{one['lost']:+.3f}</td>" for one in scores.values())
        body += f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>'
    table = f"<table><tr><th></th>{head}</tr>{body}</table>"
    return _section("What each modality is worth", "Accuracy that is lost when it is left out.", table)


def _configuration(results: Results) -> str:
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in _notes(results))
    text = json.dumps({"training": results["training"], "fusion": results["fusion"]}, indent=1, ensure_ascii=False)
    return f"<section><h2>Training</h2><ul>{notes}</ul><details><summary>Full configuration</summary><pre>{html.escape(text)}</pre></details></section>"
