"""Measuring a table with faults: all are reported at once, and what is left out is said and measured without."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.commands.evaluate import EvaluateConfig
from mla_serve.commands.evaluate import run as evaluate
from mla_serve.errors import DataError
from mla_serve.evaluation import analysis
from mla_serve.evaluation.splits import run_split
from mla_serve.table import TableOptions

HUGE = [3e38] * 4


@pytest.fixture
def model(make_bundle: Callable[..., Path], tmp_path: Path) -> Path:
    """A bundle of three modalities."""
    return make_bundle(tmp_path / "model", {"image": "image", "text": "text", "numbers": "vector"})


@pytest.fixture
def data(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table whose test rows 2, 4, 5 and 7 have faults that only show when they are used."""
    monkeypatch.setattr(analysis, "BATCH", 2)
    bundle, folder = Bundle.load(model), tmp_path / "data"
    folder.mkdir()
    (folder / "good.bin").write_bytes(bundle.inputs["image"].generate(np.random.default_rng(0)))  # type: ignore[arg-type]
    (folder / "broken.bin").write_bytes(b"no picture")
    classes = bundle.manifest.classes
    good: dict[str, Any] = {"label": classes[0], "image": "good.bin", "text": "red"}
    rows = [
        good | change for change in ({}, {"image": "broken.bin"}, {}, {"label": "alien"}, {"numbers": HUGE}, {}, {})
    ]
    rows[6] = {"label": classes[1], "image": "broken.bin"}
    write(folder / "test.jsonl", rows)
    write(
        folder / "train.jsonl", [{"label": label, "text": "red", "numbers": [0.0] * 4} for label in (*classes, "alien")]
    )
    (folder / "dataset.json").write_text(json.dumps({"modalities": {"numbers": "vector"}}))
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_all_faults_are_reported_at_once(model: Path, data: Path) -> None:
    with pytest.raises(DataError) as refused:
        run_split(Predictor(Bundle.load(model)), data, "test")
    lines = str(refused.value).splitlines()
    assert [line.split(": ")[:2] for line in lines[1:4]] == [
        ["  test.jsonl:2", "image"],
        ["  test.jsonl:4", "label"],
        ["  test.jsonl:7", "image"],
    ]
    assert "'broken.bin': this is plain text, expected PNG" in lines[1]
    assert "'alien' is no class of the model" in lines[2]


def test_rows_with_faults_are_left_out_and_counted(model: Path, data: Path) -> None:
    found = run_split(Predictor(Bundle.load(model)), data, "test", options=TableOptions(skip_bad=True))
    assert [row.place[1] for row in found.rows] == [1, 3, 6]
    assert found.outputs.present.shape[1] == len(found.targets) == 3
    assert found.notes[0].startswith("4 of 11 rows left out because of faults (image 2, ")


def test_values_with_faults_are_left_out_and_their_rows_measured(model: Path, data: Path) -> None:
    predictor = Predictor(Bundle.load(model))
    found = run_split(predictor, data, "test", options=TableOptions(skip_bad=True, skip_bad_values=True))
    assert [row.place[1] for row in found.rows] == [1, 2, 3, 6]
    assert found.outputs.present[predictor.names.index("image")].tolist() == [True, False, True, True]
    assert all("image" not in sample for sample in found.samples()[1:2])


def test_the_command_says_what_it_leaves_out_and_lists_it(
    model: Path, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluate(EvaluateConfig(model, data, draws=0, fusion=("paper",), skip_bad=True, json=True))
    said = capsys.readouterr()
    assert json.loads(said.out)["rows"] == 3
    assert "4 of 11 rows left out because of faults" in said.err
    assert "the whole list: data.faults.csv" in said.err
    assert len((tmp_path / "data.faults.csv").read_text().splitlines()) == 5


def test_the_column_of_a_cell_that_cannot_be_decoded_is_named(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    bundle = Bundle.load(make_bundle(tmp_path / "model", {"facts": "columns", "text": "text"}))
    number = next(column.name for column in bundle.inputs["facts"].columns if column.type == "number")  # type: ignore[attr-defined]
    good = {"label": bundle.manifest.classes[0], "text": "red"}
    (tmp_path / "dataset.json").write_text('{"modalities": {"facts": "columns"}}')
    train = [{"label": label, "text": "red", "facts": {number: 1}} for label in bundle.manifest.classes]
    write(tmp_path / "train.jsonl", train)
    write(tmp_path / "test.jsonl", [good, good | {"facts": {number: "much"}}])
    with pytest.raises(DataError, match=rf"test\.jsonl:2: {number}: expected a number such as 12\.5, got 'much'"):
        run_split(Predictor(bundle), tmp_path, "test")
    run = run_split(Predictor(bundle), tmp_path, "test", options=TableOptions(skip_bad_values=True))
    assert [dict(row.values) for row in run.rows] == [{"text": "red"}] * 2


def test_the_command_measures_by_the_column_that_is_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the list of faults is written there
    classes = Bundle.load(model).manifest.classes
    folder = tmp_path / "renamed"
    folder.mkdir()
    for split in ("train", "test"):
        write(folder / f"{split}.jsonl", [{"kind of thing": label, "text": "red"} for label in classes])
    with pytest.raises(DataError, match="no column is called label"):
        evaluate(EvaluateConfig(model, folder, draws=1, json=True))
    evaluate(EvaluateConfig(model, folder, label="kind of thing", draws=1, json=True))
    assert json.loads(capsys.readouterr().out)["rows"] == len(classes)
