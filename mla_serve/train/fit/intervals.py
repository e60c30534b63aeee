"""Compute the thresholds of prediction sets and intervals that a bundle keeps; mla_serve/fusion/intervals.py applies them.

The scores are cross-fitted. A score must come from a model that has not been fitted on the row (exchangeability with new
rows). Holding out rows for it would leave fewer for the fusion. So the rows are split into folds; for each fold the fusion
is fitted on the other folds, and the rows of the fold are scored by it. The fusion that is exported is fitted on all rows.
Groups, such as speakers, are never in two folds where that can be avoided. Each row counts once for every pattern whose
modalities it has. (Cross-conformal prediction: Vovk, Annals of Mathematics and Artificial Intelligence 2015.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mla_serve.fusion.formula import Array, Fusion, pattern_name
from mla_serve.fusion.intervals import Intervals, Thresholds
from mla_serve.fusion.rules import fuse, rules_for
from mla_serve.train.fit.evidence import Evidence
from mla_serve.train.fit.formula import PATTERNS_UP_TO, list_patterns

REFITTED = ("temperatures", "sharpness", "scales", "discounts")
MOST_ROWS, LEAST_ROWS = 5_000, 500  # of one pattern; of more, some drawn at random are scored
MOST_NUMBERS = 2e9  # outputs of heads that are fused for all rules and patterns together


def cross_fitted_intervals(
    clean: Evidence,
    fusion: Fusion,
    fold: Array,
    refit: Callable[[Array], Fusion],
    seed: int,
    rules: Sequence[str] | None = None,
    listed: Array | None = None,
    empty: Intervals | None = None,
) -> Intervals:
    """Score each row's label under every rule and pattern, by a fusion that was fitted on the other folds.

    Args: fold (N,), the number of each row's fold; refit(kept), fits to the rows of a mask (N,); rules, default: all that
    the task allows; listed (K, M), the patterns, default: see `patterns_of`; empty, says how to score.
    """
    names = tuple(fusion.temperatures)
    empty = empty or Intervals(fusion.task)
    rules = rules_for(fusion) if rules is None else rules
    listed = patterns_of(clean.present) if listed is None else listed
    most = _most_rows(clean, len(rules) * len(listed))
    generator = np.random.default_rng(seed)
    fusions = {int(number): _refitted(fusion, refit(fold != number)) for number in np.unique(fold)}
    table: dict[str, dict[str, Thresholds]] = {rule: {} for rule in rules}
    for pattern in listed:
        rows = np.flatnonzero(clean.present[pattern].all(axis=0))
        if len(rows) > most:
            rows = np.sort(generator.choice(rows, most, replace=False))
        if len(rows):
            key = pattern_name([name for name, there in zip(names, pattern, strict=True) if there])
            for rule in rules:
                table[rule][key] = _thresholds(clean.rows(rows), pattern, fold[rows], fusions, rule, empty)
    return dataclasses.replace(empty, thresholds=table)


def patterns_of(present: Array) -> Array:
    """List the patterns that get thresholds of their own: (K, M).

    All of them; of many, those of one modality, the one with all, and the most frequent ones among the rows, present (M, N).
    A sample of the others fills up, so that each size has some.
    """
    count = len(present)
    every = list_patterns(count)
    if len(every) == 2**count - 1:
        return every
    shown, times = np.unique(present.T, axis=0, return_counts=True)
    first = [*np.eye(count, dtype=bool), np.ones(count, dtype=bool)]
    frequent = shown[np.argsort(-times, kind="stable")][: PATTERNS_UP_TO // 2]
    unique = dict.fromkeys(tuple(p.tolist()) for p in [*first, *frequent, *every] if p.any())
    return np.array(list(unique))


def _most_rows(clean: Evidence, repeated: int) -> int:
    """Return how many rows of a pattern are scored, so that the time stays bounded."""
    return int(np.clip(MOST_NUMBERS / max(repeated * clean.opinions[:, :1].size, 1), LEAST_ROWS, MOST_ROWS))


def _refitted(fusion: Fusion, other: Fusion) -> Fusion:
    return dataclasses.replace(fusion, **{key: getattr(other, key) for key in REFITTED})


def _thresholds(
    part: Evidence, pattern: Array, fold: Array, fusions: Mapping[int, Fusion], rule: str, empty: Intervals
) -> Thresholds:
    """Score rows under one pattern and rule."""
    found = []
    for number in np.unique(fold):
        rows, fusion = part.rows(fold == number), fusions[int(number)]
        # Only the modalities of the pattern, to save time.
        temperatures = {name: t for (name, t), there in zip(fusion.temperatures.items(), pattern, strict=True) if there}
        some = dataclasses.replace(fusion, temperatures=temperatures)
        present = np.ones((len(temperatures), len(rows.targets)), dtype=bool)
        answers = fuse(rows.opinions[pattern], present, some, rule, rows.excess[pattern]).answers
        found.append(empty.nonconformity(answers, rows.targets))
    scores, weights = (np.concatenate(each) for each in zip(*found, strict=True))
    return Thresholds.of(scores[weights > 0], weights[weights > 0])
