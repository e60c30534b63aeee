"""What is chosen from the training rows before training begins, each with a note that says what and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from mla_serve.table import Row
from mla_serve.train.augmentation import choose_augmentation
from mla_serve.train.balance import Balance, make_balance
from mla_serve.train.config import TrainConfig
from mla_serve.train.defaults import with_defaults
from mla_serve.train.recipe import Recipe
from mla_serve.train.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Choices:
    """settings: the configuration with its defaults filled in; augment: how samples are varied, by modality."""

    settings: TrainConfig
    balance: Balance
    augment: Mapping[str, str]


def choose(config: TrainConfig, name: str, rows: Sequence[Row], recipe: Recipe) -> tuple[Choices, list[str]]:
    """Choose settings, balance and augmentation. Args: name, of the run; rows, for training. Returns: them, and notes."""
    begun = RunFolder(config.runs / name).begun_settings() if config.resume else {}
    settings, notes = with_defaults(config, len(rows), begun)
    balance, told = make_balance(config.balance, (row.label for row in rows), recipe.task)
    augment, said = choose_augmentation(config, rows, recipe)
    return Choices(settings, balance, augment), [*notes, *told, *said]
