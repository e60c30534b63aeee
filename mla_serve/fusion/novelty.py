"""How unlike the training data an input is, from its encoder's features or the input itself. Numpy only; fitted in train/fit/novelty.py.

There are several scores. For each modality, the fit keeps the one that separates validation rows best from corrupted copies:
    mahalanobis  the smallest distance to the mean of a class, under one shrunken covariance (Lee et al., NeurIPS 2018);
                 for columns also of the numbers themselves, because an encoder of columns does not see how far
                 outside of the range of training a number is
    knn          the distance to the nearest of some training rows, on the unit sphere (Sun et al., ICML 2022)
    ngrams       for texts: how unusual its n-grams of tokens are among the training texts, from the text itself

Each score is used in two ways: its percentile among the validation scores is reported as `unfamiliarity`, and its excess
over them raises the temperature in the fusion (formula.py).
"""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from mla_serve.fusion.formula import Array

MOST_EXCESS = 8.0
FARTHEST = 1e9  # in standard deviations; its square fits into single precision
QUANTILES = np.linspace(0, 1, 201)  # of the validation scores, as stored
ORDER = 3  # tokens in the longest n-grams
BACK_OFF = 2.0  # how many occurrences the shorter n-grams count as
CHUNK = 256  # rows whose distances to all points are computed at once


def _without_rounding(scores: Array) -> Array:
    """Lower scores a little, so that one that is equal to a quantile, which is stored in single precision, is not higher."""
    return scores - 1e-7 * np.abs(scores)


class _Scale:
    """What a score means, beside those of the validation rows."""

    quantiles: Array
    in_logarithm = False

    @functools.cached_property
    def _median_and_high(self) -> tuple[float, float]:
        """Return the median and the 90th percentile of the validation scores."""
        middle, high = np.interp([0.5, 0.9], QUANTILES, self.quantiles)
        return float(middle), float(high)

    def percentile(self, scores: Array) -> Array:
        """Return the share of validation rows with a lower score, for scores (B,): 0 to 1. Equal scores are not lower."""
        scores = _without_rounding(scores)
        above = np.clip(np.searchsorted(self.quantiles, scores, side="left"), 1, len(QUANTILES) - 1)
        low, high = self.quantiles[above - 1].astype(np.float64), self.quantiles[above].astype(np.float64)
        part = np.divide(
            scores.clip(low, high) - low, high - low, out=np.where(scores > high, 1.0, 0.0), where=high > low
        )
        share: Array = QUANTILES[above - 1] + part * (QUANTILES[above] - QUANTILES[above - 1])
        return share

    def excess(self, scores: Array) -> Array:
        """Return how far scores (B,) lie above the 90th percentile of the validation scores: 0 to MOST_EXCESS.

        The unit is the distance from their median to their 90th percentile. Scores up to the 90th percentile have excess 0.
        The numbers of columns may be any distance away, so theirs is log(1 + excess).
        """
        middle, high = self._median_and_high
        above = np.maximum((_without_rounding(scores) - high) / max(high - middle, 1e-9), 0.0)
        excess: Array = np.minimum(np.log1p(above) if self.in_logarithm else above, MOST_EXCESS)
        return excess


@dataclasses.dataclass(frozen=True)
class Reference(_Scale):
    """What the features of one modality are compared with.

    method: "mahalanobis" or "knn".
    points: (N, D'), the whitened class means, or for knn the training rows.
    centre, whiten: (D,) and (D, D'), applied to features before they are compared; not used by knn.
    reads_input: whether it compares the decoded numbers themselves, of columns, instead of features. A number
    that is missing counts as the mean.
    quantiles: (201,), of the scores of the validation rows.
    """

    method: str
    points: Array
    centre: Array
    whiten: Array
    quantiles: Array
    reads_input: bool = False

    @property
    def in_logarithm(self) -> bool:  # type: ignore[override]
        """Whether the excess grows with the logarithm of the score."""
        return self.reads_input

    def in_half_precision(self, field: str) -> bool:
        """Return whether a field is stored in half precision."""
        return field == "points" and self.method == "knn"

    def score(self, features: Array) -> Array:
        """Score features (B, D) -> (B,): a distance, larger for input less like the training data."""
        moved = features.astype(np.float64)
        if self.method == "knn":
            moved /= np.sqrt(np.square(moved).sum(axis=1, keepdims=True)) + 1e-12
        else:
            moved = np.nan_to_num(moved - self.centre) if self.reads_input else moved - self.centre
            moved = np.clip(moved @ self.whiten, -FARTHEST, FARTHEST)
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


