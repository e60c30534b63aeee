"""The scores that a bundle keeps: sorted, rounded up, pooled by size; their coverage on exchangeable rows follows its law."""

import math

import numpy as np
import pytest
from scipy.stats import betabinom

from mla_serve.fusion.prediction_sets import PredictionSets
from mla_serve.tasks.base import log_softmax
from mla_serve.train.fit.prediction_sets import ENOUGH, rounded_scores, tabulate_scores


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


def test_stored_scores_are_sorted_and_rounded_up() -> None:
    values = np.concatenate([10.0 ** np.random.default_rng(0).uniform(-11, 0, 500), [0.0, 1.0, 0.5]])
    kept = np.array(rounded_scores(values))
    assert (np.diff(kept) >= 0).all()
    assert (kept >= np.sort(values)).all()
    np.testing.assert_allclose(kept, np.sort(values), rtol=2e-3, atol=1e-12)
    assert kept.max() <= 1


def test_few_scores_fall_back_to_patterns_of_the_same_size() -> None:
    many, few = np.linspace(0, 1, ENOUGH), np.full(ENOUGH, np.nan)
    few[:3] = 0.5
    table = tabulate_scores({("paper", ("a",)): many, ("paper", ("b",)): few}, np.random.default_rng(0))
    assert set(table["paper"]) == {"a", "1"}
    sets = PredictionSets(table)
    assert len(sets.scores_of("paper", ("b",))) == ENOUGH


@pytest.mark.parametrize(("count", "key"), [(50, "a"), (49, "1")])
def test_fifty_scores_are_enough_for_a_pattern_of_its_own(count: int, key: str) -> None:
    assert list(tabulate_scores({("paper", ("a",)): np.linspace(0, 1, count)}, np.random.default_rng(0))["paper"]) == [
        key
    ]


def test_scores_are_pooled_by_size_when_not_all_patterns_are_listed() -> None:
    many = {("paper", (name,)): np.linspace(0, 1, 200) for name in ("a", "b")}
    table = tabulate_scores(many, np.random.default_rng(0), by_size=True)
    assert set(table["paper"]) == {"1"}
    assert len(PredictionSets(table).scores_of("paper", ("c",))) == 200


def test_a_probability_of_one_that_rounding_lifted_above_one_scores_zero() -> None:
    assert rounded_scores(np.array([-1e-15, 0.25])) == [0.0, 0.25]


def test_a_pool_holds_only_scores_of_its_own_rule_and_size() -> None:
    sizes = {("a",): 0.1, ("b",): 0.1, ("a", "b"): 0.2}
    scores = {
        (rule, pattern): np.full(8, score + shift)
        for rule, shift in (("paper", 0.0), ("product", 0.5))
        for pattern, score in sizes.items()
    }
    table = tabulate_scores(scores, np.random.default_rng(0))
    expected = {"paper": {"1": 0.1, "2": 0.2}, "product": {"1": 0.6, "2": 0.7}}
    assert table == {rule: {size: [score] * 8 for size, score in of.items()} for rule, of in expected.items()}


def test_each_row_adds_one_score_to_a_pool_of_a_pattern_drawn_at_random() -> None:
    low, high = np.full(400, 0.2), np.full(400, 0.8)
    low[:100] = high[-100:] = np.nan  # these rows have only one of the patterns
    pooled = np.array(
        tabulate_scores({("paper", ("a",)): low, ("paper", ("b",)): high}, np.random.default_rng(0), by_size=True)[
            "paper"
        ]["1"]
    )
    assert len(pooled) == 400
    assert np.mean(pooled == 0.2) == pytest.approx(0.5, abs=0.1)
    assert set(pooled.tolist()) == {0.2, 0.8}
