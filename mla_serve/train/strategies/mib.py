"""L-MIB: a variational bottleneck on each modality's features before the joint head. arXiv 2210.17444."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from mla_serve.train.distributed import collectives
from mla_serve.train.distributed.batch_share import per_row
from mla_serve.train.encoders import Encoder
from mla_serve.train.encoders.base import Weights, at_least_float32
from mla_serve.train.strategies.base import Batch, Options
from mla_serve.train.strategies.joint import JointConcat

BETA = 1e-3


class Bottleneck(Encoder):
    """An encoder whose features are mu(h) + sigma(h) eps in training, and mu(h) when used."""

    def __init__(self, encoder: Encoder) -> None:
        """Wrap an encoder."""
        super().__init__(encoder.spec, encoder.width)
        self.encoder = encoder
        self.mean = nn.Linear(encoder.width, encoder.width)
        self.log_sigma = nn.Linear(encoder.width, encoder.width)
        self.divergence = torch.zeros(())

    def forward(self, windows: Tensor) -> Tensor:
        """Encode (B, *shape) into (B, D); in training, keep KL(N(mu, sigma) || N(0, 1)) averaged over B and D, times 2."""
        h = self.encoder(windows)
        mean: Tensor = self.mean(h)
        if not self.training:
            return mean
        mean, log_sigma = (
            at_least_float32(mean),
            at_least_float32(self.log_sigma(h)).clamp(-10, 5),
        )  # the sum below cancels near 0
        self.divergence = (mean.square() + (2 * log_sigma).exp() - 2 * log_sigma - 1).mean()
        return mean + log_sigma.exp() * per_row(lambda n: torch.randn(n, self.width), len(mean)).to(mean)

    def measure(self, windows: Tensor) -> None:
        """Pass on."""
        self.encoder.measure(windows)

    def set_backbone(self, backbone: nn.Module, cache: Path | None, device: torch.device) -> None:
        """Pass on."""
        self.encoder.set_backbone(backbone, cache, device)

    @property
    def precomputes(self) -> bool:
        """Whether the encoder does."""
        return self.encoder.precomputes

    def precompute(self, windows: Tensor) -> Tensor:
        """Pass on."""
        return self.encoder.precompute(windows)

    def finished(self, weights: Weights) -> Encoder:
        """Finish the encoder in front of the bottleneck."""
        self.encoder = self.encoder.finished(weights)
        return self

    @property
    def normalises_over_batch(self) -> bool:
        """Whether the encoder does."""
        return self.encoder.normalises_over_batch


class Mib(JointConcat):
    """Joint training with beta / 2 times each bottleneck's divergence added."""

    @classmethod
    def build(cls, encoders: Mapping[str, Encoder], classes: int, options: Options) -> Self:
        """Put a bottleneck behind each encoder."""
        return super().build({name: Bottleneck(encoder) for name, encoder in encoders.items()}, classes, options)

    def learn(self, batch: Batch, opinions: Mapping[str, Tensor]) -> dict[str, float]:
        """Set the joint gradients and add the divergences'."""
        shares = {name: collectives.share(batch.whole[name]) for name in opinions}
        divergence = torch.stack([self.encoders[n].divergence * share.weight for n, share in shares.items()]).sum()
        (BETA / 2 * divergence).backward(retain_graph=True)
        return super().learn(batch, opinions) | collectives.sum_values({"divergence": divergence.item()})
