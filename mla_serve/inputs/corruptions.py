"""Ways to spoil an input on purpose, each in five degrees: fusion is fitted on spoiled copies, evaluation measures on them.

Every function takes the values, the severity (1 to 5), a generator, for sounds the rate in Hz, for columns their layout. The kinds of input list
theirs in `Input.corruptions`. Source of the five degrees, and of the first ways of each kind: Hendrycks and Dietterich,
ICLR 2019, arXiv 1903.12261.

Some ways make the input worse (noise, blur, typos). Others put something else in its place, ever more of it, until nothing
of the input is left in the fifth degree: noise alone, a tone, silence, a plain colour, letters without a meaning.

An input of another row is not among them. It looks like any other, so nothing can detect it: there is no score from which
fusion could learn to trust it less, and learning to trust all inputs less would cost the ordinary rows.
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
REPLACED = (0.2, 0.4, 0.6, 0.8, 1.0)  # share of something else in an input
LARGEST = 3e38  # float32 holds no numbers far beyond it
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


def random_pixels(pixels: Array, severity: int, generator: Generator) -> Array:
    """Replace 20 to 100 % of the pixels by random ones."""
    replaced = generator.random(pixels.shape) < REPLACED[severity - 1]
    return np.where(replaced, generator.integers(0, 256, pixels.shape), pixels)


def plain_colour(pixels: Array, severity: int, generator: Generator) -> Array:
    """Fade to one random colour."""
    return _fade(pixels, generator.integers(0, 256, (len(pixels), 1, 1)), severity)


def random_shapes(pixels: Array, severity: int, generator: Generator) -> Array:
    """Fade to smooth random shapes, coarse or fine."""
    height, width = pixels.shape[1:]
    count = int(generator.integers(2, 9))
    channels = [generator.integers(0, 256, (count, count), dtype=np.uint8) for _ in pixels]
    shapes = [Image.fromarray(one).resize((width, height), Image.Resampling.BICUBIC) for one in channels]
    return _fade(pixels, np.stack([np.asarray(one) for one in shapes]), severity)


def _fade(pixels: Array, other: Array, severity: int) -> Array:
    """Mix with something else, which is all there is in the fifth degree."""
    share = REPLACED[severity - 1]
    mixed: Array = ((1 - share) * pixels + share * other).round()
    return mixed


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


def noise_alone(samples: Array, severity: int, generator: Generator, rate: float) -> Array:  # noqa: ARG001
    """Fade to noise alone, as loud as the recording, its spectrum white to brown."""
    spectrum = np.fft.rfft(generator.normal(0, 1, len(samples)))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** generator.choice([0.0, 0.5, 1.0])
    return _fade_sound(samples, np.fft.irfft(spectrum, len(samples)), severity)


def tones(samples: Array, severity: int, generator: Generator, rate: float) -> Array:
    """Fade to one to three tones, as loud as the recording."""
    frequencies = np.exp(generator.uniform(np.log(50), np.log(0.45 * rate), int(generator.integers(1, 4))))
    time = np.arange(len(samples)) / rate
    return _fade_sound(samples, np.sin(2 * np.pi * np.outer(frequencies, time)).sum(axis=0), severity)


def silence(samples: Array, severity: int, generator: Generator, rate: float) -> Array:  # noqa: ARG001
    """Silence 20 to 100 % of the recording, in one piece."""
    length = round(REPLACED[severity - 1] * len(samples))
    start = generator.integers(len(samples) - length + 1)
    silenced = samples.copy()
    silenced[start : start + length] = 0
    return silenced


def _fade_sound(samples: Array, other: Array, severity: int) -> Array:
    """Mix with something else, as loud as the recording, which is all there is in the fifth degree."""
    share, loudness = REPLACED[severity - 1], np.sqrt(np.mean(np.square(samples)))
    other = other * loudness / max(float(np.sqrt(np.mean(np.square(other)))), 1e-12)
    return _in_range((1 - share) * samples + share * other)


def _in_range(samples: Array) -> Array:
    peak = max(1.0, float(np.abs(samples).max()))
    return np.divide(samples, peak)


# ---- texts

SCRIPTS = ("az", "ая", "αω", "את", "اي", "कह", "ぁん", "一鿿", "가힣")  # the first and last letter of each
FOREIGN = (
    "house water yesterday because friend Haus Wasser gestern Freund Brot maison demain parce chien travail casa agua ayer "
    "perro trabajo domani perché cane lavoro talo vesi huomenna koira ev dün köpek ekmek дом вода вчера собака хлеб σπίτι "
    "νερό χθες σκύλος בית מים אתמול بيت ماء أمس घर पानी कल 家 水 昨天 朋友 いえ みず きのう 집 어제 친구 nyumba maji jana rafiki nhà nước"
)


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


def random_letters(text: str, severity: int, generator: Generator) -> str:
    """Replace words by random letters of one script, 20 to 100 % of the words, one at least."""
    script = SCRIPTS[int(generator.integers(len(SCRIPTS)))]

    def invent() -> str:
        length = int(generator.integers(2, 10))
        return "".join(chr(code) for code in generator.integers(ord(script[0]), ord(script[-1]) + 1, length))

    return _replace_words(text, severity, generator, invent)


def foreign_words(text: str, severity: int, generator: Generator) -> str:
    """Replace words by ordinary ones of many languages, 20 to 100 % of the words, one at least."""
    return _replace_words(text, severity, generator, lambda: str(generator.choice(FOREIGN.split())))


def _replace_words(text: str, severity: int, generator: Generator, invent: Callable[[], str]) -> str:
    words = text.split()
    for at in generator.permutation(len(words))[: max(1, round(REPLACED[severity - 1] * len(words)))]:
        words[at] = invent()
    return " ".join(words) or text


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


def shuffled_numbers(values: Array, severity: int, generator: Generator) -> Array:
    """Shuffle 20 to 100 % of the numbers."""
    return _shuffle(values, np.arange(len(values)), severity, generator)


def _shuffle(values: Array, places: Array, severity: int, generator: Generator) -> Array:
    """Shuffle a share of the numbers that stand at `places`, two at least."""
    chosen = generator.permutation(places)[: max(2, round(REPLACED[severity - 1] * len(places)))]
    shuffled = values.copy()
    shuffled[chosen] = values[np.roll(chosen, 1)]
    return shuffled


# ---- columns: (P,) float32 with NaN where a cell is missing


@dataclasses.dataclass(frozen=True)
class CellLayout:
    """What the numbers of a decoded row mean.

    cells: where the numbers of each cell stand. spread (P,): of each number in training, 0 where noise makes no sense.
    unknown (P,): what an unknown category is decoded into, NaN where there is no category.
    origin (P,): what a number is decoded as its distance from.
    """

    cells: Sequence[slice]
    spread: Array
    unknown: Array
    origin: Array


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


def shuffled_cells(values: Array, severity: int, generator: Generator, layout: CellLayout) -> Array:
    """Put the numbers of 20 to 100 % of the cells into each other's columns."""
    places = np.flatnonzero((layout.spread > 0) & ~np.isnan(values))
    shuffled = _shuffle(values + layout.origin, places, severity, generator) - layout.origin
    clipped: Array = np.clip(shuffled, -LARGEST, LARGEST)
    return clipped


def out_of_range(values: Array, severity: int, generator: Generator, layout: CellLayout) -> Array:
    """Move 10 to 90 % of the numbers, one at least, by 4 to 1000 times their spread in training."""
    moved = values.copy()
    places = np.flatnonzero((layout.spread > 0) & ~np.isnan(values))
    chosen = places[_pick(len(places), severity, generator)]
    distance = np.exp(generator.uniform(np.log(4), np.log(1000), len(chosen))) * generator.choice([-1, 1], len(chosen))
    moved[chosen] = np.clip(values[chosen] + layout.spread[chosen] * distance, -LARGEST, LARGEST)
    return moved


def _pick(count: int, severity: int, generator: Generator) -> Array:
    """Pick a share of `count` cells, one at least."""
    return generator.permutation(count)[: max(1, round(SHARES[severity - 1] * count))]
