"""What is kept of each decoded value to find its copies: a digest, and a sketch that changes little when the value does.

Two values are equal when they decode to the same numbers; texts when they differ only in case, blanks or Unicode form;
cells when all of them are the same. Sketches are compared by duplicates.py.
"""

from __future__ import annotations

import dataclasses
import hashlib
import unicodedata
from collections.abc import Callable, Mapping

import numpy as np

from mla_serve.inputs import Array, Input, Payload

DIGEST = 16  # bytes
IMAGE_SIDE = 16  # of a picture's sketch
FLAT_IMAGE = 2.0  # standard deviation, of 255: a picture that varies less has no sketch
EXCERPT, PARTS = 1024, 64  # samples in a recording's sketch; parts among which the loudest is searched
SILENT = 1e-3  # a recording without a louder sample has no sketch
FEWEST_NUMBERS = 8  # in a vector; shorter ones may be near each other by chance


@dataclasses.dataclass(frozen=True, slots=True)
class Fingerprint:
    """What is kept of a decoded value to find its copies.

    digest: the same for equal values. sketch (D,): near for nearly equal values; None where it would show nothing.
    """

    digest: bytes
    sketch: Array | None = None


def fingerprint(kind: str, value: Payload, windows: Array) -> Fingerprint:
    """Return the fingerprint of a value. Args: kind of its modality; windows (W, *shape), the value decoded."""
    if kind == "text":
        return Fingerprint(_digest(fold_text(str(value)).encode()))
    if isinstance(value, Mapping):  # decoded, all categories that are too rare to be learned would be the same
        return Fingerprint(_digest(repr(sorted(value.items())).encode()))
    sketch = SKETCHES[kind](windows) if kind in SKETCHES else None  # of another kind, only equal values are found
    return Fingerprint(_digest(np.ascontiguousarray(windows).tobytes()), sketch)


def fold_text(text: str) -> str:
    """Return a form that texts share if they differ only in case, blanks or Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST).digest()


def _sketch_image(windows: Array) -> Array | None:
    """Average the brightness over 16 x 16 cells, centred and of length 1; None for a picture of one colour."""
    pixels = windows[0].mean(axis=0)
    rows, columns = (np.unique(np.linspace(0, size, IMAGE_SIDE, endpoint=False).astype(int)) for size in pixels.shape)
    sums = np.add.reduceat(np.add.reduceat(pixels, rows, axis=0), columns, axis=1)
    sizes = np.outer(np.diff([*rows, pixels.shape[0]]), np.diff([*columns, pixels.shape[1]]))
    means = sums / sizes
    return _scaled(means) if means.std() > FLAT_IMAGE else None


def _sketch_audio(windows: Array) -> Array | None:
    """Join 1,024 samples around the loudest part, averaged by fours, and the loudness of 64 parts; None for silence.

    Both are needed: two recordings of the same even noise have the same loudness, and two of the same tone the same wave.
    """
    wave = np.where(np.abs(windows[0]) > 1, 0, windows[0])  # the padding of a window is marked by values above 1
    if np.abs(wave).max() < SILENT:
        return None
    starts = np.unique(np.linspace(0, len(wave), PARTS, endpoint=False).astype(int))
    energy = np.add.reduceat(np.square(wave), starts)
    middle = starts[energy.argmax()] + len(wave) // PARTS // 2
    start = int(np.clip(middle - EXCERPT // 2, 0, max(len(wave) - EXCERPT, 0)))
    excerpt = np.zeros(EXCERPT)
    excerpt[: len(wave)] = wave[start : start + EXCERPT]
    parts = [_scaled(excerpt.reshape(-1, 4).mean(axis=1)), _scaled(np.sqrt(energy))]
    return np.concatenate(parts) / np.float16(np.sqrt(2))


def _sketch_vector(windows: Array) -> Array | None:
    return windows[0] if windows.shape[1] >= FEWEST_NUMBERS else None


def _scaled(values: Array) -> Array:
    centred = values - values.mean()
    sketch: Array = (centred / (np.linalg.norm(centred) + 1e-12)).ravel().astype(np.float16)
    return sketch


SKETCHES: Mapping[str, Callable[[Array], Array | None]] = {
    "image": _sketch_image,
    "audio": _sketch_audio,
    "vector": _sketch_vector,
}


def sketch_dtype(spec: Input) -> np.dtype[np.generic]:
    """Return the dtype of the sketches of an input's values; they have one size. Of a kind without sketches it is empty."""
    ramp = np.linspace(0, 255 if spec.kind == "image" else 1, int(np.prod(spec.shape))).reshape(1, *spec.shape)
    sketch = SKETCHES[spec.kind](ramp.astype(spec.dtype)) if spec.kind in SKETCHES else None
    return np.dtype((np.float16, (0,))) if sketch is None else np.dtype((sketch.dtype, sketch.shape))
