"""Fit the fusion formula on validation: temperatures, sharpness, one scale per availability pattern.

The NLL averaged over availability patterns, plus a ridge on the log-parameters toward the paper's point. Temperatures and
sharpness are searched with their gradient; for each candidate the best scale of every pattern is one convex problem in
one number, solved for all patterns at once by Newton's method. (By the envelope theorem the gradient may take the scales
as given.)
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from mla_serve.fusion.formula import Array, Fusion, log_softmax, pattern_name

RIDGE = 1e-3  # on the squared log-parameters, toward the paper's point
PATTERNS_UP_TO = 64  # beyond, patterns are sampled and scales shared by the number present
BOUND = 4.0  # |log parameter|
MOST_DISCOUNT = 3.0
NEWTON_STEPS = 12
ENOUGH_ROWS = 2


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Opinions on labelled rows: logits (M, N, C), present (M, N) bool, labels (N,), excess (M, N), weights (N,)."""

    logits: Array
    present: Array
    labels: Array
    excess: Array
    weights: Array

    @classmethod
    def of(cls, logits: Array, present: Array, labels: Array, excess: Array | None = None) -> Evidence:
        """Take rows that all count alike; excess 0 when left out."""
        clean = np.where(present[..., None], logits, 0.0).astype(np.float64)
        excess = np.zeros(present.shape) if excess is None else np.where(present, excess, 0.0)
        return cls(clean, present, labels, excess, np.ones(len(labels)))

    def rows(self, chosen: Array) -> Evidence:
        """Return some of the rows, by index or by mask."""
        return Evidence(
            self.logits[:, chosen],
            self.present[:, chosen],
            self.labels[chosen],
            self.excess[:, chosen],
            self.weights[chosen],
        )

    def times(self, weight: float) -> Evidence:
        """Let every row count so much."""
        return dataclasses.replace(self, weights=self.weights * weight)

    def and_also(self, other: Evidence) -> Evidence:
        """Append the rows of another."""
        return Evidence(
            np.concatenate([self.logits, other.logits], axis=1),
            np.concatenate([self.present, other.present], axis=1),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.excess, other.excess], axis=1),
            np.concatenate([self.weights, other.weights]),
        )


def fit_fusion(logits: Array, present: Array, labels: Array, names: tuple[str, ...], ridge: float = RIDGE) -> Fusion:
    """Fit on rows that all count alike: logits (M, B, C); present (M, B) bool; labels (B,)."""
    return fit(Evidence.of(logits, present, labels), names, ridge)


def fit(
    evidence: Evidence,
    names: tuple[str, ...],
    ridge: float = RIDGE,
    start: Fusion | None = None,
    prior: Sequence[float] = (),
) -> Fusion:
    """Minimise the NLL, averaged over availability patterns, plus the ridge.

    Args: start, where to search from; prior, each class's share where it is to count once, see fusion.py.
    """
    paper = dataclasses.replace(Fusion.paper(names), prior=prior, prior_once=bool(prior))
    objective = Objective(evidence, ridge, paper)
    first = np.zeros(len(names) + 1)
    if start is not None:
        first = np.log([*(start.temperatures[name] for name in names), max(start.sharpness, np.exp(-BOUND))])
    bounds = [(-BOUND, BOUND)] * len(first)
    found = minimize(objective.value_and_gradient, first, jac=True, method="L-BFGS-B", bounds=bounds)
    objective.value_and_gradient(found.x)
    temperatures = dict(zip(names, np.exp(found.x[:-1]).tolist(), strict=True))
    sharpness, scales = float(np.exp(found.x[-1])), objective.scales(names)
    return dataclasses.replace(paper, temperatures=temperatures, sharpness=sharpness, scales=scales)


def fit_discounts(evidence: Evidence, names: tuple[str, ...], fusion: Fusion, ridge: float = RIDGE) -> Fusion:
    """Choose, all else given, how fast each modality's opinion flattens as its input gets unfamiliar."""
    objective = Objective(evidence, ridge, fusion)
    bounds = [(0.0, MOST_DISCOUNT)] * len(names)
    found = minimize(
        objective.discounts_value_and_gradient, np.full(len(names), 0.1), jac=True, method="L-BFGS-B", bounds=bounds
    )
    return dataclasses.replace(fusion, discounts=dict(zip(names, found.x.tolist(), strict=True)))


