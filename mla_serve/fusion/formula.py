"""The formula that fuses opinions, and its parameters.

    z'_m = z_m / T_m                    temperature per modality, higher on unfamiliar input
    w    = softmax_m(-tau H(z'_m))      over the present modalities, H in nats; tau = sharpness
    z    = s_S sum_m w_m z'_m           one scale per availability pattern S
    p    = softmax(z)

T = s = tau = 1 is the paper's rule (MLA, section 3.3). A missing modality is left out, never zero-filled, and no sample
sees its batch. Symbols: B batch, M modalities, C classes.

With `prior_once`, log prior is taken off every z_m of two or more present, and added to z once. An average of opinions
holds the whole prior, but of what each has seen beyond it only a part, and no scale raises the one without the other.
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
    """What was fitted on validation: the parameters of the formula, and what single rules need.

    Fields: temperatures, one per modality name, in the order of the logits; sharpness; scales, by the keys of
    `pattern_keys`, else 1. For `calibrated` too: discounts, how fast an opinion flattens as its input gets unfamiliar, by
    modality, else 0; prior_once, whether it counts the prior once. For `static`: shares by modality, else 1. Prior, each
    class's share of the training rows; empty means alike. For `native`: the rule that the training strategy was made for;
    for `sum_logit`: bias, what every opinion shares and their sum counts once, or empty.
    """

    temperatures: Mapping[str, float]
    sharpness: float = 1.0
    scales: Mapping[str, float] = dataclasses.field(default_factory=dict)
    discounts: Mapping[str, float] = dataclasses.field(default_factory=dict)
    shares: Mapping[str, float] = dataclasses.field(default_factory=dict)
    prior: Sequence[float] = ()
    prior_once: bool = False
    native: str = "paper"
    bias: Sequence[float] = ()

    @classmethod
    def paper(cls, names: Sequence[str]) -> Fusion:
        """Return the paper's point: every parameter 1."""
        return cls(dict.fromkeys(names, 1.0))

    def of(self, values: Mapping[str, float], default: float) -> Array:
        """Line a modality's values up with the logits: (M, 1)."""
        return np.array([values.get(name, default) for name in self.temperatures])[:, None]

    def apart(self) -> Array | float:
        """Return log prior (C,) where it is taken off opinions, else 0."""
        return np.log(self.prior) if self.prior_once and self.prior else 0.0

    def scale(self, present: Array) -> Array:
        """Look up each sample's scale: present (M, B) bool -> (B,)."""
        patterns = list(map(tuple, present.T.tolist()))
        known = {pattern: self._scale_of(pattern) for pattern in set(patterns)}
        return np.array([known[pattern] for pattern in patterns])

    def _scale_of(self, pattern: Sequence[bool]) -> float:
        names = [name for name, there in zip(self.temperatures, pattern, strict=True) if there]
        return next((self.scales[key] for key in pattern_keys(names) if key in self.scales), 1.0)


@dataclasses.dataclass(frozen=True)
class Fused:
    """The fused opinion: log_probabilities (B, C), and weights (M, B), 0 where absent; they sum to 1 but in `energy`."""

    log_probabilities: Array
    weights: Array


def pattern_name(names: Sequence[str]) -> str:
    """Name an availability pattern, in the bundle's order of modalities: "image+text"."""
    return "+".join(names)


def pattern_keys(names: Sequence[str]) -> list[str]:
    """List what a pattern's values may stand under, the closest first: "image+text", "text:2", "image:2", "2".

    "text:2" is for patterns of two that contain text, a modality that was added later: "2" then stays what it was for the
    modalities that were there before.
    """
    return [pattern_name(names), *(f"{name}:{len(names)}" for name in reversed(names)), str(len(names))]


def log_softmax(logits: Array) -> Array:
    """Normalise over the last axis in log-space; finite for any finite logits."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normalised: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised


def entropy(logits: Array) -> Array:
    """Entropy in nats of softmax over the last axis: (..., C) -> (...)."""
    return entropy_of(log_softmax(logits))


def entropy_of(log_probabilities: Array) -> Array:
    """Entropy in nats of what is normalised over the last axis already: (..., C) -> (...)."""
    nats: Array = -(np.exp(log_probabilities) * log_probabilities).sum(axis=-1)
    return nats


def entropy_weights(logits: Array, present: Array, sharpness: float = 1.0) -> Array:
    """Weigh each present modality by its certainty, sample by sample.

    Args: logits (M, B, C), finite; present (M, B) bool, one True per column at least; sharpness, tau of the formula.
    Returns: (M, B), sums to 1 over M, 0 where absent. Source: MLA (arXiv 2311.10707), section 3.3.
    """
    return _softmax_over_present(-sharpness * entropy(logits), present)


def _softmax_over_present(scores: Array, present: Array) -> Array:
    scores = np.where(present, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=0))
    normalised: Array = weights / total(weights)
    return normalised


def total(values: Array) -> Array:
    """Add up over the first axis, one after the other: zeros at the end, of modalities added later, change no bit."""
    added: Array = np.cumsum(values, axis=0)[-1]
    return added


def weighted(logits: Array, weights: Array, scale: Array | float = 1.0, prior: Array | float = 0.0) -> Fused:
    """Add up the weighted logits, scale the sum, add the prior: (M, B, C), (M, B), (B,), (B, C) -> Fused."""
    mixed = np.einsum("mb,mbc->bc", weights, logits)
    return Fused(log_softmax(np.atleast_1d(scale)[:, None] * mixed + prior), weights)


def calibrated(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:
    """Apply the whole formula with the fitted parameters; an opinion on unfamiliar input is flattened first.

    Its temperature is T_m exp(discount_m strain): an encoder that has never seen the like is over-confident, and entropy
    weighting would follow it (one modality spoiled by noise, the others clean: right .12 of the time without, 1.00 with).
    """
    temperature = fusion.of(fusion.temperatures, 1.0) * np.exp(fusion.of(fusion.discounts, 0.0) * excess)
    prior = np.where(present.sum(axis=0)[:, None] > 1, fusion.apart(), 0.0)
    tempered = (logits - prior) / temperature[..., None]
    weights = entropy_weights(tempered, present, fusion.sharpness)
    return weighted(tempered, weights, fusion.scale(present), prior)


def undiscounted(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:
    """Apply the whole formula, and take unfamiliar input at its word; the prior counts as fitted."""
    return calibrated(logits, present, dataclasses.replace(fusion, discounts={}), excess)
