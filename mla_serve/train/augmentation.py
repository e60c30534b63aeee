"""Choose how training samples are varied, by modality: chosen from the training rows, or as --augment says.

Pictures are varied as photographs (mirrored, cropped, colours changed) only where they look like photographs: they have
many colours, and a small classifier loses nothing when it is trained on mirrored copies too. Digits, letters and arrows
fail one or the other. They are moved and bent a little, as before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mla_serve.fusion.formula import Array
from mla_serve.inputs import Input
from mla_serve.table import Row, read_payload
from mla_serve.tasks import Task
from mla_serve.train.config import TrainConfig
from mla_serve.train.recipe import Recipe

LIGHT, PHOTO = "light", "photo"
LOOKED_AT = 800  # pictures
SIDE = 12  # pixels of the small copies that the classifier sees
COLOURS = 8  # different colours in a small copy, at the median, that photographs have
FOLDS = 4
RIDGE = 0.1  # of the classifier, relative to the mean square of its inputs
ERRORS = 2.0  # standard errors of accuracy that mirrored copies may cost


@dataclasses.dataclass(frozen=True)
class Look:
    """What small copies of pictures look like.

    colours: different colours in one, at the median. plain, mirrored: cross-validated accuracy of a linear classifier that is
    trained on the pictures, or on them and their mirrored copies. error: standard error of the difference.
    """

    colours: float
    plain: float
    mirrored: float
    error: float

    @property
    def is_photo(self) -> bool:
        """Whether they can be varied as photographs."""
        return self.colours >= COLOURS and self.plain - self.mirrored <= ERRORS * self.error

    def __str__(self) -> str:
        """Describe the reason in a note."""
        if self.colours < COLOURS:
            return "they have few colours"
        what = "cost nothing" if self.is_photo else "cost accuracy"
        return f"mirrored copies {what} in a quick test ({self.plain:.2f} without, {self.mirrored:.2f} with them)"


def choose_augmentation(config: TrainConfig, rows: Sequence[Row], recipe: Recipe) -> tuple[dict[str, str], list[str]]:
    """Return how each modality is varied, those that are not left out, and a note on each modality of pictures."""
    if config.augment == "none" or (config.augment == "auto" and config.data is None):
        return {}, []
    frozen = {name for name, settings in recipe.pretrained.items() if settings.tune == "frozen"}
    chosen, notes = dict.fromkeys((name for name in recipe.inputs if name not in frozen), LIGHT), []
    for name in [name for name in chosen if recipe.inputs[name].kind == "image"]:
        if config.augment != "auto":
            chosen[name] = config.augment
            continue
        some = [row for row in rows if name in row.values][:LOOKED_AT]
        look = look_at(some, name, recipe.inputs[name], recipe.task)
        chosen[name] = PHOTO if look.is_photo else LIGHT
        what = "varied as photographs" if look.is_photo else "moved and bent a little, not mirrored"
        notes.append(f"{name}: {what} in training, because {look}; --augment chooses otherwise")
    return chosen, notes


def look_at(rows: Sequence[Row], name: str, spec: Input, task: Task) -> Look:
    """Look at the pictures of some labelled rows, one at least."""
    with ThreadPoolExecutor() as pool:
        small = np.stack(list(pool.map(lambda row: _small(spec.decode(read_payload(row.values[name]), name)[0]), rows)))
    strata = [found[0] for found in task.strata([row.label for row in rows])]
    labels = np.unique(strata, return_inverse=True)[1]
    plain, mirrored = (_cross_validate(small, labels, mirror=mirror) for mirror in (False, True))
    error = float((plain.astype(float) - mirrored).std() / np.sqrt(len(rows)))
    colours = float(np.median([_count_colours(picture) for picture in small]))
    return Look(colours, float(plain.mean()), float(mirrored.mean()), error)


def _small(picture: Array) -> Array:
    """Average blocks of pixels: (C, H, W) uint8 -> (C, SIDE, SIDE), or the side of the picture if that is smaller."""
    _, height, width = picture.shape
    side = min(SIDE, height, width)
    rows, columns = (np.arange(side) * size // side for size in (height, width))
    sums = np.add.reduceat(np.add.reduceat(picture.astype(np.float64), rows, axis=1), columns, axis=2)
    areas = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
    blocks: Array = sums / areas
    return blocks


def _count_colours(picture: Array) -> int:
    """Count the colours of a small copy, in steps of 32; shades of grey are one colour."""
    coloured = picture - picture.mean(axis=0) if len(picture) == 3 else np.zeros_like(picture)
    strength = np.abs(coloured).max(axis=0)
    steps = (picture // 32).reshape(len(picture), -1).T
    return len(np.unique(steps[strength.ravel() > 8], axis=0))


def _cross_validate(small: Array, labels: Array, *, mirror: bool) -> Array:
    """Return which pictures (N,) a ridge classifier gets right that was trained on the other folds, and on mirrored copies."""
    right = np.zeros(len(small), dtype=bool)
    fold = np.random.default_rng(0).permutation(len(small)) % FOLDS
    for number in range(FOLDS):
        own = fold == number
        pictures, truth = small[~own], np.eye(labels.max() + 1)[labels[~own]]
        if mirror:
            pictures, truth = np.concatenate([pictures, pictures[..., ::-1]]), np.concatenate([truth, truth])
        if own.any() and len(pictures):
            right[own] = _ridge(pictures, truth, small[own]).argmax(axis=1) == labels[own]
    return right


def _ridge(pictures: Array, truth: Array, asked: Array) -> Array:
    """Fit one-hot labels (N, C) by ridge regression, and return the fit for other pictures: (B, C)."""
    flat, others = (each.reshape(len(each), -1) - pictures.mean(axis=0).ravel() for each in (pictures, asked))
    kernel, mean = flat @ flat.T, truth.mean(axis=0)
    strength = RIDGE * max(float(np.trace(kernel)) / len(kernel), 1e-9)
    weights = np.linalg.solve(kernel + strength * np.eye(len(kernel)), truth - mean)
    fitted: Array = others @ (flat.T @ weights) + mean
    return fitted