class Objective:
    """The NLL over patterns as a function of log-temperatures and log-sharpness, or of the discounts."""

    def __init__(
        self, evidence: Evidence, ridge: float, fusion: Fusion | None = None, listed: Array | None = None
    ) -> None:
        """Take fusion for its prior, and where the discounts are searched; listed (K, M), the patterns that count."""
        prior = np.broadcast_to(fusion.subtracted_log_prior() if fusion else 0.0, evidence.logits.shape[2:])
        apart = np.where(evidence.present[..., None], evidence.logits - prior, 0.0)
        self.evidence, self.ridge, self.fusion = dataclasses.replace(evidence, logits=apart), ridge, fusion
        listed = listed_patterns(len(evidence.logits)) if listed is None else listed
        usable = np.array([evidence.present[pattern].all(axis=0) for pattern in listed])
        enough = usable.sum(axis=1) >= ENOUGH_ROWS
        self.patterns, usable = listed[enough], usable[enough]
        self.shared = 2 ** len(evidence.logits) - 1 > PATTERNS_UP_TO
        counted = usable * evidence.weights
        self.share = counted / counted.sum(axis=1, keepdims=True) / max(len(self.patterns), 1)  # (K, N), sums to 1
        self.log_scales = np.zeros(len(self.patterns))
        one = self.patterns.sum(axis=1, keepdims=True) == 1
        self.prior = np.where(one, 0.0, prior)[:, None]  # (K, 1, C), what is added to each pattern's sum
        self.lone = (self.patterns & one)[..., None] * prior  # (K, M, C), what an opinion alone keeps

    def value_and_gradient(self, theta: Array) -> tuple[float, Array]:
        """Return the penalised NLL at theta (M + 1,) with the best scales, and its gradient."""
        temperature = np.exp(theta[:-1])[:, None]
        nll, by_opinion, by_sharpness = self._fused(temperature, float(np.exp(theta[-1])), fit_scales=True)
        gradient = np.append(by_opinion.sum(axis=1), by_sharpness) + 2 * self.ridge * theta
        return nll + self.ridge * float(np.square(theta).sum()), gradient

    def discounts_value_and_gradient(self, discounts: Array) -> tuple[float, Array]:
        """The same at discounts (M,), temperatures, sharpness and scales being those of `fusion`."""
        assert self.fusion is not None
        self.log_scales = np.log(self.fusion.scale(self.patterns.T))
        temperature = self.fusion.column(self.fusion.temperatures, 1.0) * np.exp(
            discounts[:, None] * self.evidence.excess
        )
        nll, by_opinion, _ = self._fused(temperature, self.fusion.sharpness, fit_scales=False)
        gradient = (by_opinion * self.evidence.excess).sum(axis=1) + 2 * self.ridge * discounts
        return nll + self.ridge * float(np.square(discounts).sum()), gradient

    def scales(self, names: tuple[str, ...]) -> dict[str, float]:
        """Return the scales of the last candidate, by pattern or by number."""
        keys = [_key(pattern, names, self.shared) for pattern in self.patterns]
        by_key: dict[str, list[float]] = {}
        for key, value in zip(keys, self.log_scales, strict=True):
            by_key.setdefault(key, []).append(value)
        return {key: float(np.exp(np.mean(values))) for key, values in by_key.items()}

    def _fused(self, temperature: Array, sharpness: float, *, fit_scales: bool) -> tuple[float, Array, float]:
        """NLL; its derivative by each opinion's log-temperature (M, N); and by the log-sharpness.

        Args: temperature (M, N) or (M, 1).
        """
        tempered = self.evidence.logits / temperature[..., None]
        log_p = log_softmax(tempered)
        p = np.exp(log_p)
        entropies = -(p * log_p).sum(axis=2)  # (M, N)
        spread = (p * np.square(tempered)).sum(axis=2) - np.square((p * tempered).sum(axis=2))  # dH / dlog T
        weights = _weights(-sharpness * entropies, self.patterns)  # (K, M, N)
        mixed = np.einsum("kmn,mnc->knc", weights, tempered, optimize=True)
        mixed += np.einsum("kmc,mn->knc", self.lone, 1 / temperature, optimize=True)
        if fit_scales:
            self.log_scales = self._best_scales(mixed)
        log_q = log_softmax(np.exp(self.log_scales)[:, None, None] * mixed + self.prior)
        rows = np.arange(len(self.evidence.labels))
        nll = -float((self.share * log_q[:, rows, self.evidence.labels]).sum())
        if fit_scales:
            nll += self.ridge * float(np.square(self.log_scales).sum()) / max(len(self.patterns), 1)
        slope = np.exp(log_q)
        slope[:, rows, self.evidence.labels] -= 1
        slope *= self.share[..., None] * np.exp(self.log_scales)[:, None, None]
        along = np.einsum("knc,mnc->kmn", slope, tempered, optimize=True)
        along += np.einsum("knc,kmc->kmn", slope, self.lone, optimize=True) / temperature
        by_weight = weights * (along - (weights * along).sum(axis=1, keepdims=True))
        by_opinion = (-weights * along - sharpness * by_weight * spread).sum(axis=0)
        return nll, by_opinion, -sharpness * float((by_weight * entropies).sum())

    def _best_scales(self, mixed: Array) -> Array:
        """Find for every pattern the u that minimises NLL(exp(u) z + log prior) + ridge u^2: mixed (K, N, C) -> (K,).

        Newton's method in u, from the last candidate's; the curvature is kept positive, each step at most 1.
        """
        share = self.share * max(len(self.patterns), 1)
        own = mixed[:, np.arange(len(self.evidence.labels)), self.evidence.labels]
        u = self.log_scales
        for _ in range(NEWTON_STEPS):
            scale = np.exp(u)[:, None]
            scaled = scale[..., None] * mixed
            p = np.exp(log_softmax(scaled + self.prior))
            expected = np.einsum("knc,knc->kn", p, scaled)
            slope = (share * (expected - scale * own)).sum(axis=1)
            spread = (share * (np.einsum("knc,knc,knc->kn", p, scaled, scaled) - np.square(expected))).sum(axis=1)
            curvature = np.maximum(spread + np.maximum(slope, 0.0) + 2 * self.ridge, 1e-8)
            step = np.clip((slope + 2 * self.ridge * u) / curvature, -1.0, 1.0)
            u = np.clip(u - step, -BOUND, BOUND)
            if np.abs(step).max(initial=0.0) < 1e-7:  # no pattern at all where validation is too small
                break
        return u


