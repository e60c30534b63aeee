"""A column that no row for training has a value of is ignored, and said, whatever the split."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import DataError
from mla_serve.evaluation.splits import run_split
from mla_serve.export.export_run import export_run
from mla_serve.train.config import TrainConfig
from mla_serve.train.cross_validation import cross_validate
from mla_serve.train.plan import make_plan
from mla_serve.train.run import train_as_planned

SAID = "extra: ignored, no row for training has a value"


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def config(data: Path, **given: object) -> TrainConfig:
    folder = data.parent
    shared = {"runs": folder / "runs", "cache": folder / "cache", "epochs": 1, "batch_size": 16, "width": 16}
    return TrainConfig(data=data, **{**shared, **given})  # type: ignore[arg-type]


def rows_of(count: int, **more: object) -> list[dict[str, object]]:
    return [{"x": n * 7 % 11 + 0.5, "c": "uvw"[n % 3], "label": "ab"[n % 2]} | more for n in range(count)]


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """A table for training, and one for the test with a further column."""
    write(tmp_path / "data" / "train.csv", rows_of(60))
    write(tmp_path / "data" / "test.csv", [{**row, "extra": n} for n, row in enumerate(rows_of(30))])
    return tmp_path / "data"


def test_a_column_that_the_training_table_lacks_is_ignored_from_training_to_evaluation(later: Path) -> None:
    planned = make_plan(config(later))
    assert SAID in planned.notes
    assert len(planned.rows["test"]) == 30
    folder = train_as_planned(config(later), planned, lambda _: None)
    assert export_run(folder.path, later.parent / "bundle").metrics["rows"] == 30
    run = run_split(Predictor(Bundle.load(later.parent / "bundle")), later)
    assert {tuple(row.values["columns"]) for row in run.rows} == {("x", "c")}


def test_a_row_with_nothing_else_is_a_fault_and_can_be_left_out_until_export(later: Path) -> None:
    rows = rows_of(30)
    rows[4] |= {"x": "", "c": ""}
    write(later / "test.csv", [{**row, "extra": n} for n, row in enumerate(rows)])
    with pytest.raises(
        DataError, match=r"test\.csv:6: no value but of extra, and no row for training has one; remove the row"
    ):
        make_plan(config(later))
    skipping = config(later, skip_bad=True)
    folder = train_as_planned(skipping, make_plan(skipping), lambda _: None)
    assert export_run(folder.path, later.parent / "bundle").metrics["rows"] == 29


@pytest.mark.parametrize("seed", range(12))
def test_a_rare_column_never_decides_whether_a_table_can_be_used(tmp_path: Path, seed: int) -> None:
    rows = [{**row, "extra": n if n < 2 else ""} for n, row in enumerate(rows_of(60))]
    write(tmp_path / "one.csv", rows)
    planned = make_plan(config(tmp_path / "one.csv", seed=seed))
    known = "extra" in planned.recipe.inputs["columns"].by_name  # type: ignore[attr-defined]
    assert known is any("extra" in row.values["columns"] for row in planned.rows["train"])
    assert known is not (SAID in planned.notes)


def test_each_fold_ignores_the_columns_that_its_training_rows_lack(tmp_path: Path) -> None:
    write(tmp_path / "one.csv", [{**row, "extra": n if n < 2 else ""} for n, row in enumerate(rows_of(60))])
    folded = config(tmp_path / "one.csv", folds=5)
    planned = make_plan(folded)
    result = cross_validate(folded, planned, lambda _: None).scores
    assert result["conditions"]["full"]["rows"] == result["rows"] == 60
    assert planned.table.faults.found == []
    assert dataclasses.asdict(planned.table.schema) == dataclasses.asdict(make_plan(folded).table.schema)
