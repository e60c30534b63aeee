"""Write report.json and report.html: in which situations the model is strong, and in which it is weak."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mla_serve.bundle.manifest import Manifest
from mla_serve.bundle.predictor import Predictor
from mla_serve.evaluation import analysis
from mla_serve.evaluation.details import DETAILS
from mla_serve.evaluation.importance import Importance, column_importance
from mla_serve.evaluation.scores import patterns
from mla_serve.evaluation.splits import DRAWS, SHOWN_RULES, SplitRun, measure_more
from mla_serve.export.page import render
from mla_serve.fusion.formula import Array
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.inputs import ColumnsInput
from mla_serve.progress import Progress
from mla_serve.table.faults import format_place
from mla_serve.tasks import Task

WRONGEST = 10
MOST_WRONG = 1000  # that are described, because rows with the same values are shown once
SPOILED_ROWS, SPOILED_ROWS_LARGE = 200, 100  # the second where the encoders are large
IMPORTANCE_ROWS = 1000
LARGE = 20_000_000  # bytes of all encoders; each row takes about a second of a core then
SEVERITIES = (1, 3, 5)
POOLED = 8  # patterns in the reliability diagram


def write_report(
    folder: Path,
    results: Mapping[str, Any],
    predictor: Predictor,
    split_run: SplitRun,
    manifest: Manifest,
    epochs: Sequence[dict[str, Any]],
    *,
    samples: bool,
) -> None:
    """Write report.json and report.html into a bundle.

    Args: results, of `gather`; manifest, with the metrics; epochs, the records of training; samples, whether rows of the data may be shown.
    """
    results = {
        **(results if samples else _without_values(results, predictor.task)),
        "model": manifest.name,
        "created": manifest.created,
        "about": manifest.about.model_dump(),
        "metrics": manifest.metrics,
        "training": manifest.training,
        "epochs": list(epochs),
        "fusion": manifest.fusion.model_dump(),
    }
    content = json.dumps(results, ensure_ascii=False, indent=1, allow_nan=False)
    (folder / "report.json").write_text(content + "\n", encoding="utf-8")
    payloads = split_run.samples()
    shown = [(case, payloads[case["row"]]) for case in results["wrongest"]]
    kinds = {name: modality.kind for name, modality in manifest.modalities.items()}
    (folder / "report.html").write_text(render(results, predictor.task, kinds, shown), encoding="utf-8")


def _without_values(results: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """Leave out what quotes the table: cases, the names of groups, true values."""
    groups = {name: _without_names(found, task) for name, found in results["groups"].items()}
    kept = {**results, "wrongest": [], "groups": groups}
    if "residuals" in kept:
        kept["residuals"] = {**kept["residuals"], "rows": {**kept["residuals"]["rows"], "points": []}}
    return kept


def _without_names(found: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """Call groups, whose names are cells of the table, group 1, group 2, ...: the worst score first."""
    order = analysis.worst_first(task, found[task.row_score])
    numbers = {group: f"group {number}" for number, group in enumerate(order, start=1)}
    named = {key: {numbers[group]: found[key][group] for group in order} for key in (task.row_score, "rows")}
    return named | ({"worst": numbers[found["worst"]]} if "worst" in found else {})


def measure_importance(predictor: Predictor, split_run: SplitRun) -> Importance:
    """Measure what each column is worth on some rows of the split; empty for a model without columns."""
    if not any(isinstance(spec, ColumnsInput) for spec in predictor.bundle.inputs.values()):
        return {}
    chosen = _choose_rows(split_run, IMPORTANCE_ROWS)
    samples = split_run.samples()
    picked, part = samples.take(chosen), analysis.take(split_run.outputs, chosen)
    return column_importance(predictor, picked, part, split_run.targets[chosen])


def _choose_rows(split_run: SplitRun, most: int) -> Array:
    return np.sort(np.random.default_rng(0).permutation(len(split_run.targets))[:most])


def gather(predictor: Predictor, split_run: SplitRun) -> dict[str, Any]:
    """Measure what the report shows in addition to the manifest's metrics."""
    outputs, labels = split_run.outputs, split_run.targets
    rows = SPOILED_ROWS_LARGE if _encoder_bytes(predictor) > LARGE else SPOILED_ROWS
    chosen = _choose_rows(split_run, rows)
    samples = split_run.samples()
    part, picked = analysis.take(outputs, chosen), samples.take(chosen)
    inputs = predictor.bundle.inputs.values()
    with Progress("measuring with corruptions", len(SEVERITIES) * sum(len(spec.corruptions) for spec in inputs)) as bar:
        corrupted = analysis.corruption_curves(
            predictor, picked, part, labels[chosen], SHOWN_RULES, SEVERITIES, lambda: bar.advance(1)
        )
    return measure_more(predictor, split_run, DRAWS, SHOWN_RULES) | {
        "reliability": {rule: _reliability(predictor, split_run, rule) for rule in ("paper", DEFAULT_RULE)},
        "corruptions": corrupted,
        "corruption_baseline": analysis.leave_one_out(predictor, part, labels[chosen], SHOWN_RULES),
        "corruption_rows": len(chosen),
        "wrongest": _wrongest(predictor, split_run),
    }


