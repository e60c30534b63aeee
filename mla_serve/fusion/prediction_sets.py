"""Sets of labels that contain the true label at a requested rate, the coverage. Split conformal prediction; numpy only.

    score      s = 1 - p(true label) on n validation rows
    threshold  the score of rank ceil((n + 1) coverage) among the n; infinite when the rank exceeds n
    set        the labels with 1 - p <= threshold, and always the answer itself

Why this rank: a new row and the n validation rows are exchangeable, so the new row's score is equally likely to take each
of the n + 1 places among them. It is at most the k-th smallest validation score with probability at least k / (n + 1), and
ceil((n + 1) coverage) is the smallest k for which that is at least the coverage. This holds for every finite n and every
model, however badly calibrated: a worse model only gives larger sets. With few scores the rank exceeds n, no threshold
gives the guarantee, and the set holds all labels.

The guarantee holds on average over rows. To make it hold for each availability pattern too, the scores are kept by
pattern (Mondrian conformal prediction), and by fusion rule, because each gives other probabilities. A pattern with few
validation rows uses the scores of all patterns of its size instead. train/fit/prediction_sets.py computes the scores that
a bundle keeps.

Sources: Vovk et al., Algorithmic Learning in a Random World, 2005; Sadinle, Lei, Wasserman, JASA 2019 (LAC, this score).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from mla_serve.fusion.formula import Array, pattern_keys


@dataclasses.dataclass(frozen=True)
class PredictionSets:
    """Chooses prediction sets by the scores that a bundle keeps.

    scores: fusion rule -> availability pattern such as "image+text", or another of `pattern_keys` -> sorted scores.
    """

    scores: Mapping[str, Mapping[str, Sequence[float]]] = dataclasses.field(default_factory=dict)

    def scores_of(self, rule: str, pattern: Sequence[str]) -> Sequence[float]:
        """Look up the scores of a pattern, else those of the patterns of its size, else none."""
        known = self.scores.get(rule, {})
        return next((known[key] for key in pattern_keys(pattern) if key in known), ())

    def choose(
        self, log_probabilities: Array, present: Array, names: Sequence[str], rule: str, coverage: float
    ) -> Array:
        """Choose the labels of each set: (B, C), present (M, B) -> (B, C) bool, one True per row at least."""
        patterns, index = np.unique(present, axis=1, return_inverse=True)
        thresholds = [
            threshold(self.scores_of(rule, [n for n, there in zip(names, column, strict=True) if there]), coverage)
            for column in patterns.T
        ]
        inside: Array = scores(log_probabilities) <= np.array(thresholds)[index][:, None]
        inside[np.arange(len(inside)), log_probabilities.argmax(axis=1)] = True
        return inside


def scores(log_probabilities: Array) -> Array:
    """Score every label: 1 - p, exact where p is near 1."""
    values: Array = -np.expm1(log_probabilities)
    return values


def threshold(sorted_scores: Sequence[float], coverage: float) -> float:
    """Return the score of rank ceil((n + 1) coverage), or infinity when the rank exceeds n."""
    # The margin keeps a product such as 100 * 0.9 = 90.00000000000001 from being rounded up by one.
    rank = max(1, math.ceil((len(sorted_scores) + 1) * coverage - 1e-9))
    return math.inf if rank > len(sorted_scores) else sorted_scores[rank - 1]
