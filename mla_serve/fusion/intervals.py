"""Prediction sets that hold the true label as often as asked: split conformal, LAC. Numpy only.

    score      1 - p(label) on validation rows, for every fusion rule and availability pattern (Mondrian)
    threshold  the score of rank ceil((n + 1) coverage) out of n; infinite when that exceeds n, so that all labels are in
    set        the labels with 1 - p <= threshold, and always the answer itself

Source: Vovk et al., Algorithmic Learning in a Random World, 2005; Sadinle, Lei, Wasserman, JASA 2019 (LAC).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from mla_serve.fusion.formula import Array, pattern_keys, pattern_name

ENOUGH = 50
"""Fewer scores than this, and a pattern uses those of all patterns of its size."""
DIGITS = 4


@dataclasses.dataclass(frozen=True)
class Conformal:
    """Sorted scores: rule -> pattern such as "image+text", or another of `pattern_keys` -> scores."""

    scores: Mapping[str, Mapping[str, Sequence[float]]] = dataclasses.field(default_factory=dict)

    def of(self, rule: str, pattern: Sequence[str]) -> Sequence[float]:
        """Look up the scores of a pattern, else of those like it, else none."""
        known = self.scores.get(rule, {})
        return next((known[key] for key in pattern_keys(pattern) if key in known), ())

    def highest(self, rule: str, pattern: Sequence[str]) -> float:
        """Return the largest coverage for which a set need not hold all labels: n / (n + 1)."""
        count = len(self.of(rule, pattern))
        return count / (count + 1)

    def sets(self, log_probabilities: Array, present: Array, names: Sequence[str], rule: str, coverage: float) -> Array:
        """Choose the labels of each set: (B, C), present (M, B) -> (B, C) bool, one True per row at least."""
        patterns, index = np.unique(present, axis=1, return_inverse=True)
        limits = [
            threshold(self.of(rule, [n for n, there in zip(names, column, strict=True) if there]), coverage)
            for column in patterns.T
        ]
        inside: Array = scores(log_probabilities) <= np.array(limits)[index][:, None]
        inside[np.arange(len(inside)), log_probabilities.argmax(axis=1)] = True
        return inside


def scores(log_probabilities: Array) -> Array:
    """Score every label: 1 - p, exact where p is near 1."""
    values: Array = -np.expm1(log_probabilities)
    return values


def threshold(sorted_scores: Sequence[float], coverage: float) -> float:
    """Return the score of rank ceil((n + 1) coverage), infinite when there is none."""
    rank = math.ceil((len(sorted_scores) + 1) * coverage - 1e-9)
    return math.inf if rank > len(sorted_scores) else sorted_scores[max(rank, 1) - 1]


def stored(values: Array) -> list[float]:
    """Sort scores and round them up to a few digits: up, so that no coverage is lost."""
    if not len(values):
        return []
    power = 10.0 ** (DIGITS - np.ceil(np.log10(np.maximum(values, 1e-12))))
    rounded = np.ceil(np.sort(values) * np.sort(power)[::-1]) / np.sort(power)[::-1]
    return [float(f"{value:.{DIGITS}g}") for value in np.maximum(rounded, 0.0)]


def score_table(
    fused: Mapping[tuple[str, tuple[str, ...]], Array], generator: np.random.Generator, *, by_size: bool = False
) -> dict[str, dict[str, list[float]]]:
    """Arrange true labels' scores for storing.

    Args: {(rule, pattern): scores (B,), NaN in rows that lack the pattern}; by_size, that not all patterns are listed.
    Where a pattern has too few, or by_size, those of its size are pooled: one pattern at random for each row, so that
    the pool stays exchangeable.
    """
    table: dict[str, dict[str, list[float]]] = {}
    for (rule, pattern), values in fused.items():
        there = values[~np.isnan(values)]
        entry = table.setdefault(rule, {})
        if len(there) >= ENOUGH and not by_size:
            entry[pattern_name(pattern)] = stored(there)
        elif str(len(pattern)) not in entry:
            alike = [v for (r, p), v in fused.items() if r == rule and len(p) == len(pattern)]
            entry[str(len(pattern))] = stored(_one_each(np.array(alike), generator))
    return table


def _one_each(values: Array, generator: np.random.Generator) -> Array:
    """Pick one value that is there from each column: (K, B) -> (rows that have any,)."""
    order = np.where(np.isnan(values), -1.0, generator.random(values.shape))
    picked = values[order.argmax(axis=0), np.arange(values.shape[1])]
    there: Array = picked[~np.isnan(picked)]
    return there
