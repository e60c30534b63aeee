"""Measure more than the scores under each condition: curves, bootstrap intervals, the loss without a modality. Numpy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mla_serve.bundle.predictor import GraphOutputs, Predictor
from mla_serve.evaluation.scores import drop, mean_scores
from mla_serve.fusion.formula import Array, answers_alone
from mla_serve.fusion.rules import fuse
from mla_serve.inputs import Payload
from mla_serve.inputs.corruptions import SEVERITIES
from mla_serve.tasks.base import BINS

CURVE_RATES = (10, 20, 30, 40, 50, 60, 70, 80)  # percent of the modalities that are dropped
RESAMPLES = 500
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

    "lost" is the accuracy with the modality, minus that without it. Source: arXiv 2211.06168.
    """
    found: Scores = {}
    for m, name in enumerate(predictor.names):
        rest = outputs.present.copy()
        rest[m] = False
        usable = rest.any(axis=0) & outputs.present[m]
        if usable.any():
            own = {rule: _score(predictor, outputs, labels, rule, outputs.present & usable) for rule in rules}
            left = {rule: _score(predictor, outputs, labels, rule, rest & usable) for rule in rules}
            found[name] = {
                rule: left[rule] | {"lost": own[rule]["accuracy"] - left[rule]["accuracy"]} for rule in rules
            }
    return found


def intervals(
    predictor: Predictor, outputs: GraphOutputs, labels: Array, rules: Sequence[str], masks: Mapping[str, Array]
) -> Scores:
    """Bootstrap 95 % intervals over the rows: {condition: {rule: {"accuracy": [low, high], "nll": [low, high]}}}."""
    generator = np.random.default_rng(0)
    found: Scores = {}
    for condition, mask in masks.items():
        there = np.flatnonzero(mask.any(axis=0))
        drawn = generator.integers(len(there), size=(RESAMPLES, len(there)))
        found[condition] = {}
        for rule in rules:
            log_p = fused_answers(predictor, take(outputs, there), rule, mask[:, there])
            right = log_p.argmax(axis=1) == labels[there]
            nll = -log_p[np.arange(len(there)), labels[there]]
            found[condition][rule] = {"accuracy": interval_95(right[drawn]), "nll": interval_95(nll[drawn])}
    return found


def interval_95(drawn: Array) -> list[float]:
    """Return the quantiles 0.025 and 0.975 of the means of resamples (RESAMPLES, B)."""
    return [float(value) for value in np.quantile(drawn.mean(axis=1), [0.025, 0.975])]


def reliability(log_p: Array, labels: Array, bins: int = BINS) -> list[dict[str, float]]:
    """Compare accuracy with confidence in bins of equal width: the points of a reliability diagram, without empty bins."""
    confidence = np.exp(log_p.max(axis=1))
    right = log_p.argmax(axis=1) == labels
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "confidence": float(confidence[index == b].mean()),
            "accuracy": float(right[index == b].mean()),
            "rows": int(np.sum(index == b)),
        }
        for b in np.unique(index)
    ]


def by_group(log_p: Array, labels: Array, groups: Sequence[Mapping[str, str]]) -> Scores:
    """Score each group of rows: {modality: {"accuracy": {group: value}, "rows": {group: count}, "worst": group}}.

    Args: groups, of each row, by modality, such as the speaker of its recording. Modalities with the same groups are named
    together, as "image+audio". "worst" is the group of the lowest accuracy of those with MIN_GROUP rows; it is left out
    where there is none. Modalities with one group, or with more than MOST_GROUPS, are left out.
    """
    right = log_p.argmax(axis=1) == labels
    named: dict[tuple[str, ...], list[str]] = {}
    for name in dict.fromkeys(name for row in groups for name in row):
        named.setdefault(tuple(row.get(name, "") for row in groups), []).append(name)
    found: Scores = {}
    for values, names in named.items():
        of = np.array(values)
        listed = [value for value in np.unique(of).tolist() if value]
        if 1 < len(listed) <= MOST_GROUPS:
            rows = {value: int((of == value).sum()) for value in listed}
            accuracy = {value: float(right[of == value].mean()) for value in listed}
            large = [value for value in listed if rows[value] >= MIN_GROUP]
            worst = {"worst": min(large, key=lambda value: accuracy[value])} if large else {}
            found["+".join(names)] = {"accuracy": accuracy, "rows": rows, **worst}
    return found


def confusion(log_p: Array, labels: Array) -> list[list[int]]:
    """Count the answers to the rows of each label: [label][answer]."""
    classes = log_p.shape[1]
    table = np.zeros((classes, classes), dtype=int)
    np.add.at(table, (labels, log_p.argmax(axis=1)), 1)
    return [[int(count) for count in row] for row in table]


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

    Severity "0" is the clean input. The rows are those that have the modality. "alone" scores its own logits; each rule
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
