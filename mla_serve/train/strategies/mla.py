"""MLA: the modalities are trained in turns, with one shared, protected head. And the ensemble: separate heads.

For every mini-batch, in turn for each modality m:  h = encoder_m(x_m), z = W h + b, loss = CE(z, y);  step of encoder_m;
step dW of the head, replaced by dW P (head_projection.py explains P; `--hgm off` leaves dW as it is). Every encoder and the
head have an optimiser of their own, so nothing outside the turn moves, in spite of momentum and weight decay. Learning
rates advance once per batch.

A modality is loaded and encoded inside its own turn, so a step needs the memory of the largest modality, not of all.

Source: Zhang, Yoon, Bansal, Yao, CVPR 2024, arXiv 2311.10707. Deviations: rows that lack a modality take no part in its
turn (the paper has complete rows); the projection is applied to the step instead of the gradient (head_projection.py). The
orders `shuffled` and `weak` are ours. With `weak`, a modality that is far ahead has no turn in every second batch: its
running loss exceeds the least value that a loss can have by less than half of what the modalities' losses do on average.
The least value counts because label smoothing keeps every loss above it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import nn

from mla_serve.errors import ConfigError
from mla_serve.tasks import Task
from mla_serve.train.distributed import collectives
from mla_serve.train.encoders import Encoder
from mla_serve.train.losses import LEAST
from mla_serve.train.strategies.base import Batch, Options, Part, Schedule, Strategy
from mla_serve.train.strategies.head_projection import OLDER, make_projector, project_step

SHARED = "head"
HEADS = ("shared", "separate")
TURNS = ("all", "shuffled", "weak")
MOMENTUM = 0.9
STRONG = 0.5  # with turns = weak, a modality with less than half of the mean excess loss skips every second batch


class Mla(Strategy):
    """Turns of one encoder and the head. `running` is the running mean of each modality's loss."""

    own_options: ClassVar[frozenset[str]] = frozenset({"hgm", "heads", "turns"})

    @classmethod
    def build(cls, encoders: Mapping[str, Encoder], task: Task, options: Options) -> Self:
        """Make one head for all, or one for each modality."""
        if options.hgm not in OLDER:
            make_projector(options.hgm, width=2)  # refuses an unknown one
        for flag, value, choices in (("heads", options.heads, HEADS), ("turns", options.turns, TURNS)):
            if value not in choices:
                raise ConfigError(f"--{flag} {value}: expected {', '.join(choices[:-1])} or {choices[-1]}")
        if options.turns == "weak" and task.name not in LEAST:
            raise ConfigError(
                f"--turns weak: compares how far losses are above their least value, and that of the task {task.name} has "
                "none; choose all or shuffled"
            )
        if options.heads == "separate":
            return super().build(encoders, task, options)
        width = next(iter(encoders.values())).width
        return cls(encoders, {SHARED: nn.Linear(width, task.outputs)}, dict.fromkeys(encoders, SHARED), task, options)

    def prepare(self, total_steps: int, rows: int) -> None:  # noqa: ARG002
        """Give each encoder and each head its own optimiser, so that nothing outside the turn moves."""
        parts = {**self.encoders, **self.heads}
        self.schedules = {name: Schedule(module, self.options, total_steps) for name, module in parts.items()}
        protects = len(self.encoders) > 1 and self.options.heads == "shared"
        self.projector = make_projector(self.options.hgm, self.width) if protects else None
        self.running: dict[str, float] = {}
        self.batches = 0

    def start_epoch(self) -> None:
        """Reset the projector if it is to be reset each epoch."""
        if self.projector:
            self.projector.start_epoch()

    def step(self, batch: Batch) -> dict[str, float]:
        """Train every modality in turn. One with too few rows in this batch is skipped."""
        logged: dict[str, float] = {}
        for name in self._order(self.usable(batch)):
            if not self._skips(name):
                logged |= self._turn(name, self.part(batch, name))
                loss = logged[f"loss/{name}"]
                self.running[name] = MOMENTUM * self.running.get(name, loss) + (1 - MOMENTUM) * loss
        self.batches += 1
        for schedule in self.schedules.values():
            schedule.advance()
        return logged

    def _order(self, names: list[str]) -> list[str]:
        """Return the order of the turns: that of the table, or a new random one for each batch."""
        if self.options.turns != "shuffled":
            return names
        collectives.sync_random_state()
        return [names[i] for i in torch.randperm(len(names)).tolist()]

    def _skips(self, name: str) -> bool:
        """Whether a modality has no turn in this batch, because it is far ahead of the others."""
        if self.options.turns != "weak" or self.batches % 2 == 0 or len(self.running) < len(self.encoders):
            return False
        least = LEAST[self.task.name](self.task.outputs, self.options.label_smoothing)
        excess = {other: loss - least for other, loss in self.running.items()}
        return excess[name] < STRONG * sum(excess.values()) / len(excess)

    def _turn(self, name: str, part: Part) -> dict[str, float]:
        head = self.heads[self.head_of[name]]
        features = self.encode(name, part)
        loss = self.mean_loss(head(features), part.targets, part.local.total)
        logged = {f"loss/{name}": self.set_gradients(loss, self.encoders[name], head)}
        before = head.weight.detach().clone()
        self.schedules[name].step()
        self.schedules[self.head_of[name]].step()
        if self.projector:
            logged[f"kept/{name}"] = project_step(head.weight, before, self.projector.turn(name))
            self.projector.observe(name, features)
        return logged

    def training_state(self) -> dict[str, Any]:
        """Return the optimisers, schedules, the projector and the running losses."""
        projector = self.projector.state_dict() if self.projector else {}
        return super().training_state() | {"projector": projector, "running": self.running, "batches": self.batches}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Restore what `training_state` returned."""
        super().load_training_state(state)
        self.running, self.batches = state["running"], state["batches"]
        if self.projector:
            self.projector.load_state_dict(state["projector"])


class Ensemble(Mla):
    """Separate encoders and separate heads, without any interaction. The baseline that every strategy must beat."""

    own_options: ClassVar[frozenset[str]] = frozenset()
    native: ClassVar[str] = "mean_prob"

    @classmethod
    def build(cls, encoders: Mapping[str, Encoder], task: Task, options: Options) -> Self:
        """Build MLA with separate heads. They need no projection."""
        return super().build(encoders, task, dataclasses.replace(options, heads="separate"))
