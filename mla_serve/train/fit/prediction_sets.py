"""Compute the scores of prediction sets that a bundle keeps; mla_serve/fusion/prediction_sets.py applies them.

The scores are cross-fitted. A conformal score must come from a model that has not been fitted on the row (exchangeability
with new rows). Holding out rows for it would leave fewer for the fusion. So the validation rows are split into folds; for
each fold the fusion is fitted on the other folds, and the rows of the fold are scored by it. The fusion that is exported is
fitted on all rows. Groups, such as speakers, are never in two folds where that can be avoided.
(Cross-conformal prediction: Vovk, Annals of Mathematics and Artificial Intelligence 2015.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mla_serve.fusion.formula import Array, Fusion, pattern_name
from mla_serve.fusion.prediction_sets import scores
from mla_serve.fusion.rules import RULES, fuse
from mla_serve.train.data.folds import Folds
from mla_serve.train.fit.evidence import Evidence
from mla_serve.train.fit.formula import list_patterns

ENOUGH = 50
"""A pattern with fewer scores than this uses the scores of all patterns of its size."""
DIGITS = 4  # significant digits of a stored score


def cross_fitted_scores(
    clean: Evidence,
    names: Sequence[str],
    fusion: Fusion,
    folds: Folds,
    refit: Callable[[Array], Fusion],
    seed: int,
    rules: Sequence[str] = tuple(RULES),
    listed: Array | None = None,
) -> dict[str, dict[str, list[float]]]:
    """Score each row's label under every rule and pattern, by a fusion that was fitted on the other folds.

    Args: refit(kept), fits to the rows of a mask; listed (K, M), the patterns; default: all, or a sample of many, which
    is then pooled by size.
    """
    sampled = list_patterns(len(names))
    by_size = len(sampled) < 2 ** len(names) - 1
    listed = sampled if listed is None else listed
    found = {(rule, _names(p, names)): np.full(len(clean.targets), np.nan) for rule in rules for p in listed}
    for number in np.unique(folds.number):
        own = folds.number == number
        refitted = refit(~own)
        parameters = ("temperatures", "sharpness", "scales", "discounts")
        fitted = dataclasses.replace(fusion, **{key: getattr(refitted, key) for key in parameters})
        part = clean.rows(own)
        for pattern in listed:
            usable = part.present[pattern].all(axis=0)
            if usable.any():
                _score(part.rows(usable), pattern, names, fitted, np.flatnonzero(own)[usable], found, rules)
    return tabulate_scores(found, np.random.default_rng(seed), by_size=by_size)


def _score(
    part: Evidence,
    pattern: Array,
    names: Sequence[str],
    fusion: Fusion,
    at: Array,
    found: dict[tuple[str, tuple[str, ...]], Array],
    rules: Sequence[str],
) -> None:
    """Write the scores of some rows under one pattern into `found`, at their positions `at`."""
    mask = np.repeat(pattern[:, None], len(part.targets), axis=1)
    for rule in rules:
        log_p = fuse(part.opinions, mask, fusion, rule, part.excess).answers
        found[rule, _names(pattern, names)][at] = scores(log_p[np.arange(len(log_p)), part.targets])


def _names(pattern: Array, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name, there in zip(names, pattern, strict=True) if there)


def tabulate_scores(
    true_scores: Mapping[tuple[str, tuple[str, ...]], Array], generator: np.random.Generator, *, by_size: bool = False
) -> dict[str, dict[str, list[float]]]:
    """Arrange the scores of the true labels by rule and pattern, for storing in a bundle.

    Args: true_scores, {(rule, pattern): scores (B,), NaN in rows that lack a modality of the pattern}; by_size, pool all
    patterns, because not every pattern is listed.

    The pool of a size holds one score per row, of a pattern drawn at random. With several scores of one row the pool
    would not be exchangeable with a new row, which has one pattern.
    """
    table: dict[str, dict[str, list[float]]] = {}
    for (rule, pattern), values in true_scores.items():
        there = values[~np.isnan(values)]
        entry = table.setdefault(rule, {})
        if len(there) >= ENOUGH and not by_size:
            entry[pattern_name(pattern)] = rounded_scores(there)
        elif str(len(pattern)) not in entry:
            alike = [v for (r, p), v in true_scores.items() if r == rule and len(p) == len(pattern)]
            entry[str(len(pattern))] = rounded_scores(_one_of_each_column(np.array(alike), generator))
    return table


def rounded_scores(values: Array) -> list[float]:
    """Sort scores and round them to DIGITS digits for storing: up, because a lower threshold would lose coverage."""
    if not len(values):
        return []
    power = 10.0 ** (DIGITS - np.ceil(np.log10(np.maximum(values, 1e-12))))
    rounded = np.ceil(np.sort(values) * np.sort(power)[::-1]) / np.sort(power)[::-1]
    return [float(f"{value:.{DIGITS}g}") for value in np.maximum(rounded, 0.0)]


def _one_of_each_column(values: Array, generator: np.random.Generator) -> Array:
    """Draw one value that is not NaN from each column, leaving out columns without any: (K, B) -> (at most B,)."""
    order = np.where(np.isnan(values), -1.0, generator.random(values.shape))
    picked = values[order.argmax(axis=0), np.arange(values.shape[1])]
    there: Array = picked[~np.isnan(picked)]
    return there
