"""Joint training: one loss on the logits of all modalities together, in the forms that people usually pick."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from mla_serve.train.distributed import collectives
from mla_serve.train.encoders import Encoder
from mla_serve.train.strategies.base import Batch, Options, Strategy

KEEP = 0.6  # share of the rows in which joint_dropout leaves a modality in; ours


class JointSum(Strategy):
    """Sum of the modalities' logits, each from a head of its own."""

    native: ClassVar[str] = "sum_logit"

    def step(self, batch: Batch) -> dict[str, float]:
        """Learn from all modalities at once."""
        opinions = self.opinions(batch)
        if opinions:
            logged = self.learn(batch, opinions)
            self.schedules["all"].step()
        else:
            logged = {}
        self.schedules["all"].advance()
        return logged

    def opinions(self, batch: Batch) -> dict[str, Tensor]:
        """Return each usable modality's logits for the rows that have it: {name: (rows, C)}."""
        return {name: self.heads[self.head_of[name]](features) for name, features in self.all_features(batch).items()}

    def all_features(self, batch: Batch) -> dict[str, Tensor]:
        """Return each usable modality's features of the rows that have it: {name: (rows, D)}."""
        return {name: self.encode(name, self.part(batch, name)) for name in self.usable(batch)}

    def learn(self, batch: Batch, opinions: Mapping[str, Tensor]) -> dict[str, float]:
        """Set the gradients; returns what to log."""
        joint, outputs = self.fuse(batch, opinions, self.kept(batch, opinions))
        loss = self.joint_loss(batch, joint, outputs, opinions)
        return {"loss/joint": self.set_gradients(loss)} | self.unimodal_losses(batch, opinions)

    def joint_loss(self, batch: Batch, joint: Tensor, outputs: Tensor, names: Iterable[str]) -> Tensor:
        """Return what this process adds to the mean loss over all rows that any of the modalities is heard of."""
        total = int(torch.stack([batch.whole[name] for name in names]).any(dim=0).sum())
        return self.mean_loss(joint[outputs], batch.labels[outputs], total)

    def own_loss(self, batch: Batch, name: str, logits: Tensor) -> Tensor:
        """Return what this process adds to the mean loss over all rows that have a modality."""
        return self.mean_loss(logits, batch.labels[batch.present[name]], int(batch.whole[name].sum()))

    def kept(self, batch: Batch, opinions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Say which rows each modality counts in: {name: (B,) bool}. Default: those that have it."""
        return {name: batch.present[name] for name in opinions}

    def fuse(self, batch: Batch, opinions: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum the opinions where they are kept, the shared bias counted once: (B, C), and which rows have any (B,)."""
        bias = self.shared_bias()
        total = torch.zeros(len(batch.labels), self.classes, device=batch.labels.device) + bias
        for name, logits in opinions.items():
            rows = batch.present[name].nonzero().squeeze(1)
            total = total.index_add(0, rows, (logits - bias) * kept[name][rows][:, None])
        return total, torch.stack(list(kept.values())).any(dim=0)

    def shared_bias(self) -> Tensor:
        """Return the bias that all heads have in common (C), zeros when they have none."""
        return torch.zeros(self.classes)

    @torch.no_grad()
    def unimodal_losses(self, batch: Batch, opinions: Mapping[str, Tensor]) -> dict[str, float]:
        """Return each modality's own loss, to be logged."""
        return collectives.sum_values(
            {f"loss/{name}": self.own_loss(batch, name, logits).item() for name, logits in opinions.items()}
        )


class JointConcat(JointSum):
    """One linear head on the concatenated features; a missing modality's features are zeros.

    The head is kept as slices W_m with one bias that all of them share, so that each slice is an opinion of its own.
    """

    @classmethod
    def build(cls, encoders: Mapping[str, Encoder], classes: int, options: Options) -> Self:
        """Make the slices and tie their bias."""
        strategy = super().build(encoders, classes, options)
        bias = nn.Parameter(torch.zeros(classes))
        for head in strategy.heads.values():
            head.bias = bias
        return strategy

    def shared_bias(self) -> Tensor:
        """Return the head's bias."""
        bias: Tensor = next(iter(self.heads.values())).bias
        return bias

    def native_bias(self) -> list[float]:
        """Return the head's bias as numbers."""
        return [float(value) for value in self.shared_bias().detach()]


class JointDropout(JointConcat):
    """Joint training with whole modalities dropped at random: what most people would do about missing ones.

    Each modality is kept with probability KEEP, row by row; a row that would lose all keeps them.
    """

    def kept(self, batch: Batch, opinions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Drop at random from torch's generator, which the training loop seeds."""
        collectives.agree_on_random()
        present = super().kept(batch, opinions)
        share = collectives.share(torch.ones(len(next(iter(batch.whole.values()))), dtype=torch.bool))
        drawn = {name: rows & (share.draw(torch.rand) < KEEP).to(rows.device) for name, rows in present.items()}
        empty = ~torch.stack(list(drawn.values())).any(dim=0)
        return {name: rows | (present[name] & empty) for name, rows in drawn.items()}


class JointUnimodal(JointSum):
    """Joint loss on a head of its own, and a loss for each modality on its head; only those heads are exported."""

    native: ClassVar[str] = "mean_logit"

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        heads: Mapping[str, nn.Linear],
        head_of: Mapping[str, str],
        options: Options,
    ) -> None:
        """Take freshly built modules, and add the joint head, as slices."""
        super().__init__(encoders, heads, head_of, options)
        self.joint = nn.ModuleDict({name: nn.Linear(self.width, self.classes) for name in self.encoders})

    def step(self, batch: Batch) -> dict[str, float]:
        """Learn from all modalities at once, and from each alone."""
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
        """Return what this process adds to the joint loss, and to each modality's own."""
        slices = {name: self.joint[name](h) for name, h in features.items()}
        joint, outputs = self.fuse(batch, slices, self.kept(batch, slices))
        alone = {name: self.own_loss(batch, name, self.heads[self.head_of[name]](h)) for name, h in features.items()}
        return self.joint_loss(batch, joint, outputs, features), alone

    def backward(self, joint: Tensor, alone: Mapping[str, Tensor]) -> None:
        """Set the gradients: of the plain sum of the losses."""
        self.set_gradients(joint + torch.stack(list(alone.values())).sum())
