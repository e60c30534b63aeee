"""Look at the rows before training: copies, contradictions, constant modalities, small classes, shared groups.

All of it is decided from the data alone, and nothing of it changes how a model is fitted. Each kind of finding is one
note with its count and its first places; each begins with DATA.

Two values are the same when they decode to the same numbers (texts: when they are equal but for case and blanks).
Two pictures or two recordings are nearly the same when their sketches are NEAR each other. Measured: of 3,000 written
digits the nearest two lie .12 apart, of photographs .2 to .5, of 3,000 recordings of ten words .31; a photograph and
its JPEG of quality 40 at most .07 in 99 of 100, a recording and its OGG .04 in half, beyond .08 in 15 of 100.
"""

from __future__ import annotations

import dataclasses
import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from mla_serve.errors import DataError
from mla_serve.fusion.formula import Array
from mla_serve.inputs import INPUTS, Payload
from mla_serve.table import Row
from mla_serve.table.faults import format_place
from mla_serve.train.data.folds import shared_groups

DATA = "data: "
"""What every note on the data begins with."""
SHOWN = 3
NEAR = 0.08  # between sketches of length 1
SIDE = 16  # of a picture's sketch
FLAT = 2.0  # of 255: a picture that varies less has no sketch
EXCERPT, PARTS = 1024, 64  # samples of a recording's sketch; parts of which the loudest is looked for
SILENT = 1e-3  # a recording without a louder sample has no sketch
AXES, NEIGHBOURS, LOOK_AT = 8, 8, 1000
ENOUGH = 8  # numbers in a vector, for near ones not to be near by chance
EQUAL = 1e-3  # between vectors, in standard deviations of each number

Rows = Mapping[str, Sequence[Row]]
Key = tuple[tuple[str, int], ...]
"""Modalities with the numbers of their values: rows that share it are the same in these."""


@dataclasses.dataclass(frozen=True)
class Print:
    """What is kept of a decoded value to find its copies: a digest, and a sketch (D,) where near ones can be told."""

    digest: bytes
    sketch: Array | None = None


def make_print(kind: str, value: Payload, windows: Array) -> Print:
    """Take the print of a value: kind, of its modality; windows (W, *shape), as it was decoded."""
    if kind == "text":
        return Print(_digest(_folded(str(value)).encode()))
    return Print(_digest(np.ascontiguousarray(windows).tobytes()), _sketch(kind, windows))


