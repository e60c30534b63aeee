"""Images in training: choosing the input, augmentation, and encoders from uint8 pixels to features."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from mla_serve.errors import ConfigError, InputError
from mla_serve.inputs import ImageInput
from mla_serve.inputs.media.safe_calls import library_call
from mla_serve.train.config import TrainConfig
from mla_serve.train.encoders.base import Encoder
from mla_serve.train.encoders.blocks import conv_block, resnet18, uniform

MAX_SIDE = 96  # pixels; a larger size is used only where the configuration asks for it
BORDERS = 50  # images whose first and last row of pixels tell the background


class _ImageEncoder(Encoder):
    """Normalise pixels by the training set's mean and spread per channel."""

    mean: Tensor
    std: Tensor

    @classmethod
    def choose_input(cls, values: Sequence[bytes], config: TrainConfig) -> ImageInput:
        """Take the median size of the images, up to MAX_SIDE, and grey where all are grey."""
        sides: list[int] = []  # and no images: 500 photographs of a phone would take gigabytes
        modes: list[str] = []
        borders: list[float] = []
        for image in filter(None, map(_try_open, values)):
            sides.append(min(image.size))
            modes.append(image.mode)
            if len(borders) < BORDERS:
                borders.append(float(np.asarray(image.convert("L"))[[0, -1]].mean()))
        if not sides:
            raise ConfigError(
                f"none of the first training images can be read; expected {', '.join(ImageInput.formats)}"
            )
        side = config.image_size or min(int(np.median(sides)), MAX_SIDE)
        grey = all(mode in ("1", "L", "I", "I;16") for mode in modes)
        return ImageInput(side, side, 1 if grey else 3, background=255 if np.mean(borders) > 127 else 0)

    @staticmethod
    def augment_windows(windows: Tensor, generator: torch.Generator, how: str = "light") -> Tensor:
        """Vary images: (B, C, H, W) uint8 -> float32 in 0..255.

        light: rotate, scale, shear, shift and bend. Affine: 12 degrees, scale .85-1.15 per axis, shear .15, shift 8 %.
        Elastic: a smooth random field (Simard et al., ICDAR 2003), up to about 4 % of the size.
        photo: mirror half of them, crop to 60-100 % of each side, and change brightness, contrast and saturation by up to 30 %.
        """
        pixels = windows.float()
        if how == "photo":
            return _change_colours(_crop_and_mirror(pixels, generator), generator)
        grid = F.affine_grid(_affine(len(pixels), generator), list(pixels.shape), align_corners=False)
        coarse = 0.08 * torch.randn(len(pixels), 2, 4, 4, generator=generator)
        bend = F.interpolate(coarse, size=pixels.shape[2:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
        warped = F.grid_sample(pixels, grid + bend, padding_mode="border", align_corners=False)
        return warped.clamp(0, 255)

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


def _try_open(value: bytes) -> Image.Image | None:
    """Open an image; None if that fails. Faulty images are reported all at once when the rows are checked."""
    try:
        with library_call("image", "it cannot be opened", "save it as PNG"):
            image = Image.open(io.BytesIO(value), formats=ImageInput.formats)
            image.load()
    except InputError:
        return None
    return image


def _affine(batch: int, generator: torch.Generator) -> Tensor:
    """Draw affine maps (B, 2, 3)."""
    angle = uniform(-12, 12, (batch,), generator) * math.pi / 180
    scale = uniform(0.85, 1.15, (batch, 2), generator)
    shear = uniform(-0.15, 0.15, (batch,), generator)
    shift = uniform(-0.16, 0.16, (batch, 2), generator)
    cos, sin = angle.cos(), angle.sin()
    rows = [
        cos / scale[:, 0],
        (shear - sin) / scale[:, 0],
        shift[:, 0],
        sin / scale[:, 1],
        cos / scale[:, 1],
        shift[:, 1],
    ]
    return torch.stack(rows, dim=1).view(batch, 2, 3)


def _crop_and_mirror(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Crop (B, C, H, W) to a random part and scale it up again; mirror half of the images."""
    batch = len(pixels)
    part = uniform(0.6, 1.0, (batch, 1), generator) * uniform(0.9, 1.0, (batch, 2), generator)
    shift = uniform(-1, 1, (batch, 2), generator) * (1 - part)
    mirror = 1 - 2 * (torch.rand(batch, generator=generator) < 0.5).float()
    zero = torch.zeros(batch)
    rows = [part[:, 0] * mirror, zero, shift[:, 0], zero, part[:, 1], shift[:, 1]]
    grid = F.affine_grid(torch.stack(rows, dim=1).view(batch, 2, 3), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def _change_colours(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast and saturation of (B, C, H, W), each by a factor of its own."""
    brightness, contrast, saturation = (uniform(0.7, 1.3, (len(pixels), 1, 1, 1), generator) for _ in range(3))
    grey = pixels.mean(dim=1, keepdim=True)
    pixels = grey + saturation * (pixels - grey)
    mean = grey.mean(dim=(2, 3), keepdim=True)
    return (brightness * (mean + contrast * (pixels - mean))).clamp(0, 255)


class SmallImage(_ImageEncoder):
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


class ImageResNet18(_ImageEncoder):
    """ResNet-18 from scratch, the encoder of the MLA paper."""

    def __init__(self, spec: ImageInput, width: int) -> None:
        """Build for any size of at least 32x32."""
        super().__init__(spec, width)
        self.body = resnet18(spec.channels, width)

    def forward(self, windows: Tensor) -> Tensor:
        """Encode (B, C, H, W)."""
        features: Tensor = self.body(self.normalise(windows))
        return features
