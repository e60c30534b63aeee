"""Every rule that fuses the logits of the modalities, in RULES. A new rule is a function here and its entry there,
and one in TEMPERED if it divides the logits by the fitted temperatures.

REST, the command line and the page offer whatever is in RULES. A bundle offers prediction sets for the rules that were in
RULES when it was trained.

A rule takes logits (M, B, C) with zeros where absent, present (M, B) bool, the fitted parameters, and the excess (M, B) of
novelty.py. Symbols: B batch, M modalities, C classes.

`calibrated` is the whole formula, and `undiscounted` the formula without discounts; both are in formula.py. Special cases
of the formula, apart from the prior in `product_prior`:

    undiscounted              d = 0
    paper                     T = tau = s = 1, d = 0, b = 0
    mean_logit                T = s = 1, tau = 0, d = 0, b = 0
    product, product_prior    T = 1, tau = 0, d = 0, s = the number of present modalities

mean_prob, static, energy and sum_logit are other formulas. `native` applies the rule that the bundle names.
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
    shift_prior,
    sum_in_order,
    undiscounted,
    weighted_sum,
)


def paper(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Weight by entropy with every parameter 1: MLA, section 3.3."""
    return weighted_sum(logits, entropy_weights(logits, present))


def mean_logit(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Average the logits."""
    return weighted_sum(logits, entropy_weights(logits, present, sharpness=0.0))


def mean_prob(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Average the probabilities: a mixture."""
    weights = entropy_weights(logits, present, sharpness=0.0)
    log_p = log_softmax(logits)
    peak = np.where(present[..., None], log_p, -np.inf).max(axis=0)
    mixture = np.einsum("mb,mbc->bc", weights, np.exp(np.where(present[..., None], log_p, peak) - peak))
    return Fused(log_softmax(np.log(np.maximum(mixture, 1e-300)) + peak), weights)


def product(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Multiply the probabilities and normalise: a product of experts."""
    return weighted_sum(logits, entropy_weights(logits, present, sharpness=0.0), present.sum(axis=0))


def product_prior(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:
    """Multiply the probabilities, but count the prior of the classes once instead of once per modality."""
    fused = product(logits, present, fusion, excess)
    prior = np.log(fusion.prior or np.ones(logits.shape[2]))
    corrected = fused.log_probabilities - (present.sum(axis=0) - 1)[:, None] * prior
    return Fused(log_softmax(corrected), fused.weights)


def sum_logit(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Sum the logits, and count once the bias that each of them contains.

    This is what a joint linear head on the concatenated features gives, with zeros for missing modalities.
    """
    counts = present.sum(axis=0)[:, None]
    repeated_bias = (counts - 1) * np.array(fusion.bias or np.zeros(logits.shape[2]))
    return Fused(log_softmax(logits.sum(axis=0) - repeated_bias), present / counts.T)  # `fuse` put zeros where absent


def native(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:
    """Apply the rule that the training strategy was made for."""
    return RULES[fusion.native](logits, present, fusion, excess)


def static(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Average the logits with fixed weights, fitted to the validation accuracy of each modality by itself."""
    shares = np.where(present, fusion.column(fusion.shares, 1.0), 0.0)
    return weighted_sum(logits, shares / sum_in_order(shares))


def energy(logits: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Weight by energy, 0.1 logsumexp(z): QMF, ICML 2023. The weights do not sum to 1.

    An energy can be negative, but a negative weight would reverse the opinion, so it is raised to 1e-6.
    """
    peak = logits.max(axis=-1, keepdims=True)
    log_sum = peak[..., 0] + np.log(np.exp(logits - peak).sum(axis=-1))
    return weighted_sum(logits, np.where(present, np.maximum(0.1 * log_sum, 1e-6), 0.0))


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
TEMPERED = ("calibrated", "undiscounted")  # rules that divide the logits by the fitted temperatures


def fuse(logits: Array, present: Array, fusion: Fusion, rule: str = DEFAULT_RULE, excess: Array | None = None) -> Fused:
    """Fuse the logits of each sample's present modalities by a named rule, in float64.

    Args: logits (M, B, C), ignored where absent; present (M, B) bool, one True per column at least; rule, a key of RULES;
    excess (M, B) >= 0, how unfamiliar each input is (see Reference.excess), 0 when left out.
    """
    excess = np.zeros(present.shape) if excess is None else np.where(present, excess, 0.0)
    fused = RULES[rule](np.where(present[..., None], logits, 0.0).astype(np.float64), present, fusion, excess)
    return Fused(shift_prior(fused.log_probabilities, fusion), fused.weights)
