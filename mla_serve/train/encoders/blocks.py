"""Building blocks that several encoders share."""

from __future__ import annotations

import itertools
import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

M = TypeVar("M", bound=nn.Module)

GROUPS = 8


def group_normed(module: M) -> M:
    """Replace every batch normalisation by group normalisation, which does not depend on the other samples of a batch."""
    for parent in module.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, nn.GroupNorm(math.gcd(GROUPS, child.num_features), child.num_features))
    return module


def conv_block(inputs: int, outputs: int, pool: tuple[int, int] | None = None) -> nn.Sequential:
    """3x3 convolution, batch normalisation, max pooling where asked, and ReLU.

    Pooling before the ReLU gives the same result, and the ReLU has a quarter of the work.
    """
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.MaxPool2d(pool)] if pool else []), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """Basic block of ResNet-18 (He et al., CVPR 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Two 3x3 convolutions around a shortcut, projected where the shape changes."""
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        return F.relu(self.body(x) + self.shortcut(x))


def resnet18(channels: int, width: int) -> nn.Sequential:
    """ResNet-18 from `channels` planes to `width` features, global average pooling at the end."""
    stem = [nn.Conv2d(channels, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    planes = (64, 64, 128, 256, 512)
    stages = [
        nn.Sequential(Residual(before, after, 1 if before == after else 2), Residual(after, after, 1))
        for before, after in itertools.pairwise(planes)
    ]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, width)]
    return nn.Sequential(*stem, *stages, *end)


def uniform(low: float, high: float, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw from [low, high)."""
    return low + (high - low) * torch.rand(size, generator=generator)
