"""Any subset of C labels: independent Bernoulli distributions, given by log-odds. Each label is fused by itself."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

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
    join_names,
    sort_names,
)


@dataclasses.dataclass(frozen=True)
class Labels(Task):
    """Any subset of several labels, also none.

    labels: their names, in the order of the logits. thresholds: the probability (C,) from which a label is answered; empty
    for .5 each.
    """

    labels: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()

    name: ClassVar[str] = "labels"
    main_scores: ClassVar[tuple[str, ...]] = ("map", "micro_f1")
    shown_scores: ClassVar[tuple[str, ...]] = ("map", "micro_f1", "nll", "ece")
    cost_score: ClassVar[str] = "map"
    row_score: ClassVar[str] = "micro_f1"
    stratified_by: ClassVar[str] = "label"

    def __post_init__(self) -> None:
        """Check the names and thresholds. Raises: ValueError."""
        check_names(self.labels, "labels")
        if len(self.thresholds) not in (0, len(self.labels)):
            raise ValueError(f"{len(self.thresholds)} thresholds for {len(self.labels)} labels")

    @property
    def names(self) -> tuple[str, ...]:
        """The labels."""
        return self.labels

    def describe(self) -> str:
        """Write how many labels there are."""
        return f"any of {len(self.labels)} labels"

    @property
    def outputs(self) -> int:
        """C."""
        return len(self.labels)

    @property
    def variables(self) -> int:
        """C."""
        return len(self.labels)

    def natural(self, outputs: Array) -> Array:
        """Return the logits: (..., C) -> (..., C, 1)."""
        return outputs[..., None]

    def entropy(self, eta: Array) -> Array:
        """Return the entropy of each Bernoulli distribution: (..., C, 1) -> (..., C)."""
        z = eta[..., 0]
        p = sigmoid(z)
        nats: Array = np.logaddexp(0, z) - p * z
        return nats

    def answers(self, eta: Array) -> Array:
        """Return the log-odds: (..., C, 1) -> (..., C)."""
        return eta[..., 0]

    def parameters_of(self, answers: Array) -> Array:
        """Return the log-odds as parameters: (..., C) -> (..., C, 1)."""
        return answers[..., None]

    def mix(self, answers: Array, weights: Array) -> Array:
        """Average the probability of each label: (M, B, C), (M, B) -> (B, C), as log-odds."""
        yes = np.einsum("mb,mbc->bc", weights, sigmoid(answers))
        no = np.einsum("mb,mbc->bc", weights, sigmoid(-answers))
        log_odds: Array = np.log(np.maximum(yes, 1e-300)) - np.log(np.maximum(no, 1e-300))
        return log_odds

    def prior_parameters(self, prior: Sequence[float]) -> Array:
        """Return the log-odds of the labels' frequencies: (C, 1)."""
        p = np.array(prior)
        log_odds: Array = (np.log(p) - np.log1p(-p))[:, None]
        return log_odds

    def prior_outputs(self, prior: Sequence[float]) -> Array:
        """Return the log-odds of the labels' frequencies: (C,)."""
        log_odds: Array = self.prior_parameters(prior)[:, 0]
        return log_odds

    def prior_of(self, targets: Array) -> list[float]:
        """Return the frequency of each label among the rows where it is known, with one row added to both sides."""
        known = ~np.isnan(targets)
        yes = np.where(known, targets, 0).sum(axis=0)
        return [float(frequency) for frequency in (yes + 1) / (known.sum(axis=0) + 2)]

    def uninformed(self, prior: Sequence[float]) -> Array:
        """Return the labels' frequencies, as log-odds."""
        return self.prior_parameters(prior)[:, 0] if len(prior) else np.zeros(len(self.labels))

    def support(self, answers: Array, without: Array) -> Array:
        """Return by how much the log-probability of the answered set is higher than without it."""
        sign = np.where(self.chosen(answers), 1.0, -1.0)
        difference: Array = (log_sigmoid(sign * answers) - log_sigmoid(sign * without)).sum(axis=-1)
        return difference

    def chosen(self, answers: Array) -> Array:
        """Return which labels are answered: log-odds (..., C) -> bool (..., C). One with a threshold of 1 never is."""
        thresholds = self.threshold_of_each()
        chosen: Array = (sigmoid(answers) >= thresholds) & (thresholds < 1)  # a sigmoid is rounded to 1
        return chosen

    def threshold_of_each(self) -> Array:
        """Return the probability from which each label is answered: (C,)."""
        return np.array(self.thresholds) if self.thresholds else np.full(len(self.labels), 0.5)

    def uncertainty(self, nats: float) -> float:
        """Divide by C log 2, the entropy where each label is as probable as not."""
        return nats / (max(len(self.labels), 1) * math.log(2))

    def plain(self, answers: Array) -> Array:
        """Return probabilities."""
        return sigmoid(answers)

    @classmethod
    def from_labels(
        cls,
        labels: Sequence[Label],
        others: Sequence[Label] = (),  # noqa: ARG003
        column: str = "",  # noqa: ARG003
        unit: str = "",  # noqa: ARG003
    ) -> Self:
        """Return the labels that occur in training, sorted."""
        return cls(sort_names(name for label in labels for name in cls.names_in(label)))

    @classmethod
    def names_in(cls, label: Label) -> tuple[str, ...]:
        """Return the labels that the row has, sorted."""
        if isinstance(label, Mapping):
            return tuple(sorted(name for name, there in label.items() if there))
        return tuple(sorted(label))

    @classmethod
    def find_unlearnable(cls, labels: Sequence[Label], many: int = MANY) -> str:
        """Refuse rows without any label, and rows that all have the same labels."""
        counts = Counter(frozenset(cls.names_in(label)) for label in labels)
        if not any(counts):
            return "no label; expected rows with labels and rows without them"
        if len(counts) == 1:
            return f"the same labels, {join_names(sorted(min(counts)))}; expected rows with different ones"
        times = Counter(name for label in labels for name in cls.names_in(label))
        if len(labels) >= many and max(times.values()) == 1:
            return f"labels of its own each, such as {min(times)!r:.{QUOTED}}; expected labels that several rows share"
        return ""

    @classmethod
    def strata(cls, labels: Sequence[Label]) -> list[tuple[str, ...]]:
        """Return the labels of each row, the rarest first; a blank for a row without any."""
        rows = [cls.names_in(label) for label in labels]
        counts = Counter(name for names in rows for name in names)
        return [tuple(sorted(names, key=lambda name: (counts[name], name))) or ("",) for names in rows]

    def contradict(self, first: Label, second: Label) -> bool:
        """Return whether a label that is known for both is there for one only."""
        differing = set(self.names_in(first)) ^ set(self.names_in(second))
        return any(_is_known(name, first) and _is_known(name, second) for name in differing)

    def describe_labels(self, labels: Sequence[Label]) -> str:
        """Describe as "labels, 25 different, 1 to 4 per row"."""
        counts = [len(self.names_in(label)) for label in labels] or [0]
        each = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else str(min(counts))
        partly = sum(isinstance(label, Mapping) for label in labels)
        some = f", {partly:,} rows with some that are not known" if partly else ""
        return f"labels, {len(self.labels):,} different, {each} per row{some}"

    def encode(self, labels: Sequence[Label]) -> Array:
        """Return 1 for labels of the row, 0 for others, NaN for those that are not known: (N, C) float32.

        Raises: KeyError for a label that is not one of them.
        """
        index = {label: number for number, label in enumerate(self.labels)}
        targets = np.zeros((len(labels), len(index)), np.float32)
        for row, given in zip(targets, labels, strict=True):
            if isinstance(given, Mapping):
                row[:] = np.nan
                for label, there in given.items():
                    row[index[label]] = there
            else:
                row[[index[label] for label in given]] = 1
        return targets

    def indicators(self, targets: Array) -> Array:
        """Return a 1 for each label of each row, and a 1 for every row: (N, C) -> (N, C + 1)."""
        return np.column_stack([np.nan_to_num(targets), np.ones(len(targets))])

    def nll(self, answers: Array, targets: Array) -> Array:
        """Return the mean over the known labels of minus the log-probability of what is true: (B,)."""
        known = ~np.isnan(targets)
        losses = np.logaddexp(0, answers) - np.where(known, targets, 0) * answers
        mean: Array = np.where(known, losses, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        return mean

    def nonconformity(self, answers: Array, targets: Array) -> tuple[Array, Array]:
        """Return minus the log-odds of each label, and its share of the row's labels."""
        true = np.nan_to_num(targets).astype(np.float64)
        return -answers, true / np.maximum(true.sum(axis=1, keepdims=True), 1)

    def bounds(self, answers: Array, thresholds: Array, rows: Array, pooled: Array) -> Bounds:
        """Return the labels that are probable enough; possibly none."""
        return Bounds(rows, pooled, inside=-answers <= thresholds[:, None])

    def covered(self, bounds: Bounds, targets: Array) -> Array:
        """Return the share of the row's labels that are in the set: 1 minus its false negative rate."""
        assert bounds.inside is not None
        true = np.nan_to_num(targets) > 0
        count = true.sum(axis=1)
        share: Array = np.where(count > 0, (true & bounds.inside).sum(axis=1) / np.maximum(count, 1), np.nan)
        return share

    def size(self, bounds: Bounds) -> Array:
        """Return the number of labels in each set."""
        assert bounds.inside is not None
        counts: Array = bounds.inside.sum(axis=1).astype(float)
        return counts

    def set_scores(self, bounds: Bounds, targets: Array) -> dict[str, float]:
        """Return the share of a row's labels that its set lacks, over the rows with a label, if any has one, and the mean size."""
        shares = self.covered(bounds, targets)
        having = ~np.isnan(shares)
        lacked = {"set_fnr": float(np.mean(1 - shares[having]))} if having.any() else {}
        return lacked | {"set_size": float(self.size(bounds).mean())}

    def score(self, answers: Array, targets: Array) -> dict[str, float]:
        """Return mean average precision, micro- and macro-F1, NLL per label in nats, ECE, precision and false negative rate.

        Labels without a positive row do not count for the averages over labels, nor do rows of which nothing is known for the
        NLL. Micro-F1 is 1 where no label is true and none is answered, which is all right. `precision` is the share of all answered
        labels that are true; there is none where none is answered. `fnr` is the mean over the rows with a label of the share of their
        labels that are not answered; there is none where no row has a label.
        """
        known, p = ~np.isnan(targets), sigmoid(answers)
        truth, chosen = np.where(known, targets, 0) > 0, self.chosen(answers) & known
        hits = (truth & chosen).sum(axis=0)
        sizes = truth.sum(axis=0) + chosen.sum(axis=0)
        having = truth.sum(axis=0) > 0
        f1 = 2 * hits / np.maximum(sizes, 1)
        wanted = truth.sum(axis=1)
        missed = (truth & ~chosen).sum(axis=1)[wanted > 0] / wanted[wanted > 0]
        return {
            "map": _mean(average_precision(np.where(known, p, -np.inf)[:, having], truth[:, having])),
            "micro_f1": float(2 * hits.sum() / sizes.sum()) if sizes.any() else 1.0,
            "macro_f1": _mean(f1[having]),
            "nll": _mean(self.nll(answers, targets)[known.any(axis=1)]),
            "ece": expected_calibration_error(p[known], truth[known]),
            **({"precision": float(hits.sum() / chosen.sum())} if chosen.any() else {}),
            **({"fnr": float(np.mean(missed))} if len(missed) else {}),
        }

    def resampled(self, answers: Array, targets: Array, counts: Array) -> dict[str, Array]:
        """Return mean average precision, micro-F1 and NLL of resamples. A label counts where a resample has a row with it."""
        known = ~np.isnan(targets)
        truth, chosen = np.where(known, targets, 0) > 0, self.chosen(answers) & known
        hits, sizes = (truth & chosen).sum(axis=1), truth.sum(axis=1) + chosen.sum(axis=1)
        total, having = np.zeros(len(counts)), np.zeros(len(counts))
        for c in np.flatnonzero(truth.any(axis=0)):
            rows = known[:, c]
            precision = resampled_precision(answers[rows, c], truth[rows, c], counts[:, rows])
            total, having = total + np.nan_to_num(precision), having + ~np.isnan(precision)
        return {
            "map": total / np.maximum(having, 1),
            "micro_f1": np.where(counts @ sizes > 0, 2 * (counts @ hits) / np.maximum(counts @ sizes, 1), 1.0),
            "nll": counts @ self.nll(answers, targets) / np.maximum(counts @ known.any(axis=1), 1),
        }

    def unknown(self, label: Label) -> tuple[str, ...]:
        """Return those of the row's labels that the task does not have."""
        return tuple(name for name in self.names_in(label) if name not in self.labels)

    @property
    def expected_label(self) -> str:
        """Say what it is not."""
        return "no label of the model"


def _is_known(name: str, label: Label) -> bool:
    return not isinstance(label, Mapping) or name in label


def sigmoid(z: Array) -> Array:
    """Return 1 / (1 + exp(-z)), without overflow."""
    values: Array = np.exp(log_sigmoid(z))
    return values


def log_sigmoid(z: Array) -> Array:
    """Return log sigmoid(z), without overflow."""
    values: Array = -np.logaddexp(0, -z)
    return values


def average_precision(scores: Array, truth: Array) -> Array:
    """Return the area under the precision-recall curve of each label, as a sum over the true rows: both (B, C) -> (C,).

    Ties count once. Rows whose score is minus infinity, and that are not true, change nothing.
    """
    order = np.argsort(-scores.T, axis=1, kind="stable")
    ordered, hits = np.take_along_axis(scores.T, order, 1), np.take_along_axis(truth.T, order, 1).cumsum(axis=1)
    last = np.ones(ordered.shape, dtype=bool)  # of each group of equal scores
    last[:, :-1] = ordered[:, :-1] != ordered[:, 1:]
    reached = np.maximum.accumulate(np.where(last, hits, 0), axis=1)
    gained = np.diff(reached, axis=1, prepend=0)
    areas: Array = (gained * hits / np.arange(1, hits.shape[1] + 1)).sum(axis=1) / np.maximum(truth.sum(axis=0), 1)
    return areas


def resampled_precision(scores: Array, truth: Array, counts: Array) -> Array:
    """Return the average precision (R,) of resamples, NaN without a true row: scores and truth (B,), counts (R, B)."""
    order = np.argsort(-scores, kind="stable")
    ordered, drawn = scores[order], counts[:, order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of each group of equal scores
    hits = (drawn * truth[order]).cumsum(axis=1)[:, last]
    precision = hits / np.maximum(drawn.cumsum(axis=1)[:, last], 1)
    total = (np.diff(hits, axis=1, prepend=0) * precision).sum(axis=1)
    having = hits[:, -1] > 0
    return np.where(having, total / np.where(having, hits[:, -1], 1), np.nan)


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else 0.0
