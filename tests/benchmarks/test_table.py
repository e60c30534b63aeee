"""bench-table: the peers get a fair chance, and what is compared is what is said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.accuracy.joined import PEERS
from benchmarks.accuracy.stacked import Part, Stacked
from benchmarks.accuracy.table import OURS, Asked, summarise
from mla_serve.tasks import Classes, Labels, Number

ROWS, CLASSES = 240, 3


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.arange(ROWS) % CLASSES


@pytest.fixture(scope="module")
def parts(labels: np.ndarray) -> dict[str, Part]:
    """Three modalities that each tell the classes; a fifth of the pictures is missing."""
    generator = np.random.default_rng(0)
    there = generator.random(ROWS) > 0.2
    cells = pd.DataFrame(
        {
            "price": labels + 0.1 * generator.standard_normal(ROWS),
            "brand": pd.Series([("a", "b", None)[label] for label in labels], dtype=object),
        }
    )
    everywhere = np.ones(ROWS, dtype=bool)
    return {
        "image": Part(there, features=np.eye(CLASSES)[labels] + 0.2 * generator.standard_normal((ROWS, CLASSES))),
        "text": Part(everywhere, texts=[("red wine", "blue mug", "green lamp")[label] for label in labels]),
        "columns": Part(everywhere, cells=cells),
    }


def accuracy(recipe: Stacked, parts: dict[str, Part], labels: np.ndarray, keep: tuple[str, ...]) -> float:
    present = {name: part.present & (name in keep) for name, part in parts.items()}
    rows = np.any(list(present.values()), axis=0)
    answers = recipe.predict(recipe.answers(parts), present)
    return float((answers.argmax(axis=1) == labels)[rows].mean())


def test_the_recipe_learns_each_modality_and_copes_with_missing_ones_if_it_has_seen_them(
    parts: dict[str, Part], labels: np.ndarray
) -> None:
    imputed, dropped = (Stacked(0, flag).fit(parts, labels) for flag in (False, True))
    for recipe in (imputed, dropped):
        assert accuracy(recipe, parts, labels, tuple(parts)) == 1
    for name in parts:
        assert accuracy(dropped, parts, labels, (name,)) > 0.9
        assert accuracy(dropped, parts, labels, (name,)) >= accuracy(imputed, parts, labels, (name,)) - 0.05


def test_the_difference_to_oneself_is_zero_and_rows_without_anything_do_not_count() -> None:
    masks = {"image": np.array([[[True, True, False, True]]])}
    asked = Asked((), ("image",), np.array([0, 1, 1, 0]), masks)
    answers = {"image": [np.log([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])]}
    found = summarise(Classes(("a", "b")), asked, [{OURS: answers, "peer": answers}] * 2)["image"]
    assert found["peer"]["accuracy"] == [pytest.approx(2 / 3)] * 2
    assert found["peer"]["ours_minus"] == [0, 0, 0]


@pytest.mark.parametrize("name", PEERS["labels"])
def test_the_recipes_for_labels_learn_each_modality(name: str, parts: dict[str, Part], labels: np.ndarray) -> None:
    task = Labels(("a", "b", "c"))
    given = {one: part for one, part in parts.items() if part.texts is None}
    targets = np.eye(CLASSES, dtype=np.float32)[labels]
    targets[::7, 0] = np.nan
    answer = PEERS["labels"][name](given, targets, 0)
    for keep in (("image",), ("columns",), ("image", "columns")):
        present = {one: part.present & (one in keep) for one, part in given.items()}
        rows = np.any(list(present.values()), axis=0)
        assert task.score(answer(given, present)[rows], targets[rows])["map"] > 0.95


@pytest.mark.parametrize("name", PEERS["number"])
def test_the_recipes_for_numbers_learn(name: str, parts: dict[str, Part], labels: np.ndarray) -> None:
    given = {one: part for one, part in parts.items() if part.texts is None}
    targets = (labels - 1.0).astype(np.float32)
    answer = PEERS["number"][name](given, targets, 0)
    assert Number().score(answer(given, {one: part.present for one, part in given.items()}), targets)["r2"] > 0.9
