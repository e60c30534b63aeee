"""Scores of labels are those of scikit-learn. Here, because the environment of serving has no scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, precision_score

from mla_serve.tasks import Labels
from mla_serve.tasks.labels import average_precision, sigmoid

seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds)
def test_average_precision_and_f1_are_those_of_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores, truth = generator.integers(0, 6, (40, 4)) / 6, generator.random((40, 4)) < [0.4, 0.4, 0.03, 0]
    known = generator.random((40, 4)) < 0.8
    found_areas = average_precision(np.where(known, scores, -np.inf), truth & known)
    for c in range(4):
        rows = known[:, c]
        expected = average_precision_score(truth[rows, c], scores[rows, c]) if truth[rows, c].any() else 0.0
        assert found_areas[c] == pytest.approx(expected)
    answers, targets = generator.normal(size=(40, 3)), (generator.random((40, 3)) < 0.4).astype(np.float32)
    found = Labels(("x", "y", "z")).score(answers, targets)
    assert found["micro_f1"] == pytest.approx(f1_score(targets, sigmoid(answers) >= 0.5, average="micro"))
    assert found["precision"] == pytest.approx(precision_score(targets, sigmoid(answers) >= 0.5, average="micro"))
