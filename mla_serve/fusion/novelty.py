"""How unlike the training data an input is, from its encoder's features. Numpy only; fitted in train/fit/novelty.py.

There are two scores. For each modality, the fit keeps the one that separates validation rows better from corrupted copies:
    mahalanobis  the smallest distance to the mean of a class, under one shrunken covariance (Lee et al., NeurIPS 2018)
    knn          the distance to the nearest of some training rows, on the unit sphere (Sun et al., ICML 2022)

Each score is used in two ways: its percentile among the validation scores is reported as `unfamiliarity`, and its excess
over them raises the temperature in the fusion (formula.py).
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
QUANTILES = np.linspace(0, 1, 201)  # of the validation scores, as stored
CHUNK = 256  # rows whose distances to all points are computed at once


@dataclasses.dataclass(frozen=True)
class Reference:
    """What the features of one modality are compared with.

    method: "mahalanobis" or "knn".
    points: (N, D'), the whitened class means, or for knn the training rows.
    centre, whiten: (D,) and (D, D'), applied to features before they are compared; not used by knn.
    quantiles: (201,), of the scores of the validation rows.
    """

    method: str
    points: Array
    centre: Array
    whiten: Array
    quantiles: Array

    def in_half_precision(self, field: str) -> bool:
        """Return whether a field is stored in half precision."""
        return field == "points" and self.method == "knn"

    def score(self, features: Array) -> Array:
        """Score features (B, D) -> (B,): a distance, larger for input less like the training data."""
        moved = features.astype(np.float64)
        if self.method == "knn":
            moved /= np.sqrt(np.square(moved).sum(axis=1, keepdims=True)) + 1e-12
        else:
            moved = (moved - self.centre) @ self.whiten
        parts = [self._distance(moved[at : at + CHUNK]) for at in range(0, len(moved), CHUNK)]
        return np.concatenate(parts)

    def _distance(self, moved: Array) -> Array:
        """Find the nearest point in single precision, which halves the memory traffic; return its distance in double."""
        points, half_squares = self._coarse
        nearest = (half_squares - moved.astype(np.float32) @ points.T).argmin(axis=1)
        distance: Array = np.sqrt(np.square(moved - self.points[nearest]).sum(axis=1))
        return distance

    @functools.cached_property
    def _coarse(self) -> tuple[Array, Array]:
        """Return the points and half of their squared lengths, in single precision."""
        return self.points.astype(np.float32, copy=False), (
            np.square(self.points, dtype=np.float64).sum(axis=1) / 2
        ).astype(np.float32)

    @functools.cached_property
    def _median_and_high(self) -> tuple[float, float]:
        """Return the median and the 90th percentile of the validation scores."""
        middle, high = np.interp([0.5, 0.9], QUANTILES, self.quantiles)
        return float(middle), float(high)

    def percentile(self, scores: Array) -> Array:
        """Return the share of validation rows with a lower score, for scores (B,): 0 to 1."""
        return np.interp(scores, self.quantiles, QUANTILES)

    def excess(self, scores: Array) -> Array:
        """Return how far scores (B,) lie above the 90th percentile of the validation scores: 0 to MOST_EXCESS.

        The unit is the distance from their median to their 90th percentile. Scores up to the 90th percentile have excess 0.
        """
        middle, high = self._median_and_high
        excess: Array = np.minimum(np.maximum((scores - high) / max(high - middle, 1e-9), 0.0), MOST_EXCESS)
        return excess


class References:
    """The references of a bundle's modalities."""

    def __init__(self, references: Mapping[str, Reference]) -> None:
        """Keep a reference by modality name. A modality without one counts as familiar."""
        self.by_modality = dict(references)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read what `to_bytes` wrote. Raises: ValueError or KeyError when it is not that."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            names = [key.removesuffix("/method") for key in arrays.files if key.endswith("/method")]
            return cls({name: _read(arrays, name) for name in names})

    def to_bytes(self) -> bytes:
        """Write the references as .npz. Training rows, which lie on the unit sphere, are stored in half precision."""
        arrays: dict[str, Array] = {}
        for name, reference in self.by_modality.items():
            arrays[f"{name}/method"] = np.array(reference.method)
            for field in ("points", "centre", "whiten", "quantiles"):
                precise = np.float16 if reference.in_half_precision(field) else np.float32
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
    numbers["points"] = numbers["points"].astype(np.float32)  # at least the precision that they were stored in
    return Reference(method, **numbers)
