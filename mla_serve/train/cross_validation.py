"""Cross-validation (--folds K): K trainings, each measured on a fold that it has not seen, before the final one on all rows.

The fusion and the prediction sets of the final model are fitted to the opinions of these K models on the rows that they have
not seen: on all rows, not only on those for validation. With few rows that is worth more than the difference between the
models, which were trained on a part of the rows each.

This is cross-conformal prediction with a model that is refitted on all rows. It resembles CV+ (Barber, Candes, Ramdas,
Tibshirani, Annals of Statistics 2021), but CV+ asks the K models about a new row. So the guarantee of CV+ does not strictly
follow; the coverage is measured by simulation (tests/train/fit/test_intervals.py).
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mla_serve.errors import ConfigError
from mla_serve.evaluation.analysis import interval_95, resample, resampled_groups
from mla_serve.fusion.formula import Array
from mla_serve.fusion.novelty import References
from mla_serve.fusion.rules import fuse
from mla_serve.table import Row
from mla_serve.table.dataset import leave_out
from mla_serve.table.faults import FaultPolicy, Faults
from mla_serve.table.split import VALIDATION_FRACTION, split_validation
from mla_serve.tasks import Task
from mla_serve.train.choices import choose
from mla_serve.train.config import TrainConfig
from mla_serve.train.data.decode import decode_table
from mla_serve.train.data.folds import folds_apart, make_folds
from mla_serve.train.data.unknown_columns import leave_out_unknown
from mla_serve.train.device import pick_device
from mla_serve.train.distributed import collectives
from mla_serve.train.fit.after_training import COMPARED, FEW_VALIDATION_ROWS, encode_samples, gather
from mla_serve.train.fit.evidence import Evidence, UnseenOpinions
from mla_serve.train.fit.features import decode_rows
from mla_serve.train.paths import cache_folder
from mla_serve.train.plan import Plan, choose_all_inputs
from mla_serve.train.recipe import pick_encoders
from mla_serve.train.run import train_as_planned
from mla_serve.train.run_folder import REFERENCES

FOLDS = "folds.json"
"""File of the run folder with the result."""
FOLDS_OF_FEW = 5
SMALL = ("columns", "vector")  # kinds whose encoders are trained in seconds


@dataclasses.dataclass(frozen=True)
class FoldAnswers:
    """Answers to the rows of one fold: (N, A) by condition, where it has a modality; the opinions that they are from.

    groups: of each row, by modality.
    """

    answers: Mapping[str, Array]
    present: Mapping[str, Array]
    opinions: Evidence
    groups: Sequence[Mapping[str, str]]

    @property
    def targets(self) -> Array:
        """The targets (N, ...)."""
        return self.opinions.targets


@dataclasses.dataclass(frozen=True)
class CrossValidation:
    """scores: {"folds", "rows", "note", "conditions": {"full" or a modality alone: {"rows", scores, "SCORE_95"}}}.

    SCORE is the task's main score; its interval is that of bootstrap resamples of rows or, where they have groups, of groups.

    unseen: the opinions, which the fusion of the final model is fitted to.
    """

    scores: dict[str, Any]
    unseen: UnseenOpinions


def check_folds(config: TrainConfig, rows: int) -> None:
    """Refuse numbers of folds that cannot be made. Raises: ConfigError."""
    if config.extend:
        raise ConfigError("--folds: does not go with --extend; leave it out")
    if not 2 <= config.folds <= rows // 2:
        raise ConfigError(f"--folds {config.folds}: expected at least 2, and at most {rows // 2} for {rows} rows")


def number_of_folds(config: TrainConfig, planned: Plan) -> int:
    """Return how many models are trained for cross-validation: --folds, or some where rows are few and training is cheap.

    Training is cheap where only heads and small encoders are trained: frozen encoders, columns and vectors. Where nobody asked
    for folds, there are as many as keep the groups of the rows apart: the fusion must not be fitted to opinions on speakers
    that the models have heard.
    """
    if config.folds or config.extend or collectives.world_size() > 1:
        return config.folds
    rows = [*planned.rows["train"], *planned.rows["val"]]
    frozen = {name for name, loaded in planned.pretrained.items() if loaded.settings.tune == "frozen"}
    cheap = frozen and all(name in frozen or spec.kind in SMALL for name, spec in planned.inputs.items())
    few = len(planned.rows["val"]) < FEW_VALIDATION_ROWS and len(rows) >= 2 * FOLDS_OF_FEW
    return folds_apart(rows, FOLDS_OF_FEW) if cheap and few else 0


def cross_validate(config: TrainConfig, planned: Plan, report: Callable[[str], None]) -> CrossValidation:
    """Train once for each fold on the rows outside it, and measure all answers to unseen rows together.

    Args: planned, of the final model: its rows for training and validation are divided; report, called with a line for
    each fold.
    Raises: ConfigError for an impossible number of folds.
    """
    rows = [*planned.rows["train"], *planned.rows["val"]]
    count = number_of_folds(config, planned)
    check_folds(dataclasses.replace(config, folds=count), len(rows))
    task = planned.recipe.task
    folds = make_folds(rows, config.seed, task, count)
    answers = []
    config.runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".folds-", dir=config.runs) as temporary:
        inside = dataclasses.replace(config, runs=Path(temporary), cache=cache_folder(config), resume=False)
        for fold in range(count):
            unseen = [row for row, number in zip(rows, folds.number, strict=True) if number == fold]
            seen = [row for row, number in zip(rows, folds.number, strict=True) if number != fold]
            answers.append(_answer_fold(inside, planned, seen, unseen))
            report(f"fold {fold + 1} of {count}: {_main_score(task, answers[-1])} on {len(unseen)} rows")
    scores = {"folds": count, "rows": len(rows), "note": folds.note, "conditions": _score(task, answers)}
    return CrossValidation(scores, _join([one.opinions for one in answers], folds.note))


def _join(parts: Sequence[Evidence], note: str) -> UnseenOpinions:
    """Join the opinions on all folds."""
    evidence = functools.reduce(Evidence.and_also, parts)
    fold = np.repeat(np.arange(len(parts)), [len(part.targets) for part in parts])
    told = (
        f"the fusion and the prediction sets were fitted on {len(fold)} rows, for training and validation, by the opinions "
        f"of {len(parts)} models on rows that they had not seen; {note}"
    )
    return UnseenOpinions(evidence, fold, told)


def _answer_fold(config: TrainConfig, planned: Plan, seen: Sequence[Row], unseen: Sequence[Row]) -> FoldAnswers:
    """Train on the rows outside a fold, and answer those inside."""
    part = _plan_fold(config, planned, seen, unseen)
    folder = train_as_planned(config, part, lambda record: None)  # noqa: ARG005
    strategy, device = folder.restore(part.recipe.build()), pick_device(config.device)
    strategy.to(device)
    samples, references = part.samples("test"), References.from_bytes((folder.path / REFERENCES).read_bytes())
    encoded = encode_samples(strategy, samples, device)
    decoded = {
        name: decode_rows(part.rows["test"], name, spec)
        for name, spec in part.inputs.items()
        if isinstance(spec, COMPARED) and encoded[name].present.any()
    }
    given = gather(encoded, samples.targets.numpy(), references, decoded, part.recipe.task)
    names, fusion, present = list(strategy.encoders), folder.read_fusion(), given.present
    masks = {"full": present} | {
        name: present & (np.arange(len(names)) == m)[:, None] for m, name in enumerate(names) if len(names) > 1
    }
    there = {name: mask.any(axis=0) for name, mask in masks.items()}
    answers = {
        name: fuse(given.opinions[:, there[name]], mask[:, there[name]], fusion).answers
        for name, mask in masks.items()
        if there[name].any()
    }
    return FoldAnswers(answers, there, given, [row.groups for row in part.rows["test"]])


def _plan_fold(config: TrainConfig, planned: Plan, seen: Sequence[Row], unseen: Sequence[Row]) -> Plan:
    """Plan a training on the rows outside a fold: inputs and settings are chosen from these rows alone."""
    train, val, _ = split_validation(seen, config.val_share or VALIDATION_FRACTION, config.seed, planned.recipe.task)
    kinds = {name: spec.kind for name, spec in planned.recipe.inputs.items()}
    sources = pick_encoders(kinds, config) | (
        planned.start.encoders if planned.start else {}
    )  # the recipe names no folders
    inputs, pretrained = choose_all_inputs(train, kinds, sources, config)
    inputs |= planned.start.inputs if planned.start else {}
    recipe = dataclasses.replace(planned.recipe, inputs=inputs)
    choices, _ = choose(config, planned.name, train, recipe)
    own = dataclasses.replace(planned.table, faults=Faults(policy=FaultPolicy(skip_bad=True)))
    table, rows, _ = leave_out_unknown(own, {"train": train, "val": val, "test": unseen}, inputs)
    decoded = decode_table(table, inputs, cache_folder(config), config.threads)
    return dataclasses.replace(
        planned,
        table=table,
        rows={split: leave_out(listed, table.faults) for split, listed in rows.items()},
        decoded=decoded,
        recipe=recipe,
        choices=choices,
        pretrained=pretrained,
    )


def _main_score(task: Task, answers: FoldAnswers) -> str:
    name = task.main_scores[0]
    return f"{name} {task.score(answers.answers['full'], answers.targets[answers.present['full']])[name]:.3f}"


def _score(task: Task, answers: Sequence[FoldAnswers]) -> dict[str, dict[str, Any]]:
    """Score the answers of all folds together, with a bootstrap interval of the main score over rows, or groups of rows."""
    scored: dict[str, dict[str, Any]] = {}
    main = task.main_scores[0]
    _, groups = resampled_groups([row for one in answers for row in one.groups])
    for name in dict.fromkeys(name for one in answers for name in one.answers):
        given = np.concatenate([one.answers[name] for one in answers if name in one.answers])
        there = np.concatenate([one.present[name] for one in answers])
        targets = np.concatenate([one.targets for one in answers])[there]
        counts = resample(np.random.default_rng(0), len(given), task, None if groups is None else groups[there])
        scored[name] = {
            "rows": len(given),
            **task.score(given, targets),
            f"{main}_95": interval_95(task.resampled(given, targets, counts)[main]),
        }
    return scored


def describe_folds(result: Mapping[str, Any]) -> list[str]:
    """Return lines that say the result."""
    lines = [
        f"{result['folds']} folds, {result['rows']:,} rows, each answered by a model that has not seen it ({result['note']})"
    ]
    for name, found in result["conditions"].items():
        main = next(key.removesuffix("_95") for key in found if key.endswith("_95"))
        low, high = found[f"{main}_95"]
        lines.append(f"  {name}: {main} {found[main]:.3f} ({low:.3f} to {high:.3f}), NLL {found['nll']:.3f}")
    return lines
