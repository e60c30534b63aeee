"""How much an answer depends on each modality."""

from __future__ import annotations

import numpy as np

from mla_serve.fusion.formula import Array, Fused, Fusion
from mla_serve.fusion.rules import DEFAULT_RULE, fuse
from mla_serve.tasks import Classes


def explain(
    opinions: Array, present: Array, fusion: Fusion, rule: str = DEFAULT_RULE, excess: Array | None = None
) -> tuple[Fused, Array]:
    """Fuse, and measure the influence of each modality on each answer. Args: as for `fuse`.

    The influence is the log-probability of what is answered, minus its log-probability without the modality; for numbers,
    how far the modality moves the value. A modality that is the only one is compared with Task.uninformed. Absent modalities
    have influence 0.

    Returns: what `fuse` returns, and the influence (M, B), in nats or in the unit of the number.
    """
    count = present.shape[1]
    # One call of `fuse` for everything: the B samples as they are, then a copy of sample b without modality m for each m.
    m, b = np.nonzero(present & (present.sum(axis=0) > 1))
    masks = present
    if len(b):
        columns = np.concatenate([np.arange(count), b])
        opinions, masks = opinions[:, columns], present[:, columns]
        masks[m, np.arange(count, len(columns))] = False
        excess = None if excess is None else excess[:, columns]
    both = fuse(opinions, masks, fusion, rule, excess)
    fused, task = Fused(both.answers[:count], both.weights[:, :count]), fusion.task
    alone = np.broadcast_to(_uninformed(fusion, fused.answers), fused.answers.shape)
    influence = np.where(present, task.support(fused.answers, alone), 0.0)
    if len(b):
        influence[m, b] = task.support(fused.answers[b], both.answers[count:])
    return fused, influence


def _uninformed(fusion: Fusion, answers: Array) -> Array:
    """Return the answer (A,) without any modality. The mathematics of classes need no names."""
    if isinstance(fusion.task, Classes):
        return np.full(answers.shape[1], -np.log(answers.shape[1]))
    return fusion.task.uninformed(fusion.prior)
