"""Prediction sets: the rank of the threshold, the stored scores, the fallback by pattern size."""

import math

import numpy as np
import pytest

from mla_serve.fusion.formula import log_softmax
from mla_serve.fusion.prediction_sets import ENOUGH, PredictionSets, rounded_scores, tabulate_scores, threshold


@pytest.mark.parametrize(("count", "coverage"), [(9, 0.9), (99, 0.9), (100, 0.95), (10, 0.5), (500, 0.999), (3, 0.1)])
def test_the_threshold_is_the_score_of_rank_ceil_n_plus_1_coverage(count: int, coverage: float) -> None:
    values = np.sort(np.random.default_rng(0).random(count)).tolist()
    rank = math.ceil(round((count + 1) * coverage, 9))
    assert threshold(values, coverage) == (math.inf if rank > count else values[rank - 1])


def test_a_set_holds_all_labels_with_too_few_scores_or_an_unknown_pattern() -> None:
    sets = PredictionSets({"paper": {"a": [0.1] * 8}})
    log_p = log_softmax(np.array([[9.0, 0, 0]]))
    assert sets.choose(log_p, np.array([[True]]), ("a",), "paper", 0.9).all()
    assert sets.choose(log_p, np.array([[True]]), ("b",), "paper", 0.5).all()
    assert sets.choose(log_p, np.array([[True]]), ("a",), "paper", 0.8).tolist() == [[True, False, False]]


def test_a_set_is_never_empty_and_holds_the_answer() -> None:
    sets = PredictionSets({"paper": {"a": [0.0] * 100}})
    log_p = log_softmax(np.random.default_rng(0).normal(size=(20, 5)))
    inside = sets.choose(log_p, np.ones((1, 20), dtype=bool), ("a",), "paper", 0.5)
    assert (inside.sum(axis=1) == 1).all()
    assert inside[np.arange(20), log_p.argmax(axis=1)].all()


def test_each_row_is_judged_by_its_own_pattern() -> None:
    sets = PredictionSets({"paper": {"a": [0.01] * 99, "a+b": [0.9] * 99}})
    log_p = np.log([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    inside = sets.choose(log_p, np.array([[True, True], [False, True]]), ("a", "b"), "paper", 0.9)
    assert inside.sum(axis=1).tolist() == [1, 3]


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


def test_a_label_whose_score_equals_the_threshold_is_in_the_set() -> None:
    sets = PredictionSets({"paper": {"a": [0.5] * 9}})
    log_p = np.log([[0.5, 0.5, 1e-9]])
    assert sets.choose(log_p, np.array([[True]]), ("a",), "paper", 0.9).tolist() == [[True, True, False]]


def test_a_set_holds_all_labels_under_a_rule_without_scores() -> None:
    sets = PredictionSets({"paper": {"a": [0.1] * 99}})
    assert sets.scores_of("product", ("a",)) == ()
    assert sets.choose(np.log([[0.9, 0.1]]), np.array([[True]]), ("a",), "product", 0.1).all()


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
