"""--start-from: encoders of an earlier run are copied bit for bit, and nothing else is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mla_serve.errors import ConfigError
from mla_serve.train.config import TrainConfig
from mla_serve.train.plan import make_plan
from mla_serve.train.run import train_as_planned
from mla_serve.train.run_folder import BEST


@pytest.fixture
def old(write_table: Callable[..., Path], tmp_path: Path) -> TrainConfig:
    """A finished run."""
    config = TrainConfig(data=write_table(), name="old", runs=tmp_path / "runs", epochs=1, batch_size=16, width=16)
    train_as_planned(config, make_plan(config), lambda _: None)
    return config


def other_labels(data: Path) -> Path:
    """Write the table with two other labels, and without the numbers."""
    target = data.with_name("other")
    target.mkdir()
    for split in ("train", "val"):
        rows = [json.loads(line) for line in (data / f"{split}.jsonl").read_text().splitlines()]
        lines = [
            json.dumps({"label": "warm" if row["label"] == "rot" else "cold", "text": row.get("text", "x")})
            for row in rows
        ]
        (target / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return target


def test_weights_normalisation_and_inputs_are_taken_over_and_nothing_else(old: TrainConfig, tmp_path: Path) -> None:
    weights = torch.load(old.runs / "old" / BEST, weights_only=True)["weights"]
    data = other_labels(old.data)  # type: ignore[arg-type]
    config = TrainConfig(data=data, name="new", runs=old.runs, epochs=1, batch_size=16, start_from=old.runs / "old")
    planned = make_plan(config)
    assert "text: begins with weights, normalisation and input settings of" in "\n".join(planned.notes)
    assert planned.recipe.inputs == {"text": make_plan(old).recipe.inputs["text"]}
    assert planned.recipe.width == 16
    started, fresh = planned.build(0), dataclasses.replace(planned, start=None).build(0)
    for key, value in started.state_dict().items():
        expected = weights[key] if key.startswith("encoders.") else fresh.state_dict()[key]
        assert torch.equal(value, expected), key
    assert started.task.outputs == 2
    assert any(not torch.equal(value, fresh.state_dict()[key]) for key, value in started.state_dict().items())


def test_the_normalisation_of_the_earlier_run_is_kept(old: TrainConfig) -> None:
    before = torch.load(old.runs / "old" / BEST, weights_only=True)["weights"]["encoders.numbers.mean"]
    for line in ("train", "val"):
        path = old.data / f"{line}.jsonl"  # type: ignore[operator]
        rows = [json.loads(one) for one in path.read_text().splitlines()]
        path.write_text(
            "".join(
                json.dumps(r | {"numbers": [n + 9 for n in r["numbers"]]} if "numbers" in r else r) + "\n" for r in rows
            )
        )
    config = dataclasses.replace(old, name="new", start_from=old.runs / "old")
    folder = train_as_planned(config, make_plan(config), lambda _: None)
    assert torch.equal(folder.load(BEST)["weights"]["encoders.numbers.mean"], before)


def test_a_run_that_started_from_another_is_resumed_to_the_bit(old: TrainConfig) -> None:
    class Interrupted(Exception):
        pass

    def stop(record: dict[str, object]) -> None:
        if record["epoch"] == 1:
            raise Interrupted

    whole = dataclasses.replace(old, name="whole", epochs=3, start_from=old.runs / "old")
    parts = dataclasses.replace(whole, name="parts")
    first = train_as_planned(whole, make_plan(whole), lambda _: None)
    with pytest.raises(Interrupted):
        train_as_planned(parts, make_plan(parts), stop)
    parts = dataclasses.replace(parts, resume=True)
    second = train_as_planned(parts, make_plan(parts), lambda _: None)
    one, other = (folder.load(BEST)["weights"] for folder in (first, second))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "old"}, "this run would replace it; give another --name"),
        (
            {"start_from": Path("nowhere")},
            "--start-from nowhere: it has no run.json; expected the folder of a finished run",
        ),
        ({"width": 32}, "--width 32: the encoders of .* have 16; give that, or leave out --start-from"),
        ({"norm": "group"}, "--norm group: the encoders of .* have batch"),
        ({"strategy": "mib"}, "--strategy mib: the encoders of .* have mla"),
        ({"transliterate": True}, "--transliterate True: the encoders of .* have False"),
    ],
)
def test_what_does_not_fit_is_refused(old: TrainConfig, changed: dict[str, object], message: str) -> None:
    config = dataclasses.replace(old, **{"name": "new", "start_from": old.runs / "old", **changed})
    with pytest.raises(ConfigError, match=message):
        make_plan(config)


def test_modalities_without_an_earlier_encoder_begin_anew_and_none_at_all_is_refused(old: TrainConfig) -> None:
    config = dataclasses.replace(old, name="one", modalities=("text",), start_from=old.runs / "old")
    folder = train_as_planned(config, make_plan(config), lambda _: None)
    config = dataclasses.replace(old, name="both", start_from=folder.path)
    assert "; numbers begins anew" in "\n".join(make_plan(config).notes)
    with pytest.raises(ConfigError, match=r"has encoders for text \(text, small\); none fits numbers"):
        make_plan(dataclasses.replace(config, modalities=("numbers",)))


def write_csv(path: Path, rows: list[dict[str, object]]) -> Path:
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_columns_are_read_as_the_earlier_run_did_and_further_ones_begin_anew(tmp_path: Path) -> None:
    old = [{"x": n / 4, "size": n * 7 % 5, "kind": "ab"[n % 2]} for n in range(60)]
    begun = TrainConfig(
        data=write_csv(tmp_path / "old.csv", [{**row, "label": "uv"[n % 2]} for n, row in enumerate(old)]),
        runs=tmp_path / "runs", epochs=1, batch_size=16, width=16,
    )  # fmt: skip
    train_as_planned(begun, make_plan(begun), lambda _: None)
    new = [
        {**row, "x": f"0{n % 3}", "kind": "yes" if n % 2 else "no", "weight": n / 8, "label": "pqr"[n % 3]}
        for n, row in enumerate(old)
    ]
    data = write_csv(tmp_path / "new.csv", new)
    config = dataclasses.replace(begun, data=data, start_from=tmp_path / "runs" / "old")
    planned = make_plan(config)
    assert planned.recipe.inputs["columns"] == make_plan(begun).recipe.inputs["columns"]
    assert "; columns_2 begins anew" in "\n".join(planned.notes)
    row = planned.rows["train"][0]
    assert {name: type(cell) for name, cell in row.values["columns"].items()} == {
        "x": float,
        "size": float,
        "kind": str,
    }  # type: ignore[union-attr]
    assert list(row.values["columns_2"]) == ["weight"]
    assert planned.recipe.classes == ("p", "q", "r")


def test_a_column_of_the_earlier_run_that_is_the_label_now_is_no_longer_read(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"x": n / 4, "kind": "ab"[n % 2], "label": "uv"[n // 2 % 2]} for n in range(60)]
    data = write_csv(tmp_path / "old.csv", rows)
    begun = TrainConfig(data=data, runs=tmp_path / "runs", epochs=1, batch_size=16, width=16)
    train_as_planned(begun, make_plan(begun), lambda _: None)
    config = dataclasses.replace(begun, name="new", label="kind", start_from=tmp_path / "runs" / "old")
    planned = make_plan(config)
    assert planned.recipe.classes == ("a", "b")
    assert planned.rows["train"][0].values["columns"].keys() == {"x"}  # type: ignore[union-attr]
