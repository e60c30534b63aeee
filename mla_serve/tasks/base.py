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
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LISTED = 10  # names in a message
MANY = 10  # rows; if each of so many has a label of its own, nothing can be learned
QUOTED = 80  # characters of a label in a message
Label = Any
"""The label of one row: a class (str); a number (float); a set of labels (frozenset), or label -> bool where only some labels
are known."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The prediction sets or intervals of B answers.

    rows (B,): how many validation rows each rests on; pooled (B,): whether these have another set of modalities.
    inside (B, C) bool: the labels in each set; None for a number. low, high (B,): the ends of each interval, of the
    standardised target, infinite where no rows are enough; None for the other tasks.
    """

    rows: Array
    pooled: Array
    inside: Array | None = None
    low: Array | None = None
    high: Array | None = None


class Task(abc.ABC):
    """What a model predicts. Implementations are frozen dataclasses of plain values.

    name: key in TASKS. main_scores: those of `score` that a summary shows, the first one alone where there is room for one; it
    is at most 1, and higher is better.

    shown_scores: those of a table for people. shown_set_scores: those of `set_scores` that it shows too, where they were measured.
    cost_score: what a change to the graphs may make worse, see `cost`.
    row_score: one that needs few rows, to compare groups of rows by.
    outputs_add: whether a head's outputs are natural parameters, so that their sum over modalities is a product of opinions.
    exclusive: whether each row has exactly one of the names. stratified_by: what a split gives each side the same share of.
    """

    name: ClassVar[str]
    main_scores: ClassVar[tuple[str, ...]]
    shown_scores: ClassVar[tuple[str, ...]]
    shown_set_scores: ClassVar[tuple[str, ...]] = ()
    cost_score: ClassVar[str]
    row_score: ClassVar[str]
    outputs_add: ClassVar[bool] = True
    exclusive: ClassVar[bool] = False
    stratified_by: ClassVar[str]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes or labels; none for a number."""
        return ()

    @abc.abstractmethod
    def describe(self) -> str:
        """Write what is answered, such as "3 classes"."""

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

    @abc.abstractmethod
    def prior_outputs(self, prior: Sequence[float]) -> Array:
        """Return the outputs (O,) of a head that says no more than the prior: the biases that training begins with."""

    def prior_matters(self, prior: Sequence[float]) -> bool:  # noqa: ARG002
        """Return whether counting the prior once, not once for each opinion, is worth a trial."""
        return True

    def without_prior(self, eta: Array, prior: Array) -> Array:
        """Subtract the prior's natural parameters from opinions."""
        return eta - prior

    def flattest(self) -> Array | float:
        """Return the natural parameters (G, P) that the discount flattens opinions to; 0, a uniform distribution, if it is one."""
        return 0.0

    # ---- labels

    @classmethod
    @abc.abstractmethod
    def from_labels(
        cls, labels: Sequence[Label], others: Sequence[Label] = (), column: str = "", unit: str = ""
    ) -> Self:
        """Make the task that training labels define.

        Args: others, the labels of the other splits; column, unit: of the labels in the table.
        """

    @classmethod
    @abc.abstractmethod
    def names_in(cls, label: Label) -> tuple[str, ...]:
        """Return the classes or labels that a row has; none for a number."""

    @classmethod
    @abc.abstractmethod
    def find_unlearnable(cls, labels: Sequence[Label], many: int = MANY) -> str:
        """Return what labels of training rows are that nothing can be learned from, and what to do; "" if something can.

        Args: many, rows from which on labels that no two rows share are refused.
        """

    @classmethod
    @abc.abstractmethod
    def strata(cls, labels: Sequence[Label]) -> list[tuple[str, ...]]:
        """Return names of what each row is, in the same order. A split gives each name the same share of the held-out rows."""

    @abc.abstractmethod
    def contradict(self, first: Label, second: Label) -> bool:
        """Return whether two labels cannot both be right for one sample."""

    @abc.abstractmethod
    def describe_labels(self, labels: Sequence[Label]) -> str:
        """Describe the labels of a table in a line, such as "labels, 25 different, 1 to 4 per row"."""

    @abc.abstractmethod
    def encode(self, labels: Sequence[Label]) -> Array:
        """Return labels as numbers, the targets: (N,) for classes and number, (N, C) for labels, NaN where not known."""

    @abc.abstractmethod
    def nll(self, answers: Array, targets: Array) -> Array:
        """Return the negative log-likelihood in nats of each target: (B, A) and targets -> (B,)."""

    @abc.abstractmethod
    def score(self, answers: Array, targets: Array) -> dict[str, float]:
        """Score answers (B, A) against targets: {score: value}."""

    def hits(self, answers: Array, targets: Array) -> dict[str, Array]:  # noqa: ARG002
        """Return what each score of `resampled` that is a share of the rows counts: {score: (B,) bool}."""
        return {}

    @abc.abstractmethod
    def resampled(self, answers: Array, targets: Array, counts: Array) -> dict[str, Array]:
        """Return the main scores and the NLL of resamples: {score: (R,)}. Args: counts (R, B), how often each has each row."""

    @abc.abstractmethod
    def unknown(self, label: Label) -> tuple[str, ...]:
        """Return what of a label is none that the task has; empty if the label can be encoded."""

    @property
    @abc.abstractmethod
    def expected_label(self) -> str:
        """Say what an unknown label is not: "... is " + this."""

    # ---- scores for people

    def title(self, score: str) -> str:
        """Return the name of a score as people write it."""
        return TITLES.get(score, score.replace("_", " "))

    def shown(self, score: str, value: float) -> str:  # noqa: ARG002
        """Write the value of a score for people."""
        return shorten(value, ".3f")

    def cell(self, score: str, scores: Mapping[str, float]) -> str:
        """Write a score for a table; a dash where it was not measured."""
        return self.shown(score, scores[score]) if score in scores else "–"

    def columns(self, conditions: Mapping[str, Mapping[str, Mapping[str, float]]]) -> tuple[str, ...]:
        """Return the scores that a table of {condition: {rule: {score: value}}} shows."""
        measured = {score for rules in conditions.values() for scores in rules.values() for score in scores}
        return (*self.shown_scores, *(score for score in self.shown_set_scores if score in measured))

    def cost(self, before: Mapping[str, float], after: Mapping[str, float]) -> float:
        """Return how much worse scores are than before, as a fraction: by how much `cost_score` fell."""
        return before[self.cost_score] - after[self.cost_score]

    # ---- prediction sets and intervals (mla_serve/fusion/intervals.py)

    @abc.abstractmethod
    def nonconformity(self, answers: Array, targets: Array) -> tuple[Array, Array]:
        """Return how badly each target fits its answer, and weights: both (B, K).

        K is 1 for classes and number, where the weights are 1. For labels K is C: each label that a row has is weighted
        with its share of the row's labels, all others with 0.
        """

    @abc.abstractmethod
    def bounds(self, answers: Array, thresholds: Array, rows: Array, pooled: Array) -> Bounds:
        """Return what has a score of at most the threshold of its answer: (B, A), (B,). Args: rows, pooled: see Bounds."""

    @abc.abstractmethod
    def covered(self, bounds: Bounds, targets: Array) -> Array:
        """Return the share of each target that is inside: (B,). For labels, NaN where a row has none: nothing can be missed."""

    @abc.abstractmethod
    def size(self, bounds: Bounds) -> Array:
        """Return the number of labels in each set, or the width of each interval in the user's unit: (B,)."""

    @abc.abstractmethod
    def indicators(self, targets: Array) -> Array:
        """Describe targets by numbers that the features of their rows depend on: (N, ...) -> (N, F).

        The features are compared with a linear combination of them, such as the mean of each class.
        """

    def set_scores(self, bounds: Bounds, targets: Array) -> dict[str, float]:
        """Score prediction sets or intervals: how often they contain the truth, and how large they are."""
        return {"coverage": float(self.covered(bounds, targets).mean()), "set_size": float(self.size(bounds).mean())}

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
    def uncertainty(self, nats: float) -> float:
        """Return the entropy of an answer or opinion as a share of that of one that says nothing: 0 is sure, 1 undecided.

        For a number, the share of the training targets' deviation that is left; above 1 where an opinion knows less.
        """

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


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """Sort different names, as numbers where all are integers ("2" before "10")."""
    different = set(names)
    if all(re.fullmatch(r"-?[0-9]{1,18}", name) for name in different):
        return tuple(sorted(different, key=lambda name: (int(name), name)))
    return tuple(sorted(different))


