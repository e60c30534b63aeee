"""Image encoders: uint8 pixels to features."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from mla_serve.inputs import ImageInput
from mla_serve.train.encoders.base import Encoder
from mla_serve.train.encoders.blocks import conv_block, resnet18


class _Pixels(Encoder):
    """Normalise pixels by the training set's mean and spread per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ImageInput, width: int) -> None:
        super().__init__(spec, width)
        self.register_buffer("mean", torch.full((spec.channels, 1, 1), 127.5))
        self.register_buffer("std", torch.full((spec.channels, 1, 1), 64.0))

    def measure(self, windows: Tensor) -> None:
        """Take mean and standard deviation per channel of (N, C, H, W)."""
        pixels = windows.float().transpose(0, 1).flatten(1)
        self.mean.copy_(pixels.mean(1).view(-1, 1, 1))
        self.std.copy_(pixels.std(1).clamp_min(1.0).view(-1, 1, 1))

    def normalise(self, windows: Tensor) -> Tensor:
        return (windows.float() - self.mean) / self.std


class SmallImage(_Pixels):
    """Stages of two convolutions, halving until about 7x7 is left, then mean pooling."""

    def __init__(self, spec: ImageInput, width: int) -> None:
        """Build for any size of at least 8x8."""
        super().__init__(spec, width)
        stages = min(5, max(1, round(math.log2(min(spec.width, spec.height) / 7))))
        planes = [spec.channels, *(min(32 * 2**stage, 128) for stage in range(stages))]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(planes):
            layers += [conv_block(before, after), conv_block(after, after, (2, 2))]
        self.body = nn.Sequential(*layers, conv_block(planes[-1], 128))
        self.end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(128, width))

    def forward(self, windows: Tensor) -> Tensor:
        """Encode (B, C, H, W)."""
        features: Tensor = self.end(self.body(self.normalise(windows)))
        return features


class ImageResNet18(_Pixels):
    """ResNet-18 from scratch, the encoder of the MLA paper."""

    def __init__(self, spec: ImageInput, width: int) -> None:
        """Build for any size of at least 32x32."""
        super().__init__(spec, width)
        self.body = resnet18(spec.channels, width)

    def forward(self, windows: Tensor) -> Tensor:
        """Encode (B, C, H, W)."""
        features: Tensor = self.body(self.normalise(windows))
        return features
