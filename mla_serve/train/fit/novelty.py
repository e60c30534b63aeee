"""Fit the reference by which unfamiliar input is detected; mla_serve/fusion/novelty.py applies it.

Tried and left out, on a table of digits in many languages:
- For texts, likelihoods of n-grams of other lengths, and the share of n-grams that a training text has. Over seven ways to
  make a text unfamiliar that the fit has not seen, the mean AUROC of trigrams was .93, of pairs .91, of known trigrams .93,
  of the features .84.
- Maxima and sums of several scores: no better in the fused answer than the best score alone.
- For vectors, the Mahalanobis distance of the numbers themselves: better AUROC, but worse fused answers.
- Logistic regression on features of corrupted training rows: better on the corruptions it has seen, worse on others (chirps
  .76 instead of 1.00, inverted pictures .94 instead of 1.00).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.stats import rankdata

from mla_serve.fusion.formula import Array
from mla_serve.fusion.novelty import QUANTILES, AnyReference, NGramReference, Reference, hash_ngrams

KNN_ROWS = 1000
FLOATS = 110_000  # in one reference
SHRINKAGES = (0.1, 0.01)
RIDGE = 1e-3  # of the means, in rows
MOST_MEANS = 1000
WIDEST = 256  # features; a covariance of more would be larger than the graphs


@dataclasses.dataclass(frozen=True)
class ComparedInputs:
    """ComparedInputs inputs: train, val and corrupted (rows, L).

    pad: for tokens of texts, the token after the end; None for numbers, which are NaN where missing.
    """

    train: Array
    val: Array
    corrupted: Array
    pad: int | None


Candidate = tuple[AnyReference, Array, Array]
"""A reference, and what it scores: of validation rows, and of corrupted copies."""


def fit_reference(
    train: Array,
    indicators: Array,
    val: Array,
    corrupted: Array,
    budget: int = FLOATS,
    inputs: ComparedInputs | None = None,
) -> tuple[AnyReference, str]:
    """Fit several references to training features and keep the one that separates validation rows from corrupted copies best.

    Args: train (N, D) with the indicators (N, F) of its targets, see Task.indicators; val and corrupted (rows, D); budget,
    how many numbers may be stored; inputs, decoded, of texts and columns.
    Returns: the reference, and a note with the AUROC of each method.
    """
    candidates: list[Candidate] = [(_knn(train, budget), val, corrupted)]
    if train.shape[1] <= WIDEST:
        candidates += [(one, val, corrupted) for one in _mahalanobis(train, indicators)]
    if inputs is not None:
        candidates += [(one, inputs.val, inputs.corrupted) for one in _compare_inputs(inputs, budget)]
    scored = [
        (one, one.score(familiar), auroc(one.score(familiar), one.score(other))) for one, familiar, other in candidates
    ]
    best, scores, _ = max(scored, key=lambda found: found[2])
    found: dict[str, float] = {}
    for one, _, separation in scored:
        method = f"{one.method} of the input" if one.reads_input else one.method
        found[method] = max(separation, found.get(method, 0.0))
    note = ", ".join(f"{method} {value:.3f}" for method, value in found.items())
    return scale_to(best, scores), f"{best.method} ({note})"


def scale_to(reference: AnyReference, scores: Array) -> AnyReference:
    """Return the reference with the quantiles of what it scores validation rows (rows,).

    This definition of a quantile makes a new row, which is like those of validation, exceed that of p with probability 1 - p.
    """
    quantiles = np.quantile(scores, QUANTILES, method="weibull").astype(np.float32).astype(np.float64)
    return dataclasses.replace(reference, quantiles=quantiles)


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


def _compare_inputs(inputs: ComparedInputs, budget: int) -> list[AnyReference]:
    """Fit references that read inputs instead of features."""
    if inputs.pad is not None:
        return [_ngrams(inputs.train, inputs.pad, budget)]
    there = ~np.isnan(inputs.train)
    if inputs.train.shape[1] > WIDEST:
        return []
    mean = np.where(there, inputs.train, 0).sum(axis=0, dtype=np.float64) / np.maximum(there.sum(axis=0), 1)
    whole = np.where(there, inputs.train, mean)
    deviation = whole.std(axis=0) + 1e-12
    fitted = _mahalanobis((whole - mean) / deviation, np.ones((len(whole), 1)))
    return [
        _rounded(dataclasses.replace(one, centre=mean, whiten=one.whiten / deviation[:, None], reads_input=True))
        for one in fitted
    ]


def _ngrams(tokens: Array, pad: int, budget: int) -> NGramReference:
    """Count the n-grams of texts, and keep the most frequent."""
    grams, contexts, valid = hash_ngrams(tokens, pad)
    starts = [context[:, 0] for context in contexts]  # the others are counted as shorter n-grams
    hashes, counts = np.unique(np.concatenate([*(gram[valid] for gram in grams), *starts]), return_counts=True)
    kept = np.sort(np.argsort(-counts, kind="stable")[: budget // 2])
    different = len(np.unique(grams[0][valid]))
    return NGramReference(hashes[kept], counts[kept], int(valid.sum()), different, pad, np.zeros(len(QUANTILES)))


def _rounded(reference: Reference) -> Reference:
    """Round to the stored precision, so that the quantiles belong to the scores that the server computes."""
    precise = {
        field: np.float16 if reference.in_half_precision(field) else np.float32
        for field in ("points", "centre", "whiten")
    }
    stored = {field: getattr(reference, field).astype(kind).astype(np.float64) for field, kind in precise.items()}
    return dataclasses.replace(reference, **stored)
