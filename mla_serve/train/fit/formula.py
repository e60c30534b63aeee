"""Fit the parameters of the fusion formula on validation rows.

The formula (mla_serve/fusion/formula.py) for a pattern S of present modalities, with logits z_m and log prior l:

    z'_m = (z_m - l) / T_m        w_m = softmax over m in S of (-tau H(z'_m))        z = s_S sum of w_m z'_m + l

Where the prior is not counted once, l = 0. Each z_m is log prior plus evidence. Averaging keeps the prior whole but shrinks
the evidence, and a scale s_S that undoes this would scale the prior too. So the prior is subtracted before and added once
after the sum. A modality alone keeps it inside: l is tempered and scaled with the rest, which leaves its ranking as it is.

Fitted are the temperatures T_m, the sharpness tau and one scale s_S for each pattern, by minimising

    mean over patterns S of [ mean NLL of the rows that have S + ridge (log s_S)^2 ] + ridge (sum (log T_m)^2 + (log tau)^2)

The ridge pulls all parameters to 1, the paper's rule. Each pattern weighs the same, and each row the same within a pattern.
Temperatures and sharpness are searched by L-BFGS with the gradient below. For each candidate, the best scale of every
pattern is a problem in one variable, solved for all patterns at once by Newton's method; by the envelope theorem the
gradient may treat these scales as constants.

The discounts d_m, in T_m exp(d_m excess), are fitted afterwards with everything else held.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from mla_serve.fusion.formula import Array, Fusion, pattern_name
from mla_serve.tasks.base import log_softmax
from mla_serve.train.data.row_counts import MIN_ROWS_TO_FIT
from mla_serve.train.fit.evidence import Evidence

RIDGE = 1e-3  # on the squared log-parameters
PATTERNS_UP_TO = 64  # of more, a sample is used, and patterns of the same size share a scale
BOUND = 4.0  # |log parameter|
MOST_DISCOUNT = 3.0
NEWTON_STEPS = 12


def fit(
    evidence: Evidence,
    names: tuple[str, ...],
    ridge: float = RIDGE,
    start: Fusion | None = None,
    prior: Sequence[float] = (),
) -> Fusion:
    """Fit temperatures, sharpness and scales.

    Args: start, where the search begins; prior, the frequency of each class if it is to be counted once.
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
    """Fit how fast the probabilities of each modality flatten as its input becomes unfamiliar, with all else held."""
    objective = Objective(evidence, ridge, fusion)
    bounds = [(0.0, MOST_DISCOUNT)] * len(names)
    found = minimize(
        objective.discounts_value_and_gradient, np.full(len(names), 0.1), jac=True, method="L-BFGS-B", bounds=bounds
    )
    return dataclasses.replace(fusion, discounts=dict(zip(names, found.x.tolist(), strict=True)))


