"""Fit the parameters of modalities that are added to a bundle. Answers without the added modalities stay as they were.

Fitted are the temperature, discount, static weight and reference of each added modality, and the scales and thresholds of
prediction sets of the patterns that contain one. The old parameters are held, and new ones are stored under keys of their own.

Where there are too many patterns for parameters of their own, the patterns with the added modality that have the same size
share some, under keys such as "text:3" (see pattern_keys in mla_serve/fusion/formula.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import GraphOutputs, Predictor
from mla_serve.evaluation.analysis import concatenate
from mla_serve.fusion.formula import Array, Fusion
from mla_serve.inputs import Input
from mla_serve.table import Row, read_payload
from mla_serve.train.data.folds import make_folds
from mla_serve.train.data.samples import Samples
from mla_serve.train.fit.after_training import (
    Fitted,
    encode_corrupted_rows,
    encode_for_references,
    encode_samples,
    fit_references,
    fit_static_weights,
    gather,
    read_inputs,
)
from mla_serve.train.fit.cross_validate import mix_rows, most_cautious
from mla_serve.train.fit.evidence import Evidence
from mla_serve.train.fit.formula import added_patterns, fit, fit_discounts, size_keys
from mla_serve.train.fit.intervals import cross_fitted_intervals
from mla_serve.train.strategies import Strategy

BATCH = 128


def fit_added(
    strategy: Strategy,
    base: Bundle,
    inputs: Mapping[str, Input],
    samples: Mapping[str, Samples],
    rows: Mapping[str, Sequence[Row]],
    device: torch.device,
    seed: int,
) -> Fitted:
    """Fit everything for trained encoders that are added to a bundle.

    Args: inputs, the added ones; samples and rows, the splits train and val. Every row has an added modality; some have
    modalities of the bundle too.
    Returns: the whole fusion and the scores of all patterns, but the references of the added modalities only.
    """
    train = encode_for_references(strategy, samples["train"], device)
    val = encode_samples(strategy, samples["val"], device)
    spoiled = encode_corrupted_rows(strategy, inputs, rows["val"], device, seed)
    task, targets, decoded = base.task, samples["train"].targets.numpy(), read_inputs(inputs, rows, seed)
    references, notes = fit_references(task, train, targets, val, spoiled, decoded)
    targets, outputs = samples["val"].targets.numpy(), run_graphs(base, rows["val"])
    clean, all_corrupted = (
        _append(
            outputs,
            gather(one, targets, references, {name: getattr(each, part) for name, each in decoded.items()}, task),
        )
        for one, part in ((val, "val"), (spoiled, "corrupted"))
    )
    corrupted = mix_rows(clean, all_corrupted, np.random.default_rng(seed))
    folds = make_folds(rows["val"], seed, task)
    extension = FusionExtension(base.fusion, tuple(inputs))
    ridge, how = extension.choose_ridge(clean, folds.number)
    fusion = extension.with_static_weights(clean, extension.fit(clean, corrupted, ridge))
    fusion = dataclasses.replace(fusion, prior_shift=base.fusion.prior_shift, shift_scale=base.fusion.shift_scale)

    def refit(kept: Array) -> Fusion:
        return extension.fit(clean.rows(kept), corrupted.rows(kept), ridge)

    rules, before = base.intervals.rules, base.intervals
    found = cross_fitted_intervals(clean, fusion, folds.number, refit, seed, rules, extension.listed, before)
    notes = [*notes, how, folds.note, *extension.never_together(clean)]
    return Fitted(fusion, before.extended(found, tuple(inputs)), references, notes, task)


def run_graphs(base: Bundle, rows: Sequence[Row]) -> GraphOutputs:
    """Run the graphs of the bundle on the rows. A row may have none of its modalities."""
    predictor = Predictor(base)

    def decode(row: Row) -> dict[str, Array]:
        names = [name for name in predictor.names if name in row.values]
        return {name: predictor.decode_one(name, read_payload(row.values[name])) for name in names}

    starts = range(0, len(rows), BATCH)
    return concatenate([predictor.run_graphs([decode(row) for row in rows[at : at + BATCH]]) for at in starts])


def _append(outputs: GraphOutputs, added: Evidence) -> Evidence:
    """Append the opinions of the added modalities to those of the bundle."""
    return Evidence.of(
        np.concatenate([outputs.opinions, added.opinions]),
        np.concatenate([outputs.present, added.present]),
        added.targets,
        np.concatenate([outputs.excess, added.excess]),
        added.task,
    )


class FusionExtension:
    """The fusion of a bundle, with modalities that are added to it."""

    def __init__(self, base: Fusion, added: Sequence[str]) -> None:
        """Take the fusion of a bundle and the names of the added modalities, which come last."""
        self.added = tuple(added)
        self.names = (*base.temperatures, *self.added)
        temperatures = {**base.temperatures, **dict.fromkeys(self.added, 1.0)}
        # By the keys of the added modalities, so that the scales of the bundle's own patterns do not apply to others.
        keys = [key for size in range(1, len(self.names) + 1) for key in size_keys(size, self.added)]
        # Everything is fitted on validation rows, which are as frequent as in training: without the shift of the prior.
        self.start = dataclasses.replace(
            base, temperatures=temperatures, scales={**base.scales, **dict.fromkeys(keys, 1.0)}, prior_shift=()
        )
        self.listed = added_patterns(len(base.temperatures), len(self.added))

    def fit(self, clean: Evidence, corrupted: Evidence, ridge: float) -> Fusion:
        """Fit the parameters of the added modalities, then their discounts on clean and corrupted rows."""
        return fit_discounts(clean.and_also(corrupted), self.names, self.formula(clean, ridge), added=self.added)

    def formula(self, clean: Evidence, ridge: float) -> Fusion:
        """Fit the added temperatures and the scales of the patterns with them. At an infinite ridge all are 1."""
        return self.start if np.isinf(ridge) else fit(clean, self.names, ridge, self.start, added=self.added)

    def choose_ridge(self, clean: Evidence, fold: Array) -> tuple[float, str]:
        """Cross-validate the ridge as cross_validate.choose_setting does, over the patterns with an added modality.

        Returns: the ridge, infinite where nothing is better than the paper's rule, and a note.
        """
        setting, note = most_cautious(clean, self.start, [self.start], fold, self.added)
        return setting.ridge, f"fusion with {' and '.join(self.added)}: {note}"

    def with_static_weights(self, clean: Evidence, fusion: Fusion) -> Fusion:
        """Add the weights of the added modalities for the rule `static`, if the bundle has such weights."""
        if not fusion.shares:
            return fusion
        found = fit_static_weights(clean, fusion)
        return dataclasses.replace(fusion, shares={**fusion.shares, **{name: found[name] for name in self.added}})

    def never_together(self, clean: Evidence) -> list[str]:
        """Note the modalities that no validation row has together with an added one."""
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
