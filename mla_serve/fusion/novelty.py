"""How unlike the training data an input is, from its encoder's features. numpy only; fitted in train/unfamiliar.py.

Two scores, of which the fit keeps the one that tells validation from its corrupted copies better, modality by modality:
    mahalanobis  the smallest distance to a class's mean, under one shrunken covariance (Lee et al., NeurIPS 2018)
    knn          the distance to the nearest of some training rows, on the unit sphere (Sun et al., ICML 2022)
"""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Mapping
from typing import Self

import numpy as np

from mla_serve.fusion.formula import Array

MOST_EXCESS = 8.0
QUANTILES = np.linspace(0, 1, 201)
CHUNK = 256


@dataclasses.dataclass(frozen=True)
class Reference:
    """What one modality's features are compared with.

    Fields: method; points (N, D): class means after `whiten`, or training rows; centre (D,) and whiten (D, D'), applied
    first, but by knn; quantiles (201,), of the scores of validation.
    """

    method: str
    points: Array
    centre: Array
    whiten: Array
    quantiles: Array

    def halved(self, field: str) -> bool:
        """Whether a field is stored in half precision."""
        return field == "points" and self.method == "knn"

    def score(self, features: Array) -> Array:
        """Score features (B, D): the larger, the less like training."""
        moved = features.astype(np.float64)
        if self.method == "knn":
            moved /= np.sqrt(np.square(moved).sum(axis=1, keepdims=True)) + 1e-12
        else:
            moved = (moved - self.centre) @ self.whiten
        parts = [self._distance(moved[at : at + CHUNK]) for at in range(0, len(moved), CHUNK)]
        return np.concatenate(parts)

    def _distance(self, moved: Array) -> Array:
        """Find the nearest point in single precision, which reads half the memory, and measure how far that is in double."""
        points, half_squares = self._coarse
        nearest = (half_squares - moved.astype(np.float32) @ points.T).argmin(axis=1)
        distance: Array = np.sqrt(np.square(moved - self.points[nearest]).sum(axis=1))
        return distance

    @functools.cached_property
    def _coarse(self) -> tuple[Array, Array]:
        """The points, and half of their squared lengths."""
        return self.points.astype(np.float32, copy=False), (
            np.square(self.points, dtype=np.float64).sum(axis=1) / 2
        ).astype(np.float32)

    @functools.cached_property
    def _usual(self) -> tuple[float, float]:
        """The median of validation's scores, and where their upper tenth begins."""
        middle, high = np.interp([0.5, 0.9], QUANTILES, self.quantiles)
        return float(middle), float(high)

    def percentile(self, scores: Array) -> Array:
        """Say which share of validation is more familiar: (B,) in 0..1."""
        return np.interp(scores, self.quantiles, QUANTILES)

    def excess(self, scores: Array) -> Array:
        """Say how far beyond validation's upper tenth: 0 inside, in units of what lies between its median and that."""
        middle, high = self._usual
        excess: Array = np.minimum(np.maximum((scores - high) / max(high - middle, 1e-9), 0.0), MOST_EXCESS)
        return excess


class References:
    """The references of a bundle's modalities."""

    def __init__(self, references: Mapping[str, Reference]) -> None:
        """Take one reference per modality; a modality without one counts as familiar."""
        self.by_modality = dict(references)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read what `to_bytes` wrote. Raises: ValueError or KeyError when it is not that."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            names = [key.removesuffix("/method") for key in arrays.files if key.endswith("/method")]
            return cls({name: _read(arrays, name) for name in names})

    def to_bytes(self) -> bytes:
        """Write the references as .npz: training rows, which lie on the unit sphere, in half precision."""
        arrays: dict[str, Array] = {}
        for name, reference in self.by_modality.items():
            arrays[f"{name}/method"] = np.array(reference.method)
            for field in ("points", "centre", "whiten", "quantiles"):
                precise = np.float16 if reference.halved(field) else np.float32
                arrays[f"{name}/{field}"] = getattr(reference, field).astype(precise)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()


def _read(arrays: Mapping[str, Array], name: str) -> Reference:
    numbers = {
        field: arrays[f"{name}/{field}"].astype(np.float64) for field in ("points", "centre", "whiten", "quantiles")
    }
    method = str(arrays[f"{name}/method"])
    finite = all(np.isfinite(value).all() for value in numbers.values())
    if method not in ("knn", "mahalanobis") or not finite or numbers["quantiles"].shape != QUANTILES.shape:
        raise ValueError(f"the reference of {name} is damaged")
    numbers["points"] = numbers["points"].astype(np.float32)  # as they are stored, or more
    return Reference(method, **numbers)
