"""Vectors in training: choosing the input, and an encoder from numbers to features.

Vectors are not augmented: what a small change of a number means is not known.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mla_serve.inputs import VectorInput
from mla_serve.train.config import TrainConfig
from mla_serve.train.encoders.base import Encoder


class SmallVector(Encoder):
    """Standardise each entry by the training set, then two hidden layers."""

    mean: Tensor
    std: Tensor

    @classmethod
    def choose_input(cls, values: Sequence[Sequence[float]], config: TrainConfig) -> VectorInput:  # noqa: ARG003
        """Take the length of the first vector; the table is checked to have no other."""
        return VectorInput(len(values[0]))

    def __init__(self, spec: VectorInput, width: int, hidden: int = 128) -> None:
        """Build for spec.size numbers."""
        super().__init__(spec, width)
        self.register_buffer("mean", torch.zeros(spec.size))
        self.register_buffer("std", torch.ones(spec.size))
        self.body = nn.Sequential(
            nn.Linear(spec.size, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(hidden, width),
        )

    def measure(self, windows: Tensor) -> None:
        """Take mean and standard deviation per entry of (N, size); a constant entry keeps its scale."""
        std = windows.double().std(0, correction=min(1, len(windows) - 1))
        self.mean.copy_(windows.double().mean(0))
        self.std.copy_(torch.where(std > 0, std, 1.0))

    def forward(self, windows: Tensor) -> Tensor:
        """Encode (B, size); entries are clamped to 10 standard deviations from the training mean."""
        features: Tensor = self.body(((windows - self.mean) / self.std).clamp(-10, 10))
        return features
