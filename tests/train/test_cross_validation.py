"""Cross-validation answers every row by a model that has not seen it."""

from __future__ import annotations

import csv
import dataclasses
import types
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import ConfigError
from mla_serve.evaluation.splits import run_split
from mla_serve.export.export_run import export_run
from mla_serve.tasks import Classes, Labels, Number, Task
from mla_serve.train.config import TrainConfig
from mla_serve.train.cross_validation import FoldAnswers, _score, cross_validate, describe_folds, number_of_folds
from mla_serve.train.fit.evidence import Evidence
from mla_serve.train.plan import make_plan
from mla_serve.train.run import train_as_planned

ROWS = 60


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """A table as people have it: no split, a label of another name, numbers and categories."""
    path = tmp_path / "Shop items.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sku", "category", "title", "price", "brand"])
        for number in range(ROWS):
            kind = number % 2
            title = f"{('blue mug', 'red lamp')[kind]} number {number}"
            price = f"{5 + 30 * kind + number % 7},50" if number % 6 else ""
            writer.writerow(
                [f"x{number:04x}", ("mug", "lamp")[kind], title, price, ("Acme", "Zeta", "Foo")[number % 3]]
            )
    return TrainConfig(data=path, runs=tmp_path / "runs", epochs=2, batch_size=16, width=16)


def test_every_row_is_answered_once_and_nothing_else_is_left_behind(config: TrainConfig) -> None:
    config = dataclasses.replace(config, folds=3)
    planned = make_plan(config)
    assert planned.name == "shop_items"
    assert {split: len(rows) for split, rows in planned.rows.items()} == {"train": 51, "val": 9}
    lines: list[str] = []
    found = cross_validate(config, planned, lines.append)
    result = found.scores
    assert (result["folds"], result["rows"]) == (3, ROWS)
    assert {name: found["rows"] for name, found in result["conditions"].items()} == {
        "full": ROWS, "title": ROWS, "columns": ROWS
    }  # fmt: skip
    low, high = result["conditions"]["full"]["accuracy_95"]
    assert 0 <= low <= result["conditions"]["full"]["accuracy"] <= high <= 1
    assert [line.partition(":")[0] for line in lines] == ["fold 1 of 3", "fold 2 of 3", "fold 3 of 3"]
    assert len(describe_folds(result)) == 4
    unseen = found.unseen
    assert len(unseen.fold) == len(unseen.evidence.targets) == ROWS
    assert np.bincount(unseen.fold).tolist() == [20, 20, 20]
    assert unseen.evidence.present.sum(axis=1).tolist() == [ROWS, ROWS]
    assert not config.runs.joinpath(planned.name).exists()
    folder = train_as_planned(config, dataclasses.replace(planned, unseen=unseen), lambda record: None)
    notes = folder.read_json()["notes"]
    assert any("fitted on 60 rows, for training and validation, by the opinions of 3 models" in note for note in notes)
    assert not any("9 validation rows are too few" in note for note in notes)
    assert not [path for path in config.runs.iterdir() if path.name.startswith(".folds")]


def test_few_validation_rows_are_said_and_cheap_trainings_are_cross_validated_without_being_asked(
    config: TrainConfig,
) -> None:
    planned = make_plan(config)
    assert number_of_folds(config, planned) == 0  # the encoder of the titles is trained
    assert number_of_folds(dataclasses.replace(config, folds=3), planned) == 3
    folder = train_as_planned(config, planned, lambda record: None)
    notes = "\n".join(folder.read_json()["notes"])
    assert "validation rows are too few to fit another, which takes 50" in notes
    assert "--folds 5 would fit them on all rows that are not for test" in notes
    frozen = types.SimpleNamespace(settings=types.SimpleNamespace(tune="frozen"))
    planned = dataclasses.replace(planned, pretrained={"title": frozen})
    assert number_of_folds(config, planned) == 5
    for speakers, folds in ((1, 0), (3, 3), (30, 5)):
        grouped = {
            split: [dataclasses.replace(row, groups={"title": str(n % speakers)}) for n, row in enumerate(rows)]
            for split, rows in planned.rows.items()
        }
        assert number_of_folds(config, dataclasses.replace(planned, rows=grouped)) == folds
    many = dataclasses.replace(planned, rows={**planned.rows, "val": list(planned.rows["train"]) * 10})
    assert number_of_folds(config, many) == 0


@pytest.mark.parametrize("folds", [1, 31])
def test_impossible_numbers_of_folds_are_refused(config: TrainConfig, folds: int) -> None:
    config = dataclasses.replace(config, folds=folds)
    with pytest.raises(ConfigError, match=f"--folds {folds}: expected at least 2, and at most 30 for 60 rows"):
        cross_validate(config, make_plan(config), print)


def test_a_table_without_splits_is_measured_on_the_same_rows_by_training_export_and_evaluate(
    config: TrainConfig, tmp_path: Path
) -> None:
    planned = make_plan(config)
    tested = {row.id for row in planned.rows["test"]}
    folder = train_as_planned(config, planned, lambda record: None)
    manifest = export_run(folder.path, tmp_path / "bundle")
    assert (manifest.metrics["split"], manifest.metrics["rows"]) == ("test", len(tested))
    predictor = Predictor(Bundle.load(tmp_path / "bundle"))
    assert config.data
    assert {row.id for row in run_split(predictor, config.data).rows} == tested
    other = tmp_path / "other.csv"
    other.write_text('category,title,price\nmug,a blue mug,"7,50"\nlamp,a red lamp,\n')
    assert [dict(row.values) for row in run_split(predictor, other).rows] == [
        {"title": "a blue mug", "columns": {"price": 7.5}},
        {"title": "a red lamp"},
    ]


@pytest.mark.parametrize("task", [Classes(("x", "y")), Labels(("x", "y")), Number()])
def test_the_interval_is_that_of_groups_where_rows_have_them(task: Task) -> None:
    """Ten speakers with 40 equal rows each: resampling rows would say that the score is known well."""
    generator, speakers = np.random.default_rng(0), np.repeat(np.arange(10), 40)
    targets = task.encode([["x", "y"][n % 2] if n % 3 else "y" for n in speakers]) if task.exclusive else None
    if targets is None:
        targets = generator.normal(size=(10, task.outputs) if task.names else 10)[speakers]
        targets = (targets > 0).astype(np.float32) if task.names else targets
    answers = task.answers(task.natural(generator.normal(size=(10, task.outputs))[speakers]))
    evidence = Evidence.of(answers[None], np.ones((1, 400), dtype=bool), targets, task=task)
    half = np.arange(400) % 2 == 0

    def interval(groups: Sequence[Mapping[str, str]]) -> tuple[float, float]:
        folds = [
            FoldAnswers(
                {"full": answers[rows]},
                {"full": np.ones(200, dtype=bool)},
                evidence.rows(rows),
                [group for group, there in zip(groups, rows, strict=True) if there],
            )
            for rows in (half, ~half)
        ]
        found = _score(task, folds)["full"]
        assert found["rows"] == 400
        low, high = found[f"{task.main_scores[0]}_95"]
        return low, high

    by_row, by_group = interval([{}] * 400), interval([{"audio": str(speaker)} for speaker in speakers])
    assert by_group[1] - by_group[0] > 3 * (by_row[1] - by_row[0])