def _folded(text: str) -> str:
    """Write a text as those that differ from it in case, blanks or Unicode form alone are written, too."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _sketch_image(windows: Array) -> Array | None:
    """Shrink to 16 x 16 means of brightness, without their mean, of length 1; none of a picture of one colour."""
    pixels = windows[0].mean(axis=0)
    rows, columns = (np.unique(np.linspace(0, size, SIDE, endpoint=False).astype(int)) for size in pixels.shape)
    sums = np.add.reduceat(np.add.reduceat(pixels, rows, axis=0), columns, axis=1)
    sizes = np.outer(np.diff([*rows, pixels.shape[0]]), np.diff([*columns, pixels.shape[1]]))
    means = sums / sizes
    return _scaled(means) if means.std() > FLAT else None


def _sketch_audio(windows: Array) -> Array | None:
    """Take the loudness of 64 parts, and 1,024 samples around the loudest as means of four; none of silence.

    The wave itself, for two recordings of one even noise have the same spectrum; and the loudness, for two of one tone
    have the same wave.
    """
    wave = np.where(np.abs(windows[0]) > 1, 0, windows[0])  # what a window is filled up with is louder
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
    return windows[0] if windows.shape[1] >= ENOUGH else None


def _scaled(values: Array) -> Array:
    centred = values - values.mean()
    sketch: Array = (centred / (np.linalg.norm(centred) + 1e-12)).ravel().astype(np.float16)
    return sketch


def _sketch(kind: str, windows: Array) -> Array | None:
    """Sketch a decoded value; None for a kind whose near copies are not looked for."""
    return SKETCHES[kind](windows) if kind in SKETCHES else None


SKETCHES: Mapping[str, Callable[[Array], Array | None]] = {
    "image": _sketch_image,
    "audio": _sketch_audio,
    "vector": _sketch_vector,
}


@dataclasses.dataclass(frozen=True)
class Known:
    """A row with what its values are the same as: modality -> a number that equal and nearly equal values share."""

    split: str
    row: Row
    same: Mapping[str, int]

    @property
    def place(self) -> str:
        """Say where it stands."""
        return format_place(self.row.place)


def check_data(
    rows: Rows, kinds: Mapping[str, str], prints: Callable[[Row], Mapping[str, Print]], classes: Sequence[str]
) -> list[str]:
    """Note what may be wrong with the rows, one line for each kind of it.

    Args: rows, by split, train and val at least; kinds, of the modalities that are used; prints(row), of each
    value of a row; classes, the labels that the model is to have.
    Raises: DataError where nothing can be learned from the rows.
    """
    _refuse_labels(rows["train"])
    printed = [(split, row, prints(row)) for split, listed in rows.items() for row in listed]
    constant = _constant([found for split, _, found in printed if split == "train"], kinds)
    used = {name: kind for name, kind in kinds.items() if name not in constant}
    if not used:
        raise DataError(
            f"every training row has the same {' and the same '.join(kinds)}: there is nothing to tell classes by; "
            "check how the table was made"
        )
    numbers = {name: _number([found.get(name) for _, _, found in printed], kind) for name, kind in used.items()}
    known = [
        Known(split, row, {name: int(own[at]) for name, own in numbers.items() if own[at] >= 0})
        for at, (split, row, _) in enumerate(printed)
    ]
    spelled = _note_spelling(classes)
    found = (
        _note_classes(rows, classes),
        spelled,
        _note_constant(constant),
        _note_copies(known, used),
        _note_labels(known),
    )
    return [DATA + note for note in (*found, _note_groups(rows)) if note]


def _refuse_labels(rows: Sequence[Row]) -> None:
    """Refuse labels that are no classes."""
    counts = Counter(row.label for row in rows)
    if len(counts) < 2:
        raise DataError(
            f"the {len(rows)} training rows that can be used are of one class, {next(iter(counts), 'none')!r}; "
            "expected two at least; add rows of another"
        )
    if max(counts.values()) == 1:
        raise DataError(
            f"each of the {len(rows)} training rows has a label of its own, such as {next(iter(counts))!r}; expected "
            "classes of several rows; is the column 'label' an id, or a number to be predicted?"
        )


def _constant(prints: Sequence[Mapping[str, Print]], kinds: Iterable[str]) -> dict[str, int]:
    """Return the modalities whose values are all the same, with their number of training rows."""
    digests = {name: [found[name].digest for found in prints if name in found] for name in kinds}
    return {name: len(own) for name, own in digests.items() if len(own) > 1 and len(set(own)) == 1}


def _number(prints: Sequence[Print | None], kind: str) -> Array:
    """Number values so that those share a number that are equal, or nearly: (N,), -1 where there is none."""
    digests = dict.fromkeys(one.digest for one in prints if one)
    index = {digest: number for number, digest in enumerate(digests)}
    sketches = {index[one.digest]: one.sketch for one in prints if one and one.sketch is not None}
    merged = np.arange(len(index))
    if len(sketches) > 1:
        at = np.array(list(sketches))
        a, b = _near_pairs(np.stack(list(sketches.values())).astype(np.float32), kind)
        graph = coo_array((np.ones(len(a)), (at[a], at[b])), shape=(len(index), len(index)))
        merged = connected_components(graph, directed=False)[1]
    return np.array([merged[index[one.digest]] if one else -1 for one in prints])


def _near_pairs(sketches: Array, kind: str) -> tuple[Array, Array]:
    """Find pairs that lie near each other: (N, D) -> two (P,).

    Looked up along the axes of the largest variance, on which two points are never farther apart than they are, so
    that the work grows as N log N.
    """
    limit = NEAR
    if kind == "vector":
        sketches = (sketches - sketches.mean(axis=0)) / (sketches.std(axis=0) + 1e-12)
        limit = EQUAL * np.sqrt(sketches.shape[1])
    centred = sketches - sketches.mean(axis=0)
    some = np.random.default_rng(0).permutation(len(centred))[:LOOK_AT]
    low = centred @ np.linalg.svd(centred[some], full_matrices=False)[2][:AXES].T
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


def _note_classes(rows: Rows, classes: Sequence[str]) -> str:
    """Name the classes with too few rows to learn them, or to judge them by."""
    train, val = (Counter(row.label for row in rows[split]) for split in ("train", "val"))
    few = {
        "without a training row": [label for label in classes if not train[label]],
        "with one training row": [label for label in classes if train[label] == 1],
        "without a val row": [label for label in classes if train[label] and not val[label]],
    }
    parts = [f"{len(labels)} {what} ({_listed(map(repr, labels))})" for what, labels in few.items() if labels]
    if not parts:
        return ""
    looks = (
        "; is the column 'label' a number to be predicted?"
        if 2 * len(few["with one training row"]) > len(classes)
        else ""
    )
    return f"of {len(classes)} classes, {', '.join(parts)}: little is learned or known of them{looks}"


def _note_spelling(classes: Sequence[str]) -> str:
    """Note classes that only their spelling keeps apart."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in classes:
        spellings[_folded(label)].append(label)
    twice = [" and ".join(map(repr, labels)) for labels in spellings.values() if len(labels) > 1]
    if not twice:
        return ""
    rest = "they are classes of their own; spell them alike where they mean the same"
    return f"labels that differ only in case, blanks or Unicode form: {_listed(twice)}; {rest}"


