"""One of C classes: a categorical distribution, given by logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from mla_serve.tasks.base import Array, Label, Task, check_names, expected_calibration_error, log_softmax


@dataclasses.dataclass(frozen=True)
class Classes(Task):
    """One of several classes.

    classes: their names, in the order of the logits. The mathematics need no names; then the number of logits counts.
    """

    classes: tuple[str, ...] = ()

    name: ClassVar[str] = "classes"
    main_scores: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")

    def __post_init__(self) -> None:
        """Check the names. Raises: ValueError."""
        check_names(self.classes, "classes")

    @property
    def names(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes

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

    def prior_of(self, targets: Array) -> list[float]:
        """Return the frequency of each class, with one row added to each, so that none is 0."""
        counts = np.bincount(targets, minlength=len(self.classes)) + 1
        return [float(frequency) for frequency in counts / counts.sum()]

    def uninformed(self, prior: Sequence[float]) -> Array:
        """Return equal probabilities."""
        count = len(self.classes) or len(prior)
        return np.full(count, -np.log(count))

    def support(self, answers: Array, without: Array) -> Array:
        """Return by how much the log-probability of the answered class is higher than without it."""
        rows, answered = np.arange(len(answers)), answers.argmax(axis=-1)
        difference: Array = answers[rows, answered] - without[rows, answered]
        return difference

    def plain(self, answers: Array) -> Array:
        """Return probabilities."""
        p: Array = np.exp(answers)
        return p

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


def macro_f1(answers: Array, labels: Array) -> float:
    """Average the F1 score over the classes that occur in answers or labels, both (B,)."""
    classes = np.union1d(answers, labels)
    hits = np.array([np.sum((answers == c) & (labels == c)) for c in classes])
    sizes = np.array([np.sum(answers == c) + np.sum(labels == c) for c in classes])
    return float(np.mean(2 * hits / sizes))