class Objective:
    """The objective and its gradient, by log-temperatures and log-sharpness, or by the discounts.

    K patterns have enough rows. row_weights (K, N) sums to 1. log_scales (K,) belongs to the last candidate.
    """

    def __init__(
        self, evidence: Evidence, ridge: float, fusion: Fusion | None = None, listed: Array | None = None
    ) -> None:
        """Take the rows.

        Args: fusion, for its prior, and what is held while the discounts are searched; listed (K, M), the patterns.
        """
        held = fusion.subtracted_prior() if fusion else None
        prior = np.zeros(evidence.opinions.shape[2]) if held is None else held[0]
        apart = np.where(evidence.present[..., None], evidence.opinions - prior, 0.0)
        self.evidence, self.ridge, self.fusion = dataclasses.replace(evidence, opinions=apart), ridge, fusion
        listed = list_patterns(len(evidence.opinions)) if listed is None else listed
        usable = np.array([evidence.present[pattern].all(axis=0) for pattern in listed])
        enough = usable.sum(axis=1) >= MIN_ROWS_TO_FIT
        self.patterns, usable = listed[enough], usable[enough]
        self.scales_by_size = 2 ** len(evidence.opinions) - 1 > PATTERNS_UP_TO
        self.row_weights = usable / usable.sum(axis=1, keepdims=True) / max(len(self.patterns), 1)
        self.log_scales = np.zeros(len(self.patterns))
        one = self.patterns.sum(axis=1, keepdims=True) == 1
        self.prior = np.where(one, 0.0, prior)[:, None]  # (K, 1, C), added to each pattern's sum
        self.lone = (self.patterns & one)[..., None] * prior  # (K, M, C), the prior that a modality alone keeps inside

    def value_and_gradient(self, theta: Array) -> tuple[float, Array]:
        """Return the penalised NLL at theta (M + 1,) with the best scales, and its gradient."""
        temperature = np.exp(theta[:-1])[:, None]
        nll, by_opinion, by_sharpness = self._fused(temperature, float(np.exp(theta[-1])), fit_scales=True)
        gradient = np.append(by_opinion.sum(axis=1), by_sharpness) + 2 * self.ridge * theta
        return nll + self.ridge * float(np.square(theta).sum()), gradient

    def discounts_value_and_gradient(self, discounts: Array) -> tuple[float, Array]:
        """Return the same at discounts (M,), with temperatures, sharpness and scales of `fusion`."""
        assert self.fusion is not None
        self.log_scales = np.log(self.fusion.scale(self.patterns.T))
        temperature = self.fusion.column(self.fusion.temperatures, 1.0) * np.exp(
            discounts[:, None] * self.evidence.excess
        )
        nll, by_opinion, _ = self._fused(temperature, self.fusion.sharpness, fit_scales=False)
        gradient = (by_opinion * self.evidence.excess).sum(axis=1) + 2 * self.ridge * discounts
        return nll + self.ridge * float(np.square(discounts).sum()), gradient

    def scales(self, names: tuple[str, ...]) -> dict[str, float]:
        """Return the scales of the last candidate, by pattern, or by size where patterns share them."""
        keys = [_key(pattern, names, self.scales_by_size) for pattern in self.patterns]
        by_key: dict[str, list[float]] = {}
        for key, value in zip(keys, self.log_scales, strict=True):
            by_key.setdefault(key, []).append(value)
        return {key: float(np.exp(np.mean(values))) for key, values in by_key.items()}

    def _fused(self, temperature: Array, sharpness: float, *, fit_scales: bool) -> tuple[float, Array, float]:
        """Return the NLL, its derivative by each log-temperature (M, N), and by the log-sharpness.

        Args: temperature (M, N) or (M, 1).
        """
        tempered = self.evidence.opinions / temperature[..., None]
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
        rows = np.arange(len(self.evidence.targets))
        nll = -float((self.row_weights * log_q[:, rows, self.evidence.targets]).sum())
        if fit_scales:
            nll += self.ridge * float(np.square(self.log_scales).sum()) / max(len(self.patterns), 1)
        slope = np.exp(log_q)
        slope[:, rows, self.evidence.targets] -= 1
        slope *= self.row_weights[..., None] * np.exp(self.log_scales)[:, None, None]
        along = np.einsum("knc,mnc->kmn", slope, tempered, optimize=True)
        along += np.einsum("knc,kmc->kmn", slope, self.lone, optimize=True) / temperature
        by_weight = weights * (along - (weights * along).sum(axis=1, keepdims=True))
        by_opinion = (-weights * along - sharpness * by_weight * spread).sum(axis=0)
        return nll, by_opinion, -sharpness * float((by_weight * entropies).sum())

    def _best_scales(self, mixed: Array) -> Array:
        """Find for every pattern the u that minimises NLL(exp(u) z + log prior) + ridge u^2: mixed (K, N, C) -> (K,).

        Newton's method in u, started at the last candidate's u. The curvature is kept positive and each step is at most 1.
        """
        row_weights = self.row_weights * max(len(self.patterns), 1)
        own = mixed[:, np.arange(len(self.evidence.targets)), self.evidence.targets]
        u = self.log_scales
        for _ in range(NEWTON_STEPS):
            scale = np.exp(u)[:, None]
            scaled = scale[..., None] * mixed
            p = np.exp(log_softmax(scaled + self.prior))
            expected = np.einsum("knc,knc->kn", p, scaled)
            slope = (row_weights * (expected - scale * own)).sum(axis=1)
            spread = (row_weights * (np.einsum("knc,knc,knc->kn", p, scaled, scaled) - np.square(expected))).sum(axis=1)
            curvature = np.maximum(spread + np.maximum(slope, 0.0) + 2 * self.ridge, 1e-8)
            step = np.clip((slope + 2 * self.ridge * u) / curvature, -1.0, 1.0)
            u = np.clip(u - step, -BOUND, BOUND)
            if np.abs(step).max(initial=0.0) < 1e-7:  # initial, because K may be 0
                break
        return u


def _weights(scores: Array, patterns: Array) -> Array:
    """Take the softmax over each pattern's modalities: (M, N), (K, M) -> (K, M, N), 0 where absent."""
    chosen = np.where(patterns[..., None], scores, -np.inf)
    weights = np.exp(chosen - chosen.max(axis=1, keepdims=True))
    normalised: Array = weights / weights.sum(axis=1, keepdims=True)
    return normalised


def list_patterns(count: int) -> Array:
    """List all availability patterns (K, M), or a fixed random sample that has every size."""
    if 2**count - 1 <= PATTERNS_UP_TO:
        return np.array([p for p in itertools.product([False, True], repeat=count) if any(p)])
    generator = np.random.default_rng(0)
    singles, full = np.eye(count, dtype=bool), np.ones((1, count), dtype=bool)
    sizes = 2 + np.arange(max(PATTERNS_UP_TO - count - 1, count)) % (count - 2)
    mixed = [np.isin(np.arange(count), generator.choice(count, size, replace=False)) for size in sizes]
    return np.concatenate([singles, np.array(mixed), full])


def _key(pattern: Array, names: tuple[str, ...], by_size: bool) -> str:
    chosen = [name for name, there in zip(names, pattern, strict=True) if there]
    return str(len(chosen)) if by_size else pattern_name(chosen)