def join_names(names: Sequence[str], none: str = "none") -> str:
    """Join the first ten names with commas. Args: none, what no names are called."""
    return ", ".join([*names[:LISTED], *(["..."] if len(names) > LISTED else [])]) or none


def log_softmax(logits: Array) -> Array:
    """Normalise over the last axis in log space: finite for any finite logits."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normalised: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised


TITLES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "map": "mAP",
    "nll": "NLL",
    "ece": "ECE",
    "brier": "Brier",
    "precision": "precision",
    "fnr": "missed labels",
    "set_fnr": "missed by sets",
    "set_size": "set size",
    "r2": "R2",
    "mae": "MAE",
    "rmse": "RMSE",
}
LOWER_IS_BETTER = ("nll", "ece", "brier", "fnr", "set_fnr", "set_size", "mae", "rmse", "width")


LONG = 1e12  # from here on a number is written with an exponent
BINS = 15  # of the expected calibration error


def expected_calibration_error(confidence: Array, right: Array, bins: int = BINS) -> float:
    """Average |accuracy - confidence| over equal-width bins, by the number in each (Naeini et al., AAAI 2015)."""
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(index, right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / max(len(right), 1))


def shorten(value: float, form: str) -> str:
    """Write a number with a format; one that would be very long with 4 digits and an exponent."""
    return f"{value:{form}}" if abs(value) < LONG else f"{value:.3e}"


def weighted_mean(values: Array, counts: Array) -> Array:
    """Average the rows of each resample: (B,), counts (R, B) -> (R,)."""
    means: Array = counts @ values / counts.sum(axis=1)
    return means


def sum_by(counts: Array, keys: Array, groups: int) -> Array:
    """Add up the columns of counts (R, B) with the same key (B,), which is below `groups`: (R, groups)."""
    totals = np.zeros((len(counts), groups))
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    if len(starts):
        totals[:, keys[order][starts]] = np.add.reduceat(counts[:, order], starts, axis=1)
    return totals
