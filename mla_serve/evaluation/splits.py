"""Run one split of a data set through a bundle's graphs, and score it under every condition."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from mla_serve.bundle.predictor import GraphOutputs, Predictor
from mla_serve.console import errors
from mla_serve.errors import ConfigError, DataError, InputError, NotFinite
from mla_serve.evaluation import analysis
from mla_serve.evaluation.scores import MISSING_RATES, conditions, evaluate
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.inputs import Array, Payload
from mla_serve.table import Row, Schema, TableOptions, read_payload, read_table
from mla_serve.table.faults import format_place
from mla_serve.table.split_names import split_named

SHOWN_RULES = ("calibrated", "paper", "mean_logit", "undiscounted")
BATCH = 128
DRAWS = 20
COVERAGE = 0.9


@dataclasses.dataclass(frozen=True)
class SplitRun:
    """One split of a data set and what the graphs gave for it; labels are (B,), fingerprint is that of the data."""

    split: str
    rows: Sequence[Row]
    labels: Array
    outputs: GraphOutputs
    fingerprint: str

    def samples(self) -> list[dict[str, Payload]]:
        """Return the payloads of every row."""
        return [{name: read_payload(value) for name, value in row.values.items()} for row in self.rows]


def run_split(predictor: Predictor, data: Path, split: str | None = None, *, quiet: bool = True) -> SplitRun:
    """Run one split of a data set through the graphs. Raises: DataError when the data do not fit the model."""
    known = predictor.bundle.manifest.table
    table = read_table(data, TableOptions(schema=Schema.from_dict(known) if known else None))
    split = (split_named(split) or split) if split else ("test" if "test" in table.splits else "val")
    if split not in table.splits:
        raise ConfigError(f"--split {split}: the data set has {', '.join(table.splits)}")
    return run_rows(predictor, table.splits[split], split, table.fingerprint, quiet=quiet)


def run_rows(
    predictor: Predictor, rows: Sequence[Row], split: str, fingerprint: str, *, quiet: bool = True
) -> SplitRun:
    """Run the rows that have a modality of the model through the graphs. Raises: DataError."""
    rows = [row for row in rows if row.values.keys() & set(predictor.names)]
    if not rows:
        raise DataError(f"--split {split}: no row has any of {', '.join(predictor.names)}; choose another split")
    labels = _labels(rows, predictor.classes)
    return SplitRun(split, rows, labels, _run_graphs(predictor, rows, quiet), fingerprint)


def score_split(
    predictor: Predictor, split_run: SplitRun, draws: int, rules: Sequence[str], coverage: float = COVERAGE
) -> dict[str, Any]:
    """Score a split under every condition, and its prediction sets when the bundle has scores for them.

    Args: draws, see `conditions` in scores.py; coverage, that of the prediction sets.
    Returns: {"split", "rows", "draws", "fingerprint", "conditions": {condition: {rule: {score: value}}}}.
    """
    outputs, bundle, names = split_run.outputs, predictor.bundle, predictor.names

    def choose_sets(log_p: Array, present: Array, rule: str) -> Array:
        return bundle.prediction_sets.choose(log_p, present, names, rule, coverage)

    results = evaluate(
        outputs.logits,
        outputs.present,
        split_run.labels,
        bundle.fusion,
        rules,
        masks_of(split_run.rows, names),
        draws,
        outputs.excess,
        choose_sets if set(rules) <= bundle.prediction_sets.scores.keys() else None,
    )
    facts = {
        "split": split_run.split,
        "rows": len(split_run.rows),
        "draws": draws,
        "fingerprint": split_run.fingerprint,
    }
    return facts | {"asked_coverage": coverage, "conditions": results}


def measure_more(predictor: Predictor, split_run: SplitRun, draws: int, rules: Sequence[str]) -> dict[str, Any]:
    """Measure more than the conditions: a curve over missing rates, leave one out, bootstrap intervals, confusion."""
    outputs, labels, names = split_run.outputs, split_run.labels, predictor.names
    masks = [(name, drawn[0]) for name, drawn in conditions(outputs.present, names, masks_of(split_run.rows, names))]
    log_p = analysis.log_probabilities(predictor, outputs, DEFAULT_RULE, outputs.present)
    return {
        "missing_rates": analysis.missing_curve(predictor, outputs, labels, rules, draws),
        "leave_one_out": analysis.leave_one_out(predictor, outputs, labels, rules),
        "intervals": analysis.intervals(predictor, outputs, labels, rules, dict(masks)),
        "confusion": {"rule": DEFAULT_RULE, "rows": analysis.confusion(log_p, labels)},
    }


def _labels(rows: Sequence[Row], classes: Sequence[str]) -> Array:
    index = {label: c for c, label in enumerate(classes)}
    if unknown := sorted({row.label for row in rows} - set(index)):
        raise DataError(
            f"labels that the model does not know: {', '.join(unknown[:20])}; it knows {', '.join(classes)}"
        )
    return np.array([index[row.label] for row in rows])


def _run_graphs(predictor: Predictor, rows: Sequence[Row], quiet: bool) -> GraphOutputs:
    """Run every row through the graphs, in batches."""
    starts = range(0, len(rows), BATCH)
    batches = track(starts, "measuring", console=errors, transient=True, disable=quiet)
    return analysis.concatenate([_run_batch(predictor, rows[at : at + BATCH]) for at in batches])


def _run_batch(predictor: Predictor, rows: Sequence[Row]) -> GraphOutputs:
    try:
        return predictor.run_graphs([_decode(predictor, row) for row in rows])
    except NotFinite as error:
        raise DataError(f"row {rows[error.rows[0]].id}: {error}") from None


def _decode(predictor: Predictor, row: Row) -> dict[str, Array]:
    try:
        return predictor.decode(
            {name: read_payload(row.values[name]) for name in predictor.names if name in row.values}
        )
    except InputError as error:
        raise DataError(f"{format_place(row.place)}: {error}") from None


def masks_of(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Array]:
    """Collect the masks of the data set, for the missing rates that every row has one for: {rate: (M, B) bool}."""
    rates = [str(rate) for rate in MISSING_RATES if all(str(rate) in row.present for row in rows)]
    return {rate: np.array([[name in row.present[rate] for row in rows] for name in names]) for rate in rates}
