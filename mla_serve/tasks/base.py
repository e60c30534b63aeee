"""The interface of a task: what a label is, what an opinion is, and how answers are scored. Numpy only.

An opinion is what one modality says by itself: a distribution of an exponential family. The head of a modality gives O
numbers, from which `natural` computes the natural parameters eta of G independent variables with P parameters each:

    task      a label                    a head's outputs            G  P  eta                   an answer (A numbers)
    classes   one of C classes           C logits                    1  C  the logits            C log-probabilities
    labels    any subset of C labels     C logits                    C  1  the logits            C log-odds
    number    a real number              mean, log of the variance   1  2  (mu / v, -1 / (2 v))  mean, variance

Dividing eta by a temperature flattens an opinion, and adding eta of two opinions multiplies their distributions. So one
formula fuses the opinions of every task (mla_serve/fusion/formula.py).

Symbols: B samples, M modalities. `...` are any leading axes.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Label = Any
"""The label of one row: a class (str); a number (float); a set of labels (frozenset), or label -> bool where only some labels
are known."""


class Task(abc.ABC):
    """What a model predicts. Implementations are frozen dataclasses of plain values.

    name: key in TASKS. main_scores: those of `score` that a summary shows, the first one alone where there is room for one.
    """

    name: ClassVar[str]
    main_scores: ClassVar[tuple[str, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes or labels; none for a number."""
        return ()

    @property
    @abc.abstractmethod
    def outputs(self) -> int:
        """The number of a head's outputs (O)."""

    @property
    @abc.abstractmethod
    def variables(self) -> int:
        """The number of variables that are fused independently (G)."""

    # ---- opinions and answers

    @abc.abstractmethod
    def natural(self, outputs: Array) -> Array:
        """Return the natural parameters of a head's outputs: (..., O) -> (..., G, P)."""

    @abc.abstractmethod
    def entropy(self, eta: Array) -> Array:
        """Return the entropy in nats of every variable: (..., G, P) -> (..., G)."""

    @abc.abstractmethod
    def answers(self, eta: Array) -> Array:
        """Return the answers that natural parameters stand for, normalised: (..., G, P) -> (..., A)."""

    @abc.abstractmethod
    def mix(self, answers: Array, weights: Array) -> Array:
        """Average distributions: answers (M, B, A) of the opinions, weights (M, B), which sum to 1 over M -> (B, A)."""

    @abc.abstractmethod
    def prior_parameters(self, prior: Sequence[float]) -> Array:
        """Return the natural parameters (G, P) of what is answered without any modality. Args: prior, see `prior_of`."""

    @abc.abstractmethod
    def prior_of(self, targets: Array) -> list[float]:
        """Return what the training targets (N, ...) say before any modality is heard, as plain numbers."""

    def without_prior(self, eta: Array, prior: Array) -> Array:
        """Subtract the prior's natural parameters from opinions. Opinions that say less than the prior say nothing."""
        return eta - prior

    # ---- labels

    @abc.abstractmethod
    def encode(self, labels: Sequence[Label]) -> Array:
        """Return labels as numbers, the targets: (N,) for classes and number, (N, C) for labels, NaN where not known."""

    @abc.abstractmethod
    def nll(self, answers: Array, targets: Array) -> Array:
        """Return the negative log-likelihood in nats of each target: (B, A) and targets -> (B,)."""

    @abc.abstractmethod
    def score(self, answers: Array, targets: Array) -> dict[str, float]:
        """Score answers (B, A) against targets: {score: value}."""

    @abc.abstractmethod
    def indicators(self, targets: Array) -> Array:
        """Describe targets by numbers that the features of their rows depend on: (N, ...) -> (N, F).

        The features are compared with a linear combination of them, such as the mean of each class.
        """

    # ---- what depends on what

    @abc.abstractmethod
    def support(self, answers: Array, without: Array) -> Array:
        """Return how much an answer depends on something: (B, A), and the answers without it (B, A) -> (B,).

        The log-probability of what is answered, minus its log-probability without it; for numbers, how far the value moves.
        """

    @abc.abstractmethod
    def uninformed(self, prior: Sequence[float]) -> Array:
        """Return the answer (A,) that a modality alone is compared with, see `support`."""

    def answer_entropy(self, answers: Array) -> Array:
        """Return the entropy in nats of answers: (..., A) -> (...)."""
        nats: Array = self.entropy(self.parameters_of(answers)).sum(axis=-1)
        return nats

    @abc.abstractmethod
    def parameters_of(self, answers: Array) -> Array:
        """Return the natural parameters of answers: (..., A) -> (..., G, P)."""

    @abc.abstractmethod
    def plain(self, answers: Array) -> Array:
        """Return answers as numbers that two machines can be compared by: (..., A) -> (..., A).

        Probabilities; for a number, mean and deviation of the standardised target.
        """

    # ---- storing

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON, with `name`."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {"name": self.name} | {
            name: list(value) if isinstance(value, tuple) else value for name, value in values.items()
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Rebuild from what `to_dict` returned, without `name`. Raises: TypeError for other fields."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})


def check_names(names: Sequence[object], what: str) -> None:
    """Refuse names that are no texts, or not all different. Raises: ValueError."""
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(f"expected different texts as {what}, got {list(names)!r:.100}")


def log_softmax(logits: Array) -> Array:
    """Normalise over the last axis in log space: finite for any finite logits."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normalised: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised


BINS = 15  # of the expected calibration error


def expected_calibration_error(confidence: Array, right: Array, bins: int = BINS) -> float:
    """Average |accuracy - confidence| over equal-width bins, by the number in each (Naeini et al., AAAI 2015)."""
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(index, right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / max(len(right), 1))