def _note_constant(constant: Mapping[str, int]) -> str:
    parts = [f"{name} is the same in all {count} training rows that have it" for name, count in constant.items()]
    return f"{' and '.join(parts)}: it tells no class from another; leave it out with --modalities" if parts else ""


def _note_copies(known: Sequence[Known], kinds: Mapping[str, str]) -> str:
    """Count the rows of a split that hold what an earlier one holds, and name the first."""
    by_split: defaultdict[str, list[Known]] = defaultdict(list)
    for one in known:
        by_split[one.split].append(one)
    parts, before, splits = [], dict[Key, Known](), list[str]()
    for split, rows in by_split.items():
        found = [_find_copy(one, before, kinds) for one in rows]
        if copies := [copy for copy in found if copy]:
            where = " or ".join(splits)
            parts.append(f"{len(copies)} of {len(rows)} {split} rows have a copy in {where} ({_listed(copies, '; ')})")
        splits.append(split)
        for one in rows:
            before |= {key: before.get(key, one) for key in _keys(one, kinds)}
    advice = "unless new inputs repeat as well, numbers on them flatter; keep copies in one split, or in one group"
    return f"{', '.join(parts)}, equal or nearly so: {advice}" if parts else ""


def _find_copy(one: Known, before: Mapping[Key, Known], kinds: Mapping[str, str]) -> str:
    """Say of which earlier row this one is a copy, and in what; empty where it is of none."""
    for key in _keys(one, kinds):
        if key in before:
            what = key[0][0] if len(key) == 1 else "all values"
            return f"{one.place} and {before[key].place}: {what}"
    return ""


def _keys(one: Known, kinds: Mapping[str, str]) -> list[Key]:
    """Return by what a row may be a copy: each picture and recording; or all of its values, where it has neither."""
    media: list[Key] = [((name, number),) for name, number in one.same.items() if INPUTS[kinds[name]].sent_as == "file"]
    return media or ([tuple(one.same.items())] if one.same else [])


def _note_labels(known: Sequence[Known]) -> str:
    """Count the rows that are the same in all they have, with different labels."""
    labels: defaultdict[Key, dict[str, Known]] = defaultdict(dict)
    for one in known:
        if one.same:
            labels[tuple(one.same.items())].setdefault(one.row.label, one)
    found = [list(rows.values())[:2] for rows in labels.values() if len(rows) > 1]
    if not found:
        return ""
    pairs = (f"{a.place} {a.row.label!r} and {b.place} {b.row.label!r}" for a, b in found)
    count = f"in {len(found)} case{'s' if len(found) > 1 else ''}"
    return f"rows that are equal or nearly so have different labels {count} ({_listed(pairs, '; ')}): a model gets one right at most"


def _note_groups(rows: Rows) -> str:
    """Count the values of val and test whose group train has too."""
    shared = {split: shared_groups(rows["train"], rows[split]) for split in rows if split != "train"}
    parts = [
        f"{share:.0%} of the {name} values of {split}"
        for split, by_name in shared.items()
        for name, share in by_name.items()
        if share > 0
    ]
    if not parts:
        return ""
    return f"{' and '.join(parts)} are of a group that train has too: on new groups, expect less than the numbers say"


def _listed(items: Iterable[str], between: str = ", ") -> str:
    """Join the first few."""
    every = list(items)
    return between.join([*every[:SHOWN], *(["..."] if len(every) > SHOWN else [])])