def _encoder_bytes(predictor: Predictor) -> int:
    bundle = predictor.bundle
    return sum((bundle.folder / modality.encoder).stat().st_size for modality in bundle.manifest.modalities.values())


def _reliability(predictor: Predictor, split_run: SplitRun, rule: str) -> list[dict[str, float]]:
    """Return the reliability diagram over the answers to all availability patterns, or a sample of many."""
    answers, targets = [], []
    for pattern in patterns(len(predictor.names))[:: max(1, len(patterns(len(predictor.names))) // POOLED)]:
        mask = pattern[:, None] & split_run.outputs.present[pattern].all(axis=0)
        there = np.flatnonzero(mask.any(axis=0))
        if len(there):
            answers.append(
                analysis.fused_answers(predictor, analysis.take(split_run.outputs, there), rule, mask[:, there])
            )
            targets.append(split_run.targets[there])
    reliability = DETAILS[predictor.task.name].reliability
    return reliability(predictor.task, np.concatenate(answers), np.concatenate(targets))


def _wrongest(predictor: Predictor, split_run: SplitRun) -> list[dict[str, Any]]:
    """Find the most confident wrong answers: with all modalities of a row, then with one alone if there are too few.

    Rows with the same values count as one mistake.
    """
    outputs = split_run.outputs
    together = _wrong(predictor, split_run, outputs.present)
    alone = [
        one for m in range(len(outputs.present)) for one in _wrong(predictor, split_run, _only(outputs.present, m))
    ]
    found: dict[str, dict[str, Any]] = {}
    for case in [*together, *sorted(alone, key=lambda case: -case["surprise"])]:
        values = split_run.rows[case["row"]].values
        found.setdefault(str([(name, values[name]) for name in case["outputs"]]), case)
    return list(found.values())[:WRONGEST]


def _only(present: Array, m: int) -> Array:
    mask = np.zeros_like(present)
    mask[m] = present[m]
    return mask


def _wrong(predictor: Predictor, split_run: SplitRun, mask: Array) -> list[dict[str, Any]]:
    """Describe the wrong answers, or those that are far off, the most surprising first."""
    some = np.flatnonzero(mask.any(axis=0))
    if not len(some):
        return []
    answers = analysis.fused_answers(predictor, analysis.take(split_run.outputs, some), DEFAULT_RULE, mask[:, some])
    task, targets, details = predictor.task, split_run.targets[some], DETAILS[predictor.task.name]
    surprise = details.surprise(task, answers, targets)
    found = []
    for b in np.argsort(-surprise, kind="stable")[: int((surprise > 0).sum())][:MOST_WRONG]:
        row, wrong = split_run.rows[some[b]], details.describe(task, answers[b], targets[b])
        found.append(
            {
                "row": int(some[b]),
                "id": row.id,
                "place": format_place(row.place),
                "label": wrong.truth,
                "answer": wrong.answer,
                "how": wrong.how,
                "surprise": float(surprise[b]),
                "outputs": [name for name, there in zip(predictor.names, mask[:, some[b]], strict=True) if there],
            }
        )
    return found
