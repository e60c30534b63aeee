"""Scores against worked examples and scikit-learn's definitions written out; the conditions of an evaluation."""

import numpy as np
import pytest

from mla_serve.evaluation.scores import conditions, drop, evaluate, patterns
from mla_serve.fusion.formula import Fusion
from mla_serve.tasks import Classes
from mla_serve.tasks.base import expected_calibration_error
from mla_serve.tasks.classes import macro_f1


def test_a_perfect_and_a_hopeless_prediction() -> None:
    labels = np.array([0, 1, 2])
    with np.errstate(divide="ignore"):
        sure = np.log(np.clip(np.eye(3), 1e-12, 1))
    perfect, hopeless = Classes().score(sure, labels), Classes().score(sure, (labels + 1) % 3)
    assert perfect == pytest.approx({"accuracy": 1, "macro_f1": 1, "nll": 0, "brier": 0, "ece": 0}, abs=1e-9)
    assert hopeless["accuracy"] == 0
    assert hopeless["brier"] == pytest.approx(2)
    assert hopeless["ece"] == pytest.approx(1)


def test_ece_of_a_coin_that_claims_ninety_per_cent() -> None:
    right = np.arange(100) % 2 == 0
    assert expected_calibration_error(np.full(100, 0.9), right) == pytest.approx(0.4)
    assert expected_calibration_error(np.full(100, 0.5), right) == pytest.approx(0.0)


def test_ece_counts_a_confidence_of_one() -> None:
    assert expected_calibration_error(np.ones(4), np.zeros(4, dtype=bool)) == 1


def test_macro_f1_is_the_mean_over_classes() -> None:
    answers, labels = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])
    assert macro_f1(answers, labels) == pytest.approx((2 * 2 / 5 + 2 * 1 / 3) / 2)


def test_every_pattern_is_listed_once_with_few_modalities() -> None:
    assert len({tuple(p) for p in patterns(4)}) == 15
    assert len(patterns(10)) == 11


def test_dropping_keeps_one_modality_and_adds_none() -> None:
    generator = np.random.default_rng(0)
    present = generator.random((4, 5000)) < 0.8
    present[0] |= ~present.any(axis=0)
    kept = drop(present, 0.5, generator)
    assert kept.any(axis=0).all()
    assert not (kept & ~present).any()
    full = drop(np.ones((3, 20_000), dtype=bool), 0.8, generator)
    assert (full.sum(axis=0) == 1).mean() == pytest.approx(0.8**3 + 3 * 0.2 * 0.8**2, abs=0.01)


def test_conditions_use_the_masks_of_the_data_set_when_draws_is_0() -> None:
    present = np.ones((2, 6), dtype=bool)
    own = np.array([[True] * 6, [False] * 6])
    named = dict(conditions(present, ("a", "b"), {"50": own}))
    np.testing.assert_array_equal(named["missing50"][0], own)
    assert set(named) == {"full", "missing20", "missing50", "missing80", "a", "b", "a+b"}
    assert len(dict(conditions(present, ("a", "b"), {"50": own}, draws=4))["missing50"]) == 4


def test_a_pattern_is_scored_on_the_rows_that_have_it() -> None:
    logits = np.zeros((2, 3, 2))
    logits[0] = [[5, 0], [5, 0], [0, 5]]
    present = np.array([[True, True, True], [True, False, False]])
    results = evaluate(logits, present, np.array([0, 1, 1]), Fusion.paper(("a", "b")), ["paper"])
    assert results["a"]["paper"]["accuracy"] == pytest.approx(2 / 3)
    assert results["a+b"]["paper"]["accuracy"] == 1
