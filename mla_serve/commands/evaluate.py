"""`mla-serve evaluate`: measure a bundle on a labelled table, for every subset of modalities and missing rate."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.console import console, errors
from mla_serve.errors import ConfigError
from mla_serve.evaluation import analysis
from mla_serve.evaluation.draw import measured, worst_groups
from mla_serve.evaluation.splits import DRAWS, SHOWN_RULES, measure_more, run_split, score_split
from mla_serve.fusion.rules import rules_for
from mla_serve.table import TableOptions
from mla_serve.table.faults import MOST_SHOWN


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Measure a bundle on a data set: the scores of its task for every subset of modalities and at 20/50/80 % missing."""

    model: Path
    """Folder of the bundle, such as models/digits."""
    data: Path
    """Table, or folder of a data set."""
    label: str | None = None
    """Column of the labels. Default: that of training, or `label`."""
    split: str = "test"
    """Which rows: train, val or test."""
    draws: int = DRAWS
    """Number of random masks that scores at a missing rate are averaged over. 0: the masks of the data set (`present`), or one
    random mask without them."""
    fusion: tuple[str, ...] = SHOWN_RULES
    """Fusion rules to compare."""
    coverage: float = 0.9
    """Requested coverage of prediction sets or intervals. Their measured coverage and average size are among the scores."""
    corruptions: bool = False
    """Measure with each modality corrupted, too, in every way and five degrees of severity. Takes minutes."""
    skip_bad: bool = False
    """Measure without the rows that have faults. How many, and where they are, is printed, and all faults are listed in
    NAME.faults.csv. Default: any fault is an error."""
    skip_bad_values: bool = False
    """Measure without the values that have faults, such as a broken picture. The other modalities of the row are used."""
    show: int = MOST_SHOWN
    """Number of faults in an error message."""
    json: bool = False
    """Print JSON: {"conditions": {name: {fusion rule: {score: value}}}}, with missing_rates, leave_one_out, intervals, groups
    and corruptions beside it. Scores of classes: accuracy, macro_f1, nll, brier, ece; of labels: map, micro_f1, macro_f1, nll,
    ece, precision, fnr; of a number: r2, mae, rmse, nll. If the bundle has sets or intervals, the conditions also have theirs.
    Classes: coverage, set_size; labels: set_fnr, set_size; a number: coverage, width."""


def run(config: EvaluateConfig) -> None:
    """Measure and print."""
    predictor = Predictor(Bundle.load(config.model))
    known = rules_for(predictor.bundle.fusion)
    if unknown := [rule for rule in config.fusion if rule not in known]:
        raise ConfigError(f"--fusion {unknown[0]}: choose among {', '.join(known)}")
    quiet = config.json or not errors.is_terminal
    if not 0 < config.coverage < 1:
        raise ConfigError(f"--coverage {config.coverage}: expected a number between 0 and 1, such as 0.9")
    options = TableOptions(
        label=config.label,
        skip_bad=config.skip_bad,
        skip_bad_values=config.skip_bad_values,
        show=config.show,
        faults_file=Path(f"{config.data.resolve().stem}.faults.csv"),
    )
    split_run = run_split(predictor, config.data, config.split, quiet=quiet, options=options)
    for note in split_run.notes:
        errors.print(note, style="yellow", highlight=False, soft_wrap=True)
    results = score_split(predictor, split_run, config.draws, config.fusion, config.coverage)
    results |= measure_more(predictor, split_run, config.draws, config.fusion)
    if config.corruptions:
        given = (split_run.samples(), split_run.outputs, split_run.targets, config.fusion)
        results["corruptions"] = analysis.corruption_curves(predictor, *given)
    if config.json:
        json.dump(results, sys.stdout, indent=1)
        print()
    else:
        console.print(measured(results, config.fusion, predictor.task))
        for line in worst_groups(results["groups"], predictor.task):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
