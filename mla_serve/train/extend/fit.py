"""What is fitted for a modality that is added to a bundle: its temperature, discount, share and reference, and the scales
and scores of the patterns that contain it. All that is used without it stays as it was, to the bit.

Where patterns are too many to have values of their own, those that contain the added modality share some, under keys of
their own ("text:3", see fusion.pattern_keys).
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from scipy.optimize import minimize

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import GraphOutputs, Predictor
from mla_serve.evaluation.analysis import concatenate
from mla_serve.fusion.formula import Array, Fusion, pattern_name
from mla_serve.inputs import Input
from mla_serve.table import Row, read_payload
from mla_serve.train.data.folds import make_folds
from mla_serve.train.data.samples import Samples
from mla_serve.train.fit.after_training import (
    Spoiler,
    Trust,
    cross_fitted_scores,
    encode_samples,
    fit_familiar,
    fit_shares,
    gather,
)
from mla_serve.train.fit.choose import Setting, held_out, mixed, most_cautious
from mla_serve.train.fit.features import any_of, first_of
from mla_serve.train.fit.formula import (
    BOUND,
    MOST_DISCOUNT,
    PATTERNS_UP_TO,
    RIDGE,
    Evidence,
    Objective,
    listed_patterns,
)
from mla_serve.train.strategies import Strategy

BATCH = 128
Scores = dict[str, dict[str, list[float]]]


def establish_added(
    strategy: Strategy,
    base: Bundle,
    inputs: Mapping[str, Input],
    samples: Mapping[str, Samples],
    rows: Mapping[str, Sequence[Row]],
    device: torch.device,
    seed: int,
) -> Trust:
    """Fit everything for trained encoders that are added to a bundle.

    Args: inputs, those added; samples and rows, the splits train and val: all rows have something that is added, and
    the bundle's own modalities where the table has them.
    Returns: the whole fusion and the scores of all patterns; the references of what is added alone.
    """
    train, val = (encode_samples(strategy, samples[split], device) for split in ("train", "val"))
    spoil = Spoiler(strategy, inputs, rows["val"], device, seed)
    references, notes = fit_familiar(train, samples["train"], val, spoil(any_of, 1))
    labels, outputs = samples["val"].labels.numpy(), run_graphs(base, rows["val"])
    clean, worse = (_beside(outputs, gather(one, labels, references)) for one in (val, spoil(first_of, 2)))
    spoiled = mixed(clean, worse, np.random.default_rng(seed))
    folds = make_folds(rows["val"], seed)
    addition = Addition(base.fusion, tuple(inputs))
    ridge, how = addition.choose(clean, folds.number)
    fusion = addition.share(clean, addition.fit(clean, spoiled, ridge))

    def refit(kept: Array) -> Fusion:
        return addition.fit(clean.rows(kept), spoiled.rows(kept), ridge)

    rules = tuple(base.prediction_sets.scores)
    scores = cross_fitted_scores(clean, addition.names, fusion, folds, refit, seed, rules, addition.listed)
    notes = [*notes, how, folds.note, *addition.missing(clean)]
    return Trust(fusion, addition.merge(base.manifest.conformal, scores), references, notes)


def run_graphs(base: Bundle, rows: Sequence[Row]) -> GraphOutputs:
    """Run the bundle's own graphs on what the rows have of its modalities, which may be nothing."""
    predictor = Predictor(base)

    def decode(row: Row) -> dict[str, Array]:
        names = [name for name in predictor.names if name in row.values]
        return {name: predictor.decode_one(name, read_payload(row.values[name])) for name in names}

    starts = range(0, len(rows), BATCH)
    return concatenate([predictor.run_graphs([decode(row) for row in rows[at : at + BATCH]]) for at in starts])


def _beside(outputs: GraphOutputs, added: Evidence) -> Evidence:
    """Put the bundle's opinions before those that are added."""
    return Evidence.of(
        np.concatenate([outputs.logits, added.logits]),
        np.concatenate([outputs.present, added.present]),
        added.labels,
        np.concatenate([outputs.excess, added.excess]),
    )


