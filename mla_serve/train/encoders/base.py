"""What every encoder has in common."""

from __future__ import annotations

import abc

import torch
from torch import Tensor, nn

from mla_serve.inputs import Input


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

    @property
    def normalises_over_batch(self) -> bool:
        """Whether training needs at least two samples at a time."""
        return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.modules())
