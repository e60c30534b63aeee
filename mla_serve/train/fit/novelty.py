"""Choose and fit what unfamiliar input is told by: see mla_serve/fusion/novelty.py.

Tried for texts, and left out: scores of the input beside those of the features (n-gram likelihood, overlap of n-grams with
training words, edit distance, and maxima, sums and logistic regressions of them). On tri-digits two of the best by validation
tell random Unicode better (.99 and .98 against .88), but not words that are no numbers (.79 and .81 against .82).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.stats import rankdata

from mla_serve.fusion.formula import Array
from mla_serve.fusion.novelty import QUANTILES, Reference

ROWS = 1000
FLOATS = 110_000  # of a modality's reference
SHRINKAGE = 0.1
WIDEST = 256  # features; beyond, the covariance would not fit beside the graphs


def fit_reference(
    train: Array, labels: Array, val: Array, spoiled: Array, budget: int = FLOATS
) -> tuple[Reference, str]:
    """Fit both methods on training features and keep the one that tells validation from its spoiled copy better.

    Args: train (N, D) with labels (N,); val and spoiled (rows, D); budget, numbers that may be stored.
    Returns: the reference and a note with both AUROCs.
    """
    candidates = [_knn(train, budget)]
    if train.shape[1] <= WIDEST:
        candidates.append(_mahalanobis(train, labels))
    found = {one.method: auroc(one.score(val), one.score(spoiled)) for one in candidates}
    best = max(candidates, key=lambda one: found[one.method])
    quantiles = np.quantile(best.score(val), QUANTILES)
    note = ", ".join(f"{method} {value:.3f}" for method, value in found.items())
    return dataclasses.replace(
        best, quantiles=quantiles.astype(np.float32).astype(np.float64)
    ), f"{best.method} ({note})"


def auroc(references: Array, strange: Array) -> float:
    """Return the chance that a strange one scores above a familiar one, ties counting half."""
    ranks = rankdata(np.concatenate([references, strange]))[len(references) :]
    return float((ranks.mean() - (len(strange) + 1) / 2) / len(references))


def _knn(train: Array, budget: int) -> Reference:
    width = train.shape[1]
    generator = np.random.default_rng(0)
    different = np.unique(train, axis=0)  # a word that occurs often is one point
    count = min(len(different), ROWS, max(budget // width, 50))
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
    """Round to what is stored, so that the quantiles are of the scores that will be computed."""
    precise = {
        field: np.float16 if reference.in_half_precision(field) else np.float32
        for field in ("points", "centre", "whiten")
    }
    stored = {field: getattr(reference, field).astype(kind).astype(np.float64) for field, kind in precise.items()}
    return dataclasses.replace(reference, **stored)
