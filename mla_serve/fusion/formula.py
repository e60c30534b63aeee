"""The formula that fuses the logits z_m of the modalities, and its parameters.

    b    = log prior, or 0              the log prior with `prior_once` and two or more modalities present, else 0
    t_m  = T_m exp(d_m e_m)             temperature; d_m = discount, e_m = excess, 0 for familiar input (novelty.py)
    z'_m = (z_m - b) / t_m
    w    = softmax_m(-tau H(z'_m))      over the present modalities, H in nats; tau = sharpness
    z    = s_S sum_m w_m z'_m + b       one scale s per availability pattern S, the set of present modalities
    p    = softmax(r (z + a))           a = prior_shift and r = shift_scale, 0 and 1 unless answers assume other class
                                        frequencies than training had

T = s = tau = 1, d = 0 and b = 0 is the rule of the paper (MLA, arXiv 2311.10707, section 3.3). A missing modality is left
out of the sums. It is not replaced by zeros. No sample influences another of its batch.
Symbols: B batch, M modalities, C classes. The logits of one modality are also called its opinion.

Why the prior is subtracted: the logits of a modality are log prior plus evidence. Averaging over modalities keeps the
prior whole, but shrinks the evidence. Scaling the average up again would scale the prior too. So the prior is subtracted
from each opinion and added once at the end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Fusion:
    """The parameters that were fitted on validation rows.

    temperatures: T by modality name, in the order of the logits.
    sharpness: tau.
    scales: s by the keys of `pattern_keys`; 1 for patterns without one.
    discounts: d by modality name, how fast an opinion flattens as its input gets unfamiliar; 0 for those without one.
    prior: share of the training rows by class; empty means equal shares.
    prior_once: whether the formula subtracts the log prior from the opinions and adds it once.
    prior_shift: log of the prior (C,) that answers assume minus log of that of training, see `shift_prior`; empty means 0.
    shift_scale: factor on the shifted log-probabilities; it changes how sure answers are, and not which they are.
    shares: weights of the rule `static` by modality name; 1 for those without one.
    native: the rule that the rule `native` applies, the one that the training strategy was made for.
    bias: for the rule `sum_logit`, the bias (C,) that every opinion contains and the sum counts once; empty means none.
    """

    temperatures: Mapping[str, float]
    sharpness: float = 1.0
    scales: Mapping[str, float] = dataclasses.field(default_factory=dict)
    discounts: Mapping[str, float] = dataclasses.field(default_factory=dict)
    shares: Mapping[str, float] = dataclasses.field(default_factory=dict)
    prior: Sequence[float] = ()
    prior_once: bool = False
    prior_shift: Sequence[float] = ()
    shift_scale: float = 1.0
    native: str = "paper"
    bias: Sequence[float] = ()

    @classmethod
    def paper(cls, names: Sequence[str]) -> Fusion:
        """Return the paper's rule: every parameter 1."""
        return cls(dict.fromkeys(names, 1.0))

    def column(self, values: Mapping[str, float], default: float) -> Array:
        """Arrange values by modality name in the order of the logits: (M, 1)."""
        return np.array([values.get(name, default) for name in self.temperatures])[:, None]

    def subtracted_log_prior(self) -> Array | float:
        """Return the log prior (C,) that is subtracted from opinions, or 0 when none is."""
        return np.log(self.prior) if self.prior_once and self.prior else 0.0

    def scale(self, present: Array) -> Array:
        """Look up the scale of each sample: present (M, B) bool -> (B,)."""
        patterns = list(map(tuple, present.T.tolist()))
        known = {pattern: self._scale_of(pattern) for pattern in set(patterns)}
        return np.array([known[pattern] for pattern in patterns])

    def _scale_of(self, pattern: Sequence[bool]) -> float:
        names = [name for name, there in zip(self.temperatures, pattern, strict=True) if there]
        return next((self.scales[key] for key in pattern_keys(names) if key in self.scales), 1.0)


@dataclasses.dataclass(frozen=True)
class Fused:
    """What a rule returns: log_probabilities (B, C), and weights (M, B), 0 where absent.

    The weights of a sample sum to 1, except under the rule `energy`.
    """

    log_probabilities: Array
    weights: Array


