"""--log tensorboard: what TensorBoard reads is what metrics.jsonl holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mla_serve import console
from mla_serve.errors import ConfigError
from mla_serve.output.targets import RUN_FOLDER
from mla_serve.train.config import TrainConfig
from mla_serve.train.event_files import FOLDER
from mla_serve.train.plan import make_plan
from mla_serve.train.run import train_as_planned


@pytest.fixture
def config(write_table: Callable[..., Path], tmp_path: Path) -> TrainConfig:
    data, runs = write_table(), tmp_path / "runs"
    return TrainConfig(data=data, name="small", runs=runs, epochs=2, batch_size=16, width=8, log="tensorboard")


def test_event_files_hold_the_numbers_of_every_epoch(config: TrainConfig) -> None:
    run = train_as_planned(config, make_plan(config), lambda record: None)
    events = EventAccumulator(str(run.path / FOLDER)).Reload()
    records = run.read_metrics()
    for tag in ("loss/numbers", "loss/text", "val/full"):
        group, name = tag.split("/")
        expected = [record[tag] if tag in record else record[group][name] for record in records]
        assert [scalar.value for scalar in events.Scalars(tag)] == pytest.approx(expected)
        assert [scalar.step for scalar in events.Scalars(tag)] == [1, 2]
    assert RUN_FOLDER.objection(run.path) is None, "a run with event files is still the folder of a run"


def test_without_the_flag_there_are_none(config: TrainConfig) -> None:
    quiet = dataclasses.replace(config, log=None, epochs=1)
    assert not (train_as_planned(quiet, make_plan(quiet), lambda record: None).path / FOLDER).exists()


def test_another_log_and_a_missing_package_are_refused(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--log wandb: expected tensorboard"):
        dataclasses.replace(config, log="wandb").check()
    monkeypatch.setitem(console.EXTRAS, "tensorboard", ("no_such_package",))
    with pytest.raises(ConfigError, match="no_such_package not installed; run: pip install"):
        config.check()
