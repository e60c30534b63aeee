"""How much an answer depends on each modality, and what each modality would answer by itself."""

from __future__ import annotations

import dataclasses

import numpy as np

from mla_serve.fusion.formula import Array, Fused, Fusion
from mla_serve.fusion.rules import DEFAULT_RULE, fuse
from mla_serve.tasks import Classes


@dataclasses.dataclass(frozen=True)
class Explained:
    """A fusion and its parts.

    fused: what `fuse` returns.
    influence: (M, B), in nats or in the unit of the number; 0 where absent.
    alone: (M, B, A), what the rule answers when a modality is the only one that is present; of no meaning where absent.
    without: (M, B, A), what it answers when a modality is left out; of no meaning where absent, Task.uninformed where no other
    is present.
    """

    fused: Fused
    influence: Array
    alone: Array
    without: Array


def explain(
    opinions: Array, present: Array, fusion: Fusion, rule: str = DEFAULT_RULE, excess: Array | None = None
) -> Explained:
    """Fuse, and measure the influence of each modality on each answer. Args: as for `fuse`.

    The influence is the log-probability of what is answered, minus its log-probability without the modality; for numbers,
    how far the modality moves the value. A modality that is the only one is compared with Task.uninformed.
    """
    count = present.shape[1]
    # One call of `fuse` for everything: the B samples as they are, then for each m a copy of sample b without it, and one of
    # nothing else. A modality that is the only one is there already.
    m, b = np.nonzero(present & (present.sum(axis=0) > 1))
    without, alone = count + np.arange(len(b)), count + len(b) + np.arange(len(b))
    columns = np.concatenate([np.arange(count), b, b])
    masks = present[:, columns]
    masks[m, without] = False
    masks[:, alone] = False
    masks[m, alone] = True
    both = fuse(opinions[:, columns], masks, fusion, rule, None if excess is None else excess[:, columns])
    fused, task = Fused(both.answers[:count], both.weights[:, :count]), fusion.task
    shape = (len(present), *fused.answers.shape)
    by_itself = np.broadcast_to(fused.answers, shape).copy()
    rest = np.broadcast_to(_uninformed(fusion, fused.answers), shape).copy()
    if len(b):
        by_itself[m, b], rest[m, b] = both.answers[alone], both.answers[without]
    influence, here = np.zeros(present.shape), np.nonzero(present)
    influence[here] = task.support(fused.answers[here[1]], rest[here])
    return Explained(fused, influence, by_itself, rest)


def _uninformed(fusion: Fusion, answers: Array) -> Array:
    """Return the answer (A,) without any modality. The mathematics of classes need no names."""
    if isinstance(fusion.task, Classes):
        return np.full(answers.shape[1], -np.log(answers.shape[1]))
    return fusion.task.uninformed(fusion.prior)
