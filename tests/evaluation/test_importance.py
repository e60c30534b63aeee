"""Permutation importance: a column that the model does not read has none, one that it reads has some."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.evaluation.importance import column_importance
from mla_serve.inputs import Column, ColumnsInput

SPEC = ColumnsInput((Column("same", "yes_no"), Column("price", "number", low=-2, high=2), Column("day", "date")))
Case = tuple[Predictor, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def case(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Return a model of two modalities with columns, and rows whose labels it knows from the price."""
    kinds = {"facts": "columns", "more": "columns", "vector": "vector"}
    folder = make_bundle(tmp_path_factory.mktemp("importance") / "tiny", kinds, inputs={"facts": SPEC, "more": SPEC})
    generator = np.random.default_rng(0)
    samples: list[dict[str, Any]] = [
        {
            "facts": {"same": True, "price": price, "day": None},
            "vector": generator.standard_normal(4).tolist(),
        }
        for price in generator.uniform(-2, 2, 60)
    ]
    return Predictor(Bundle.load(folder)), samples


def test_only_what_the_answers_depend_on_has_importance(case: Case) -> None:
    predictor, samples = case
    outputs = predictor.run_graphs([predictor.decode(sample) for sample in samples])
    labels = outputs.opinions[predictor.names.index("facts")].argmax(axis=1)
    found = column_importance(predictor, samples, outputs, labels)
    assert list(found) == ["facts"], "no row has the other modality, and a vector has no columns"
    assert next(iter(found["facts"])) == "price"
    assert found["facts"]["price"]["alone"] > 0.01
    assert found["facts"]["price"]["fused"] != 0
    for column in ("same", "day"):
        assert found["facts"][column] == pytest.approx({"alone": 0.0, "fused": 0.0}, abs=1e-12)


def test_it_is_the_same_each_time_and_leaves_the_outputs_as_they_are(case: Case) -> None:
    predictor, samples = case
    samples = [sample | {"more": sample["facts"]} for sample in samples]
    outputs = predictor.run_graphs([predictor.decode(sample) for sample in samples])
    before = outputs.opinions.copy()
    labels = np.zeros(len(samples), dtype=int)
    first, again = (column_importance(predictor, samples, outputs, labels) for _ in range(2))
    assert first == again
    assert list(first) == ["facts", "more"]
    np.testing.assert_array_equal(outputs.opinions, before)
