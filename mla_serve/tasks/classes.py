"""One of C classes: a categorical distribution, given by logits."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np

from mla_serve.tasks.base import (
    MANY,
    QUOTED,
    Array,
    Bounds,
    Label,
    Task,
    check_names,
    expected_calibration_error,
    log_softmax,
    sort_names,
    sum_by,
    weighted_mean,
)

FREE_RANKS, PENALTY = 5, 0.01
"""A class has a worse score for each place after the fifth, so that sets of many classes stay small. In simulations with 100
classes and an accuracy of .6, sets of coverage .9 and .98 had 16 and 54 classes with the penalty, 34 and 87 without."""
STEP = 100.0  # how fast the random part of a score goes round as the margin of an answer grows

UNBALANCED = 1.5  # the largest class has this many times the rows of the smallest: then the prior may matter


@dataclasses.dataclass(frozen=True)
class Classes(Task):
    """One of several classes.

    classes: their names, in the order of the logits. The mathematics need no names; then the number of logits counts.
    """

    classes: tuple[str, ...] = ()

    name: ClassVar[str] = "classes"
    main_scores: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")
    shown_scores: ClassVar[tuple[str, ...]] = ("accuracy", "nll", "ece")
    cost_score: ClassVar[str] = "accuracy"
    row_score: ClassVar[str] = "accuracy"
    exclusive: ClassVar[bool] = True
    stratified_by: ClassVar[str] = "class"

    def __post_init__(self) -> None:
        """Check the names. Raises: ValueError."""
        check_names(self.classes, "classes")

    @property
    def names(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes

    def describe(self) -> str:
        """Write how many classes there are."""
        return f"{len(self.classes)} classes"

    @property
    def outputs(self) -> int:
        """C."""
        return len(self.classes)

    @property
    def variables(self) -> int:
        """One."""
        return 1

    def natural(self, outputs: Array) -> Array:
        """Return the logits: (..., C) -> (..., 1, C)."""
        return outputs[..., None, :]

    def entropy(self, eta: Array) -> Array:
        """Return the entropy of the softmax: (..., 1, C) -> (..., 1)."""
        log_p = log_softmax(eta)
        nats: Array = -(np.exp(log_p) * log_p).sum(axis=-1)
        return nats

    def answers(self, eta: Array) -> Array:
        """Return log-probabilities: (..., 1, C) -> (..., C)."""
        return log_softmax(eta[..., 0, :])

    def parameters_of(self, answers: Array) -> Array:
        """Return log-probabilities as parameters: (..., C) -> (..., 1, C)."""
        return answers[..., None, :]

    def mix(self, answers: Array, weights: Array) -> Array:
        """Average probabilities: (M, B, C), (M, B) -> (B, C), as logarithms."""
        log_p = np.where(weights[..., None] > 0, answers, -np.inf)
        peak = log_p.max(axis=0)
        mixture = np.einsum("mb,mbc->bc", weights, np.exp(np.where(weights[..., None] > 0, log_p, peak) - peak))
        return log_softmax(np.log(np.maximum(mixture, 1e-300)) + peak)

    def prior_parameters(self, prior: Sequence[float]) -> Array:
        """Return the log of the classes' frequencies: (1, C)."""
        log_prior: Array = np.log(np.array(prior))[None, :]
        return log_prior

    def prior_outputs(self, prior: Sequence[float]) -> Array:
        """Return the log of the classes' frequencies, with a mean of 0: (C,)."""
        log_prior: Array = self.prior_parameters(prior)[0]
        centred: Array = log_prior - log_prior.mean()
        return centred

    def prior_of(self, targets: Array) -> list[float]:
        """Return the frequency of each class, with one row added to each, so that none is 0."""
        counts = np.bincount(targets, minlength=len(self.classes)) + 1
        return [float(frequency) for frequency in counts / counts.sum()]

    def prior_matters(self, prior: Sequence[float]) -> bool:
        """Return whether the classes differ much in size."""
        return max(prior, default=1) > UNBALANCED * min(prior, default=1)

    def uninformed(self, prior: Sequence[float]) -> Array:
        """Return equal probabilities."""
        count = len(self.classes) or len(prior)
        return np.full(count, -np.log(count))

    def support(self, answers: Array, without: Array) -> Array:
        """Return by how much the log-probability of the answered class is higher than without it."""
        rows, answered = np.arange(len(answers)), answers.argmax(axis=-1)
        difference: Array = answers[rows, answered] - without[rows, answered]
        return difference

    def uncertainty(self, nats: float) -> float:
        """Divide by log C, the entropy of equal probabilities."""
        return nats / math.log(max(len(self.classes), 2))

    def plain(self, answers: Array) -> Array:
        """Return probabilities."""
        p: Array = np.exp(answers)
        return p

    @classmethod
    def from_labels(
        cls,
        labels: Sequence[Label],
        others: Sequence[Label] = (),  # noqa: ARG003
        column: str = "",  # noqa: ARG003
        unit: str = "",  # noqa: ARG003
    ) -> Self:
        """Return the classes that occur in training, sorted."""
        return cls(sort_names(map(str, labels)))

    @classmethod
    def names_in(cls, label: Label) -> tuple[str, ...]:
        """Return the class."""
        return (str(label),)

    @classmethod
    def find_unlearnable(cls, labels: Sequence[Label], many: int = MANY) -> str:
        """Refuse fewer than two classes, and a class for each row."""
        counts = Counter(labels)
        if len(counts) < 2:
            given = f"one class only, {labels[0]!r:.{QUOTED}}" if labels else "no class"
            return f"{given}; expected two at least; add rows of another"
        if len(labels) >= many and len(counts) == len(labels):
            number = "; or is the column an id, or a number (--task number)?" if len(labels) >= MANY else ""
            own = f"a label of its own each, such as {min(counts)!r:.{QUOTED}}"
            return f"{own}; expected several rows of each class for training; add rows{number}"
        return ""

    @classmethod
    def strata(cls, labels: Sequence[Label]) -> list[tuple[str, ...]]:
        """Return the class of each row."""
        return [(label,) for label in labels]

    def contradict(self, first: Label, second: Label) -> bool:
        """Return whether the classes differ."""
        return bool(first != second)

    def describe_labels(self, labels: Sequence[Label]) -> str:  # noqa: ARG002
        """Describe as "classes, 10 different"."""
        return f"classes, {len(self.classes):,} different"

    def encode(self, labels: Sequence[Label]) -> Array:
        """Return the number of each class: (N,) int64. Raises: KeyError for a class that is not one of them."""
        index = {label: number for number, label in enumerate(self.classes)}
        return np.array([index[str(label)] for label in labels], dtype=np.int64)

    def indicators(self, targets: Array) -> Array:
        """Return a 1 for the class of each row: (N,) -> (N, C)."""
        return np.equal(targets[:, None], np.arange(max(len(self.classes), int(targets.max(initial=0)) + 1))).astype(
            float
        )

    def nll(self, answers: Array, targets: Array) -> Array:
        """Return minus the log-probability of the true class."""
        values: Array = -answers[np.arange(len(targets)), targets]
        return values

    def nonconformity(self, answers: Array, targets: Array) -> tuple[Array, Array]:
        """Return minus the probability of the true class and all less probable ones, plus a penalty for its rank.

        A flat answer leaves much probability to many classes, so its sets are larger. A random part of the class itself does
        not count, so that a set needs not be larger than the coverage asks for. What is random is derived from the answer:
        the same answer has the same set. (APS: Romano, Sesia, Candes, NeurIPS 2020; with the penalty RAPS: Angelopoulos,
        Bates, Malik, Jordan, ICLR 2021. The score there is larger by 1. Here it keeps its precision where p is near 1.)
        """
        own = np.take_along_axis(answers, targets[:, None], axis=1)
        less = (answers < own) | ((answers == own) & (np.arange(answers.shape[1]) > targets[:, None]))
        left = np.where(less, np.exp(answers), 0).sum(axis=1) + np.exp(own[:, 0]) * _random_part(answers)
        return (_penalty(answers.shape[1] - less.sum(axis=1)) - left)[:, None], np.ones((len(answers), 1))

    def bounds(self, answers: Array, thresholds: Array, rows: Array, pooled: Array) -> Bounds:
        """Return the classes of each set: always the answer itself."""
        order = np.argsort(-answers, axis=1, kind="stable")
        p = np.exp(np.take_along_axis(answers, order, axis=1))
        less = np.cumsum(p[:, ::-1], axis=1)[:, ::-1] - p
        scores = _penalty(1 + np.arange(answers.shape[1])) - less - p * _random_part(answers)[:, None]
        inside = np.empty(answers.shape, dtype=bool)
        np.put_along_axis(inside, order, scores <= thresholds[:, None], axis=1)
        inside[np.arange(len(inside)), order[:, 0]] = True
        return Bounds(rows, pooled, inside=inside)

    def covered(self, bounds: Bounds, targets: Array) -> Array:
        """Return 1 where the true class is in the set, else 0."""
        assert bounds.inside is not None
        return bounds.inside[np.arange(len(targets)), targets].astype(float)

    def size(self, bounds: Bounds) -> Array:
        """Return the number of classes in each set."""
        assert bounds.inside is not None
        counts: Array = bounds.inside.sum(axis=1).astype(float)
        return counts

    def score(self, answers: Array, targets: Array) -> dict[str, float]:
        """Return accuracy, macro-F1, NLL in nats, Brier score and ECE, as fractions."""
        p = np.exp(answers)
        answered = p.argmax(axis=1)
        right = answered == targets
        one_hot = np.eye(p.shape[1])[targets]
        return {
            "accuracy": float(right.mean()),
            "macro_f1": macro_f1(answered, targets),
            "nll": float(self.nll(answers, targets).mean()),
            "brier": float(np.square(p - one_hot).sum(axis=1).mean()),
            "ece": expected_calibration_error(p.max(axis=1), right),
        }

    def hits(self, answers: Array, targets: Array) -> dict[str, Array]:
        """Return which answers are right."""
        return {"accuracy": answers.argmax(axis=1) == targets}

    def resampled(self, answers: Array, targets: Array, counts: Array) -> dict[str, Array]:
        """Return accuracy, macro-F1 and NLL of resamples."""
        answered, c = answers.argmax(axis=1), answers.shape[1]
        right = answered == targets
        hits = sum_by(counts[:, right], targets[right], c)
        sizes = sum_by(counts, targets, c) + sum_by(counts, answered, c)
        f1 = np.where(sizes > 0, 2 * hits / np.maximum(sizes, 1), 0).sum(axis=1) / (sizes > 0).sum(axis=1)
        return {
            "accuracy": weighted_mean(right, counts),
            "macro_f1": f1,
            "nll": weighted_mean(self.nll(answers, targets), counts),
        }

    def unknown(self, label: Label) -> tuple[str, ...]:
        """Return a label that is no class."""
        return () if label in self.classes else (str(label),)

    @property
    def expected_label(self) -> str:
        """Say what it is not."""
        return "no class of the model"


def _penalty(rank: Array) -> Array:
    """Return what is added to the score of the class with this rank, 1 for the most probable."""
    added: Array = PENALTY * np.maximum(rank - FREE_RANKS, 0)
    return added


def _random_part(answers: Array) -> Array:
    """Return a number from 0 to 1 for each answer (B, C), spread evenly over different answers: (B,).

    It depends on the margin between the two most probable classes, and hardly changes with the last bits of an answer.
    """
    two = np.partition(answers, -2, axis=1)[:, -2:]
    part: Array = np.mod(STEP * (two[:, 1] - two[:, 0]), 1.0)
    return part


def macro_f1(answers: Array, labels: Array) -> float:
    """Average the F1 score over the classes that occur in answers or labels, both (B,)."""
    classes = np.union1d(answers, labels)
    hits = np.array([np.sum((answers == c) & (labels == c)) for c in classes])
    sizes = np.array([np.sum(answers == c) + np.sum(labels == c) for c in classes])
    return float(np.mean(2 * hits / sizes))