def pattern_name(names: Sequence[str]) -> str:
    """Name an availability pattern, in the bundle's order of modalities: "image+text"."""
    return "+".join(names)


def pattern_keys(names: Sequence[str]) -> list[str]:
    """List the keys to look for the values of a pattern under, closest first: "image+text", "text:2", "image:2", "2".

    "2" holds for every pattern of two modalities. "text:2" holds for those that contain text. It is written when text is
    added to a finished bundle, so that "2" does not change for the older modalities.
    """
    return [pattern_name(names), *(f"{name}:{len(names)}" for name in reversed(names)), str(len(names))]


def log_softmax(logits: Array) -> Array:
    """Normalise over the last axis in log space: finite for any finite logits."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normalised: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised


def entropy(logits: Array) -> Array:
    """Compute the entropy in nats of the softmax over the last axis: (..., C) -> (...)."""
    return entropy_of(log_softmax(logits))


def entropy_of(log_probabilities: Array) -> Array:
    """Compute the entropy in nats from normalised log-probabilities: (..., C) -> (...)."""
    nats: Array = -(np.exp(log_probabilities) * log_probabilities).sum(axis=-1)
    return nats


def entropy_weights(logits: Array, present: Array, sharpness: float = 1.0) -> Array:
    """Weight each present modality by its certainty, sample by sample.

    Args: logits (M, B, C), finite; present (M, B) bool, one True per column at least; sharpness, tau of the formula.
    Returns: (M, B), sums to 1 over M, 0 where absent. Source: MLA (arXiv 2311.10707), section 3.3.
    """
    return _softmax_over_present(-sharpness * entropy(logits), present)


def _softmax_over_present(scores: Array, present: Array) -> Array:
    scores = np.where(present, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=0))
    normalised: Array = weights / sum_in_order(weights)
    return normalised


def sum_in_order(values: Array) -> Array:
    """Sum over the first axis, one entry after the other.

    numpy.sum may group the entries differently when there are more of them. Here zeros at the end change no bit, so that
    a modality that is added to a bundle later changes no answer to samples without it.
    """
    added: Array = np.cumsum(values, axis=0)[-1]
    return added


def weighted_sum(logits: Array, weights: Array, scale: Array | float = 1.0, log_prior: Array | float = 0.0) -> Fused:
    """Sum the weighted logits, scale the sum, add the log prior: (M, B, C), (M, B), (B,), (B, C) -> Fused."""
    summed = np.einsum("mb,mbc->bc", weights, logits)
    return Fused(log_softmax(np.atleast_1d(scale)[:, None] * summed + log_prior), weights)


def calibrated(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:
    """Apply the whole formula with the fitted parameters.

    The discount flattens an opinion on unfamiliar input. Without it, an encoder is over-confident on input unlike its
    training data, and entropy weighting follows it. Measured with one modality replaced by noise and the others clean:
    accuracy 0.12 without the discount, 1.00 with it.
    """
    temperature = fusion.column(fusion.temperatures, 1.0) * np.exp(fusion.column(fusion.discounts, 0.0) * excess)
    log_prior = np.where(present.sum(axis=0)[:, None] > 1, fusion.subtracted_log_prior(), 0.0)
    tempered = (logits - log_prior) / temperature[..., None]
    weights = entropy_weights(tempered, present, fusion.sharpness)
    return weighted_sum(tempered, weights, fusion.scale(present), log_prior)


def shift_prior(log_probabilities: Array, fusion: Fusion) -> Array:
    """Replace the prior of training by the one that answers assume: (..., C) -> (..., C), normalised.

        log p'(c | x) = scale (log p(c | x) + log prior'(c) - log prior(c)) + constant

    With scale = 1 this is exact where the two differ in how frequent the classes are, and not in what the samples of a class look like
    (Saerens, Latinne, Decaestecker, Neural Computation 2002). It is applied once, to the fused answer, so the prior counts
    once however many modalities are there.
    """
    if not fusion.prior_shift:
        return log_probabilities
    return log_softmax(fusion.shift_scale * (log_probabilities + np.array(fusion.prior_shift)))


def undiscounted(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:
    """Apply the whole formula without discounts: unfamiliar input counts like any other."""
    return calibrated(logits, present, dataclasses.replace(fusion, discounts={}), excess)
