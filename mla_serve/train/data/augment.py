"""Training-time augmentation: what a sample might as well have looked or sounded like, or how it might be mistyped.

Another kind of input is a function and an entry in AUGMENT or AUGMENT_PAYLOAD. All randomness comes from the generator that is passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mla_serve.inputs.audio import PADDING


def uniform(low: float, high: float, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw from [low, high)."""
    return low + (high - low) * torch.rand(size, generator=generator)


def image(windows: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, stretch, shear, shift and bend images: (B, C, H, W) uint8 -> float32 in 0..255.

    Affine: 12 degrees, scale .85-1.15 per axis, shear .15, shift 8 %. Elastic: a smooth random field (Simard et al.,
    ICDAR 2003), up to about 4 % of the size.
    """
    pixels = windows.float()
    grid = F.affine_grid(_affine(len(pixels), generator), list(pixels.shape), align_corners=False)
    coarse = 0.08 * torch.randn(len(pixels), 2, 4, 4, generator=generator)
    bend = F.interpolate(coarse, size=pixels.shape[2:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    warped = F.grid_sample(pixels, grid + bend, padding_mode="border", align_corners=False)
    return warped.clamp(0, 255)


def _affine(batch: int, generator: torch.Generator) -> Tensor:
    """Random affine maps (B, 2, 3)."""
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


def audio(windows: Tensor, generator: torch.Generator) -> Tensor:
    """Play recordings faster or slower, earlier or later, louder or softer, through noise: (B, T) -> (B, T).

    Speed .8-1.2 (pitch moves with it), shift by up to 15 % of the window, gain +-6 dB, white noise at 5-50 dB on half.
    Marked padding stays where it is.
    """
    padding = windows == PADDING
    windows = windows.masked_fill(padding, 0.0)
    batch, length = windows.shape
    speed = uniform(0.8, 1.2, (batch, 1), generator)
    shift = uniform(-0.15, 0.15, (batch, 1), generator) * length
    at = (torch.arange(length) - length / 2) * speed + length / 2 + shift
    low = at.floor()
    inside = (low >= 0) & (low < length - 1)
    index = low.clamp(0, length - 2).long()
    share = (at - low).float()
    moved = (windows.gather(1, index) * (1 - share) + windows.gather(1, index + 1) * share) * inside
    level = moved.square().mean(dim=1, keepdim=True).sqrt()
    snr = uniform(5, 50, (batch, 1), generator)
    noisy = (torch.rand(batch, 1, generator=generator) < 0.5).float()
    noise = torch.randn(batch, length, generator=generator) * level * 10 ** (-snr / 20) * noisy
    louder = (moved + noise) * 10 ** (uniform(-6, 6, (batch, 1), generator) / 20)
    return louder.masked_fill(padding, PADDING)


def vector(windows: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """Leave numbers alone: what a small change means is not known."""
    return windows


def typos(text: str, generator: np.random.Generator) -> str:
    """Mistype a text: with even odds nothing, else drop, double, swap or replace about one character in eight."""
    if generator.random() < 0.5 or len(text) < 3:
        return text
    letters = list(text)
    for _ in range(1 + generator.poisson(len(letters) / 16)):
        at = int(generator.integers(len(letters) - 1))
        edit = generator.integers(4)
        if edit == 0 and len(letters) > 2:
            del letters[at]
        elif edit == 1:
            letters.insert(at, letters[at])
        elif edit == 2:
            letters[at], letters[at + 1] = letters[at + 1], letters[at]
        else:
            letters[at] = text[int(generator.integers(len(text)))]
    mistyped = "".join(letters)
    return mistyped if mistyped.strip() else text


AUGMENT: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {"image": image, "audio": audio, "vector": vector}
"""By kind of input, on decoded windows."""
AUGMENT_PAYLOAD: dict[str, Callable[[str, np.random.Generator], str]] = {"text": typos}
"""By kind of input, on the payload before it is decoded."""
