"""What an evaluation tells beside the scores under each condition: curves, intervals, what a modality is worth. numpy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mla_serve.bundle.predictor import GraphOutputs, Predictor
from mla_serve.evaluation.scores import BINS, drop, score
from mla_serve.fusion.formula import Array, log_softmax
from mla_serve.fusion.rules import fuse
from mla_serve.inputs import Payload
from mla_serve.inputs.corruptions import SEVERITIES

RATES = (10, 20, 30, 40, 50, 60, 70, 80)
RESAMPLES = 500
Scores = dict[str, Any]


def log_probabilities(predictor: Predictor, outputs: GraphOutputs, rule: str, mask: Array) -> Array:
    """Fuse what was heard of the modalities in mask (M, B), one at least in every column: (B, C)."""
    return fuse(outputs.logits, mask, predictor.bundle.fusion, rule, outputs.excess).log_probabilities


def join(parts: Sequence[GraphOutputs]) -> GraphOutputs:
    """Put batches together."""
    fields = ("logits", "present", "unfamiliarity", "excess")
    return GraphOutputs(*(np.concatenate([getattr(part, field) for part in parts], axis=1) for field in fields))


def missing_curve(
    predictor: Predictor, outputs: GraphOutputs, labels: Array, rules: Sequence[str], draws: int
) -> Scores:
    """Score each rule at missing rates of 10 to 80 %: {rule: {rate: scores}}, the same masks for all rules."""
    generator = np.random.default_rng(0)
    masks = {rate: [drop(outputs.present, rate / 100, generator) for _ in range(max(draws, 1))] for rate in RATES}
    return {
        rule: {str(rate): _mean([_score(predictor, outputs, labels, rule, m) for m in masks[rate]]) for rate in RATES}
        for rule in rules
    }


def leave_one_out(predictor: Predictor, outputs: GraphOutputs, labels: Array, rules: Sequence[str]) -> Scores:
    """Score without each modality, on the rows that have it and another: {modality: {rule: scores, with "lost"}}.

    "lost" is the accuracy that goes with it. Source: arXiv 2211.06168.
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
            log_p = log_probabilities(predictor, some(outputs, there), rule, mask[:, there])
            right = log_p.argmax(axis=1) == labels[there]
            nll = -log_p[np.arange(len(there)), labels[there]]
            found[condition][rule] = {"accuracy": _middle(right[drawn]), "nll": _middle(nll[drawn])}
    return found


def _middle(drawn: Array) -> list[float]:
    return [float(value) for value in np.quantile(drawn.mean(axis=1), [0.025, 0.975])]


def reliability(log_p: Array, labels: Array, bins: int = BINS) -> list[dict[str, float]]:
    """Say how often the answer was right by how sure it was: bins of equal width that hold any rows."""
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


def confusion(log_p: Array, labels: Array) -> list[list[int]]:
    """Count answers by label: [label][answer]."""
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
    """Spoil one modality at a time: {modality: {corruption: {severity: {"alone": scores, rule: scores}}}}.

    A modality whose kind has no corruptions is left out.

    Severity "0" is unspoiled. The rows are those that have the modality; each rule fuses it with all that they have.
    Every row's spoiling follows from its number, so that rules and models are compared on the same.
    """
    found: Scores = {}
    for m, name in enumerate(predictor.names):
        there = np.flatnonzero(outputs.present[m])
        corruptions = predictor.bundle.inputs[name].corruptions
        if not len(there) or not corruptions:
            continue
        clean = _spoiled_scores(predictor, some(outputs, there), labels[there], rules, m)
        found[name] = {}
        for corruption in corruptions:
            found[name][corruption] = {"0": clean}
            for severity in severities:
                worse = _spoil(predictor, samples, outputs, there, m, corruption, severity)
                found[name][corruption][str(severity)] = _spoiled_scores(predictor, worse, labels[there], rules, m)
                step()
    return found


def _spoil(
    predictor: Predictor,
    samples: Sequence[Mapping[str, Payload]],
    outputs: GraphOutputs,
    there: Array,
    m: int,
    corruption: str,
    severity: int,
) -> GraphOutputs:
    """Hear one modality of some rows spoiled, and the others as they were."""
    name = predictor.names[m]
    spec = predictor.bundle.inputs[name]
    decoded = [
        {name: spec.corrupt(samples[b][name], name, corruption, severity, np.random.default_rng([severity, b]))}
        for b in there
    ]
    worse, own = predictor.run_graphs(decoded), some(outputs, there)
    for field in ("logits", "unfamiliarity", "excess"):
        getattr(own, field)[m] = getattr(worse, field)[m]
    return own


def _spoiled_scores(predictor: Predictor, outputs: GraphOutputs, labels: Array, rules: Sequence[str], m: int) -> Scores:
    found: Scores = {"alone": score(log_softmax(outputs.logits[m].astype(np.float64)), labels)}
    known = outputs.unfamiliarity[m]
    if not np.isnan(known).any():
        found["alone"]["unfamiliarity"] = float(known.mean())
    return found | {rule: _score(predictor, outputs, labels, rule, outputs.present) for rule in rules}


def some(outputs: GraphOutputs, chosen: Array) -> GraphOutputs:
    """Copy some columns."""
    return GraphOutputs(
        outputs.logits[:, chosen].copy(),
        outputs.present[:, chosen].copy(),
        outputs.unfamiliarity[:, chosen].copy(),
        outputs.excess[:, chosen].copy(),
    )


def _score(predictor: Predictor, outputs: GraphOutputs, labels: Array, rule: str, mask: Array) -> dict[str, float]:
    there = np.flatnonzero(mask.any(axis=0))
    return score(log_probabilities(predictor, some(outputs, there), rule, mask[:, there]), labels[there])


def _mean(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([one[key] for one in scores])) for key in scores[0]}
