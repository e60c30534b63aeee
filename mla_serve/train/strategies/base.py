"""The interface of a training strategy, and what all strategies share: optimisers, schedules, checkpoints.

CONTRIBUTING.md says how to add one; STRATEGIES in __init__.py lists them.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mla_serve.tasks import TASKS, Task
from mla_serve.train.distributed import collectives
from mla_serve.train.distributed.local_rows import LocalRows
from mla_serve.train.encoders import Encoder
from mla_serve.train.encoders.base import at_least_float32
from mla_serve.train.losses import loss_of_rows


class Batch(Protocol):
    """One mini-batch: B rows, each with some of the modalities. Of several processes, each has B of the batch's rows."""

    rows: Tensor
    """(B,) int64, positions of the rows in the training split."""
    targets: Tensor
    """(B, ...), see Task.encode."""
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

    windows (rows, *shape), or one window that does not count where there is no such row; targets (rows, ...); local, which of
    the rows of all processes they are.
    """

    windows: Tensor
    targets: Tensor
    local: LocalRows

    def first(self, count: int) -> Part:
        """Return those among the first `count` of all processes' rows."""
        local = self.local.first(count)
        return Part(self.windows[: len(local.encoded)], self.targets[: len(local.positions)], local)

    def chunks(self, count: int) -> list[Part]:
        """Split into `count` parts, or fewer where a process has fewer rows: every process makes the same number."""
        count = min(count, self.local.fewest)
        if count < 2:
            return [self]
        windows, targets = self.windows.tensor_split(count), self.targets.tensor_split(count)
        return [Part(*piece) for piece in zip(windows, targets, self.local.split(count), strict=True)]


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of strategies; TrainConfig says what each means."""

    lr: float = 2e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.05
    optimizer: str = "adamw"
    hgm: str = "subspace"
    heads: str = "shared"
    turns: str = "all"
    precision: str = "fp32"
    clip: float | None = None
    accumulate: int = 1


class Strategy(nn.Module, abc.ABC):
    """Encoders, heads and the rule by which a mini-batch changes them.

    heads: head name -> linear layer (D -> O). head_of: modality -> head name. own_options: the options that only this
    strategy has. native: the fusion rule that belongs to the strategy, a key of mla_serve.fusion.rules.RULES.
    native_bias: the bias that all heads share, which a sum of their outputs must count once. tasks: those that the strategy
    can learn.
    """

    own_options: ClassVar[frozenset[str]] = frozenset()
    native: ClassVar[str] = "paper"
    tasks: ClassVar[tuple[str, ...]] = tuple(TASKS)

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        heads: Mapping[str, nn.Linear],
        head_of: Mapping[str, str],
        task: Task,
        options: Options,
    ) -> None:
        """Take freshly built modules."""
        super().__init__()
        self.encoders = nn.ModuleDict(dict(encoders))
        self.heads = nn.ModuleDict(dict(heads))
        self.head_of = dict(head_of)
        self.task = task
        self.width = next(iter(heads.values())).in_features
        self.options = options
        self.class_weights: Tensor | None = None
        self._shift: list[float] = []
        self.schedules: dict[str, Schedule] = {}

    @classmethod
    def build(cls, encoders: Mapping[str, Encoder], task: Task, options: Options) -> Self:
        """Make the heads that the strategy needs and return it. Default: one head for each modality.

        Raises: ConfigError for an option's value that it does not have.
        """
        head_of = {name: f"head_{name}" for name in encoders}
        heads = {head_of[name]: nn.Linear(encoder.width, task.outputs) for name, encoder in encoders.items()}
        return cls(encoders, heads, head_of, task, options)

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
        """Return the bias (C) that all heads share, or the part of it that `shift_heads` added; empty if they share none."""
        return self._shift

    def features(self, name: str, windows: Tensor) -> Tensor:
        """Encode windows (B, *shape): (B, D) float32. While training, convolutions and products use --precision."""
        lower = self.encoders[name].training and self.options.precision == "bf16"
        with torch.autocast(windows.device.type, torch.bfloat16, enabled=lower):
            features: Tensor = self.encoders[name](windows)
        return at_least_float32(features)

    def opinions(self, name: str, windows: Tensor) -> Tensor:
        """Return the outputs of one modality's head for windows (B, *shape): (B, O)."""
        opinions: Tensor = self.heads[self.head_of[name]](self.features(name, windows))
        return opinions

    def part(self, batch: Batch, name: str) -> Part:
        """Take the rows that have a modality from a batch."""
        local = collectives.local_rows(batch.present_everywhere[name])
        return Part(batch.inputs(name), batch.targets[batch.present[name]], local)

    def encode(self, name: str, part: Part) -> Tensor:
        """Encode the rows to learn from them: (rows, D). A window that does not count is encoded and dropped."""
        chunks = part.chunks(self.options.accumulate)
        if len(chunks) == 1:
            return self.encode_chunk(name, part)
        return torch.cat([self.encode_chunk(name, chunk, recompute=True) for chunk in chunks])

    def encode_chunk(self, name: str, part: Part, *, recompute: bool = False) -> Tensor:
        """Encode some rows of a batch: (rows, D).

        Args: recompute, keep the features alone, and encode once more when the gradient is needed. So a step on several
        batches needs the memory of one, and equals a step on one large batch, whatever the strategy's loss is.
        """

        def encode(windows: Tensor) -> Tensor:
            with part.local.encoding():
                return self.features(name, windows)

        features: Tensor = checkpoint(encode, part.windows, use_reentrant=False) if recompute else encode(part.windows)
        return features[: len(part.targets)]

    def mean_loss(self, outputs: Tensor, targets: Tensor, total: int) -> Tensor:
        """Return the part of the mean loss over all processes' `total` rows that these rows (rows, O) contribute.

        The sum over the processes is the mean loss over the batch, as one process computes it.
        """
        if not len(targets):
            return outputs.sum()  # zero, with gradients of zero, so that every process takes part in the all-reduce
        losses = loss_of_rows(self.task.name, outputs, targets, self.options.label_smoothing)
        if self.class_weights is not None:
            losses = self.class_weights.to(losses)[targets] * losses
        return losses.sum() / total

    @torch.no_grad()
    def begin_at(self, outputs: Sequence[float]) -> None:
        """Let every head that learns begin by answering `outputs` (O), such as the base rates: they become its bias."""
        for head in self.heads.values():
            if head.bias.requires_grad:
                head.bias.copy_(torch.tensor(outputs))

    def weight_classes(self, weights: Sequence[float]) -> None:
        """Multiply the loss of each row by the weight of its class (C,). Their mean over the training rows is to be 1."""
        self.class_weights = torch.tensor(weights) if weights else None

    @torch.no_grad()
    def shift_heads(self, shift: Sequence[float]) -> None:
        """Add numbers (C,) to the logits of every modality, by the bias of its head."""
        self._shift = list(shift)
        for bias in {id(head.bias): head.bias for head in self.heads.values()}.values() if shift else ():
            bias += torch.tensor(shift).to(bias)

    def skip_to(self, step: int) -> None:
        """Move the learning rates on to where they are after `step` batches, if they are not there yet."""
        for schedule in self.schedules.values():
            schedule.skip_to(step)

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
        self.optimizer, self._clip = _optimizer(module, options), options.clip
        highest = [options.lr * group["speed"] for group in self.optimizer.param_groups]
        self._scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, highest, total_steps=total_steps)

    def step(self) -> None:
        """Clip the gradients, if asked for, apply them and set them to None."""
        if self._clip:
            trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            torch.nn.utils.clip_grad_norm_(trained, self._clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def advance(self) -> None:
        """Move the learning rate on by one batch."""
        # torch warns if the rate changes before the first step. Here that is no fault: a modality may lack rows.
        self.optimizer._opt_called = True
        if self._scheduler.last_epoch < self._scheduler.total_steps:  # `skip_to` may have been there before
            self._scheduler.step()

    def skip_to(self, step: int) -> None:
        """Move the learning rate on to where it is after `step` batches, if it is not there yet."""
        if min(step, self._scheduler.total_steps - 1) > self._scheduler.last_epoch:
            self._scheduler.last_epoch = min(step, self._scheduler.total_steps - 1) - 1
            self.advance()

    def state_dict(self) -> dict[str, Any]:
        """Return the optimiser's and the schedule's state, plain types and tensors only."""
        schedule = {k: v for k, v in self._scheduler.state_dict().items() if isinstance(v, int | float | list | str)}
        return {"optimizer": self.optimizer.state_dict(), "schedule": schedule}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        self.optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["schedule"])


class DecoupledSGD(torch.optim.SGD):
    """SGD whose weight decay shrinks the weights apart from the gradient, as in AdamW: by learning rate times decay per step.

    As a part of the gradient, momentum would add ten steps of it up. Source: Loshchilov, Hutter, ICLR 2019.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Shrink the parameters that have a gradient, and take a step without decay."""
        decays = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
            group["weight_decay"] = 0.0
        super().step(closure)
        for group, decay in zip(self.param_groups, decays, strict=True):
            group["weight_decay"] = decay


def _optimizer(module: nn.Module, options: Options) -> torch.optim.Optimizer:
    groups = _by_speed(module)
    if options.optimizer == "sgd":
        return DecoupledSGD(groups, options.lr, momentum=0.9, weight_decay=options.weight_decay)
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
