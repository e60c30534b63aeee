"""The interval of a share, by simulation and by its ends."""

from __future__ import annotations

import numpy as np
import pytest

from mla_serve.evaluation.analysis import interval_95, resample
from mla_serve.evaluation.share_interval import exact_interval, wider
from mla_serve.tasks import Classes
from mla_serve.tasks.classes import Array

TASK = Classes(("no", "yes"))


def answers_of(right: Array) -> tuple[Array, Array]:
    """Make answers to rows whose true class is the first, right where it says so."""
    return np.log(np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])), np.zeros(len(right), dtype=np.int64)


@pytest.mark.parametrize("rows", [1, 8, 60])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.98, 1.0])
def test_it_contains_the_true_share_in_95_of_100_samples(rows: int, share: float) -> None:
    draws = 4000
    hits = np.random.default_rng(0).binomial(rows, share, size=draws)
    ends = {count: exact_interval(int(count), rows) for count in np.unique(hits)}
    covered = np.mean([ends[count][0] <= share <= ends[count][1] for count in hits])
    assert covered >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / draws)


def test_the_wider_of_both_covers_where_the_bootstrap_does_not() -> None:
    """With 40 rows, two of three samples of a model that is right 99 times in 100 have no error to resample."""
    generator, share, rows, covered, alone = np.random.default_rng(1), 0.99, 40, 0, 0
    for _ in range(200):
        answers, targets = answers_of(generator.random(rows) < share)
        resampled = TASK.resampled(answers, targets, resample(generator, rows, TASK, None))
        bootstrap = interval_95(resampled["accuracy"])
        low, high = wider(bootstrap, exact_interval(int(TASK.hits(answers, targets)["accuracy"].sum()), rows))
        alone += bootstrap[0] <= share <= bootstrap[1]
        covered += low <= share <= high
    assert alone < 120
    assert covered >= 190


def test_its_ends() -> None:
    """Checked against scipy.stats.binomtest(...).proportion_ci(method="exact")."""
    assert exact_interval(500, 500) == pytest.approx([0.9926493899480923, 1.0], abs=1e-9)
    assert exact_interval(492, 500) == pytest.approx([0.968717998310543, 0.9930676787975165], abs=1e-9)
    assert exact_interval(5, 10) == pytest.approx([0.1870860284474045, 0.8129139715525955], abs=1e-9)
    assert exact_interval(0, 10) == pytest.approx([0.0, 0.30849710781876294], abs=1e-9)
    assert exact_interval(100_000, 100_000)[0] == pytest.approx(0.9999631118858424, abs=1e-9)
    assert exact_interval(0, 0) == [0.0, 1.0]


def test_only_scores_that_are_shares_of_rows_have_hits() -> None:
    answers, targets = answers_of(np.array([True, False, True]))
    assert {name: right.tolist() for name, right in TASK.hits(answers, targets).items()} == {
        "accuracy": [True, False, True]
    }
