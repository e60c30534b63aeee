"""Ways to spoil an input on purpose, each in five degrees: fusion is fitted on spoiled copies, evaluation measures on them.

Every function takes the values, the severity (1 to 5), a generator, for sounds the rate in Hz, for columns their layout. The kinds of input list
theirs in `Input.corruptions`. Source of the kinds and of the five degrees: Hendrycks and Dietterich, ICLR 2019,
arXiv 1903.12261.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from mla_serve.inputs.base import Array

SEVERITIES = (1, 2, 3, 4, 5)
SHARES = (0.1, 0.25, 0.5, 0.7, 0.9)  # of the numbers or cells that are spoiled
Generator = np.random.Generator


# ---- images: (C, H, W) uint8


def image_noise(pixels: Array, severity: int, generator: Generator) -> Array:
    """Add white noise of standard deviation 20 to 120 of 255."""
    noisy = pixels + generator.normal(0, (20, 40, 60, 90, 120)[severity - 1], pixels.shape)
    return np.clip(noisy, 0, 255).round()


def blur(pixels: Array, severity: int, generator: Generator) -> Array:  # noqa: ARG001
    """Blur by a Gaussian of 2 to 10 % of the width."""
    radius = pixels.shape[-1] * (0.02, 0.035, 0.05, 0.075, 0.1)[severity - 1]
    return _by_pillow(pixels, lambda image: image.filter(ImageFilter.GaussianBlur(radius)))


def occlusion(pixels: Array, severity: int, generator: Generator) -> Array:
    """Cover a square of 25 to 70 % of the side with one grey."""
    height, width = pixels.shape[1:]
    side = (0.25, 0.35, 0.45, 0.57, 0.7)[severity - 1]
    h, w = round(side * height), round(side * width)
    top, left = generator.integers(height - h + 1), generator.integers(width - w + 1)
    covered = pixels.copy()
    covered[:, top : top + h, left : left + w] = generator.integers(256)
    return covered


def jpeg_compression(pixels: Array, severity: int, generator: Generator) -> Array:  # noqa: ARG001
    """Compress to JPEG quality 25 down to 1."""
    return _by_pillow(pixels, lambda image: _through_jpeg(image, (25, 15, 8, 4, 1)[severity - 1]))


def _by_pillow(pixels: Array, change: Callable[[Image.Image], Image.Image]) -> Array:
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    changed = np.asarray(change(image))
    return changed[None] if len(pixels) == 1 else changed.transpose(2, 0, 1)


def _through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


# ---- sounds: (T,) float32


def sound_noise(samples: Array, severity: int, generator: Generator, rate: float) -> Array:  # noqa: ARG001
    """Add white noise at a signal-to-noise ratio of 20 down to -5 dB."""
    level = np.sqrt(np.mean(np.square(samples)))
    ratio = (20, 12, 6, 0, -5)[severity - 1]
    return _in_range(samples + generator.normal(0, 1, samples.shape) * level * 10 ** (-ratio / 20))


def clipping(samples: Array, severity: int, generator: Generator, rate: float) -> Array:  # noqa: ARG001
    """Cut all samples off at 50 % down to 2 % of the peak."""
    limit = np.abs(samples).max() * (0.5, 0.25, 0.1, 0.05, 0.02)[severity - 1]
    return np.clip(samples, -limit, limit)


def band_limit(samples: Array, severity: int, generator: Generator, rate: float) -> Array:  # noqa: ARG001
    """Keep what lies below 3000 down to 400 Hz."""
    highest = (3000, 2000, 1200, 700, 400)[severity - 1]
    spectrum = np.fft.rfft(samples)
    spectrum[np.fft.rfftfreq(len(samples), 1 / rate) > highest] = 0
    return np.fft.irfft(spectrum, len(samples))


def reverberation(samples: Array, severity: int, generator: Generator, rate: float) -> Array:
    """Play it in a room: an exponentially decaying noise of 0.2 to 2 s (by 60 dB), the direct sound ever fainter."""
    seconds, direct = ((0.2, 1.0), (0.4, 0.7), (0.8, 0.5), (1.3, 0.3), (2.0, 0.2))[severity - 1]
    length = len(samples)
    tail = generator.normal(0, 1, length) * 10 ** (-3 * np.arange(length) / (seconds * rate))
    room = tail / np.sqrt(np.square(tail).sum())
    room[0] += direct
    size = 2 * length
    return _in_range(np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(room, size), size)[:length])


def _in_range(samples: Array) -> Array:
    peak = max(1.0, float(np.abs(samples).max()))
    return np.divide(samples, peak)


# ---- texts


def typos(text: str, severity: int, generator: Generator) -> str:
    """Put a random letter in the place of characters."""
    return _edit(
        text, severity, generator, lambda letters, at: letters.__setitem__(at, chr(97 + generator.integers(26)))
    )


def dropped_characters(text: str, severity: int, generator: Generator) -> str:
    """Drop characters; one at least stays."""
    return _edit(text, severity, generator, lambda letters, at: letters.__setitem__(at, ""))


def swapped_characters(text: str, severity: int, generator: Generator) -> str:
    """Swap characters with their neighbours."""

    def swap(letters: list[str], at: int) -> None:
        other = at + 1 if at + 1 < len(letters) else max(at - 1, 0)
        letters[at], letters[other] = letters[other], letters[at]

    return _edit(text, severity, generator, swap)


def _edit(text: str, severity: int, generator: Generator, edit: Callable[[list[str], int], Any]) -> str:
    """Change 10 to 80 % of the characters, one at least."""
    letters = list(text)
    count = max(1, round(len(letters) * (0.1, 0.2, 0.35, 0.55, 0.8)[severity - 1]))
    for at in generator.permutation(len(letters))[:count]:
        edit(letters, int(at))
    return text if not (edited := "".join(letters)).strip() else edited


# ---- vectors: (D,) float32


def vector_noise(values: Array, severity: int, generator: Generator) -> Array:
    """Add noise of 10 to 200 % of the vector's own spread."""
    spread = float(values.std()) * (0.1, 0.25, 0.5, 1.0, 2.0)[severity - 1]
    return np.add(values, generator.normal(0, spread, values.shape))


