"""The interface of a training strategy, and what all of them share: optimisers, schedules, checkpoints."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from mla_serve.train.distributed import collectives
from mla_serve.train.distributed.batch_share import Share
from mla_serve.train.encoders import Encoder
from mla_serve.train.encoders.base import at_least_float32


class Batch(Protocol):
    """One mini-batch of B rows, each with some of the modalities; of several processes each has a part of the rows."""

    rows: Tensor
    """(B,) int64, the rows' numbers in the training split."""
    labels: Tensor
    """(B,) int64."""
    present: Mapping[str, Tensor]
    """{modality: (B,) bool}."""
    whole: Mapping[str, Tensor]
    """{modality: bool}, on the CPU: `present` for all processes' rows together."""

    def inputs(self, name: str) -> Tensor:
        """Load, augment and move the windows of the rows that have `name`, when they are asked for: (rows, *shape).

        Where other processes have such rows and this one has none, the first of theirs.
        """


@dataclasses.dataclass(frozen=True)
class Part:
    """This process's rows of a batch that have one modality.

    windows (rows, *shape), one that does not count where there are none; labels (rows,); share, which of all processes'
    rows they are.
    """

    windows: Tensor
    labels: Tensor
    share: Share

    def first(self, count: int) -> Part:
        """Return what is among the first `count` rows of the whole batch."""
        share = self.share.first(count)
        return Part(self.windows[: len(share.lent)], self.labels[: len(share.at)], share)


@dataclasses.dataclass(frozen=True)
class Options:
    """What strategies may be told; see TrainConfig for the meaning of each."""

    lr: float = 2e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.05
    optimizer: str = "adamw"
    hgm: str = "epoch"
    heads: str = "shared"
    turns: str = "all"
    precision: str = "fp32"