class Addition:
    """A fusion that was fitted before, and modalities that are added to it."""

    def __init__(self, base: Fusion, added: Sequence[str]) -> None:
        """Take the fusion of a bundle and the names of what is added, which come last."""
        self.added = tuple(added)
        self.names = (*base.temperatures, *self.added)
        self.start = dataclasses.replace(base, temperatures={**base.temperatures, **dict.fromkeys(self.added, 1.0)})
        self.listed = added_patterns(len(base.temperatures), len(self.added))
        self.pooled = 2 ** len(self.names) - 1 > PATTERNS_UP_TO

    def fit(self, clean: Evidence, spoiled: Evidence, ridge: float) -> Fusion:
        """Fit what belongs to the added modalities, then their discounts on rows and spoiled copies alike."""
        return self._with_discounts(clean.and_also(spoiled), self.formula(clean, ridge))

    def formula(self, clean: Evidence, ridge: float) -> Fusion:
        """Fit the added temperatures and the scales of the patterns with them; at an infinite ridge all are 1."""
        objective = Objective(clean, ridge, self.start, self.listed)
        if np.isinf(ridge):
            return self._with_scales(self.start, objective)
        held = np.log([*self.start.temperatures.values(), max(self.start.sharpness, np.exp(-BOUND))])
        found = self._search(objective.value_and_gradient, held, (-BOUND, BOUND))
        objective.value_and_gradient(found)
        fitted = {name: float(np.exp(found[self.names.index(name)])) for name in self.added}
        temperatures = {**self.start.temperatures, **fitted}
        return self._with_scales(dataclasses.replace(self.start, temperatures=temperatures), objective)

    def _with_discounts(self, evidence: Evidence, fusion: Fusion) -> Fusion:
        objective = Objective(evidence, RIDGE, fusion, self.listed)
        held = np.array([fusion.discounts.get(name, 0.1 if name in self.added else 0.0) for name in self.names])
        found = self._search(objective.discounts_value_and_gradient, held, (0.0, MOST_DISCOUNT))
        fitted = {name: float(found[self.names.index(name)]) for name in self.added}
        return dataclasses.replace(fusion, discounts={**fusion.discounts, **fitted})

    def _search(
        self, objective: Callable[[Array], tuple[float, Array]], held: Array, bounds: tuple[float, float]
    ) -> Array:
        """Minimise over the entries of the added modalities; the others are held."""
        free = np.array([name in self.added for name in self.names] + [False] * (len(held) - len(self.names)))

        def partial(values: Array) -> tuple[float, Array]:
            theta = held.copy()
            theta[free] = values
            value, gradient = objective(theta)
            return value, gradient[free]

        found = held.copy()
        found[free] = minimize(partial, held[free], jac=True, method="L-BFGS-B", bounds=[bounds] * free.sum()).x
        return found

    def _with_scales(self, fusion: Fusion, objective: Objective) -> Fusion:
        """Put the scales of the objective's patterns beside those that were there."""
        by_key: defaultdict[str, list[float]] = defaultdict(list)
        for pattern, value in zip(objective.patterns, objective.log_scales, strict=True):
            for key in self._keys(pattern):
                by_key[key].append(value)
        fitted = {key: float(np.exp(np.mean(values))) for key, values in by_key.items()}
        return dataclasses.replace(fusion, scales={**fusion.scales, **fitted})

    def _keys(self, pattern: Array) -> list[str]:
        chosen = [name for name, there in zip(self.names, pattern, strict=True) if there]
        return self._shared(len(chosen)) if self.pooled else [pattern_name(chosen)]

    def _shared(self, size: int | str) -> list[str]:
        return [f"{name}:{size}" for name in self.added]

    def choose(self, clean: Evidence, fold: Array) -> tuple[float, str]:
        """Cross-validate the ridge as choose.choose does, over the patterns with something added.

        Returns: the ridge, infinite where nothing is better than the paper's point, and a note.
        """

        def loss(setting: Setting) -> Array:
            return held_out(clean, fold, self.listed, lambda kept: self.formula(clean.rows(kept), setting.ridge))

        setting, says = most_cautious(loss)
        return setting.ridge, f"fusion with {' and '.join(self.added)}: {says}"

    def share(self, clean: Evidence, fusion: Fusion) -> Fusion:
        """Weigh the added modalities for the rule `static`, where the others have weights too."""
        if not fusion.shares:
            return fusion
        found = fit_shares(clean, self.names)
        return dataclasses.replace(fusion, shares={**fusion.shares, **{name: found[name] for name in self.added}})

    def merge(self, before: Mapping[str, Mapping[str, list[float]]], found: Scores) -> Scores:
        """Put the scores of the patterns with the added modalities beside those that were there."""
        merged = {rule: dict(patterns) for rule, patterns in before.items()}
        for rule, patterns in found.items():
            for key, values in patterns.items():
                merged[rule] |= dict.fromkeys(self._shared(key) if key.isdigit() else [key], values)
        return merged

    def missing(self, clean: Evidence) -> list[str]:
        """Say which modalities never come together with an added one in validation."""
        notes = []
        for name in self.added:
            there = clean.present[self.names.index(name)]
            alone = [
                other for m, other in enumerate(self.names) if other != name and not (clean.present[m] & there).any()
            ]
            if alone:
                notes.append(
                    f"no validation row has {name} together with {', '.join(alone)}: no scale is fitted for them"
                )
        return notes


def added_patterns(old: int, added: int) -> Array:
    """List the patterns that contain something added: (K, old + added), all of them or a sample."""
    before = np.concatenate([np.zeros((1, old), dtype=bool), listed_patterns(old)])
    listed: Array = np.unique([np.concatenate([b, a]) for a in listed_patterns(added) for b in before], axis=0)
    return listed