def zeroed_numbers(values: Array, severity: int, generator: Generator) -> Array:
    """Set 10 to 90 % of the numbers to 0."""
    return np.where(generator.random(values.shape) < SHARES[severity - 1], 0.0, values)


# ---- columns: (P,) float32 with NaN where a cell is missing


@dataclasses.dataclass(frozen=True)
class CellLayout:
    """What the numbers of a decoded row mean.

    cells: where the numbers of each cell stand. spread (P,): of each number in training, 0 where noise makes no sense.
    unknown (P,): what an unknown category is decoded into, NaN where there is no category.
    """

    cells: Sequence[slice]
    spread: Array
    unknown: Array


def missing_cells(values: Array, severity: int, generator: Generator, layout: CellLayout) -> Array:
    """Empty 10 to 90 % of the cells that are there; one at least is emptied and one at least stays."""
    emptied = values.copy()
    there = [cell for cell in layout.cells if not np.isnan(values[cell]).any()]
    for number in _pick(len(there), severity, generator)[: len(there) - 1]:
        emptied[there[number]] = np.nan
    return emptied


def number_noise(values: Array, severity: int, generator: Generator, layout: CellLayout) -> Array:
    """Add noise of 10 to 200 % of the spread in training to numbers, and to dates in days."""
    return np.add(values, (0.1, 0.25, 0.5, 1.0, 2.0)[severity - 1] * generator.normal(0, layout.spread))


def unknown_categories(values: Array, severity: int, generator: Generator, layout: CellLayout) -> Array:
    """Replace 10 to 90 % of the categories that are there by an unknown one, one at least."""
    replaced = values.copy()
    there = np.flatnonzero(~np.isnan(layout.unknown) & ~np.isnan(values))
    chosen = there[_pick(len(there), severity, generator)]
    replaced[chosen] = layout.unknown[chosen]
    return replaced


def _pick(count: int, severity: int, generator: Generator) -> Array:
    """Pick a share of `count` cells, one at least."""
    return generator.permutation(count)[: max(1, round(SHARES[severity - 1] * count))]
