"""How much an answer depends on each modality."""

from __future__ import annotations

import numpy as np

from mla_serve.fusion.formula import Array, Fused, Fusion
from mla_serve.fusion.rules import DEFAULT_RULE, fuse


def explain(
    logits: Array, present: Array, fusion: Fusion, rule: str = DEFAULT_RULE, excess: Array | None = None
) -> tuple[Fused, Array]:
    """Fuse, and measure the influence of each modality on each answer. Args: as for `fuse`.

    The influence is the log-probability of the answered label, minus its log-probability without the modality. A modality
    that is the only one is compared with the uniform distribution. Absent modalities have influence 0.

    Returns: what `fuse` returns, and the influence (M, B) in nats.
    """
    count = present.shape[1]
    # One call of `fuse` for everything: the B samples as they are, then a copy of sample b without modality m for each m.
    m, b = np.nonzero(present & (present.sum(axis=0) > 1))
    masks = present
    if len(b):
        columns = np.concatenate([np.arange(count), b])
        logits, masks = logits[:, columns], present[:, columns]
        masks[m, np.arange(count, len(columns))] = False
        excess = None if excess is None else excess[:, columns]
    both = fuse(logits, masks, fusion, rule, excess)
    fused = Fused(both.log_probabilities[:count], both.weights[:, :count])
    answered = fused.log_probabilities.argmax(axis=1)
    own = fused.log_probabilities[np.arange(count), answered]
    influence = np.where(present, own + np.log(logits.shape[2]), 0.0)
    if len(b):
        influence[m, b] = own[b] - both.log_probabilities[count:][np.arange(len(b)), answered[b]]
    return fused, influence
