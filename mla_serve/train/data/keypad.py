"""The generated data set: ten digits as image, sound and word, made without any download.

    image  a handwritten digit of scikit-learn (8 x 8), enlarged to 28 x 28, bright on black; noise, a covered patch
    audio  the tone of that key of a telephone, 0.3 to 0.6 s; noise, gaps, its two parts unequally loud
    text   the number word in one of 35 languages; typing errors

Each modality of a row is corrupted independently, from not at all to almost destroyed. `meta.noise` says how much, so it
is known which modality a good fusion should trust. No source image is in two splits.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from mla_serve.errors import ConfigError, DataError
from mla_serve.train.data.keypad_tables import TONES, WORDS

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

ROWS: Mapping[str, int] = MappingProxyType({"train": 2000, "val": 500, "test": 500})
RATE = 8000  # Hz
MODALITIES = ("image", "audio", "text")
MISSING_RATES = (20, 50, 80)  # percent
ABOUT = (
    "Ten digits as image, sound and word; made by mla_serve.train.data.keypad, seed {seed}. Images: the handwritten digits "
    "that scikit-learn ships, from the test part of E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten "
    "Digits (UCI Machine Learning Repository, 1998, doi 10.24432/C50P49), CC BY 4.0, enlarged and spoiled here. "
    "Sounds: dual-tone multi-frequency signals after ITU-T Q.23, and number words in {languages} languages, both "
    "generated here and free of rights. Modalities are paired by class, and spoiled independently of each other; "
    "meta.noise says how much, 0 to 1."
)


def make_keypad(folder: Path, seed: int = 0, rows: Mapping[str, int] = ROWS) -> Path:
    """Write the data set into a new folder and return it; the same seed and rows give the same bytes.

    The folder appears when it is complete: everything is written beside it first. (Bytes may differ between versions of
    numpy, Pillow and libsndfile.)

    Args: folder, not there yet; seed, 0 or more; rows, split -> how many, 10 at least so that each class is there.
    Raises: DataError when the folder exists; ConfigError for unusable seed or rows, or without scikit-learn.
    """
    _check(folder, seed, rows)
    sources = _split_sources(seed, rows)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    try:
        for kind in ("images", "audio"):
            (draft / kind).mkdir(parents=True)
        for number, split in enumerate(rows):
            lines = _write_split(draft, split, rows[split], sources[split], np.random.default_rng([seed, 1, number]))
            (draft / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        about = {"about": ABOUT.format(seed=seed, languages=len(WORDS))}
        (draft / "dataset.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        _publish(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _publish(draft: Path, folder: Path) -> None:
    """Rename the finished folder. Raises: DataError when another process was faster."""
    try:
        draft.rename(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be put in place ({error.strerror}); remove what is there") from error


def _check(folder: Path, seed: int, rows: Mapping[str, int]) -> None:
    if folder.exists():
        raise DataError(f"{folder}: got a folder that exists, expected a new one; remove it or choose another name")
    if seed < 0:
        raise ConfigError(f"got seed {seed}, expected 0 or more")
    if "train" not in rows or not rows.keys() <= ROWS.keys() or min(rows.values()) < 10:
        raise ConfigError(f"got rows {dict(rows)}, expected train and any of val, test with 10 rows each at least")


def _write_split(
    folder: Path, split: str, count: int, sources: Mapping[int, Indices], generator: np.random.Generator
) -> Iterator[str]:
    """Write the media of one split and yield its lines; classes are equally frequent, to within one row."""
    images, _ = _digits()
    labels = generator.permutation(np.arange(count) % 10)
    for row, label in enumerate(map(int, labels)):
        noise = {name: _draw_strength(generator) for name in MODALITIES}
        source = int(generator.choice(sources[label]))
        language = str(generator.choice(list(WORDS)))
        name = f"{split}-{row:05d}"
        image, audio = f"images/{name}.png", f"audio/{name}.wav"
        Image.fromarray(spoil_image(images[source], noise["image"], generator)).save(folder / image)
        soundfile.write(folder / audio, spoil_tone(label, noise["audio"], generator), RATE, subtype="PCM_16")
        line = {
            "id": name,
            "label": str(label),
            "image": image,
            "audio": audio,
            "text": spoil_word(WORDS[language][label], "".join(WORDS[language]), noise["text"], generator),
            "meta": {"source": source, "language": language, "noise": noise},
            "present": _draw_present(generator),
        }
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _draw_strength(generator: np.random.Generator) -> float:
    """Draw how much to corrupt, 0 (not at all) to 1: often little, sometimes almost all."""
    return round(float(generator.beta(0.6, 0.9)), 3)


def _draw_present(generator: np.random.Generator) -> dict[str, list[str]]:
    """Drop each modality at each rate, but keep at least one: rate in percent -> modalities left."""
    masks = {}
    for rate in MISSING_RATES:
        kept = generator.random(len(MODALITIES)) >= rate / 100
        kept[generator.integers(len(MODALITIES))] |= not kept.any()
        masks[str(rate)] = [name for name, keep in zip(MODALITIES, kept, strict=True) if keep]
    return masks


# ---- image


@cache
def _digits() -> tuple[Array, Indices]:
    """Return the handwritten digits of scikit-learn: images (1797, 8, 8) in 0..1 and labels (1797,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ConfigError(
            "the generated data set needs scikit-learn; pip install scikit-learn, or give --data"
        ) from error
    bunch = load_digits()
    return bunch.images / 16.0, bunch.target


def _split_sources(seed: int, rows: Mapping[str, int]) -> dict[str, dict[int, Indices]]:
    """Divide the images of each class among the splits, in proportion to their rows: split -> label -> indices."""
    _, labels = _digits()
    generator = np.random.default_rng([seed, 0])
    ends = np.cumsum(list(rows.values())) / sum(rows.values())
    sources: dict[str, dict[int, Indices]] = {split: {} for split in rows}
    for label in range(10):
        order = generator.permutation(np.flatnonzero(labels == label))
        cuts = np.round(ends[:-1] * len(order)).astype(int)
        for split, part in zip(rows, np.split(order, cuts), strict=True):
            sources[split][label] = part
    if not all(len(part) for by_label in sources.values() for part in by_label.values()):
        raise ConfigError(
            f"got rows {dict(rows)}, too unequal for 1797 images to reach every split; choose closer numbers"
        )
    return sources


def spoil_image(image: Array, strength: float, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Enlarge an 8 x 8 digit in 0..1 to 28 x 28 with a margin of 4, cover a patch, and add noise; 0 leaves it clean."""
    small = Image.fromarray(np.round(image * 255).astype(np.uint8))
    canvas = np.zeros((28, 28))
    canvas[4:24, 4:24] = np.asarray(small.resize((20, 20), Image.Resampling.BICUBIC)) / 255.0
    height, width = np.round(strength * generator.uniform(4, 16, 2)).astype(int)
    top, left = generator.integers(4, 25 - height), generator.integers(4, 25 - width)
    canvas[top : top + height, left : left + width] = generator.uniform(0, 1)
    canvas *= 1 - 0.5 * strength
    canvas += generator.normal(0, 0.6 * strength, canvas.shape)
    return np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8)


# ---- audio


def spoil_tone(label: int, strength: float, generator: np.random.Generator) -> NDArray[np.int16]:
    """Return the key's tone with silence around, 0.3 to 0.6 s at 8 kHz; 0 leaves it clean.

    Spoiled by: a deviation of either frequency, up to 2 %; one part up to 20 dB weaker than the other; gaps; noise
    between white and pink, down to a signal-to-noise ratio of -24 dB. Source of the frequencies: ITU-T Q.23.
    """
    total = int(generator.integers(30, 61)) * RATE // 100  # whole hundredths: lengths that the FFT likes
    length = int(total * generator.uniform(0.5, 0.8))
    start = int(generator.integers(0, total - length))
    time = np.arange(length) / RATE
    twist = 10 ** (-strength * generator.uniform(0, 20) / 20)
    levels = generator.permutation([1.0, twist])
    deviations = 1 + 0.02 * strength * generator.uniform(-1, 1, 2)
    phases = generator.uniform(0, 2 * np.pi, 2)
    parts = zip(levels, TONES[label], deviations, phases, strict=True)
    tone = sum(level * np.sin(2 * np.pi * hertz * deviation * time + phase) for level, hertz, deviation, phase in parts)
    signal = np.zeros(total)
    signal[start : start + length] = tone * _gaps(length, strength, generator)
    power = np.mean(np.square(tone))
    ratio = 10 ** ((30 - 54 * strength) / 10)
    if strength > 0:
        signal += np.sqrt(power / ratio) * _coloured(total, generator.uniform(0, 1), generator)
    signal *= generator.uniform(0.3, 0.9) / np.max(np.abs(signal))
    return np.round(signal * 32767).astype(np.int16)


def _gaps(length: int, strength: float, generator: np.random.Generator) -> Array:
    """Return a mask (length,) of 1 with up to 4 drop-outs of 0, each up to a fifth of the length."""
    mask = np.ones(length)
    for _ in range(generator.binomial(4, strength)):
        gap = int(length * generator.uniform(0.02, 0.2))
        start = int(generator.integers(0, length - gap))
        mask[start : start + gap] = 0
    return mask


def _coloured(length: int, exponent: float, generator: np.random.Generator) -> Array:
    """Return noise of unit power whose spectrum falls as 1/f^exponent: 0 white, 1 pink."""
    spectrum = np.fft.rfft(generator.normal(size=length))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** (exponent / 2)
    noise: Array = np.fft.irfft(spectrum, length)
    noise /= np.sqrt(np.mean(np.square(noise)))
    return noise


# ---- text


def spoil_word(word: str, letters: str, strength: float, generator: np.random.Generator) -> str:
    """Make typing errors in a word, one per letter with probability 0.8 strength; one letter at least is left.

    An error deletes a letter, swaps it with the one before, replaces it or inserts one. Args: letters, the wrong ones.
    """
    typed = list(word)
    for _ in range(generator.binomial(len(word), 0.8 * strength)):
        place = int(generator.integers(len(typed)))
        wrong = letters[int(generator.integers(len(letters)))]
        EDITS[int(generator.integers(len(EDITS)))](typed, place, wrong)
    return "".join(typed)


def _delete(typed: list[str], place: int, _wrong: str) -> None:
    if len(typed) > 1:
        del typed[place]


def _swap(typed: list[str], place: int, _wrong: str) -> None:
    typed[place - 1], typed[place] = typed[place], typed[place - 1]


def _replace(typed: list[str], place: int, wrong: str) -> None:
    typed[place] = wrong


def _insert(typed: list[str], place: int, wrong: str) -> None:
    typed.insert(place, wrong)


EDITS = (_delete, _swap, _replace, _insert)
