"""One formula for fusing opinions, and the rules that are points of it. Numpy only.

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
from collections.abc import Callable, Mapping, Sequence
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
    normalised: Array = weights / _total(weights)
    return normalised


def _total(values: Array) -> Array:
    """Add up over the first axis, one after the other: zeros at the end, of modalities added later, change no bit."""
    added: Array = np.cumsum(values, axis=0)[-1]
    return added


def _weighted(logits: Array, weights: Array, scale: Array | float = 1.0, prior: Array | float = 0.0) -> Fused:
    mixed = np.einsum("mb,mbc->bc", weights, logits)
    return Fused(log_softmax(np.atleast_1d(scale)[:, None] * mixed + prior), weights)


def calibrated(logits: Array, present: Array, fusion: Fusion, strain: Array) -> Fused:
    """Apply the whole formula with the fitted parameters; an opinion on unfamiliar input is flattened first.

    Its temperature is T_m exp(discount_m strain): an encoder that has never seen the like is over-confident, and entropy
    weighting would follow it (one modality spoiled by noise, the others clean: right .12 of the time without, 1.00 with).
    """
    temperature = fusion.of(fusion.temperatures, 1.0) * np.exp(fusion.of(fusion.discounts, 0.0) * strain)
    prior = np.where(present.sum(axis=0)[:, None] > 1, fusion.apart(), 0.0)
    tempered = (logits - prior) / temperature[..., None]
    weights = entropy_weights(tempered, present, fusion.sharpness)
    return _weighted(tempered, weights, fusion.scale(present), prior)


def undiscounted(logits: Array, present: Array, fusion: Fusion, strain: Array) -> Fused:
    """Apply the whole formula, and take unfamiliar input at its word; the prior counts as fitted."""
    return calibrated(logits, present, dataclasses.replace(fusion, discounts={}), strain)


def paper(logits: Array, present: Array, fusion: Fusion, strain: Array) -> Fused:  # noqa: ARG001
    """Weigh by entropy with every parameter 1: MLA, section 3.3."""
    return _weighted(logits, entropy_weights(logits, present))


def mean_logit(logits: Array, present: Array, fusion: Fusion, strain: Array) -> Fused:  # noqa: ARG001
    """Average the logits: the formula with sharpness 0."""
    return _weighted(logits, entropy_weights(logits, present, sharpness=0.0))


def mean_prob(logits: Array, present: Array, fusion: Fusion, strain: Array) -> Fused:  # noqa: ARG001
    """Average the probabilities: a mixture, no member of the formula."""
    weights = entropy_weights(logits, present, sharpness=0.0)
    log_p = log_softmax(logits)
    peak = np.where(present[..., None], log_p, -np.inf).max(axis=0)
    mixture = np.einsum("mb,mbc->bc", weights, np.exp(np.where(present[..., None], log_p, peak) - peak))
    return Fused(log_softmax(np.log(np.maximum(mixture, 1e-300)) + peak), weights)


def product(logits: Array, present: Array, fusion: Fusion, strain: Array) -> Fused:  # noqa: ARG001
    """Multiply the opinions (product of experts): sharpness 0 and the number present as the scale."""
    return _weighted(logits, entropy_weights(logits, present, sharpness=0.0), present.sum(axis=0))


def product_prior(logits: Array, present: Array, fusion: Fusion, strain: Array) -> Fused:
    """Multiply the opinions, and count the classes' prior once, not once for each expert."""
    fused = product(logits, present, fusion, strain)
    prior = np.log(fusion.prior or np.ones(logits.shape[2]))
    corrected = fused.log_probabilities - (present.sum(axis=0) - 1)[:, None] * prior
    return Fused(log_softmax(corrected), fused.weights)


def sum_logit(logits: Array, present: Array, fusion: Fusion, strain: Array) -> Fused:  # noqa: ARG001
    """Add the logits up; a bias that every opinion carries counts once: a joint head, with zeros for what is missing."""
    heard = present.sum(axis=0)[:, None]
    shared = (heard - 1) * np.array(fusion.bias or np.zeros(logits.shape[2]))
    return Fused(log_softmax(logits.sum(axis=0) - shared), present / heard.T)  # `fuse` has put zeros where absent


def native(logits: Array, present: Array, fusion: Fusion, strain: Array) -> Fused:
    """Apply the rule that the training strategy was made for."""
    return RULES[fusion.native](logits, present, fusion, strain)


def static(logits: Array, present: Array, fusion: Fusion, strain: Array) -> Fused:  # noqa: ARG001
    """Average the logits by a fixed share for each modality, from its accuracy alone on validation."""
    shares = np.where(present, fusion.of(fusion.shares, 1.0), 0.0)
    return _weighted(logits, shares / _total(shares))


def energy(logits: Array, present: Array, fusion: Fusion, strain: Array) -> Fused:  # noqa: ARG001
    """Weigh by energy, 0.1 logsumexp(z), which does not sum to 1: QMF, ICML 2023; kept above 0, where it means nothing."""
    peak = logits.max(axis=-1, keepdims=True)
    log_sum = peak[..., 0] + np.log(np.exp(logits - peak).sum(axis=-1))
    return _weighted(logits, np.where(present, np.maximum(0.1 * log_sum, 1e-6), 0.0))


Rule = Callable[[Array, Array, Fusion, Array], Fused]
RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        calibrated,
        undiscounted,
        paper,
        mean_logit,
        mean_prob,
        product,
        product_prior,
        static,
        energy,
        sum_logit,
        native,
    )
}
DEFAULT_RULE = "calibrated"
TEMPERED = ("calibrated", "undiscounted")  # rules that judge each opinion at its fitted temperature


def fuse(logits: Array, present: Array, fusion: Fusion, rule: str = DEFAULT_RULE, strain: Array | None = None) -> Fused:
    """Fuse the present opinions of each sample by a named rule.

    Args: logits (M, B, C), whatever stands where absent is ignored; present (M, B) bool, one True per column at least;
    rule, a key of RULES; strain (M, B) >= 0, how unfamiliar each input is, 0 when left out. Computed in float64.
    """
    strain = np.zeros(present.shape) if strain is None else np.where(present, strain, 0.0)
    return RULES[rule](np.where(present[..., None], logits, 0.0).astype(np.float64), present, fusion, strain)


def explain(
    logits: Array, present: Array, fusion: Fusion, rule: str = DEFAULT_RULE, strain: Array | None = None
) -> tuple[Fused, Array]:
    """Fuse, and say how much each answer owes to each modality: what `fuse` returns, and the influence (M, B) in nats.

    It is the answered label's log-probability, less what it is without the modality; 0 where absent. Alone, a modality is
    compared with the uniform distribution. Args: as for `fuse`. One call fuses every sample whole and without each.
    """
    count = present.shape[1]
    m, b = np.nonzero(present & (present.sum(axis=0) > 1))  # each m is left out of sample b, all in one go
    heard = present
    if len(b):
        columns = np.concatenate([np.arange(count), b])
        logits, heard = logits[:, columns], present[:, columns]
        heard[m, np.arange(count, len(columns))] = False
        strain = None if strain is None else strain[:, columns]
    both = fuse(logits, heard, fusion, rule, strain)
    fused = Fused(both.log_probabilities[:count], both.weights[:, :count])
    answered = fused.log_probabilities.argmax(axis=1)
    own = fused.log_probabilities[np.arange(count), answered]
    changes = np.where(present, own + np.log(logits.shape[2]), 0.0)
    if len(b):
        changes[m, b] = own[b] - both.log_probabilities[count:][np.arange(len(b)), answered[b]]
    return fused, changes
