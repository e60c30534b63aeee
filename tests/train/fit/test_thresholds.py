"""Thresholds of labels: the best on validation, near the common one where a label is rare, and the precision that was asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mla_serve.errors import ConfigError
from mla_serve.fusion.formula import Array, Fusion
from mla_serve.tasks import Classes, Labels
from mla_serve.tasks.labels import sigmoid
from mla_serve.train.config import TrainConfig
from mla_serve.train.fit.evidence import Evidence
from mla_serve.train.fit.thresholds import NEVER, best_thresholds, fit_thresholds
from mla_serve.train.plan import check_threshold


def calibrated(rows: int, shares: tuple[float, ...], seed: int = 0, strength: float = 2.0) -> tuple[Array, Array]:
    """Return true probabilities (N, C) of labels with these frequencies, and labels drawn from them."""
    generator = np.random.default_rng(seed)
    odds = np.log(np.array(shares) / (1 - np.array(shares)))
    p = sigmoid(odds + strength * generator.normal(size=(rows, len(shares))))
    return p, (generator.random(p.shape) < p).astype(np.float32)


def f1(p: Array, truth: Array, thresholds: Array | float) -> Array:
    chosen = p >= thresholds
    hits = (chosen & (truth > 0)).sum(axis=0)
    scores: Array = 2 * hits / np.maximum(chosen.sum(axis=0) + truth.sum(axis=0), 1)
    return scores


def test_the_f1_of_frequent_and_rare_labels_is_higher_on_new_rows_than_at_one_half() -> None:
    shares = (0.5, 0.2, 0.05, 0.02)
    found = best_thresholds(*calibrated(800, shares))
    p, truth = calibrated(20_000, shares, seed=1)
    assert (f1(p, truth, found) >= f1(p, truth, 0.5) - 0.01).all()
    assert f1(p, truth, found).mean() > f1(p, truth, 0.5).mean() + 0.05


def test_a_label_with_hardly_a_row_gets_nearly_the_common_threshold() -> None:
    p, truth = calibrated(600, (0.3, 0.3, 0.3, 0.004))
    truth[:, 3] = 0
    truth[p[:, 3].argsort()[-80], 3] = 1  # one row, which by itself asks for a threshold of nearly nothing
    found = best_thresholds(p, truth)
    assert np.sort(p[:, 3])[-80] < 0.1
    assert found[3] == pytest.approx(found[:3].mean(), abs=0.12)


@pytest.mark.parametrize("wanted", [0.7, 0.9])
def test_the_precision_on_new_rows_is_what_was_asked(wanted: float) -> None:
    shares, reached = (0.4, 0.2, 0.1), []
    for seed in range(20):
        found = best_thresholds(*calibrated(500, shares, seed), wanted)
        p, truth = calibrated(5000, shares, 100 + seed)
        chosen = p >= found
        reached.append((chosen & (truth > 0)).sum() / chosen.sum())
    assert np.mean(reached) >= wanted - 0.005


def test_a_label_that_never_reaches_the_precision_is_never_answered_and_named() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(1, 300, 2))
    truth = (generator.random((300, 2)) < [0.5, 0.02]).astype(np.float32)
    logits[0, :, 0] += 8 * truth[:, 0] - 4
    given = Evidence.of(logits, np.ones((1, 300), bool), truth, task=Labels(("drama", "war")))
    task, notes = fit_thresholds(given, Fusion.paper(("a",), given.task), 0.95)
    assert isinstance(task, Labels)
    assert task.thresholds[0] < task.thresholds[1] == NEVER
    assert "1 labels never reach it and are never answered: war" in notes[0]


def test_a_rare_label_reaches_the_precision_on_its_own_rows() -> None:
    p, truth = calibrated(600, (0.5, 0.5), strength=6.0)
    p, truth = np.column_stack([p, np.full(600, 0.001)]), np.column_stack([truth, np.zeros(600)])
    p[:6, 2], truth[:2, 2] = 0.9, 1  # 2 right of 6
    for wanted in (0.6, 0.7):
        chosen = p >= best_thresholds(p, truth, wanted)
        own = truth[:, 2][chosen[:, 2]]
        assert not len(own) or own.mean() >= wanted


def test_without_a_positive_row_the_threshold_is_one_half() -> None:
    p, truth = calibrated(100, (0.2, 0.2))
    np.testing.assert_array_equal(best_thresholds(p, np.zeros_like(truth)), 0.5)


def test_a_label_that_is_never_answered_is_not_when_it_is_sure() -> None:
    assert Labels(("x", "y"), (NEVER, 0.5)).chosen(np.array([40.0, 40.0])).tolist() == [False, True]


def test_labels_that_are_not_known_do_not_count() -> None:
    p, truth = calibrated(500, (0.3, 0.2))
    more = np.concatenate([truth, np.full((100, 2), np.nan, np.float32)])
    guesses = np.concatenate([p, np.random.default_rng(1).random((100, 2))])
    np.testing.assert_array_equal(best_thresholds(guesses, more), best_thresholds(p, truth))


def test_other_tasks_have_no_thresholds() -> None:
    given = Evidence.of(np.zeros((1, 5, 2)), np.ones((1, 5), bool), np.arange(5) % 2, task=Classes(("x", "y")))
    assert fit_thresholds(given, Fusion.paper(("a",), given.task)) == (given.task, [])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"threshold": "precision"}, "--threshold precision and --min-precision P go together"),
        ({"min_precision": 0.9}, "--threshold precision and --min-precision P go together"),
        ({"threshold": "precision", "min_precision": 1.0}, "--min-precision 1: expected a number between 0 and 1"),
        ({"threshold": "recall"}, "--threshold recall: expected f1 or precision"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        TrainConfig(**given).check()


def test_thresholds_are_refused_where_nothing_has_any() -> None:
    with pytest.raises(ConfigError, match="--threshold f1: only labels have thresholds"):
        check_threshold(TrainConfig(threshold="f1"), Classes(("x", "y")))
    check_threshold(TrainConfig(threshold="f1"), Labels(("x", "y")))