def _weights(scores: Array, patterns: Array) -> Array:
    """Softmax over each pattern's modalities: (M, N), (K, M) -> (K, M, N), 0 where absent."""
    chosen = np.where(patterns[..., None], scores, -np.inf)
    weights = np.exp(chosen - chosen.max(axis=1, keepdims=True))
    normalised: Array = weights / weights.sum(axis=1, keepdims=True)
    return normalised


def listed_patterns(count: int) -> Array:
    """List all availability patterns (K, M), or a fixed random sample with every size in it."""
    if 2**count - 1 <= PATTERNS_UP_TO:
        return np.array([p for p in itertools.product([False, True], repeat=count) if any(p)])
    generator = np.random.default_rng(0)
    singles, full = np.eye(count, dtype=bool), np.ones((1, count), dtype=bool)
    sizes = 2 + np.arange(max(PATTERNS_UP_TO - count - 1, count)) % (count - 2)
    mixed = [np.isin(np.arange(count), generator.choice(count, size, replace=False)) for size in sizes]
    return np.concatenate([singles, np.array(mixed), full])


def _key(pattern: Array, names: tuple[str, ...], shared: bool) -> str:
    chosen = [name for name, there in zip(names, pattern, strict=True) if there]
    return str(len(chosen)) if shared else pattern_name(chosen)
