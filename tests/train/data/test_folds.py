"""Folds of rows without groups have the same share of each label, and automatic folds keep groups apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mla_serve.table import Row
from mla_serve.tasks import Classes, Labels, Number, Task
from mla_serve.train.data.folds import folds_apart, make_folds


def row(number: int, label: Any = "0", **groups: str) -> Row:
    return Row(str(number), label, {"a": "x", "b": "x"}, {}, groups)


@pytest.mark.parametrize("seed", range(20))
def test_a_class_of_two_rows_is_never_missing_in_training(seed: int) -> None:
    labels = np.random.default_rng(seed).permutation([*np.repeat(list("abcdef"), 2), *"g" * 20, *"h" * 21])
    folds = make_folds([row(n, label) for n, label in enumerate(labels)], seed, Classes())
    assert "at random" in folds.note
    assert sorted(np.bincount(folds.number)) == [10, 10, 11, 11, 11]
    for label in "abcdef":
        assert len(set(folds.number[labels == label])) == 2
    assert max(np.bincount(folds.number[labels == "h"])) == 5


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (Number(), [float(n) for n in range(50)]),
        (Labels(("rare", "x")), [frozenset({"rare", "x"} if n % 10 == 0 else {"x"}) for n in range(50)]),
    ],
)
def test_numbers_and_labels_are_spread_too(task: Task, labels: list[Any]) -> None:
    low = np.array([label < 5 if isinstance(label, float) else "rare" in label for label in labels])
    for seed in range(20):
        folds = make_folds([row(n, label) for n, label in enumerate(labels)], seed, task)
        assert np.bincount(folds.number[low], minlength=5).tolist() == [1] * 5


def test_other_seeds_give_other_folds() -> None:
    rows = [row(n, str(n % 2)) for n in range(50)]
    first, again, other = (make_folds(rows, seed, Classes()).number.tolist() for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(("speakers", "expected"), [(1, 0), (2, 2), (4, 4), (12, 5)])
def test_automatic_folds_are_as_many_as_keep_groups_apart(speakers: int, expected: int) -> None:
    rows = [row(n, str(n % 2), a=f"speaker{n % speakers}") for n in range(200)]
    assert folds_apart(rows, 5) == expected
    if expected:
        folds = make_folds(rows, 0, Classes(), expected)
        assert "no a group in two folds" in folds.note
        assert len(set(zip(folds.number, (each.groups["a"] for each in rows), strict=True))) == speakers


def test_rows_without_groups_have_as_many_folds_as_wanted() -> None:
    assert folds_apart([row(n) for n in range(20)], 5) == 5