class Strategy(nn.Module, abc.ABC):
    """Encoders, heads and the rule by which a mini-batch changes them.

    `heads` maps head names to linear layers (D -> C), `head_of` maps each modality to its head's name. `takes` names
    the options that are this strategy's own; `native` is the fusion rule that it was made for, a key of RULES, and
    `native_bias` what every head's logits share and a sum of them must count once.
    """

    takes: ClassVar[frozenset[str]] = frozenset()
    native: ClassVar[str] = "paper"

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        heads: Mapping[str, nn.Linear],
        head_of: Mapping[str, str],
        options: Options,
    ) -> None:
        """Take freshly built modules."""
        super().__init__()
        self.encoders = nn.ModuleDict(dict(encoders))
        self.heads = nn.ModuleDict(dict(heads))
        self.head_of = dict(head_of)
        self.classes = next(iter(heads.values())).out_features
        self.width = next(iter(heads.values())).in_features
        self.options = options
        self.loss = nn.CrossEntropyLoss(label_smoothing=options.label_smoothing)
        self.schedules: dict[str, Schedule] = {}

    @classmethod
    def build(cls, encoders: Mapping[str, Encoder], classes: int, options: Options) -> Self:
        """Make the heads that the strategy needs and return it. Default: one head for each modality.

        Raises: ConfigError for an option's value that it does not have.
        """
        head_of = {name: f"head_{name}" for name in encoders}
        heads = {head_of[name]: nn.Linear(encoder.width, classes) for name, encoder in encoders.items()}
        return cls(encoders, heads, head_of, options)

    @abc.abstractmethod
    def step(self, batch: Batch) -> dict[str, float]:
        """Learn from one mini-batch; returns what to log, losses by modality among it."""

    def prepare(self, total_steps: int, rows: int) -> None:  # noqa: ARG002
        """Make optimisers and schedules for a run of total_steps batches over `rows` rows. Default: one for everything."""
        self.schedules = {"all": Schedule(self, self.options, total_steps)}

    def start_epoch(self) -> None:
        """Do what is due at the start of an epoch. Default: nothing."""

    def training_state(self) -> dict[str, Any]:
        """Return everything beside the weights that a resumed run needs."""
        return {"schedules": {name: schedule.state_dict() for name, schedule in self.schedules.items()}}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Take up what `training_state` returned."""
        for name, schedule in self.schedules.items():
            schedule.load_state_dict(state["schedules"][name])

    def native_bias(self) -> list[float]:
        """Return the bias (C) that all heads share; empty when they do not."""
        return []

    def features(self, name: str, windows: Tensor) -> Tensor:
        """Encode windows (B, *shape): (B, D) float32; while training, in the precision that was asked for."""
        lower = self.encoders[name].training and self.options.precision == "bf16"
        with torch.autocast(windows.device.type, torch.bfloat16, enabled=lower):
            features: Tensor = self.encoders[name](windows)
        return at_least_float32(features)

    def logits(self, name: str, windows: Tensor) -> Tensor:
        """Return one modality's opinion of windows (B, *shape): (B, C)."""
        logits: Tensor = self.heads[self.head_of[name]](self.features(name, windows))
        return logits

    def part(self, batch: Batch, name: str) -> Part:
        """Take out of a batch the rows that have a modality."""
        return Part(batch.inputs(name), batch.labels[batch.present[name]], collectives.share(batch.whole[name]))

    def encode(self, name: str, part: Part) -> Tensor:
        """Encode the rows that count, to learn from them: (rows, D)."""
        with part.share.encoding():
            return self.features(name, part.windows)[: len(part.labels)]

    def mean_loss(self, logits: Tensor, labels: Tensor, total: int) -> Tensor:
        """Return what these rows (rows, C) add to the mean loss over the `total` rows of all processes."""
        if not len(labels):
            return logits.sum()  # zero, and has gradients
        loss: Tensor = self.loss(logits, labels)
        return loss * (len(labels) / total)

    def set_gradients(self, loss: Tensor, *modules: nn.Module) -> float:
        """Set the gradients of modules, all when left out, to those of the sum of all processes' losses; returns the sum."""
        loss.backward()
        total = loss.detach().clone()
        own = [parameter for module in modules or (self,) for parameter in module.parameters()]
        collectives.sum_([total, *(parameter.grad for parameter in own if parameter.grad is not None)])
        return total.item()

    def usable(self, batch: Batch) -> list[str]:
        """List the modalities that have rows enough in a batch: two where the encoder normalises over it."""
        return [
            name
            for name, encoder in self.encoders.items()
            if int(batch.whole[name].sum()) >= (2 if encoder.normalises_over_batch else 1)
        ]


class Schedule:
    """One optimiser and its one-cycle learning rate, advanced once per batch."""

    def __init__(self, module: nn.Module, options: Options, total_steps: int) -> None:
        """Make an optimiser over a module's parameters."""
        self.optimizer = _optimizer(module, options)
        highest = [options.lr * group["speed"] for group in self.optimizer.param_groups]
        self._scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, highest, total_steps=total_steps)

    def step(self) -> None:
        """Apply the gradients and set them to None."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def advance(self) -> None:
        """Move the learning rate on by one batch."""
        # torch warns when a rate moves before the first step; a turn without rows is no fault.
        self.optimizer._opt_called = True
        self._scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the optimiser's and the schedule's state, plain types and tensors only."""
        schedule = {k: v for k, v in self._scheduler.state_dict().items() if isinstance(v, int | float | list | str)}
        return {"optimizer": self.optimizer.state_dict(), "schedule": schedule}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["schedule"])


def _optimizer(module: nn.Module, options: Options) -> torch.optim.Optimizer:
    groups = _by_speed(module)
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, options.lr, momentum=0.9, weight_decay=options.weight_decay)
    return torch.optim.AdamW(groups, options.lr, weight_decay=options.weight_decay)


def _by_speed(module: nn.Module) -> list[dict[str, Any]]:
    """Group the parameters that are trained by how fast they learn."""
    encoders = [part for part in module.modules() if isinstance(part, Encoder)]
    speeds = {key: speed for encoder in encoders for key, speed in encoder.relative_learning_rates().items()}
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            groups.setdefault(speeds.get(id(parameter), 1.0), []).append(parameter)
    return [{"params": parameters, "speed": speed} for speed, parameters in groups.items()]
