"""Joint training: one loss on the fused logits of all modalities, in four usual forms.

joint_sum       z = sum of W_m h_m + b_m over the modalities that a row has
joint_concat    z = W [h_1; ...; h_M] + b, that is sum of W_m h_m, + b once; a missing modality's features are zeros
joint_dropout   joint_concat, with whole modalities left out at random in training
joint_unimodal  CE of joint logits + sum over m of CE of modality m alone, on heads of its own
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from mla_serve.tasks import Task
from mla_serve.train.distributed import collectives
from mla_serve.train.encoders import Encoder
from mla_serve.train.strategies.base import Batch, Options, Strategy

KEEP = 0.6  # probability with which joint_dropout keeps a modality of a row; ours


class JointSum(Strategy):
    """The sum of the modalities' logits, each from a head of its own."""

    native: ClassVar[str] = "sum_logit"

    @torch.no_grad()
    def begin_at(self, outputs: Sequence[float]) -> None:
        """Let the sum over all modalities begin at `outputs` (O)."""
        super().begin_at([value / len(self.heads) for value in outputs])

    def step(self, batch: Batch) -> dict[str, float]:
        """Learn from all modalities at once."""
        logits = self.unimodal_logits(batch)
        if logits:
            logged = self.learn(batch, logits)
            self.schedules["all"].step()
        else:
            logged = {}
        self.schedules["all"].advance()
        return logged

    def unimodal_logits(self, batch: Batch) -> dict[str, Tensor]:
        """Return each usable modality's logits for the rows that have it: {name: (rows, C)}."""
        return {name: self.heads[self.head_of[name]](features) for name, features in self.all_features(batch).items()}

    def all_features(self, batch: Batch) -> dict[str, Tensor]:
        """Return each usable modality's features of the rows that have it: {name: (rows, D)}."""
        return {name: self.encode(name, self.part(batch, name)) for name in self.usable(batch)}

    def learn(self, batch: Batch, unimodal: Mapping[str, Tensor]) -> dict[str, float]:
        """Set the gradients; returns numbers to log."""
        joint, has_any = self.fuse(batch, unimodal, self.kept(batch, unimodal))
        loss = self.joint_loss(batch, joint, has_any, unimodal)
        return {"loss/joint": self.set_gradients(loss)} | self.unimodal_losses(batch, unimodal)

    def joint_loss(self, batch: Batch, joint: Tensor, has_any: Tensor, names: Iterable[str]) -> Tensor:
        """Return this process's part of the mean joint loss over the rows that have any of the modalities `names`.

        Args: joint (B, C); has_any (B,) bool, the rows of this process that have logits.
        """
        total = int(torch.stack([batch.present_everywhere[name] for name in names]).any(dim=0).sum())
        return self.mean_loss(joint[has_any], batch.targets[has_any], total)

    def own_loss(self, batch: Batch, name: str, logits: Tensor) -> Tensor:
        """Return this process's part of the mean loss of one modality over the rows that have it."""
        return self.mean_loss(logits, batch.targets[batch.present[name]], int(batch.present_everywhere[name].sum()))

    def kept(self, batch: Batch, unimodal: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the rows in which each modality counts: {name: (B,) bool}. Default: those that have it."""
        return {name: batch.present[name] for name in unimodal}

    def fuse(self, batch: Batch, unimodal: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum the kept logits, the shared bias counted once. Returns: (B, C), and which rows have any (B,) bool."""
        bias = self.shared_bias()
        total = torch.zeros(len(batch.targets), self.task.outputs, device=batch.targets.device) + bias
        for name, logits in unimodal.items():
            rows = batch.present[name].nonzero().squeeze(1)
            total = total.index_add(0, rows, (logits - bias) * kept[name][rows][:, None])
        return total, torch.stack(list(kept.values())).any(dim=0)

    def shared_bias(self) -> Tensor:
        """Return the bias that all heads share (C); zeros if they share none."""
        weight: Tensor = next(iter(self.heads.values())).weight
        return torch.zeros(self.task.outputs, device=weight.device)

    @torch.no_grad()
    def unimodal_losses(self, batch: Batch, unimodal: Mapping[str, Tensor]) -> dict[str, float]:
        """Return each modality's own loss, for the log."""
        return collectives.sum_values(
            {f"loss/{name}": self.own_loss(batch, name, logits).item() for name, logits in unimodal.items()}
        )


class JointConcat(JointSum):
    """One linear head on the concatenated features.

    The head is kept as slices W_m with one bias that all of them share, so that each modality has logits of its own.
    """

    @classmethod
    def build(cls, encoders: Mapping[str, Encoder], task: Task, options: Options) -> Self:
        """Make the slices, with one common bias."""
        strategy = super().build(encoders, task, options)
        bias = nn.Parameter(torch.zeros(task.outputs))
        for head in strategy.heads.values():
            head.bias = bias
        return strategy

    @torch.no_grad()
    def begin_at(self, outputs: Sequence[float]) -> None:
        """Let the head begin at `outputs` (O): its bias counts once."""
        self.shared_bias().copy_(torch.tensor(outputs))

    def shared_bias(self) -> Tensor:
        """Return the head's bias."""
        bias: Tensor = next(iter(self.heads.values())).bias
        return bias

    def native_bias(self) -> list[float]:
        """Return the head's bias as numbers."""
        return [float(value) for value in self.shared_bias().detach()]


class JointDropout(JointConcat):
    """Joint training with whole modalities dropped at random, the usual way to prepare for missing ones.

    Each modality of each row is kept with probability KEEP. A row that would lose all of them keeps all.
    """

    def kept(self, batch: Batch, unimodal: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Drop at random, by torch's generator, which the training loop seeds."""
        collectives.sync_random_state()
        present = super().kept(batch, unimodal)
        everywhere = next(iter(batch.present_everywhere.values()))
        local = collectives.local_rows(torch.ones(len(everywhere), dtype=torch.bool))
        drawn = {name: rows & (local.draw(torch.rand) < KEEP).to(rows.device) for name, rows in present.items()}
        empty = ~torch.stack(list(drawn.values())).any(dim=0)
        return {name: rows | (present[name] & empty) for name, rows in drawn.items()}


class JointUnimodal(JointSum):
    """A joint loss on a joint head, and a loss for each modality on its own head. Only the modalities' heads are exported."""

    native: ClassVar[str] = "mean_logit"

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        heads: Mapping[str, nn.Linear],
        head_of: Mapping[str, str],
        task: Task,
        options: Options,
    ) -> None:
        """Take freshly built modules, and add the joint head, as one slice for each modality."""
        super().__init__(encoders, heads, head_of, task, options)
        self.joint = nn.ModuleDict({name: nn.Linear(self.width, self.task.outputs) for name in self.encoders})

    @torch.no_grad()
    def begin_at(self, outputs: Sequence[float]) -> None:
        """Let every modality's head begin at `outputs` (O), and so the sum of the joint head's slices."""
        Strategy.begin_at(self, outputs)
        for piece in self.joint.values():
            piece.bias.copy_(torch.tensor(outputs) / len(self.joint))

    def step(self, batch: Batch) -> dict[str, float]:
        """Learn from all modalities together and from each alone."""
        features = self.all_features(batch)
        logged: dict[str, float] = {}
        if features:
            joint, alone = self.losses(batch, features)
            self.backward(joint, alone)
            self.schedules["all"].step()
            losses = {"joint": joint, **alone}
            logged = collectives.sum_values({f"loss/{name}": loss.item() for name, loss in losses.items()})
        self.schedules["all"].advance()
        return logged

    def losses(self, batch: Batch, features: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return this process's parts of the joint loss and of each modality's own loss."""
        slices = {name: self.joint[name](h) for name, h in features.items()}
        joint, has_any = self.fuse(batch, slices, self.kept(batch, slices))
        alone = {name: self.own_loss(batch, name, self.heads[self.head_of[name]](h)) for name, h in features.items()}
        return self.joint_loss(batch, joint, has_any, features), alone

    def backward(self, joint: Tensor, alone: Mapping[str, Tensor]) -> None:
        """Set the gradients to those of the plain sum of the losses."""
        self.set_gradients(joint + torch.stack(list(alone.values())).sum())