@dataclasses.dataclass(frozen=True)
class NGramReference(_Scale):
    """How often the n-grams of training texts occur, in tokens, n = 1 to ORDER.

    hashes: (K,) uint32, sorted, of the most frequent n-grams. counts: (K,), how often they occur.
    tokens, different: how many tokens the training texts have, and how many different ones. pad: the token after the end.
    quantiles: (201,), of the scores of the validation rows.
    """

    hashes: Array
    counts: Array
    tokens: int
    different: int
    pad: int
    quantiles: Array

    method: ClassVar[str] = "ngrams"
    reads_input: ClassVar[bool] = True

    def score(self, tokens: Array) -> Array:
        """Score texts (B, L) -> (B,): the mean over the tokens and the end of -log p, larger for less usual texts.

            p_n = (count of the n-gram + BACK_OFF p_(n - 1)) / (count of the n-gram without its last token + BACK_OFF)

        p_0 is 1 divided by the number of different tokens, and one more for those that no training text has.
        """
        grams, contexts, valid = hash_ngrams(tokens, self.pad)
        p = np.full(valid.shape, 1 / (self.different + 1))
        before = [np.full(valid.shape, self.tokens), *map(self._count, contexts)]
        for gram, context in zip(map(self._count, grams), before, strict=True):
            p = (gram + BACK_OFF * p) / (np.maximum(context, gram) + BACK_OFF)
        score: Array = -np.where(valid, np.log(p), 0.0).sum(axis=1) / valid.sum(axis=1)
        return score

    def _count(self, hashes: Array) -> Array:
        """Look up how often n-grams occur, 0 for those that are not stored."""
        at = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return np.where(self.hashes[at] == hashes, self.counts[at], 0)


def hash_ngrams(tokens: Array, pad: int) -> tuple[list[Array], list[Array], Array]:
    """Hash the n-grams that end at each token of texts (B, L), and at the end of each text.

    Returns: the n-grams (B, L + 1) for n = 1 to ORDER; those of 2 and more without their last token; and which positions
    belong to the text, (B, L + 1) bool.
    """
    count, length = tokens.shape
    start = np.broadcast_to(-np.arange(ORDER - 1, 0, -1), (count, ORDER - 1))  # no token is negative
    extended = np.concatenate([start, tokens, np.full((count, 1), pad)], axis=1)
    columns = [extended[:, back : back + length + 1] for back in range(ORDER)]  # the last are the tokens themselves
    grams = [_hash(columns[-n:]) for n in range(1, ORDER + 1)]
    contexts = [_hash(columns[-n:-1]) for n in range(2, ORDER + 1)]
    inside = columns[-1] != pad
    ends = np.arange(length + 1) == inside.sum(axis=1)[:, None]
    return grams, contexts, inside | ends


def _hash(parts: Sequence[Array]) -> Array:
    """Hash several integers into one uint32."""
    mixed = np.full(parts[0].shape, len(parts), np.uint64)
    for part in parts:
        mixed = (mixed ^ part.astype(np.int64).view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return (mixed >> np.uint64(32)).astype(np.uint32)


AnyReference = Reference | NGramReference


class References:
    """The references of a bundle's modalities."""

    def __init__(self, references: Mapping[str, AnyReference]) -> None:
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
            if isinstance(reference, NGramReference):
                stored = dataclasses.replace(reference, quantiles=reference.quantiles.astype(np.float32))
                arrays |= {f"{name}/{field}": np.asarray(value) for field, value in vars(stored).items()}
                continue
            if reference.reads_input:
                arrays[f"{name}/reads_input"] = np.array(True)
            for field in ("points", "centre", "whiten", "quantiles"):
                precise = np.float16 if reference.in_half_precision(field) else np.float32
                arrays[f"{name}/{field}"] = getattr(reference, field).astype(precise)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()


def _read(arrays: Mapping[str, Array], name: str) -> AnyReference:
    if str(arrays[f"{name}/method"]) == NGramReference.method:
        return _read_ngrams({field: arrays[f"{name}/{field}"] for field in NGRAM_FIELDS}, name)
    numbers = {
        field: arrays[f"{name}/{field}"].astype(np.float64) for field in ("points", "centre", "whiten", "quantiles")
    }
    method = str(arrays[f"{name}/method"])
    finite = all(np.isfinite(value).all() for value in numbers.values())
    if method not in ("knn", "mahalanobis") or not finite or numbers["quantiles"].shape != QUANTILES.shape:
        raise ValueError(f"the reference of {name} is damaged")
    numbers["points"] = numbers["points"].astype(np.float32)  # at least the precision that they were stored in
    return Reference(method, **numbers, reads_input=f"{name}/reads_input" in arrays)


NGRAM_FIELDS = tuple(field.name for field in dataclasses.fields(NGramReference))


def _read_ngrams(fields: dict[str, Any], name: str) -> NGramReference:
    hashes, counts, quantiles = fields["hashes"], fields["counts"], fields["quantiles"].astype(np.float64)
    sound = hashes.dtype == np.uint32 and hashes.ndim == 1 and len(hashes) and counts.shape == hashes.shape
    if not sound or not np.isfinite(quantiles).all() or quantiles.shape != QUANTILES.shape:
        raise ValueError(f"the reference of {name} is damaged")
    numbers = {field: int(fields[field]) for field in ("tokens", "different", "pad")}
    return NGramReference(hashes=hashes, counts=counts.astype(np.int64), quantiles=quantiles, **numbers)
