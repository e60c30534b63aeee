"""Fit the probability from which each label is answered, on validation rows.

For each candidate threshold t of a label: its rows with the label and p >= t (hits), its rows with p >= t (answered), its
rows with the label. To these the same counts over all labels are added, scaled so that they hold SHRINK rows with a label:
a label with many rows gets its own threshold, a rare one nearly the common one. The threshold is

    f1         the one with the highest F1, 2 hits / (answered + rows with the label)
    precision  the lowest one with hits / (answered + 1) >= P. The 1 is a wrong answer that is still to come: without it the
               precision on new rows would be below P about half of the time. Of the label's own rows alone, the share
               must be P too: a rare label borrows caution from the others, and no trust.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mla_serve.fusion.formula import Array, Fusion
from mla_serve.fusion.rules import fuse
from mla_serve.tasks import Labels, Task
from mla_serve.tasks.labels import sigmoid
from mla_serve.train.fit.evidence import Evidence

CANDIDATES = sigmoid(np.linspace(-7.0, 5.0, 241))
SHRINK = 10.0  # rows
NEVER = 1.0  # the threshold of a label whose precision is never high enough


def fit_thresholds(clean: Evidence, fusion: Fusion, precision: float | None = None) -> tuple[Task, list[str]]:
    """Return the task with the fitted thresholds, and notes; a task without labels stays as it is.

    Args: precision, the least that is wanted, 0 to 1; None for the highest F1.
    """
    task = clean.task
    there = np.flatnonzero(clean.present.any(axis=0))
    if not isinstance(task, Labels) or not len(there):
        return task, []
    rows = clean.rows(there)
    answers = fuse(rows.opinions, rows.present, fusion, excess=rows.excess).answers
    found = best_thresholds(sigmoid(answers), rows.targets, precision)
    aim = "the highest F1" if precision is None else f"a precision of at least {precision:g}"
    note = f"thresholds of the labels: {found.min():.2f} to {found.max():.2f}, for {aim} on the rows that the fusion is fitted on"
    if never := [name for name, threshold in zip(task.names, found, strict=True) if threshold == NEVER]:
        note += f"; {len(never)} labels never reach it and are never answered: {', '.join(never[:5])}"
    return dataclasses.replace(task, thresholds=tuple(round(float(threshold), 4) for threshold in found)), [note]


def best_thresholds(p: Array, targets: Array, precision: float | None = None) -> Array:
    """Return the best threshold of each label: probabilities (N, C), targets (N, C) with NaN where not known -> (C,)."""
    known = ~np.isnan(targets)
    truth = np.where(known, targets, 0) > 0
    answered = np.array([_count_from(p[known[:, c], c]) for c in range(p.shape[1])])  # (C, candidates)
    hits = np.array([_count_from(p[truth[:, c], c]) for c in range(p.shape[1])])
    having = truth.sum(axis=0)[:, None]
    own_enough = hits >= (precision or 0.0) * answered
    share = SHRINK / max(int(having.sum()), 1)
    answered, hits, having = (own + share * own.sum(axis=0) for own in (answered, hits, having))
    if precision is None:
        return np.array([_middle(one) for one in 2 * hits / np.maximum(answered + having, 1e-12)])
    enough = own_enough & (hits / (answered + 1) >= precision)
    return np.where(enough.any(axis=1), CANDIDATES[enough.argmax(axis=1)], NEVER)


def _count_from(p: Array) -> Array:
    """Count the probabilities (N,) that reach each candidate: (candidates,)."""
    return len(p) - np.searchsorted(np.sort(p), CANDIDATES)


def _middle(scores: Array) -> float:
    """Return the candidate in the middle of those with the highest score; .5 where all are 0, as without any hit."""
    if scores.max() <= 0:
        return 0.5
    best = np.flatnonzero(scores >= scores.max() - 1e-12)
    return float(CANDIDATES[best[len(best) // 2]])
