"""The coverage of prediction sets on exchangeable rows follows its law. (Here because scipy is.)"""

import math

import numpy as np
import pytest
from scipy.stats import betabinom

from mla_serve.fusion.formula import log_softmax
from mla_serve.fusion.prediction_sets import PredictionSets, rounded_scores


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_coverage_on_exchangeable_rows_follows_the_beta_binomial(coverage: float) -> None:
    generator = np.random.default_rng(1)
    count, fresh, draws = 150, 150, 200
    covered = []
    for _ in range(draws):
        labels = generator.integers(0, 4, count + fresh)
        log_p = log_softmax(generator.normal(size=(count + fresh, 4)) + 1.5 * np.eye(4)[labels])
        own = -np.expm1(log_p[np.arange(len(labels)), labels])
        conformal = PredictionSets({"paper": {"a": rounded_scores(own[:count])}})
        inside = conformal.choose(log_p[count:], np.ones((1, fresh), dtype=bool), ("a",), "paper", coverage)
        covered.append(inside[np.arange(fresh), labels[count:]].sum())
    rank = math.ceil((count + 1) * coverage)
    law = betabinom(fresh, rank, count + 1 - rank)
    assert np.mean(covered) >= law.mean() - 4 * law.std() / math.sqrt(draws)
    assert np.mean(np.array(covered) < law.ppf(0.005)) <= 0.03
