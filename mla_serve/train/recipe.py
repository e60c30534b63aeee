"""The recipe: everything that fixes the modules of a model. A run stores it, and export rebuilds the modules from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch

from mla_serve.errors import ConfigError
from mla_serve.inputs import Input
from mla_serve.tasks import Task
from mla_serve.train.config import TrainConfig
from mla_serve.train.device import pick_device, pick_norm, pick_precision
from mla_serve.train.encoders import ENCODERS, Encoder
from mla_serve.train.encoders.blocks import group_normed
from mla_serve.train.pretrained import PREFIX
from mla_serve.train.pretrained.encoders import make_pretrained
from mla_serve.train.pretrained.settings import Pretrained
from mla_serve.train.strategies import STRATEGIES, Options, Strategy

STRATEGY_OPTIONS = frozenset().union(*(strategy.own_options for strategy in STRATEGIES.values()))
"""Options that only some strategies have."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Task, inputs, encoders by name, width D, strategy and its options.

    pretrained: modality -> settings, for the encoders that are pretrained; norm: what the others normalise over.
    """

    task: Task
    inputs: Mapping[str, Input]
    encoders: Mapping[str, str]
    width: int
    strategy: str
    options: Options
    pretrained: Mapping[str, Pretrained] = dataclasses.field(default_factory=dict)
    norm: str = "batch"

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes or labels; none for a number."""
        return self.task.names

    def build(self, seed: int = 0) -> Strategy:
        """Make the modules, freshly initialised.

        Raises: ConfigError for an unknown encoder or strategy.
        """
        if self.strategy not in STRATEGIES:
            raise ConfigError(f"--strategy {self.strategy}: expected one of {', '.join(STRATEGIES)}")
        if self.task.name not in STRATEGIES[self.strategy].tasks:
            able = [name for name, strategy in STRATEGIES.items() if self.task.name in strategy.tasks]
            raise ConfigError(
                f"--strategy {self.strategy}: cannot learn the task {self.task.name}; choose one of {', '.join(able)}"
            )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return STRATEGIES[self.strategy].build(self.make_encoders(), self.task, self.options)

    def make_encoders(self) -> dict[str, Encoder]:
        """Make the encoders alone, by torch's global random numbers. Raises: ConfigError for an unknown one."""
        return {name: self._encoder(name) for name in self.inputs}

    def _encoder(self, name: str) -> Encoder:
        kind, chosen = self.inputs[name].kind, self.encoders[name]
        if name in self.pretrained:
            return make_pretrained(self.inputs[name], self.width, self.pretrained[name])
        if chosen not in ENCODERS[kind]:
            raise ConfigError(f"--encoders {name}={chosen}: expected one of {', '.join(ENCODERS[kind])} for {kind}")
        encoder = ENCODERS[kind][chosen](self.inputs[name], self.width)
        return group_normed(encoder) if self.norm == "group" else encoder


def make_recipe(
    task: Task,
    inputs: Mapping[str, Input],
    encoders: Mapping[str, str],
    pretrained: Mapping[str, Pretrained],
    width: int,
    strategy: str,
    config: TrainConfig,
) -> Recipe:
    """Put a recipe together. Pretrained encoders are named without the folder that they were loaded from.

    Raises: ConfigError for an option that the strategy does not have.
    """
    named = {name: f"{PREFIX}{settings.source}" for name, settings in pretrained.items()}
    options, norm = pick_options(config), pick_norm(config)
    return Recipe(task, inputs, {**encoders, **named}, width, strategy, options, pretrained, norm)


def pick_encoders(kinds: Mapping[str, str], config: TrainConfig) -> dict[str, str]:
    """Return each modality's encoder: the one of --encoders, or the first of its kind.

    Raises: ConfigError.
    """
    chosen = {name: next(iter(ENCODERS[kind])) for name, kind in kinds.items()}
    for item in config.encoders:
        name, _, encoder = item.partition("=")
        if name not in chosen or not encoder:
            raise ConfigError(f"--encoders {item}: expected NAME=ENCODER with a name out of {', '.join(chosen)}")
        chosen[name] = encoder
    return chosen


def pick_options(config: TrainConfig) -> Options:
    """Collect the options of the strategy, and refuse one that belongs to another strategy.

    Raises: ConfigError.
    """
    if config.strategy not in STRATEGIES:
        raise ConfigError(f"--strategy {config.strategy}: expected one of {', '.join(STRATEGIES)}")
    own = STRATEGIES[config.strategy].own_options
    given = {field.name: getattr(config, field.name) for field in dataclasses.fields(Options)}
    given = {name: value for name, value in given.items() if value is not None}
    given["precision"] = pick_precision(config.precision, pick_device(config.device))
    for name in sorted(STRATEGY_OPTIONS & set(given) - own):
        raise ConfigError(
            f"--{name}: {config.strategy} has no such option; its own are: {', '.join(sorted(own)) or 'none'}"
        )
    return Options(**given)
