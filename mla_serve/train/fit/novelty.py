"""Fit the reference by which unfamiliar input is detected; mla_serve/fusion/novelty.py applies it.

Tried for texts and left out: scores of the text itself beside those of its features (n-gram likelihood, overlap of n-grams
with training words, edit distance, and maxima, sums and logistic regressions of these). On a table of digits in many
languages the two best by validation detected random Unicode better (AUROC .99 and .98 instead of .88), but words that are
not numbers no better (.79 and .81 instead of .82).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.stats import rankdata

from mla_serve.fusion.formula import Array
from mla_serve.fusion.novelty import QUANTILES, Reference

KNN_ROWS = 1000
FLOATS = 110_000  # in one reference
SHRINKAGES = (0.1, 0.01)
RIDGE = 1e-3  # of the means, in rows
MOST_MEANS = 1000
WIDEST = 256  # features; a covariance of more would be larger than the graphs


def fit_reference(
    train: Array, indicators: Array, val: Array, corrupted: Array, budget: int = FLOATS
) -> tuple[Reference, str]:
    """Fit several references to training features and keep the one that separates validation rows from corrupted copies best.

    Args: train (N, D) with the indicators (N, F) of its targets, see Task.indicators; val and corrupted (rows, D); budget,
    how many numbers may be stored.
    Returns: the reference, and a note with the AUROC of each method.
    """
    candidates = [_knn(train, budget)]
    if train.shape[1] <= WIDEST:
        candidates += _mahalanobis(train, indicators)
    separation = [auroc(one.score(val), one.score(corrupted)) for one in candidates]
    best = candidates[int(np.argmax(separation))]
    quantiles = np.quantile(best.score(val), QUANTILES)
    found: dict[str, float] = {}
    for one, value in zip(candidates, separation, strict=True):
        found[one.method] = max(value, found.get(one.method, 0.0))
    note = ", ".join(f"{method} {value:.3f}" for method, value in found.items())
    return dataclasses.replace(
        best, quantiles=quantiles.astype(np.float32).astype(np.float64)
    ), f"{best.method} ({note})"


def auroc(familiar: Array, unfamiliar: Array) -> float:
    """Return the probability that an unfamiliar input scores above a familiar one; ties count half."""
    ranks = rankdata(np.concatenate([familiar, unfamiliar]))[len(familiar) :]
    return float((ranks.mean() - (len(unfamiliar) + 1) / 2) / len(familiar))


def _knn(train: Array, budget: int) -> Reference:
    width = train.shape[1]
    generator = np.random.default_rng(0)
    different = np.unique(train, axis=0)  # a word that occurs often is one point
    count = min(len(different), KNN_ROWS, max(budget // width, 50))
    points = different[generator.permutation(len(different))[:count]].astype(np.float64)
    points /= np.linalg.norm(points, axis=1, keepdims=True) + 1e-12
    return _rounded(Reference("knn", points, np.zeros(width), np.eye(width), np.zeros(len(QUANTILES))))


def _mahalanobis(train: Array, indicators: Array) -> list[Reference]:
    """Fit the means of the features given the targets, and the covariance of what is left, shrunken more and less.

    The means are linear in the indicators (ridge regression). For classes they are the means of the classes. For labels, the
    mean of a set is a sum over its labels, so that rare sets have one too; the most frequent sets are kept.
    """
    centre = train.mean(axis=0, dtype=np.float64)
    features = train - centre
    moments = indicators.T @ indicators + RIDGE * np.eye(indicators.shape[1])
    coefficients = np.linalg.solve(moments, indicators.T @ features)
    within = features - indicators @ coefficients
    values, vectors = np.linalg.eigh(within.T @ within / len(within))
    different, counts = np.unique(indicators, axis=0, return_counts=True)
    means = different[np.argsort(-counts, kind="stable")[:MOST_MEANS]] @ coefficients
    references = []
    for shrinkage in SHRINKAGES:
        shrunken = (1 - shrinkage) * np.maximum(values, 0) + shrinkage * values.mean() + 1e-12
        whiten = vectors / np.sqrt(shrunken)
        references.append(_rounded(Reference("mahalanobis", means @ whiten, centre, whiten, np.zeros(len(QUANTILES)))))
    return references


def _rounded(reference: Reference) -> Reference:
    """Round to the stored precision, so that the quantiles belong to the scores that the server computes."""
    precise = {
        field: np.float16 if reference.in_half_precision(field) else np.float32
        for field in ("points", "centre", "whiten")
    }
    stored = {field: getattr(reference, field).astype(kind).astype(np.float64) for field, kind in precise.items()}
    return dataclasses.replace(reference, **stored)
