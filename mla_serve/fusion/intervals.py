"""Prediction sets and intervals that contain the truth at a requested rate, the coverage. Numpy only.

    score      how badly an answer fits a label, see Task.nonconformity, of n validation rows
    threshold  the smallest score t for which (number of rows with a score of at most t) >= (n + 1) coverage;
               infinite when (n + 1) coverage > n
    set        all labels, or numbers, whose score is at most the threshold

Why: a new row and the n validation rows are exchangeable, so the new row's score is equally likely to take each of the
n + 1 places among them. It is at most the k-th smallest validation score with probability k / (n + 1) at least. This holds
for every finite n and every model, however badly calibrated: a worse model only gives larger sets. A row with several
labels counts for each of them by its share; then the same threshold bounds the expected share of labels that a set lacks
(conformal risk control: Angelopoulos, Bates, Fisch, Lei, Schuster, ICLR 2024).

The conditions are that new rows are like those of validation, that it does not depend on the content of a row which
modalities it lacks, and that the model which gave the scores answers the new row. The last one holds nearly: the scores are
cross-fitted, and what answers is refitted on all rows. See "The condition" in docs/explanation/method.md.

The guarantee holds on average over rows. To make it hold for each availability pattern too, the scores are kept by pattern
(Mondrian conformal prediction), and by fusion rule, because each gives other answers. A pattern with too few rows for the
requested coverage (fewer than 9 for 0.9) takes the most cautious threshold of the patterns of its size, else of all
patterns, and the answer says so. train/fit/intervals.py computes the scores.

Sources: Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2005; Lei et al., JASA 2018 (numbers).
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from mla_serve.fusion.formula import Array, pattern_keys, pattern_name
from mla_serve.tasks import Bounds, Classes, Task

__all__ = ["COVERAGES", "Bounds", "Intervals", "Thresholds"]

COVERAGES = np.concatenate([np.arange(1, 90) / 100, np.arange(180, 199) / 200, np.arange(991, 1000) / 1000])
"""The coverages whose thresholds are stored. One in between takes the next higher one: .921 that of .925."""
MARGIN = 1e-9  # keeps a product such as 100 * 0.9 = 90.00000000000001 from being rounded up by one


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """The thresholds of one pattern under one rule: rows, the number of rows they rest on; values (G,), by COVERAGES."""

    rows: int
    values: Array

    @classmethod
    def of(cls, scores: Array, weights: Array | None = None) -> Self:
        """Compute them from scores (n,). Args: weights (n,), of the scores; their sum is the number of rows; default 1."""
        weights = np.ones(len(scores)) if weights is None else weights
        order = np.argsort(scores, kind="stable")
        reached, count = np.cumsum(weights[order]), round(float(weights.sum()))
        at = np.searchsorted(reached, (count + 1) * COVERAGES - MARGIN * max(count, 1))
        values = np.append(scores[order], np.inf)[np.minimum(at, len(scores))]
        values[(count + 1) * COVERAGES > count + MARGIN * max(count, 1)] = np.inf
        return cls(count, _round_up(values))

    def at(self, coverage: float) -> float:
        """Return the threshold for a coverage, or infinity if the rows are too few."""
        step = int(np.searchsorted(COVERAGES, coverage - MARGIN))
        return float(self.values[step]) if step < len(self.values) else np.inf

    @property
    def largest(self) -> float:
        """The largest threshold that is finite; minus infinity when there is none."""
        return float(np.max(self.values, where=np.isfinite(self.values), initial=-np.inf))


@dataclasses.dataclass(frozen=True)
class Intervals:
    """Chooses prediction sets or intervals by the thresholds that a bundle keeps.

    task: what is predicted. thresholds: fusion rule -> pattern such as "image+text" -> thresholds.
    stages: by modality, how many times the bundle had been extended before it was added; 0 for those without one. A pattern
    takes no thresholds of patterns with modalities of a later stage, so that an extension changes no old answer.
    probability: whether the scores are 1 - p, as in bundles of format 1; there keys such as "2" stand for all patterns of
    two modalities.
    scores: of a bundle of format 1, the sorted scores themselves: fusion rule -> one of `pattern_keys` -> scores. Patterns of
    its own modalities are looked up there, as they were before; an extension changes none of these answers.
    """

    task: Task = Classes()  # noqa: RUF009 (frozen)
    thresholds: Mapping[str, Mapping[str, Thresholds]] = dataclasses.field(default_factory=dict)
    stages: Mapping[str, int] = dataclasses.field(default_factory=dict)
    probability: bool = False
    scores: Mapping[str, Mapping[str, Sequence[float]]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_format_1(cls, task: Task, conformal: Mapping[str, Mapping[str, Sequence[float]]]) -> Self:
        """Take the sorted scores 1 - p of a bundle of format 1."""
        found = {
            rule: {key: Thresholds.of(np.array(scores, dtype=np.float64)) for key, scores in patterns.items()}
            for rule, patterns in conformal.items()
        }
        return cls(task, found, probability=True, scores=conformal)

    @property
    def rules(self) -> tuple[str, ...]:
        """The fusion rules that there are thresholds for."""
        return tuple(self.thresholds)

    def nonconformity(self, answers: Array, targets: Array) -> tuple[Array, Array]:
        """Return scores and weights of answers, see Task.nonconformity."""
        if self.probability:
            scores = -np.expm1(answers[np.arange(len(answers)), targets])
            return scores[:, None], np.ones((len(answers), 1))
        return self.task.nonconformity(answers, targets)

    def choose(self, answers: Array, present: Array, names: Sequence[str], rule: str, coverage: float) -> Bounds:
        """Choose the set or interval of each answer.

        Args: answers (B, A); present (M, B) bool; names (M,) of the modalities; rule, a fusion rule; coverage, 0 to 1.
        """
        patterns, index = np.unique(present, axis=1, return_inverse=True)
        found = [
            self.threshold(rule, [n for n, there in zip(names, column, strict=True) if there], coverage)
            for column in patterns.T
        ]
        values, rows, pooled = (np.array(each)[index.reshape(-1)] for each in zip(*found, strict=True))
        if self.probability:
            inside = -np.expm1(answers) <= values[:, None]
            inside[np.arange(len(inside)), answers.argmax(axis=1)] = True
            return Bounds(rows, pooled, inside=inside)
        return self.task.bounds(answers, values, rows, pooled)

    def threshold(self, rule: str, pattern: Sequence[str], coverage: float) -> tuple[float, int, bool]:
        """Look up the threshold of a pattern.

        Returns: the threshold, infinite if no pattern has enough rows; the number of rows that it rests on; and whether
        these are of other patterns.
        """
        if self.scores and not any(name in self.stages for name in pattern):
            return self._threshold_of_format_1(rule, pattern, coverage)
        known = self.thresholds.get(rule, {})
        own = known.get(pattern_name(pattern), Thresholds(0, np.full(len(COVERAGES), np.inf)))
        if np.isfinite(own.at(coverage)):
            return own.at(coverage), own.rows, False
        for same_size in (True, False):
            near = [each for key, each in known.items() if self._is_neighbour(key, pattern, same_size)]
            usable = [each for each in near if np.isfinite(each.at(coverage))]
            if usable:
                most_cautious = max(usable, key=lambda each: each.at(coverage))
                return max(most_cautious.at(coverage), own.largest), most_cautious.rows, True
        return np.inf, own.rows, False

    def _threshold_of_format_1(self, rule: str, pattern: Sequence[str], coverage: float) -> tuple[float, int, bool]:
        """Return the score of rank ceil((n + 1) coverage) of the closest key; infinite when the rank exceeds n."""
        known = self.scores.get(rule, {})
        key = next((key for key in pattern_keys(pattern) if key in known), "")
        scores = known.get(key, ())
        rank = max(1, math.ceil((len(scores) + 1) * coverage - MARGIN))
        if rank > len(scores):
            return np.inf, len(scores), False
        return scores[rank - 1], len(scores), key != pattern_name(pattern)

    def highest_coverages(self) -> dict[str, dict[str, float]]:
        """Return the highest coverage that the rows of each pattern allow: {fusion rule: {pattern: coverage}}.

        With a higher one, the set rests on the rows of other patterns, or holds everything.
        """
        return {
            rule: {key: float(np.max(COVERAGES, where=np.isfinite(t.values), initial=0)) for key, t in patterns.items()}
            for rule, patterns in self.thresholds.items()
        }

    def _is_neighbour(self, key: str, pattern: Sequence[str], same_size: bool) -> bool:
        names, size = _read_key(key)
        stage = max(self.stages.get(name, 0) for name in pattern)
        old_enough = all(self.stages.get(name, 0) <= stage for name in names)
        return old_enough and (not same_size or size == len(pattern))

    def extended(self, found: Intervals, added: Sequence[str]) -> Self:
        """Add the thresholds of the patterns that contain modalities which are added to the bundle."""
        merged = {rule: {**known, **found.thresholds.get(rule, {})} for rule, known in self.thresholds.items()}
        stage = 1 + max(self.stages.values(), default=0)
        return dataclasses.replace(self, thresholds=merged, stages={**self.stages, **dict.fromkeys(added, stage)})

    # ---- storing

    def to_bytes(self) -> bytes:
        """Return the content of a file."""
        entries = [(rule, key, each) for rule, patterns in self.thresholds.items() for key, each in patterns.items()]
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            rules=np.array([rule for rule, _, _ in entries], dtype=str),
            patterns=np.array([key for _, key, _ in entries], dtype=str),
            rows=np.array([each.rows for _, _, each in entries], dtype=np.int32),
            thresholds=np.array([each.values for _, _, each in entries], np.float32).reshape(-1, len(COVERAGES)),
            coverages=COVERAGES,
            added=np.array(list(self.stages), dtype=str),
            stages=np.array(list(self.stages.values()), dtype=np.int32),
            probability=np.array(self.probability),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(
        cls, task: Task, content: bytes, scores: Mapping[str, Mapping[str, Sequence[float]]] | None = None
    ) -> Self:
        """Read what `to_bytes` wrote.

        Args: scores, see Intervals: they are not in the content.
        Raises: KeyError, ValueError, OSError, EOFError or zipfile.BadZipFile for anything else.
        """
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            if not np.array_equal(file["coverages"], COVERAGES):
                raise ValueError("thresholds of other coverages than this version knows")
            found: dict[str, dict[str, Thresholds]] = {}
            columns = (file[name] for name in ("rules", "patterns", "rows", "thresholds"))
            for rule, key, rows, values in zip(*columns, strict=True):
                if np.isnan(values).any() or (np.diff(values[np.isfinite(values)]) < 0).any():
                    raise ValueError(f"the thresholds of {key} under {rule} do not ascend")
                found.setdefault(str(rule), {})[str(key)] = Thresholds(int(rows), values)
            stages = {str(name): int(stage) for name, stage in zip(file["added"], file["stages"], strict=True)}
            return cls(task, found, stages, bool(file["probability"]), scores or {})


def _round_up(values: Array) -> Array:
    """Convert to float32, never down: a lower threshold would lose coverage."""
    rounded = values.astype(np.float32)
    return np.where(rounded < values, np.nextafter(rounded, np.float32(np.inf)), rounded)


def _read_key(key: str) -> tuple[list[str], int]:
    """Return the modalities that a key names, and how many a pattern has: see formula.pattern_keys."""
    names, _, count = key.rpartition(":")
    if names or key.isdigit():
        return [names] if names else [], int(count)
    return key.split("+"), key.count("+") + 1
