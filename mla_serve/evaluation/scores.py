"""Scores of predictions, and the conditions under which a model is measured. Numpy only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from mla_serve.fusion.formula import Array, Fusion, pattern_name
from mla_serve.fusion.intervals import Bounds
from mla_serve.fusion.rules import fuse

MISSING_RATES = (20, 50, 80)  # percent of the modalities that are dropped
ALL_PATTERNS_UP_TO = 6  # modalities; with more, only patterns of one and of all modalities are measured
ChooseSets = Callable[[Array, Array, str], Bounds]
"""(answers (B, A), present (M, B), rule) -> the prediction sets or intervals."""


def patterns(count: int) -> Array:
    """List the availability patterns of `count` modalities by size: (K, M) bool; see ALL_PATTERNS_UP_TO."""
    sizes = range(1, count + 1) if count <= ALL_PATTERNS_UP_TO else (1, count)
    chosen = [subset for size in sizes for subset in itertools.combinations(range(count), size)]
    return np.array([[m in subset for m in range(count)] for subset in chosen])


def drop(present: Array, rate: float, generator: np.random.Generator) -> Array:
    """Drop each present modality independently with probability `rate`, but keep one at random in each column.

    (M, B) bool -> (M, B) bool.
    """
    order = np.where(present, generator.random(present.shape), -1.0)
    kept = present & (generator.random(present.shape) >= rate)
    last: Array = np.arange(len(present))[:, None] == order.argmax(axis=0)
    return kept | (last & ~kept.any(axis=0))


def conditions(
    present: Array, names: Sequence[str], masks: Mapping[str, Array], draws: int = 0, seed: int = 0
) -> Iterator[tuple[str, list[Array]]]:
    """Yield the name of every condition with the masks (M, B) that it is averaged over.

    "full": the modalities of each row; "missing50": the masks of the data set when it has them and draws is 0, else random
    masks; "image+text": these two, in the rows that have both. Columns without any modality are not scored.
    """
    generator = np.random.default_rng(seed)
    yield "full", [present]
    for rate in MISSING_RATES:
        own = masks.get(str(rate)) if not draws else None
        drawn = [drop(present, rate / 100, generator) for _ in range(max(draws, 1))] if own is None else [own & present]
        yield f"missing{rate}", drawn
    for pattern in patterns(len(names)):
        chosen = pattern_name([name for name, there in zip(names, pattern, strict=True) if there])
        has_all = present[pattern].all(axis=0)
        if has_all.any():
            yield chosen, [pattern[:, None] & has_all]


def evaluate(
    opinions: Array,
    present: Array,
    targets: Array,
    fusion: Fusion,
    rules: Sequence[str],
    masks: Mapping[str, Array] | None = None,
    draws: int = 0,
    excess: Array | None = None,
    choose_sets: ChooseSets | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """Score opinions (M, B, O) under every condition and rule: {condition: {rule: {score: value}}}, means over draws.

    Args: excess (M, B), for the rules that use it; choose_sets, which adds the scores of prediction sets or intervals
    (Task.set_scores), and "pooled", the share of them that rest on rows with other modalities. A score that is not finite,
    such as the width of an interval without an end, is left out.
    """
    names = tuple(fusion.temperatures)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for condition, drawn in conditions(present, names, masks or {}, draws):
        results[condition] = {
            rule: mean_scores(
                [_score_masked(opinions, mask, targets, fusion, rule, excess, choose_sets) for mask in drawn]
            )
            for rule in rules
        }
    return results


def _score_masked(
    opinions: Array,
    mask: Array,
    targets: Array,
    fusion: Fusion,
    rule: str,
    excess: Array | None,
    choose_sets: ChooseSets | None,
) -> dict[str, float]:
    scored = mask.any(axis=0)
    excess = None if excess is None else excess[:, scored]
    answers = fuse(opinions[:, scored], mask[:, scored], fusion, rule, excess).answers
    found = fusion.task.score(answers, targets[scored])
    if choose_sets is not None:
        bounds = choose_sets(answers, mask[:, scored], rule)
        found |= fusion.task.set_scores(bounds, targets[scored]) | {"pooled": float(bounds.pooled.mean())}
    return {score: value for score, value in found.items() if math.isfinite(value)}


def mean_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average each score over several evaluations that have it. Six digits are kept: a manifest holds thousands of scores."""
    return {
        key: float(f"{np.mean([one[key] for one in scores if key in one]):.6g}")
        for key in dict.fromkeys(itertools.chain(*scores))
    }
