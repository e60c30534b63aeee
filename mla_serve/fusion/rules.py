"""Every rule for fusing opinions. A new rule is a function and its place in RULES.

A rule takes logits (M, B, C) with zeros where absent, present (M, B) bool, the fitted parameters and the excess (M, B), and
returns the fused opinion. Symbols: B batch, M modalities, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mla_serve.fusion.formula import (
    Array,
    Fused,
    Fusion,
    calibrated,
    entropy_weights,
    log_softmax,
    total,
    undiscounted,
    weighted,
)


def paper(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Weigh by entropy with every parameter 1: MLA, section 3.3."""
    return weighted(logits, entropy_weights(logits, present))


def mean_logit(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Average the logits: the formula with sharpness 0."""
    return weighted(logits, entropy_weights(logits, present, sharpness=0.0))


def mean_prob(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Average the probabilities: a mixture, no member of the formula."""
    weights = entropy_weights(logits, present, sharpness=0.0)
    log_p = log_softmax(logits)
    peak = np.where(present[..., None], log_p, -np.inf).max(axis=0)
    mixture = np.einsum("mb,mbc->bc", weights, np.exp(np.where(present[..., None], log_p, peak) - peak))
    return Fused(log_softmax(np.log(np.maximum(mixture, 1e-300)) + peak), weights)


def product(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Multiply the opinions (product of experts): sharpness 0 and the number present as the scale."""
    return weighted(logits, entropy_weights(logits, present, sharpness=0.0), present.sum(axis=0))


def product_prior(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:
    """Multiply the opinions, and count the classes' prior once, not once for each expert."""
    fused = product(logits, present, fusion, excess)
    prior = np.log(fusion.prior or np.ones(logits.shape[2]))
    corrected = fused.log_probabilities - (present.sum(axis=0) - 1)[:, None] * prior
    return Fused(log_softmax(corrected), fused.weights)


def sum_logit(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Add the logits up; a bias that every opinion carries counts once: a joint head, with zeros for what is missing."""
    outputs = present.sum(axis=0)[:, None]
    shared = (outputs - 1) * np.array(fusion.bias or np.zeros(logits.shape[2]))
    return Fused(log_softmax(logits.sum(axis=0) - shared), present / outputs.T)  # `fuse` has put zeros where absent


def native(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:
    """Apply the rule that the training strategy was made for."""
    return RULES[fusion.native](logits, present, fusion, excess)


def static(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Average the logits by a fixed share for each modality, from its accuracy alone on validation."""
    shares = np.where(present, fusion.of(fusion.shares, 1.0), 0.0)
    return weighted(logits, shares / total(shares))


def energy(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Weigh by energy, 0.1 logsumexp(z), which does not sum to 1: QMF, ICML 2023; kept above 0, where it means nothing."""
    peak = logits.max(axis=-1, keepdims=True)
    log_sum = peak[..., 0] + np.log(np.exp(logits - peak).sum(axis=-1))
    return weighted(logits, np.where(present, np.maximum(0.1 * log_sum, 1e-6), 0.0))


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


def fuse(logits: Array, present: Array, fusion: Fusion, rule: str = DEFAULT_RULE, excess: Array | None = None) -> Fused:
    """Fuse the present opinions of each sample by a named rule.

    Args: logits (M, B, C), whatever stands where absent is ignored; present (M, B) bool, one True per column at least;
    rule, a key of RULES; strain (M, B) >= 0, how unfamiliar each input is, 0 when left out. Computed in float64.
    """
    excess = np.zeros(present.shape) if excess is None else np.where(present, excess, 0.0)
    return RULES[rule](np.where(present[..., None], logits, 0.0).astype(np.float64), present, fusion, excess)
