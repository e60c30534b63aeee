"""What of the rows that are measured the model cannot use is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.evaluation.splits import run_split


def test_unknown_categories_and_columns_without_cells_are_said(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    predictor = Predictor(Bundle.load(make_bundle(tmp_path / "model", {"facts": "columns", "text": "text"})))
    cells = [
        {"price": 1.5, "colour": "red"},
        {"price": 2, "colour": "mauve"},
        {"price": 3, "colour": "mauve"},
        {"price": 4},
    ]
    (tmp_path / "dataset.json").write_text('{"modalities": {"facts": "columns"}}')
    rows = [{"label": label, "facts": cell} for label, cell in zip(("red", "green", "blue", "red"), cells, strict=True)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run_split(predictor, tmp_path, "test").notes == [
        "no row has text: measured without",
        "no row has a cell in size, listed, in stock: counted as missing",
        "colour: 2 of 4 rows have a category that training did not have, such as 'mauve': counted as unknown",
    ]
