"""Every rule that fuses the opinions of the modalities, in RULES. A new rule is a function here, its entry there, one in MEANINGS, one in
TEMPERED if it divides opinions by the fitted temperatures, and one in FOR_CLASSES if it takes no other task.

REST, the command line and the page offer whatever is in RULES. A bundle offers prediction sets for the rules that were in
RULES when it was trained.

A rule takes opinions (M, B, O), the outputs of the heads with zeros where absent, present (M, B) bool, the fitted parameters, and the
excess (M, B) of novelty.py. Symbols: B batch, M modalities, O outputs of a head.

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
    equal_weights,
    shift_prior,
    sum_in_order,
    undiscounted,
    weighted_sum,
)
from mla_serve.tasks import Classes


def paper(opinions: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Weight by entropy with every parameter 1: MLA, section 3.3."""
    eta = fusion.task.natural(opinions)
    return weighted_sum(eta, entropy_weights(fusion.task.entropy(eta), present), fusion.task)


def mean_logit(opinions: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Average the natural parameters: for classes and labels, the logits."""
    task = fusion.task
    return weighted_sum(task.natural(opinions), equal_weights(present, 1), task)


def mean_prob(opinions: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Average the distributions: a mixture."""
    task, weights = fusion.task, equal_weights(present, 1)[..., 0]
    return Fused(task.mix(task.answers(task.natural(opinions)), weights), weights)


def product(opinions: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Multiply the distributions and normalise: a product of experts."""
    task = fusion.task
    return weighted_sum(task.natural(opinions), equal_weights(present, 1), task, present.sum(axis=0))


def product_prior(opinions: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:
    """Multiply the distributions, but count the prior once instead of once per modality."""
    if not len(fusion.prior):
        return product(opinions, present, fusion, excess)
    task, prior = fusion.task, fusion.task.prior_parameters(fusion.prior)
    evidence = task.without_prior(task.natural(opinions), prior)
    alone = (present.sum(axis=0) == 1)[:, None, None]
    evidence = np.where(alone, task.natural(opinions) - prior, evidence)  # an opinion by itself is answered as it is
    return weighted_sum(evidence, equal_weights(present, 1), task, present.sum(axis=0), prior)


def sum_logit(opinions: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Sum the outputs of the heads, and count once the bias that each of them contains.

    This is what a joint linear head on the concatenated features gives, with zeros for missing modalities. The outputs of
    heads that each answer by themselves may be added only where they are natural parameters, see Task.outputs_add.
    """
    counts = present.sum(axis=0)[:, None]
    repeated_bias = (counts - 1) * np.array(fusion.bias or np.zeros(opinions.shape[2]))
    joint = opinions.sum(axis=0) - repeated_bias  # `fuse` put zeros where absent
    return Fused(fusion.task.answers(fusion.task.natural(joint)), present / counts.T)


def native(opinions: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:
    """Apply the rule that the training strategy was made for."""
    return RULES[fusion.native](opinions, present, fusion, excess)


def static(opinions: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Average the natural parameters with fixed weights, fitted to how good each modality is by itself on validation."""
    shares = np.where(present, fusion.column(fusion.shares, 1.0), 0.0)
    return weighted_sum(fusion.task.natural(opinions), (shares / sum_in_order(shares))[..., None], fusion.task)


def energy(opinions: Array, present: Array, fusion: Fusion, excess: Array) -> Fused:  # noqa: ARG001
    """Weight by energy, 0.1 logsumexp(z): QMF, ICML 2023. The weights do not sum to 1. For classes only.

    An energy can be negative, but a negative weight would reverse the opinion, so it is raised to 1e-6.
    """
    peak = opinions.max(axis=-1, keepdims=True)
    log_sum = peak[..., 0] + np.log(np.exp(opinions - peak).sum(axis=-1))
    weights = np.where(present, np.maximum(0.1 * log_sum, 1e-6), 0.0)[..., None]
    return weighted_sum(fusion.task.natural(opinions), weights, fusion.task)


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
MEANINGS: dict[str, str] = {
    "calibrated": "Weights each input by how sure it is, as corrected on validation rows; an unfamiliar input counts less.",
    "undiscounted": "As calibrated, but an unfamiliar input counts as much as a familiar one.",
    "paper": "Weights each input by how sure it is, with nothing fitted: the rule of the MLA paper.",
    "mean_logit": "Every input counts the same; averages their scores before these become probabilities.",
    "mean_prob": "Every input counts the same; averages their probabilities, so that no input can rule anything out.",
    "product": "Multiplies the probabilities of all inputs, as if each were independent evidence; two that agree make it surer.",
    "product_prior": "As product, but how frequent each answer is counts once instead of once for each input.",
    "static": "Gives each input a fixed weight: how good it was by itself on validation rows.",
    "energy": "Weights each input by the size of its scores (QMF, ICML 2023); the weights do not add up to 1.",
    "sum_logit": "Adds the scores of all inputs, as a model with one joint head does.",
    "native": "The rule that the training strategy of this model was made for.",
}
"""What each rule does, in a sentence for those who choose one."""
DEFAULT_RULE = "calibrated"
TEMPERED = ("calibrated", "undiscounted")  # rules that divide opinions by the fitted temperatures
FOR_CLASSES = ("energy",)


def rules_for(fusion: Fusion) -> tuple[str, ...]:
    """List the rules that can fuse the opinions of a model, by its task and the strategy that it was trained with."""
    left_out: tuple[str, ...] = () if isinstance(fusion.task, Classes) else FOR_CLASSES
    if not fusion.task.outputs_add and fusion.native != "sum_logit":
        left_out += ("sum_logit",)
    return tuple(rule for rule in RULES if rule not in left_out)


def fuse(
    opinions: Array, present: Array, fusion: Fusion, rule: str = DEFAULT_RULE, excess: Array | None = None
) -> Fused:
    """Fuse the opinions of each sample's present modalities by a named rule, in float64.

    Args: opinions (M, B, O), the outputs of the heads, ignored where absent; present (M, B) bool, one True per column at least; rule, a
    key of RULES; excess (M, B) >= 0, how unfamiliar each input is (see Reference.excess), 0 when left out.
    """
    excess = np.zeros(present.shape) if excess is None else np.where(present, excess, 0.0)
    fused = RULES[rule](np.where(present[..., None], opinions, 0.0).astype(np.float64), present, fusion, excess)
    return Fused(shift_prior(fused.answers, fusion), fused.weights)
