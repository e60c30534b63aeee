"""Which values of a table are the same: equal, or nearly equal.

Two values are equal when they decode to the same numbers; texts when they differ only in case, blanks or Unicode form.
Two pictures or two recordings are nearly equal when the distance between their sketches is at most NEAR. Measured: of 3,000
written digits the two nearest are .12 apart, of photographs .2 to .5, of 3,000 recordings of ten words .31. A photograph
and its JPEG of quality 40 are at most .07 apart in 99 of 100 cases. A recording and its OGG are at most .04 apart in half
of the cases, and more than .08 in 15 of 100.
"""

from __future__ import annotations

import dataclasses
import hashlib
import unicodedata
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from mla_serve.fusion.formula import Array
from mla_serve.inputs import Payload

NEAR = 0.08  # distance between sketches of length 1
IMAGE_SIDE = 16  # of a picture's sketch
FLAT_IMAGE = 2.0  # standard deviation, of 255: a picture that varies less has no sketch
EXCERPT, PARTS = 1024, 64  # samples in a recording's sketch; parts among which the loudest is searched
SILENT = 1e-3  # a recording without a louder sample has no sketch
AXES, NEIGHBOURS, PCA_ROWS = 8, 8, 1000
FEWEST_NUMBERS = 8  # in a vector; shorter ones may be near each other by chance
NEAR_VECTORS = 1e-3  # distance between vectors, in standard deviations of each number


@dataclasses.dataclass(frozen=True)
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
    sketch = SKETCHES[kind](windows) if kind in SKETCHES else None  # of another kind, only equal values are found
    return Fingerprint(_digest(np.ascontiguousarray(windows).tobytes()), sketch)


def fold_text(text: str) -> str:
    """Return a form that texts share if they differ only in case, blanks or Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


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


def number_values(fingerprints: Sequence[Fingerprint | None], kind: str) -> Array:
    """Number the values so that equal and nearly equal ones share a number: (N,), -1 for None."""
    digests = dict.fromkeys(one.digest for one in fingerprints if one)
    index = {digest: number for number, digest in enumerate(digests)}
    sketches = {index[one.digest]: one.sketch for one in fingerprints if one and one.sketch is not None}
    merged = np.arange(len(index))
    if len(sketches) > 1:
        at = np.array(list(sketches))
        a, b = _near_pairs(np.stack(list(sketches.values())).astype(np.float32), kind)
        graph = coo_array((np.ones(len(a)), (at[a], at[b])), shape=(len(index), len(index)))
        merged = connected_components(graph, directed=False)[1]
    return np.array([merged[index[one.digest]] if one else -1 for one in fingerprints])


def _near_pairs(sketches: Array, kind: str) -> tuple[Array, Array]:
    """Find pairs of sketches that are near each other: (N, D) -> two (P,).

    Candidates are looked up in a tree on the principal axes. A projection never makes a distance larger, so no near pair is
    missed there except beyond NEIGHBOURS, and the work grows as N log N. The full distance then decides.
    """
    limit = NEAR
    if kind == "vector":
        sketches = (sketches - sketches.mean(axis=0)) / (sketches.std(axis=0) + 1e-12)
        limit = NEAR_VECTORS * np.sqrt(sketches.shape[1])
    centred = sketches - sketches.mean(axis=0)
    chosen = np.random.default_rng(0).permutation(len(centred))[:PCA_ROWS]
    low = centred @ np.linalg.svd(centred[chosen], full_matrices=False)[2][:AXES].T
    _, other = cKDTree(low).query(low, min(NEIGHBOURS, len(low)), distance_upper_bound=limit)
    a, rank = np.nonzero((other < len(low)) & (other != np.arange(len(low))[:, None]))
    b = other[a, rank]
    near = np.concatenate(
        [
            np.linalg.norm(sketches[a[at : at + 4096]] - sketches[b[at : at + 4096]], axis=1) <= limit
            for at in range(0, max(len(a), 1), 4096)
        ]
    )
    return a[near], b[near]
