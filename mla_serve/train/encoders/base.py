"""What every encoder has in common."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mla_serve.inputs import Input

Weights = Callable[[], Mapping[str, Tensor]]
"""Reads the weights that a run keeps apart from its checkpoints."""


def widened(x: Tensor) -> Tensor:
    """Bring bf16 to float32; what is that wide already stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Encoder(nn.Module, abc.ABC):
    """Turn decoded arrays of one input into features; what it normalises with is measured once and exported with it."""

    def __init__(self, spec: Input, width: int) -> None:
        """Build for an input's shape; width is D."""
        super().__init__()
        self.spec = spec
        self.width = width

    @abc.abstractmethod
    def forward(self, windows: Tensor) -> Tensor:
        """Encode (B, *spec.shape) as decoded, or augmented to float32, into features (B, D)."""

    def measure(self, windows: Tensor) -> None:
        """Set the normalisation from training windows (N, *spec.shape). Default: nothing to measure."""

    def adopt(self, backbone: nn.Module, cache: Path | None, device: torch.device) -> None:
        """Take up a pretrained backbone, and the folder for what is computed by it once. Default: there is none."""

    @property
    def precomputes(self) -> bool:
        """Whether a part of the work is done once, before training: windows are not augmented then."""
        return False

    def precompute(self, windows: Tensor) -> Tensor:
        """Return what `forward` takes in place of decoded windows (N, *spec.shape). Default: those."""
        return windows

    def speed_of(self) -> Mapping[int, float]:
        """Name the parameters that learn at a rate of their own: {id: share of the learning rate}. Default: none."""
        return {}

    def finished(self, weights: Weights) -> Encoder:  # noqa: ARG002
        """Return the encoder that is exported, which takes decoded windows. Default: this one."""
        return self

    @property
    def normalises_over_batch(self) -> bool:
        """Whether training needs at least two samples at a time."""
        return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.modules())
