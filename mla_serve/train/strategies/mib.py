"""L-MIB: joint training with a variational bottleneck on each modality's features. arXiv 2210.17444.

    features = mu(h) + sigma(h) eps,  eps from N(0, 1), in training;  mu(h) when the model is used
    loss = joint loss + sum over m of the loss of m alone
           + beta / 2 sum over m of mean(mu^2 + sigma^2 - 2 log sigma - 1),    beta = 1e-3

The last term is the Kullback-Leibler divergence from N(mu, sigma^2) to N(0, 1), averaged over rows and features. As in
joint_unimodal, each modality has a head of its own for its loss, and these heads are exported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from mla_serve.tasks import Task
from mla_serve.train.distributed import collectives
from mla_serve.train.distributed.local_rows import draw_per_row
from mla_serve.train.encoders import Encoder
from mla_serve.train.encoders.base import Weights, at_least_float32
from mla_serve.train.strategies.base import Batch, Options, Part
from mla_serve.train.strategies.joint import JointUnimodal

BETA = 1e-3


class Bottleneck(Encoder):
    """An encoder followed by the bottleneck. `divergence` belongs to the latest forward pass in training."""

    def __init__(self, encoder: Encoder) -> None:
        """Wrap an encoder."""
        super().__init__(encoder.spec, encoder.width)
        self.encoder = encoder
        self.mean = nn.Linear(encoder.width, encoder.width)
        self.log_sigma = nn.Linear(encoder.width, encoder.width)
        self.divergence = torch.zeros(())

    def forward(self, windows: Tensor) -> Tensor:
        """Encode (B, *shape) into (B, D). In training, keep twice the mean divergence over B and D in `divergence`."""
        h = self.encoder(windows)
        mean: Tensor = self.mean(h)
        if not self.training:
            return mean
        mean, log_sigma = (
            at_least_float32(mean),
            at_least_float32(self.log_sigma(h)).clamp(-10, 5),
        )  # in float32, because the sum below cancels near 0
        self.divergence = (mean.square() + (2 * log_sigma).exp() - 2 * log_sigma - 1).mean()
        return mean + log_sigma.exp() * draw_per_row(lambda n: torch.randn(n, self.width), len(mean)).to(mean)

    def measure(self, windows: Tensor) -> None:
        """Do what the wrapped encoder does."""
        self.encoder.measure(windows)

    def set_backbone(self, backbone: nn.Module, cache: Path | None, device: torch.device) -> None:
        """Do what the wrapped encoder does."""
        self.encoder.set_backbone(backbone, cache, device)

    @property
    def precomputes(self) -> bool:
        """As the wrapped encoder."""
        return self.encoder.precomputes

    def precompute(self, windows: Tensor) -> Tensor:
        """Do what the wrapped encoder does."""
        return self.encoder.precompute(windows)

    def finished(self, weights: Weights) -> Encoder:
        """Replace the wrapped encoder by the one that is exported."""
        self.encoder = self.encoder.finished(weights)
        return self

    @property
    def normalises_over_batch(self) -> bool:
        """As the wrapped encoder."""
        return self.encoder.normalises_over_batch


class Mib(JointUnimodal):
    """Joint and unimodal losses, with the divergences added."""

    @classmethod
    def build(cls, encoders: Mapping[str, Encoder], task: Task, options: Options) -> Self:
        """Put a bottleneck behind each encoder."""
        return super().build({name: Bottleneck(encoder) for name, encoder in encoders.items()}, task, options)

    def step(self, batch: Batch) -> dict[str, float]:
        """Learn as joint_unimodal does, and log the sum of the divergences."""
        self._divergences: list[Tensor] = []
        logged = super().step(batch)
        divergence = sum(one.item() for one in self._divergences)
        self._divergences = []  # they hold the graph
        return logged | collectives.sum_values({"divergence": divergence} if logged else {})

    def encode_chunk(self, name: str, part: Part, *, recompute: bool = False) -> Tensor:
        """Encode, and keep this part of the divergence, a mean over the rows of all processes."""
        features = super().encode_chunk(name, part, recompute=recompute)
        self._divergences.append(self.encoders[name].divergence * part.local.weight)
        return features

    def backward(self, joint: Tensor, alone: Mapping[str, Tensor]) -> None:
        """Set the gradients to those of the sum of the losses and the divergences."""
        super().backward(joint + BETA / 2 * torch.stack(self._divergences).sum(), alone)
