"""A table of numbers, categories, dates and yes/no, from training to answers: the bundle, its samples, its report."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.export.export_run import export_run
from mla_serve.train.config import TrainConfig
from mla_serve.train.plan import make_plan
from mla_serve.train.run import train_as_planned

LABELS = ("cheap", "dear")


def row(number: int, generator: np.random.Generator) -> dict[str, Any]:
    """Make a row whose price and brand tell its label; the weight tells nothing, and some cells are missing."""
    label = LABELS[number % 2]
    facts: dict[str, Any] = {
        "price": float(generator.normal(50 if label == "dear" else 10, 2)),
        "brand": f"{label}-{generator.integers(3)}",
        "weight": float(generator.normal()),
        "in stock": bool(generator.integers(2)),
    }
    if number % 5 == 0:
        del facts["price"]
    return {"label": label, "facts": facts, "name": f"{label} thing {generator.integers(100)}"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Train for a few epochs, with training rows as samples, so that the report shows mistakes."""
    folder, generator = tmp_path_factory.mktemp("columns"), np.random.default_rng(0)
    (folder / "data").mkdir()
    for split, count in (("train", 120), ("val", 40), ("test", 40)):
        lines = [json.dumps(row(number, generator)) for number in range(count)]
        (folder / "data" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    declared = {"modalities": {"facts": "columns", "name": "text"}}
    (folder / "data" / "dataset.json").write_text(json.dumps(declared))
    config = TrainConfig(
        data=folder / "data", name="facts", runs=folder / "runs", epochs=6, batch_size=16, width=16, samples=True
    )
    run = train_as_planned(config, make_plan(config), lambda _: None)
    export_run(run.path, folder / "facts", data=folder / "data")
    return Bundle.load(folder / "facts")


@pytest.fixture(scope="module")
def predictor(bundle: Bundle) -> Predictor:
    return Predictor(bundle)


def answer(predictor: Predictor, **cells: Any) -> str:
    return predictor.predict([{"facts": cells}])[0].label


def test_any_subset_of_the_cells_is_answered(predictor: Predictor) -> None:
    assert answer(predictor, price=51.0, brand="dear-1", weight=0.0) == "dear"
    assert answer(predictor, price=9.0, brand="cheap-2") == "cheap"
    assert answer(predictor, price="9.0") == "cheap"
    assert answer(predictor, brand="dear-0", price=None) == "dear"
    assert answer(predictor, price=52.0, brand="never seen") == "dear"


def test_the_model_is_good_alone_and_the_samples_are_replayed(bundle: Bundle, predictor: Predictor) -> None:
    predictor.verify()
    assert {"price", "brand"} <= set().union(*(sample.get("facts", {}) for sample in bundle.golden_samples()))  # type: ignore[arg-type]
    assert bundle.manifest.metrics["conditions"]["facts"]["calibrated"]["accuracy"] > 0.9


def test_the_report_and_the_card_name_the_columns_that_mattered(bundle: Bundle) -> None:
    importance = bundle.manifest.metrics["importance"]["facts"]
    assert set(importance) == {"price", "brand", "weight", "in stock"}
    assert importance["price"]["alone"] > importance["weight"]["alone"]
    assert importance["brand"]["alone"] > importance["in stock"]["alone"]
    page = (bundle.folder / "report.html").read_text()
    assert "Which columns of facts mattered" in page
    card = (bundle.folder / "MODEL_CARD.md").read_text()
    assert "Of facts, these columns mattered most" in card
    assert "| facts | columns | columns price, brand, weight, in stock |" in card
    assert "every category that occurs at least twice" in card


def test_unfamiliar_cells_are_told_and_corruptions_are_measured(bundle: Bundle, predictor: Predictor) -> None:
    usual = predictor.predict([{"facts": {"price": 10.0, "brand": "cheap-1", "weight": 0.0}}])[0]
    assert 0 <= usual.modalities["facts"].unfamiliarity <= 1  # type: ignore[operator]
    curves = json.loads((bundle.folder / "report.json").read_text())["corruptions"]["facts"]
    assert set(curves) == {"missing", "noise", "unknown", "shuffled", "out_of_range"}
    worst = curves["missing"]["5"]["alone"]["accuracy"]
    assert curves["missing"]["1"]["alone"]["accuracy"] >= worst
