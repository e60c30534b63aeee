"""A real number: a Gaussian distribution of the standardised target, given by its mean and the log of its variance."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np

from mla_serve.decimals import with_decimals
from mla_serve.tasks.base import MANY, Array, Bounds, Label, Task, weighted_mean

LOG_VARIANCE = (-12.0, 8.0)
"""Bounds of a head's log-variance, of the standardised target."""
LEAST_PRECISION = 1e-6
LOG_2_PI = float(np.log(2 * np.pi))
BINS = 10  # of the targets, see Number.indicators
IN_UNIT = ("mae", "rmse", "width")  # scores in the user's unit
LARGEST_LOG = 300.0  # of a restored number, so that its square is finite too
LARGEST = 1e130  # of a label, exp(LARGEST_LOG) or so


SKEWED = 1.0
"""Skewness above which the logarithm is considered; that of an exponential distribution is 2, of a normal one 0."""
SPREAD = 10.0
QUANTILES = 10  # of the numbers, in a stratified split
ROWS_PER_QUANTILE = 5
MOST_DECIMALS = 100  # that a browser can be asked for
STEPS = 100  # of the last decimal in a deviation of the targets, at least
SMALL = 0.05  # quantile of the targets that is still shown well where the logarithm is Gaussian


@dataclasses.dataclass(frozen=True)
class Number(Task):
    """A real number. The target is standardised: (transformed - mean) / deviation.

    column: what it is called; unit: such as EUR; log: whether its logarithm is what is Gaussian.
    mean, deviation: of the (transformed) training targets. decimals: of an answer that is shown to people.
    low, high: the range of the training targets, in the user's unit; None where it is not known.
    """

    column: str = ""
    unit: str = ""
    log: bool = False
    mean: float = 0.0
    deviation: float = 1.0
    decimals: int = 2
    low: float | None = None
    high: float | None = None

    name: ClassVar[str] = "number"
    main_scores: ClassVar[tuple[str, ...]] = ("r2", "mae")
    shown_scores: ClassVar[tuple[str, ...]] = ("r2", "mae", "nll")
    shown_set_scores: ClassVar[tuple[str, ...]] = ("coverage",)
    cost_score: ClassVar[str] = "mae"
    row_score: ClassVar[str] = "mae"
    stratified_by: ClassVar[str] = "value"
    outputs_add: ClassVar[bool] = False

    def describe(self) -> str:
        """Write what the number is called, and its unit."""
        return f"the number {self.column}".rstrip() + (f" in {self.unit}" if self.unit else "")

    @property
    def outputs(self) -> int:
        """Mean and log-variance."""
        return 2

    @property
    def variables(self) -> int:
        """One."""
        return 1

    def natural(self, outputs: Array) -> Array:
        """Return (mu / v, -1 / (2 v)): (..., 2) -> (..., 1, 2)."""
        precision = np.exp(-np.clip(outputs[..., 1], *LOG_VARIANCE))
        return np.stack([outputs[..., 0] * precision, -precision / 2], axis=-1)[..., None, :]

    def entropy(self, eta: Array) -> Array:
        """Return .5 log(2 pi e v): (..., 1, 2) -> (..., 1)."""
        nats: Array = 0.5 * (LOG_2_PI + 1 - np.log(np.maximum(-2 * eta[..., 1], LEAST_PRECISION)))
        return nats

    def answers(self, eta: Array) -> Array:
        """Return mean and variance of the standardised target: (..., 1, 2) -> (..., 2)."""
        precision = np.maximum(-2 * eta[..., 0, 1], LEAST_PRECISION)
        return np.stack([eta[..., 0, 0] / precision, 1 / precision], axis=-1)

    def parameters_of(self, answers: Array) -> Array:
        """Return the natural parameters of mean and variance: (..., 2) -> (..., 1, 2)."""
        mean, variance = answers[..., 0], answers[..., 1]
        return np.stack([mean / variance, -0.5 / variance], axis=-1)[..., None, :]

    def mix(self, answers: Array, weights: Array) -> Array:
        """Return mean and variance of the mixture: (M, B, 2), (M, B) -> (B, 2)."""
        mean = (weights * answers[..., 0]).sum(axis=0)
        second = (weights * (answers[..., 1] + np.square(answers[..., 0]))).sum(axis=0)
        return np.stack([mean, np.maximum(second - np.square(mean), np.exp(LOG_VARIANCE[0]))], axis=-1)

    def without_prior(self, eta: Array, prior: Array) -> Array:
        """Subtract the prior. A precision below the prior's is clamped to it, so that no variance is negative.

        Such an opinion moves the mean and adds no precision. Tried on simulated opinions, three with wrong variances, and left
        out: such an opinion says nothing (NLL .791 instead of .778), or every opinion moves the mean in proportion to the
        precision that it adds (1.052).
        """
        clamped = np.stack([eta[..., 0], np.minimum(eta[..., 1], prior[..., 1])], axis=-1)
        return clamped - prior

    def flattest(self) -> Array:
        """Return the parameters of mean 0 and variance 1, those of the standardised training targets: 0 is no distribution."""
        return self.parameters_of(np.array([0.0, 1.0]))

    def prior_parameters(self, prior: Sequence[float]) -> Array:
        """Return the natural parameters of the training targets' mean and variance: (1, 2)."""
        return self.parameters_of(np.array(prior))

    def prior_outputs(self, prior: Sequence[float]) -> Array:
        """Return the mean and the log of the variance: (2,)."""
        mean, variance = prior
        return np.array([mean, np.log(variance)])

    def prior_of(self, targets: Array) -> list[float]:
        """Return mean and variance of the standardised training targets: 0 and 1, but for rounding."""
        return [float(targets.mean()), float(max(targets.var(), np.exp(LOG_VARIANCE[0])))]

    def uninformed(self, prior: Sequence[float]) -> Array:
        """Return mean and variance of the training targets."""
        return np.array(prior) if len(prior) else np.array([0.0, 1.0])

    def support(self, answers: Array, without: Array) -> Array:
        """Return how far the value moves, in the user's unit: positive where it is higher than without it."""
        return self.value(answers) - self.value(without)

    def uncertainty(self, nats: float) -> float:
        """Return the deviation of the standardised target, whose training values have a deviation of 1."""
        return math.exp(nats - 0.5 * (LOG_2_PI + 1))

    def plain(self, answers: Array) -> Array:
        """Return mean and deviation of the standardised target."""
        return np.stack([answers[..., 0], np.sqrt(answers[..., 1])], axis=-1)

    @classmethod
    def from_labels(
        cls, labels: Sequence[Label], others: Sequence[Label] = (), column: str = "", unit: str = ""
    ) -> Self:
        """Choose logarithm and decimals, and measure mean and deviation of the training targets.

        The logarithm is taken where all numbers are positive, the largest is SPREAD times the smallest at least, and the
        skewness is above SKEWED and nearer to 0 with it.
        """
        given = np.array(labels, dtype=np.float64)
        log = bool(len(given)) and bool(np.min([*given, *others]) > 0) and _is_skewed(given)
        targets = np.log(given) if log else given
        mean, deviation = (float(targets.mean()), float(targets.std())) if len(given) else (0.0, 1.0)
        ends = (float(given.min()), float(given.max())) if len(given) else (None, None)
        step = deviation * float(np.quantile(given, SMALL)) if log else deviation
        return cls(column, unit, log, mean, deviation or 1.0, _count_decimals(step), *ends)

    @classmethod
    def names_in(cls, label: Label) -> tuple[str, ...]:  # noqa: ARG003
        """Return none."""
        return ()

    @classmethod
    def find_unlearnable(cls, labels: Sequence[Label], many: int = MANY) -> str:  # noqa: ARG003
        """Refuse numbers that are all the same."""
        if len(set(labels)) < 2:
            given = f"the same number, {labels[0]:,.10g}" if labels else "no number"
            return f"{given}; expected different numbers"
        return ""

    @classmethod
    def strata(cls, labels: Sequence[Label]) -> list[tuple[str, ...]]:
        """Return the number of the quantile that each row is in; equal numbers are in the same one."""
        given = np.array(labels, dtype=np.float64)
        quantiles = max(1, min(QUANTILES, len(given) // ROWS_PER_QUANTILE))
        edges = np.quantile(given, np.arange(1, quantiles) / quantiles)
        return [(str(number),) for number in np.searchsorted(edges, given, side="right")]

    def contradict(self, first: Label, second: Label) -> bool:
        """Return whether the numbers are more than a deviation of the training targets apart."""
        one, other = self.encode([first, second])
        return bool(abs(one - other) > 1)

    def describe_labels(self, labels: Sequence[Label]) -> str:
        """Describe as "number, 22,000 to 5,858,000 USD, log"."""
        unit = f" {self.unit}" if self.unit else ""
        span = f", {min(labels):,.10g} to {max(labels):,.10g}{unit}" if labels else ""
        return f"number{span}{', log' if self.log else ''}"

    def encode(self, labels: Sequence[Label]) -> Array:
        """Return the standardised targets: (N,) float32."""
        given = np.array([float(label) for label in labels], dtype=np.float64)
        standardised: Array = ((np.log(given) if self.log else given) - self.mean) / self.deviation
        return standardised.astype(np.float32)

    def restore(self, standardised: Array) -> Array:
        """Return standardised targets in the user's unit, in float64: the mean may be large beside the deviation."""
        values = np.asarray(standardised, dtype=np.float64) * self.deviation + self.mean
        restored: Array = np.exp(np.minimum(values, LARGEST_LOG)) if self.log else values
        return restored

    def value(self, answers: Array) -> Array:
        """Return the answered value in the user's unit, the median: (..., 2) -> (...)."""
        return self.restore(answers[..., 0])

    def deviation_of(self, answers: Array) -> Array:
        """Return the standard deviation in the user's unit; half of the central 68 % where the logarithm is Gaussian."""
        sigma = np.sqrt(answers[..., 1])
        return (self.restore(answers[..., 0] + sigma) - self.restore(answers[..., 0] - sigma)) / 2

    def indicators(self, targets: Array) -> Array:
        """Return a 1 for the bin of each row, of BINS with equally many rows: (N,) -> (N, BINS)."""
        edges = np.quantile(targets, np.linspace(0, 1, BINS + 1)[1:-1])
        return np.equal(np.searchsorted(edges, targets)[:, None], np.arange(BINS)).astype(float)

    def nll(self, answers: Array, targets: Array) -> Array:
        """Return minus the log-density of the standardised target."""
        mean, variance = answers[..., 0], answers[..., 1]
        values: Array = 0.5 * (LOG_2_PI + np.log(variance) + np.square(targets - mean) / variance)
        return values

    def nonconformity(self, answers: Array, targets: Array) -> tuple[Array, Array]:
        """Return the distance to the answered mean, in standard deviations of the answer."""
        distances = np.abs(targets - answers[:, 0]) / np.sqrt(answers[:, 1])
        return distances[:, None], np.ones((len(answers), 1))

    def bounds(self, answers: Array, thresholds: Array, rows: Array, pooled: Array) -> Bounds:
        """Return so many standard deviations to both sides of the mean."""
        reach = thresholds * np.sqrt(answers[:, 1])
        return Bounds(rows, pooled, low=answers[:, 0] - reach, high=answers[:, 0] + reach)

    def covered(self, bounds: Bounds, targets: Array) -> Array:
        """Return 1 where the target is in the interval, else 0."""
        assert bounds.low is not None
        assert bounds.high is not None
        return ((bounds.low <= targets) & (targets <= bounds.high)).astype(float)

    def size(self, bounds: Bounds) -> Array:
        """Return the width of each interval in the user's unit."""
        assert bounds.low is not None
        assert bounds.high is not None
        return self.restore(bounds.high) - self.restore(bounds.low)

    def set_scores(self, bounds: Bounds, targets: Array) -> dict[str, float]:
        """Return coverage, and the mean width in the user's unit; infinite if an interval is."""
        width = self.size(bounds).mean() if np.isfinite(bounds.high).all() else np.inf  # type: ignore[arg-type]
        return {"coverage": float(self.covered(bounds, targets).mean()), "width": float(width)}

    def score(self, answers: Array, targets: Array) -> dict[str, float]:
        """Return R2, MAE and RMSE in the user's unit, and NLL of the standardised target."""
        truth, given = self.restore(targets), self.value(answers)
        error, spread = given - truth, float(np.square(truth - truth.mean()).sum())
        return {
            "r2": float(1 - np.square(error).sum() / spread) if spread else 0.0,
            "mae": float(np.abs(error).mean()),
            "rmse": float(np.sqrt(np.square(error).mean())),
            "nll": float(self.nll(answers, targets).mean()),
        }

    def resampled(self, answers: Array, targets: Array, counts: Array) -> dict[str, Array]:
        """Return R2, MAE and NLL of resamples."""
        truth = self.restore(targets)
        error, mean = self.value(answers) - truth, weighted_mean(truth, counts)
        spread = weighted_mean(np.square(truth - truth.mean()), counts) - np.square(mean - truth.mean())
        share = weighted_mean(np.square(error), counts) / np.where(spread > 0, spread, np.inf)
        return {
            "r2": np.where(spread > 0, 1 - share, 0.0),
            "mae": weighted_mean(np.abs(error), counts),
            "nll": weighted_mean(self.nll(answers, targets), counts),
        }

    def unknown(self, label: Label) -> tuple[str, ...]:
        """Return a label that is no finite number, is too large, or has no logarithm."""
        value = float(label)
        return () if abs(value) <= LARGEST and (value > 0 or not self.log) else (str(label),)

    @property
    def expected_label(self) -> str:
        """Say what it is not."""
        return "no positive number, whose logarithm the model predicts" if self.log else "no finite number"

    def title(self, score: str) -> str:
        """Return the name of a score with its unit."""
        return f"{super().title(score)}, {self.unit}" if self.unit and score in IN_UNIT else super().title(score)

    def shown(self, score: str, value: float) -> str:
        """Write the value of a score; errors with the decimals of an answer, and three significant digits at least."""
        if score not in IN_UNIT:
            return super().shown(score, value)
        leading = math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0
        return with_decimals(value, max(self.decimals, 2 - leading))

    def cost(self, before: Mapping[str, float], after: Mapping[str, float]) -> float:
        """Return by which share of it the mean absolute error grew."""
        if not before["mae"]:
            return 0.0 if not after["mae"] else float("inf")
        return after["mae"] / before["mae"] - 1


def skewness(values: Array) -> float:
    """Return the third standardised moment, 0 for equal values."""
    centred = values - values.mean()
    deviation = float(np.sqrt(np.square(centred).mean()))
    return float((centred**3).mean() / deviation**3) if deviation else 0.0


def _is_skewed(values: Array) -> bool:
    """Return whether the logarithm of positive numbers is nearer to a normal distribution. See Number.from_labels."""
    skew = skewness(values)
    spread = values.max() >= SPREAD * values.min()
    return bool(skew > SKEWED and spread and abs(skewness(np.log(values))) < skew)


def _count_decimals(step: float) -> int:
    """Return the decimals of an answer whose deviation is a step or so: STEPS of the last decimal at least."""
    return int(np.clip(np.ceil(np.log10(STEPS / step)), 0, MOST_DECIMALS)) if step else 0
