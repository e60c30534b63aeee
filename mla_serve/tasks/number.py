"""A real number: a Gaussian distribution of the standardised target, given by its mean and the log of its variance."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from mla_serve.tasks.base import Array, Label, Task

LOG_VARIANCE = (-12.0, 8.0)
"""Bounds of a head's log-variance, of the standardised target."""
LEAST_PRECISION = 1e-6
LOG_2_PI = float(np.log(2 * np.pi))
BINS = 10  # of the targets, see Number.indicators
COVERAGE = 0.9  # of the intervals that `score` measures
QUANTILE = 1.6448536269514722  # of the normal distribution, for COVERAGE


@dataclasses.dataclass(frozen=True)
class Number(Task):
    """A real number. The target is standardised: (transformed - mean) / deviation.

    column: what it is called; unit: such as EUR; log: whether its logarithm is what is Gaussian.
    mean, deviation: of the (transformed) training targets. decimals: of an answer that is shown to people.
    """

    column: str = ""
    unit: str = ""
    log: bool = False
    mean: float = 0.0
    deviation: float = 1.0
    decimals: int = 2

    name: ClassVar[str] = "number"
    main_scores: ClassVar[tuple[str, ...]] = ("r2", "mae")

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
        """Subtract the prior. A precision below the prior's is clamped to it, so that no variance is negative."""
        clamped = np.stack([eta[..., 0], np.minimum(eta[..., 1], prior[..., 1])], axis=-1)
        return clamped - prior

    def prior_parameters(self, prior: Sequence[float]) -> Array:
        """Return the natural parameters of the training targets' mean and variance: (1, 2)."""
        return self.parameters_of(np.array(prior))

    def prior_of(self, targets: Array) -> list[float]:
        """Return mean and variance of the standardised training targets: 0 and 1, but for rounding."""
        return [float(targets.mean()), float(max(targets.var(), np.exp(LOG_VARIANCE[0])))]

    def uninformed(self, prior: Sequence[float]) -> Array:
        """Return mean and variance of the training targets."""
        return np.array(prior) if len(prior) else np.array([0.0, 1.0])

    def support(self, answers: Array, without: Array) -> Array:
        """Return how far the value moves, in the user's unit: positive where it is higher than without it."""
        return self.value(answers) - self.value(without)

    def plain(self, answers: Array) -> Array:
        """Return mean and deviation of the standardised target."""
        return np.stack([answers[..., 0], np.sqrt(answers[..., 1])], axis=-1)

    def encode(self, labels: Sequence[Label]) -> Array:
        """Return the standardised targets: (N,) float32."""
        given = np.array([float(label) for label in labels], dtype=np.float64)
        standardised: Array = ((np.log(given) if self.log else given) - self.mean) / self.deviation
        return standardised.astype(np.float32)

    def restore(self, standardised: Array) -> Array:
        """Return standardised targets in the user's unit."""
        values = standardised * self.deviation + self.mean
        restored: Array = np.exp(np.minimum(values, 700.0)) if self.log else values
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

    def score(self, answers: Array, targets: Array) -> dict[str, float]:
        """Return R2, MAE and RMSE in the user's unit, NLL of the standardised target, and coverage and width of Gaussian intervals."""
        truth, given = self.restore(targets), self.value(answers)
        error, spread = given - truth, float(np.square(truth - truth.mean()).sum())
        reach = QUANTILE * np.sqrt(answers[:, 1])
        low, high = self.restore(answers[:, 0] - reach), self.restore(answers[:, 0] + reach)
        return {
            "r2": float(1 - np.square(error).sum() / spread) if spread else 0.0,
            "mae": float(np.abs(error).mean()),
            "rmse": float(np.sqrt(np.square(error).mean())),
            "nll": float(self.nll(answers, targets).mean()),
            "coverage": float(((low <= truth) & (truth <= high)).mean()),
            "width": float((high - low).mean()),
        }
