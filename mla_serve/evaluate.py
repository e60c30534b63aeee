"""`python -m mla_serve.evaluate`: measure a bundle on a table, for every subset of modalities and missing rate."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from rich.table import Table as RichTable

from mla_serve.bundle import Bundle
from mla_serve.cli import console, errors, main
from mla_serve.errors import ConfigError, DataError, InputError
from mla_serve.fusion import RULES
from mla_serve.inputs import Array
from mla_serve.predictor import Predictor
from mla_serve.scores import RATES, evaluate
from mla_serve.table import Row, payload, read_table

SHOWN_RULES = ("calibrated", "paper", "mean_logit")
BATCH = 128
DRAWS = 20


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Measure a bundle on a data set: accuracy, NLL and ECE for every subset of modalities and at 20/50/80 % missing."""

    model: Path
    """Folder of the bundle, such as models/digits."""
    data: Path
    """Folder with the tables."""
    split: str = "test"
    """Which rows: train, val or test."""
    draws: int = 0
    """Average missing rates over so many random masks. Default: the rows' own `present` masks, else one draw."""
    fusion: tuple[str, ...] = SHOWN_RULES
    """Fusion rules to compare."""
    json: bool = False
    """Print JSON: {"conditions": {name: {fusion rule: {accuracy, macro_f1, nll, brier, ece}}}}, fractions."""


def evaluate_bundle(
    predictor: Predictor,
    data: Path,
    split: str | None = None,
    draws: int = DRAWS,
    rules: Sequence[str] = SHOWN_RULES,
    *,
    quiet: bool = True,
) -> dict[str, Any]:
    """Measure a bundle on one split of a data set, through its graphs.

    Args: split, default test, or val where there is no test; draws, see `conditions` in scores.py.
    Returns: {"split", "rows", "draws", "fingerprint", "conditions": {condition: {rule: {score: value}}}}.
    Raises: DataError when the data do not fit the model.
    """
    table = read_table(data)
    split = split or ("test" if "test" in table.splits else "val")
    if split not in table.splits:
        raise ConfigError(f"--split {split}: the data set has {', '.join(table.splits)}")
    rows = [row for row in table.splits[split] if row.values.keys() & set(predictor.names)]
    labels = _labels(rows, predictor.classes)
    logits, present = _opinions(predictor, rows, quiet)
    masks = _masks(rows, predictor.names)
    results = evaluate(logits, present, labels, predictor.bundle.fusion, rules, masks, draws)
    facts = {"split": split, "rows": len(rows), "draws": draws, "fingerprint": table.fingerprint}
    return facts | {"conditions": results}


def _labels(rows: Sequence[Row], classes: Sequence[str]) -> Array:
    index = {label: c for c, label in enumerate(classes)}
    if unknown := sorted({row.label for row in rows} - set(index)):
        raise DataError(
            f"labels that the model does not know: {', '.join(unknown[:20])}; it knows {', '.join(classes)}"
        )
    return np.array([index[row.label] for row in rows])


def _opinions(predictor: Predictor, rows: Sequence[Row], quiet: bool) -> tuple[Array, Array]:
    """Run every row through the graphs: logits (M, B, C), present (M, B)."""
    starts = range(0, len(rows), BATCH)
    parts = []
    for at in track(starts, "measuring", console=errors, transient=True, disable=quiet):
        parts.append(predictor.logits([_decode(predictor, row) for row in rows[at : at + BATCH]]))
    return np.concatenate([logits for logits, _ in parts], axis=1), np.concatenate(
        [there for _, there in parts], axis=1
    )


def _decode(predictor: Predictor, row: Row) -> dict[str, Array]:
    try:
        return predictor.decode({name: payload(row.values[name]) for name in predictor.names if name in row.values})
    except InputError as error:
        raise DataError(f"row {row.id}: {error}") from None


def _masks(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Array]:
    """Collect the rows' own masks for the rates that every row gives: {rate: (M, B) bool}."""
    rates = [str(rate) for rate in RATES if all(str(rate) in row.present for row in rows)]
    return {rate: np.array([[name in row.present[rate] for row in rows] for name in names]) for rate in rates}


def _print(results: Mapping[str, Any], rules: Sequence[str]) -> None:
    table = RichTable(title=f"{results['rows']} rows of {results['split']}: accuracy, NLL (nats), ECE")
    table.add_column("available")
    for rule in rules:
        table.add_column(rule, justify="right")
    for name, scores in results["conditions"].items():
        cells = [f"{s['accuracy']:.3f}  {s['nll']:.3f}  {s['ece']:.3f}" for s in (scores[rule] for rule in rules)]
        table.add_row(name, *cells)
    console.print(table)


def run(config: EvaluateConfig) -> None:
    """Measure and print."""
    if unknown := [rule for rule in config.fusion if rule not in RULES]:
        raise ConfigError(f"--fusion {unknown[0]}: expected some of {', '.join(RULES)}")
    predictor = Predictor(Bundle.load(config.model))
    quiet = config.json or not errors.is_terminal
    results = evaluate_bundle(predictor, config.data, config.split, config.draws, config.fusion, quiet=quiet)
    if config.json:
        json.dump(results, sys.stdout, indent=1)
        print()
    else:
        _print(results, config.fusion)


if __name__ == "__main__":
    main(run, EvaluateConfig)
