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
SHRINKAGE = 0.1
WIDEST = 256  # features; a covariance of more would be larger than the graphs


def fit_reference(
    train: Array, labels: Array, val: Array, corrupted: Array, budget: int = FLOATS
) -> tuple[Reference, str]:
    """Fit both methods to training features and keep the one that separates validation rows from corrupted copies better.

    Args: train (N, D) with labels (N,); val and corrupted (rows, D); budget, how many numbers may be stored.
    Returns: the reference, and a note with both AUROCs.
    """
    candidates = [_knn(train, budget)]
    if train.shape[1] <= WIDEST:
        candidates.append(_mahalanobis(train, labels))
    found = {one.method: auroc(one.score(val), one.score(corrupted)) for one in candidates}
    best = max(candidates, key=lambda one: found[one.method])
    quantiles = np.quantile(best.score(val), QUANTILES)
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


def _mahalanobis(train: Array, labels: Array) -> Reference:
    features = train.astype(np.float64)
    means = np.array([features[labels == c].mean(axis=0) for c in np.unique(labels)])
    within = features - means[np.searchsorted(np.unique(labels), labels)]
    covariance = within.T @ within / len(within)
    floor = SHRINKAGE * np.trace(covariance) / len(covariance)
    values, vectors = np.linalg.eigh((1 - SHRINKAGE) * covariance + (floor + 1e-12) * np.eye(len(covariance)))
    whiten = vectors / np.sqrt(values)
    centre = features.mean(axis=0)
    return _rounded(Reference("mahalanobis", (means - centre) @ whiten, centre, whiten, np.zeros(len(QUANTILES))))


def _rounded(reference: Reference) -> Reference:
    """Round to the stored precision, so that the quantiles belong to the scores that the server computes."""
    precise = {
        field: np.float16 if reference.in_half_precision(field) else np.float32
        for field in ("points", "centre", "whiten")
    }
    stored = {field: getattr(reference, field).astype(kind).astype(np.float64) for field, kind in precise.items()}
    return dataclasses.replace(reference, **stored)
