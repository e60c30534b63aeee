"""The training loop for every task: validation, the best checkpoint, lines, event files, and losses that are not finite."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mla_serve.tasks import TASKS
from mla_serve.train.balance import Balance
from mla_serve.train.choices import Choices
from mla_serve.train.config import TrainConfig
from mla_serve.train.data.samples import Samples
from mla_serve.train.describe import epoch_line
from mla_serve.train.event_files import _scalars
from mla_serve.train.loop import Diverged, Trainer
from mla_serve.train.run_folder import BEST, METRICS, RunFolder
from mla_serve.train.strategies import Strategy

Make = Callable[..., Strategy]
MakeSamples = Callable[..., Samples]
MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def make_trainer(make_strategy: Make, make_samples: MakeSamples, tmp_path: Path) -> MakeTrainer:
    """A trainer of three epochs on 40 rows."""

    def make(task: str, method: str = "none") -> Trainer:
        samples = {split: make_samples(rows=40, seed=seed, task=task) for seed, split in enumerate(("train", "val"))}
        settings = TrainConfig(epochs=3, batch_size=8)
        choices = Choices(settings, Balance(method, (14, 13, 13)), {})
        folder = RunFolder(tmp_path / task)
        folder.path.mkdir()
        return Trainer(make_strategy("mla", task=task), samples, folder, choices=choices, device=torch.device("cpu"))

    return make


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_checkpoint_is_that_of_the_lowest_nll_and_every_epoch_is_told(task: str, make_trainer: MakeTrainer) -> None:
    trainer, records = make_trainer(task), []
    trainer.measure()
    trainer.run(records.append)
    best = min(records, key=lambda record: record["nll"])
    assert trainer.folder.load(BEST)["epoch"] == trainer.best["epoch"] == best["epoch"]
    scores = trainer.strategy.task.main_scores
    assert set(scores) <= set(trainer.best)
    written = [json.loads(line) for line in (trainer.folder.path / METRICS).read_text().splitlines()]
    assert [one["nll"] for one in written] == [one["nll"] for one in records]
    line = epoch_line(best, trainer.strategy.task)
    assert f"all {best['val']['full']:.3f} {trainer.strategy.task.title(scores[0])}" in line
    named = dict(_scalars(best))
    assert {"val/full", "val/a", "nll", "loss/a", *scores} <= set(named)
    assert all(math.isfinite(value) for value in named.values())


@pytest.mark.parametrize("task", sorted(TASKS))
def test_heads_begin_at_the_base_rates_of_the_training_rows(task: str, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(task)
    task_of, targets = trainer.strategy.task, trainer.samples["train"].targets.numpy()
    expected = task_of.prior_outputs(task_of.prior_of(targets))
    bias = trainer.strategy.heads["head"].bias.detach().numpy()
    assert bias == pytest.approx(expected, abs=1e-6)


def test_heads_that_learn_equal_frequencies_do_not_begin_at_the_base_rates(make_trainer: MakeTrainer) -> None:
    bias = make_trainer("classes", "weights").strategy.heads["head"].bias.detach().numpy()
    prior = make_trainer("labels").strategy.heads["head"].bias.detach().numpy()
    assert not np.allclose(bias, prior)
    assert abs(bias.sum()) > 1e-6  # torch's own initialisation; base rates have a mean of 0


@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_loss_that_is_not_finite_ends_training_with_what_to_do(task: str, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(task)
    with torch.no_grad():
        trainer.strategy.heads["head"].weight.fill_(math.nan)
    with pytest.raises(Diverged, match="no longer finite in epoch 1; lower --lr"):
        trainer.run(lambda _: None)


@pytest.mark.parametrize("task", sorted(TASKS))
@pytest.mark.parametrize("bias", [math.nan, math.inf])
def test_a_last_step_that_diverges_ends_training_with_what_to_do(
    task: str, bias: float, make_trainer: MakeTrainer
) -> None:
    """Only validation sees it: the losses of the epoch were all finite."""
    trainer = make_trainer(task)

    def diverge() -> None:
        if trainer.steps == 4:  # before the fifth and last batch of the epoch is counted
            with torch.no_grad():
                trainer.strategy.heads["head"].bias.copy_(torch.tensor([bias, 0, 0])[: trainer.strategy.task.outputs])

    with pytest.raises(Diverged, match="validation rows are not finite after epoch 1; lower --lr"):
        trainer.run(lambda _: None, diverge)
