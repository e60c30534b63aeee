"""Measure more than the scores under each condition: curves, bootstrap intervals, the loss without a modality. Numpy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mla_serve.bundle.predictor import GraphOutputs, Predictor
from mla_serve.evaluation.scores import drop, mean_scores
from mla_serve.evaluation.share_interval import exact_interval, wider
from mla_serve.fusion.formula import Array, answers_alone
from mla_serve.fusion.rules import fuse
from mla_serve.inputs import Payload
from mla_serve.inputs.corruptions import SEVERITIES
from mla_serve.tasks import Task
from mla_serve.tasks.base import LOWER_IS_BETTER

CURVE_RATES = (10, 20, 30, 40, 50, 60, 70, 80)  # percent of the modalities that are dropped
RESAMPLES, FEWEST_RESAMPLES = 500, 100
RESAMPLED_CELLS = 10_000_000  # rows, times labels, times resamples: with more, fewer resamples are drawn
FEWEST_GROUPS = 5  # that are resampled instead of rows
MIN_GROUP, MOST_GROUPS = 5, 200  # rows of a group that can be the worst one; groups that are listed
BATCH = 128  # rows that are decoded at a time
Scores = dict[str, Any]


def fused_answers(predictor: Predictor, outputs: GraphOutputs, rule: str, mask: Array) -> Array:
    """Fuse only the modalities in mask (M, B), one True per column at least: answers (B, A)."""
    return fuse(outputs.opinions, mask, predictor.bundle.fusion, rule, outputs.excess).answers


def concatenate(batches: Sequence[GraphOutputs]) -> GraphOutputs:
    """Concatenate the samples of several batches."""
    fields = [field.name for field in dataclasses.fields(GraphOutputs)]
    return GraphOutputs(*(np.concatenate([getattr(batch, name) for batch in batches], axis=1) for name in fields))


def missing_curve(
    predictor: Predictor, outputs: GraphOutputs, labels: Array, rules: Sequence[str], draws: int
) -> Scores:
    """Score each rule at missing rates of 10 to 80 %, with the same masks for all rules: {rule: {rate: scores}}."""
    generator = np.random.default_rng(0)
    masks = {rate: [drop(outputs.present, rate / 100, generator) for _ in range(max(draws, 1))] for rate in CURVE_RATES}
    return {
        rule: {
            str(rate): mean_scores([_score(predictor, outputs, labels, rule, m) for m in masks[rate]])
            for rate in CURVE_RATES
        }
        for rule in rules
    }


def leave_one_out(predictor: Predictor, outputs: GraphOutputs, labels: Array, rules: Sequence[str]) -> Scores:
    """Score without each modality, on the rows that have it and another: {modality: {rule: scores and "lost"}}.

    "lost" is the task's main score with the modality, minus that without it. Source: arXiv 2211.06168.
    """
    found: Scores = {}
    main = predictor.task.main_scores[0]
    for m, name in enumerate(predictor.names):
        rest = outputs.present.copy()
        rest[m] = False
        usable = rest.any(axis=0) & outputs.present[m]
        if usable.any():
            own = {rule: _score(predictor, outputs, labels, rule, outputs.present & usable) for rule in rules}
            left = {rule: _score(predictor, outputs, labels, rule, rest & usable) for rule in rules}
            found[name] = {rule: left[rule] | {"lost": own[rule][main] - left[rule][main]} for rule in rules}
    return found


def intervals(
    predictor: Predictor,
    outputs: GraphOutputs,
    labels: Array,
    rules: Sequence[str],
    masks: Mapping[str, Array],
    groups: Array | None = None,
) -> Scores:
    """Bootstrap 95 % intervals of the main scores and the NLL: {condition: {rule: {score: [low, high]}}}.

    A score that is a share of the rows, such as accuracy, gets the wider of two: the bootstrap's, and the exact one of
    independent rows. Where all rows are right, every resample is too, and the bootstrap would be sure of it.

    Args: masks (M, B) by condition; groups (B,), the group of each row: whole groups are resampled, because their rows are
    alike. Default: rows are.
    """
    generator = np.random.default_rng(0)
    found: Scores = {}
    for condition, mask in masks.items():
        there = np.flatnonzero(mask.any(axis=0))
        counts = resample(generator, len(there), predictor.task, None if groups is None else groups[there])
        found[condition] = {}
        for rule in rules:
            answers = fused_answers(predictor, take(outputs, there), rule, mask[:, there])
            resampled = predictor.task.resampled(answers, labels[there], counts)
            own = {score: interval_95(values) for score, values in resampled.items()}
            hits = predictor.task.hits(answers, labels[there])
            exact = {score: exact_interval(int(right.sum()), len(right)) for score, right in hits.items()}
            found[condition][rule] = own | {score: wider(own[score], ends) for score, ends in exact.items()}
    return found


def resample(generator: np.random.Generator, rows: int, task: Task, groups: Array | None) -> Array:
    """Draw how often each row is in each resample: (R, B). Args: groups (B,), if whole groups are drawn."""
    count = int(np.clip(RESAMPLED_CELLS // max(rows * task.variables, 1), FEWEST_RESAMPLES, RESAMPLES))
    index = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    units = int(index.max(initial=-1)) + 1
    drawn = generator.integers(units, size=(count, units))
    counts = np.stack([np.bincount(one, minlength=units) for one in drawn])
    return counts[:, index].astype(np.float64)


def interval_95(values: Array) -> list[float]:
    """Return the quantiles 0.025 and 0.975 of the scores of resamples (R,)."""
    return [float(value) for value in np.quantile(values, [0.025, 0.975])]


def resampled_groups(groups: Sequence[Mapping[str, str]]) -> tuple[str | None, Array | None]:
    """Choose the groups that are resampled: of the modality with the fewest groups, but FEWEST_GROUPS at least.

    Args: groups, of each row, by modality. A row without one is a group of its own.
    Returns: the modality and the groups (B,) as numbers; None where no modality has enough groups, or all have one row.
    """
    best: tuple[int, str | None, Array | None] = (len(groups), None, None)
    for name in dict.fromkeys(name for row in groups for name in row):
        values = [row.get(name) or f"\0{number}" for number, row in enumerate(groups)]
        different, index = np.unique(values, return_inverse=True)
        if FEWEST_GROUPS <= len(different) < best[0]:
            best = len(different), name, index
    return best[1:]


def by_group(task: Task, answers: Array, targets: Array, groups: Sequence[Mapping[str, str]]) -> Scores:
    """Score each group of rows: {modality: {score: {group: value}, "rows": {group: count}, "worst": group}}.

    The score is `task.row_score`.

    Args: groups, of each row, by modality, such as the speaker of its recording. Modalities with the same groups are named
    together, as "image+audio". "worst" is the group of the worst score of those with MIN_GROUP rows; it is left out
    where there is none. Modalities with one group, or with more than MOST_GROUPS, are left out.
    """
    named: dict[tuple[str, ...], list[str]] = {}
    for name in dict.fromkeys(name for row in groups for name in row):
        named.setdefault(tuple(row.get(name, "") for row in groups), []).append(name)
    found: Scores = {}
    for values, names in named.items():
        of = np.array(values)
        listed = [value for value in np.unique(of).tolist() if value]
        if 1 < len(listed) <= MOST_GROUPS:
            rows = {value: int((of == value).sum()) for value in listed}
            scored = {value: task.score(answers[of == value], targets[of == value])[task.row_score] for value in listed}
            large = [value for value in worst_first(task, scored) if rows[value] >= MIN_GROUP]
            worst = {"worst": large[0]} if large else {}
            found["+".join(names)] = {task.row_score: scored, "rows": rows, **worst}
    return found


def worst_first(task: Task, scored: Mapping[str, float]) -> list[str]:
    """Sort the names of groups by `task.row_score`, the worst first."""
    sign = -1 if task.row_score in LOWER_IS_BETTER else 1
    return sorted(scored, key=lambda name: sign * scored[name])


def corruption_curves(
    predictor: Predictor,
    samples: Sequence[Mapping[str, Payload]],
    outputs: GraphOutputs,
    labels: Array,
    rules: Sequence[str],
    severities: Sequence[int] = SEVERITIES,
    step: Callable[[], None] = lambda: None,
) -> Scores:
    """Corrupt one modality at a time: {modality: {corruption: {severity: {"alone": scores, rule: scores}}}}.

    Severity "0" is the clean input. The rows are those that have the modality. "alone" scores its own opinion; each rule
    fuses it with the other modalities of the row, which stay clean. The random numbers depend only on the severity and
    the number of the row, so that rules and models are compared on the same corrupted inputs.
    A modality whose kind has no corruptions is left out.
    """
    found: Scores = {}
    for m, name in enumerate(predictor.names):
        there = np.flatnonzero(outputs.present[m])
        corruptions = predictor.bundle.inputs[name].corruptions
        if not len(there) or not corruptions:
            continue
        clean = _scores_with(predictor, take(outputs, there), labels[there], rules, m)
        found[name] = {}
        for corruption in corruptions:
            found[name][corruption] = {"0": clean}
            for severity in severities:
                corrupted = _corrupt_rows(predictor, samples, outputs, there, m, corruption, severity)
                found[name][corruption][str(severity)] = _scores_with(predictor, corrupted, labels[there], rules, m)
                step()
    return found


def _corrupt_rows(
    predictor: Predictor,
    samples: Sequence[Mapping[str, Payload]],
    outputs: GraphOutputs,
    there: Array,
    m: int,
    corruption: str,
    severity: int,
) -> GraphOutputs:
    """Run one modality of some rows through the graphs corrupted; keep the outputs of the other modalities."""
    name = predictor.names[m]
    spec = predictor.bundle.inputs[name]

    def corrupt(b: int) -> dict[str, Array]:
        generator = np.random.default_rng([severity, b])
        return {name: spec.corrupt(samples[b][name], name, corruption, severity, generator)}

    starts = range(0, len(there), BATCH)
    batches = [predictor.run_graphs([corrupt(b) for b in there[at : at + BATCH]]) for at in starts]
    corrupted, merged = concatenate(batches), take(outputs, there)
    for field in ("opinions", "unfamiliarity", "excess"):
        getattr(merged, field)[m] = getattr(corrupted, field)[m]
    return merged


def _scores_with(predictor: Predictor, outputs: GraphOutputs, labels: Array, rules: Sequence[str], m: int) -> Scores:
    """Score modality m by itself, and every rule on all modalities."""
    alone = answers_alone(outputs.opinions, predictor.bundle.fusion)[m]
    found: Scores = {"alone": predictor.task.score(alone, labels)}
    known = outputs.unfamiliarity[m]
    if not np.isnan(known).any():
        found["alone"]["unfamiliarity"] = float(known.mean())
    return found | {rule: _score(predictor, outputs, labels, rule, outputs.present) for rule in rules}


def take(outputs: GraphOutputs, rows: Array) -> GraphOutputs:
    """Copy the samples with these indices."""
    fields = [field.name for field in dataclasses.fields(GraphOutputs)]
    return GraphOutputs(*(getattr(outputs, name)[:, rows].copy() for name in fields))


def _score(predictor: Predictor, outputs: GraphOutputs, labels: Array, rule: str, mask: Array) -> dict[str, float]:
    there = np.flatnonzero(mask.any(axis=0))
    return predictor.task.score(fused_answers(predictor, take(outputs, there), rule, mask[:, there]), labels[there])
