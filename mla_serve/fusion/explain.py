"""How much an answer owes to each modality."""

from __future__ import annotations

import numpy as np

from mla_serve.fusion.formula import Array, Fused, Fusion
from mla_serve.fusion.rules import DEFAULT_RULE, fuse


def explain(
    logits: Array, present: Array, fusion: Fusion, rule: str = DEFAULT_RULE, excess: Array | None = None
) -> tuple[Fused, Array]:
    """Fuse, and say how much each answer owes to each modality: what `fuse` returns, and the influence (M, B) in nats.

    It is the answered label's log-probability, less what it is without the modality; 0 where absent. Alone, a modality is
    compared with the uniform distribution. Args: as for `fuse`. One call fuses every sample whole and without each.
    """
    count = present.shape[1]
    m, b = np.nonzero(present & (present.sum(axis=0) > 1))  # each m is left out of sample b, all in one go
    outputs = present
    if len(b):
        columns = np.concatenate([np.arange(count), b])
        logits, outputs = logits[:, columns], present[:, columns]
        outputs[m, np.arange(count, len(columns))] = False
        excess = None if excess is None else excess[:, columns]
    both = fuse(logits, outputs, fusion, rule, excess)
    fused = Fused(both.log_probabilities[:count], both.weights[:, :count])
    answered = fused.log_probabilities.argmax(axis=1)
    own = fused.log_probabilities[np.arange(count), answered]
    changes = np.where(present, own + np.log(logits.shape[2]), 0.0)
    if len(b):
        changes[m, b] = own[b] - both.log_probabilities[count:][np.arange(len(b)), answered[b]]
    return fused, changes
