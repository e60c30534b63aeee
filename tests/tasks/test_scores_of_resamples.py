"""Scores of resamples, their titles, and what a change costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_serve.tasks import TASKS, Classes, Labels, Number, Task
from mla_serve.tasks.base import Array

EXAMPLES: dict[str, Task] = {
    "classes": Classes(("a", "b", "c")),
    "labels": Labels(("x", "y"), (0.5, 0.3)),
    "number": Number("price", "EUR", log=True, mean=3.0, deviation=0.5, decimals=1),
}
ROWS = 25


def draw(task: Task, generator: np.random.Generator) -> tuple[Array, Array]:
    """Draw answers and targets."""
    answers = task.answers(task.natural(generator.normal(0, 1, (ROWS, task.outputs))))
    targets = {
        "classes": generator.integers(0, 3, ROWS),
        "labels": np.where(generator.random((ROWS, 2)) < 0.2, np.nan, generator.random((ROWS, 2)) < 0.5),
        "number": generator.normal(size=ROWS),
    }
    return answers, targets[task.name]


@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("name", TASKS)
def test_a_resample_is_scored_like_rows_that_are_repeated(name: str, seed: int) -> None:
    task, generator = EXAMPLES[name], np.random.default_rng(seed)
    answers, targets = draw(task, generator)
    rows = generator.integers(ROWS, size=(3, ROWS))
    counts = np.stack([np.bincount(one, minlength=ROWS) for one in rows]).astype(float)
    found = task.resampled(answers, targets, counts)
    assert found.keys() == {*task.main_scores, "nll"}
    for number, one in enumerate(rows):
        expected = task.score(answers[one], targets[one])
        for score, values in found.items():
            assert values[number] == pytest.approx(expected[score], abs=1e-9), score


@pytest.mark.parametrize("name", TASKS)
def test_scores_that_are_shown_are_measured_and_have_titles(name: str) -> None:
    task = EXAMPLES[name]
    scores = task.score(*draw(task, np.random.default_rng(0)))
    for score in (*task.main_scores, *task.shown_scores, task.cost_score, task.row_score):
        assert task.shown(score, scores[score])
        assert "_" not in task.title(score)
    assert task.cost(scores, scores) == 0


def test_a_number_is_shown_in_its_unit_and_costs_what_its_error_grows() -> None:
    task = EXAMPLES["number"]
    assert task.title("mae") == "MAE, EUR"
    assert task.shown("mae", 1234.56) == "1,234.6"
    assert task.shown("r2", 0.5) == "0.500"
    assert task.cost({"mae": 10.0}, {"mae": 12.0}) == pytest.approx(0.2)
    assert task.cost({"mae": 0.0}, {"mae": 0.0}) == 0
    assert task.cost({"mae": 0.0}, {"mae": 1.0}) == float("inf")
    assert Classes(("a", "b")).cost({"accuracy": 0.9}, {"accuracy": 0.85}) == pytest.approx(0.05)
