"""Prediction sets: the rank of the threshold, and which labels a set holds."""

import math

import numpy as np
import pytest

from mla_serve.fusion.prediction_sets import PredictionSets, threshold
from mla_serve.tasks.base import log_softmax


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


@pytest.mark.parametrize("coverage", [1e-323, 1e-10, 0.5])
def test_without_scores_every_label_is_in_the_set(coverage: float) -> None:
    assert threshold([], coverage) == math.inf


def test_a_label_whose_score_equals_the_threshold_is_in_the_set() -> None:
    sets = PredictionSets({"paper": {"a": [0.5] * 9}})
    log_p = np.log([[0.5, 0.5, 1e-9]])
    assert sets.choose(log_p, np.array([[True]]), ("a",), "paper", 0.9).tolist() == [[True, True, False]]


def test_a_set_holds_all_labels_under_a_rule_without_scores() -> None:
    sets = PredictionSets({"paper": {"a": [0.1] * 99}})
    assert sets.scores_of("product", ("a",)) == ()
    assert sets.choose(np.log([[0.9, 0.1]]), np.array([[True]]), ("a",), "product", 0.1).all()
