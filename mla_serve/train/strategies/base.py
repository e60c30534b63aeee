"""The interface of a training strategy, and what all strategies share: optimisers, schedules, checkpoints.

CONTRIBUTING.md says how to add one; STRATEGIES in __init__.py lists them.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from mla_serve.train.distributed import collectives
from mla_serve.train.distributed.local_rows import LocalRows
from mla_serve.train.encoders import Encoder
from mla_serve.train.encoders.base import at_least_float32


class Batch(Protocol):
    """One mini-batch: B rows, each with some of the modalities. Of several processes, each has B of the batch's rows."""

    rows: Tensor
    """(B,) int64, positions of the rows in the training split."""
    labels: Tensor
    """(B,) int64."""
    present: Mapping[str, Tensor]
    """{modality: (B,) bool}."""
    present_everywhere: Mapping[str, Tensor]
    """{modality: bool}, on the CPU: `present` of the rows of all processes together."""

    def inputs(self, name: str) -> Tensor:
        """Load, augment and move the windows of the rows that have `name`: (rows, *shape).

        Nothing is loaded before this call, so that a turn needs memory for its own modality only. Where this process has
        no such row, but others have, it returns the first of theirs.
        """


@dataclasses.dataclass(frozen=True)
class Part:
    """The rows of a batch that have one modality, those of this process.

    windows (rows, *shape), or one window that does not count where there is no such row; labels (rows,); local, which of
    the rows of all processes they are.
    """

    windows: Tensor
    labels: Tensor
    local: LocalRows

    def first(self, count: int) -> Part:
        """Return those among the first `count` of all processes' rows."""
        local = self.local.first(count)
        return Part(self.windows[: len(local.encoded)], self.labels[: len(local.positions)], local)


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of strategies; TrainConfig says what each means."""

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

    heads: head name -> linear layer (D -> C). head_of: modality -> head name. own_options: the options that only this
    strategy has. native: the fusion rule that belongs to the strategy, a key of mla_serve.fusion.rules.RULES.
    native_bias: the bias that all heads share, which a sum of their logits must count once.
    """

    own_options: ClassVar[frozenset[str]] = frozenset()
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
        """Learn from one mini-batch; returns numbers to log, such as the loss of each modality."""

    def prepare(self, total_steps: int, rows: int) -> None:  # noqa: ARG002
        """Make optimisers and schedules for a run of total_steps batches over `rows` rows. Default: one for everything."""
        self.schedules = {"all": Schedule(self, self.options, total_steps)}

    def start_epoch(self) -> None:
        """Prepare an epoch. Default: nothing to do."""

    def training_state(self) -> dict[str, Any]:
        """Return everything beside the weights that a resumed run needs."""
        return {"schedules": {name: schedule.state_dict() for name, schedule in self.schedules.items()}}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Restore what `training_state` returned."""
        for name, schedule in self.schedules.items():
            schedule.load_state_dict(state["schedules"][name])

    def native_bias(self) -> list[float]:
        """Return the bias (C) that all heads share; empty if they share none."""
        return []

    def features(self, name: str, windows: Tensor) -> Tensor:
        """Encode windows (B, *shape): (B, D) float32. While training, convolutions and products use --precision."""
        lower = self.encoders[name].training and self.options.precision == "bf16"
        with torch.autocast(windows.device.type, torch.bfloat16, enabled=lower):
            features: Tensor = self.encoders[name](windows)
        return at_least_float32(features)

    def logits(self, name: str, windows: Tensor) -> Tensor:
        """Return the logits of one modality for windows (B, *shape): (B, C)."""
        logits: Tensor = self.heads[self.head_of[name]](self.features(name, windows))
        return logits

    def part(self, batch: Batch, name: str) -> Part:
        """Take the rows that have a modality from a batch."""
        local = collectives.local_rows(batch.present_everywhere[name])
        return Part(batch.inputs(name), batch.labels[batch.present[name]], local)

    def encode(self, name: str, part: Part) -> Tensor:
        """Encode the rows to learn from them: (rows, D). A window that does not count is encoded and dropped."""
        with part.local.encoding():
            return self.features(name, part.windows)[: len(part.labels)]

    def mean_loss(self, logits: Tensor, labels: Tensor, total: int) -> Tensor:
        """Return the part of the mean loss over all processes' `total` rows that these rows (rows, C) contribute.

        The sum over the processes is the mean loss over the batch, as one process computes it.
        """
        if not len(labels):
            return logits.sum()  # zero, with gradients of zero, so that every process takes part in the all-reduce
        loss: Tensor = self.loss(logits, labels)
        return loss * (len(labels) / total)

    def set_gradients(self, loss: Tensor, *modules: nn.Module) -> float:
        """Set the gradients of the modules (default: all) to those of the sum of the processes' losses; returns that sum."""
        loss.backward()
        total = loss.detach().clone()
        own = [parameter for module in modules or (self,) for parameter in module.parameters()]
        collectives.all_reduce([total, *(parameter.grad for parameter in own if parameter.grad is not None)])
        return total.item()

    def usable(self, batch: Batch) -> list[str]:
        """List the modalities with enough rows in a batch: one, or two if the encoder normalises over the batch."""
        return [
            name
            for name, encoder in self.encoders.items()
            if int(batch.present_everywhere[name].sum()) >= (2 if encoder.normalises_over_batch else 1)
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
        # torch warns if the rate changes before the first step. Here that is no fault: a modality may lack rows.
        self.optimizer._opt_called = True
        self._scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the optimiser's and the schedule's state, plain types and tensors only."""
        schedule = {k: v for k, v in self._scheduler.state_dict().items() if isinstance(v, int | float | list | str)}
        return {"optimizer": self.optimizer.state_dict(), "schedule": schedule}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        self.optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["schedule"])


def _optimizer(module: nn.Module, options: Options) -> torch.optim.Optimizer:
    groups = _by_speed(module)
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, options.lr, momentum=0.9, weight_decay=options.weight_decay)
    return torch.optim.AdamW(groups, options.lr, weight_decay=options.weight_decay)


def _by_speed(module: nn.Module) -> list[dict[str, Any]]:
    """Group the trained parameters by the factor on their learning rate."""
    encoders = [part for part in module.modules() if isinstance(part, Encoder)]
    speeds = {key: speed for encoder in encoders for key, speed in encoder.relative_learning_rates().items()}
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            groups.setdefault(speeds.get(id(parameter), 1.0), []).append(parameter)
    return [{"params": parameters, "speed": speed} for speed, parameters in groups.items()]
