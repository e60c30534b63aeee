"""After training: everything that lets a served number be trusted, fitted on validation and on spoiled copies of it.

The fusion, the scores of prediction sets (cross-fitted: no row is scored by a fusion that was fitted on it), what tells
unfamiliar input, and notes on what was done.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from mla_serve.fusion.formula import Array, Fusion
from mla_serve.fusion.novelty import References
from mla_serve.fusion.prediction_sets import scores, tabulate_scores
from mla_serve.fusion.rules import RULES, fuse
from mla_serve.inputs import Input
from mla_serve.table import Row
from mla_serve.train.data.folds import Folds, make_folds
from mla_serve.train.data.samples import Samples
from mla_serve.train.fit.choose import choose, mixed
from mla_serve.train.fit.features import Choice, Encoded, any_of, encode_column, first_of, spoil_column, stack
from mla_serve.train.fit.formula import Evidence, listed_patterns
from mla_serve.train.fit.novelty import FLOATS, fit_reference
from mla_serve.train.strategies import Strategy

ALL_FLOATS = 440_000


@dataclasses.dataclass(frozen=True)
class Trust:
    """What was fitted: the fusion, the scores of prediction sets by rule and pattern, the references, notes."""

    fusion: Fusion
    conformal: dict[str, dict[str, list[float]]]
    references: References
    notes: list[str]


def establish(
    strategy: Strategy,
    inputs: Mapping[str, Input],
    samples: Mapping[str, Samples],
    rows: Mapping[str, Sequence[Row]],
    device: torch.device,
    seed: int,
) -> Trust:
    """Fit everything for a trained strategy.

    Args: samples and rows, the splits train and val, decoded and as they stand in the table.
    """
    train, val = (encode_samples(strategy, samples[split], device) for split in ("train", "val"))
    spoil = Spoiler(strategy, inputs, rows["val"], device, seed)
    references, notes = fit_familiar(train, samples["train"], val, spoil(any_of, 1))
    labels = samples["val"].labels.numpy()
    clean, worse = (gather(one, labels, references) for one in (val, spoil(first_of, 2)))
    spoiled = mixed(clean, worse, np.random.default_rng(seed))
    folds = make_folds(rows["val"], seed)
    names = tuple(inputs)
    prior = class_shares(samples["train"], strategy.classes)
    setting, how = choose(clean, spoiled, names, folds.number, prior)
    fusion = setting.fit(clean, spoiled, names)
    native, bias, shares = strategy.native, strategy.native_bias(), fit_shares(clean, names)
    fusion = dataclasses.replace(fusion, prior=prior, native=native, bias=bias, shares=shares)

    def refit(kept: Array) -> Fusion:
        return setting.fit(clean.rows(kept), spoiled.rows(kept), names, fusion)

    conformal = cross_fitted_scores(clean, names, fusion, folds, refit, seed)
    return Trust(fusion, conformal, references, [*notes, how, folds.note])


class Spoiler:
    """Encode spoiled copies of rows."""

    def __init__(
        self, strategy: Strategy, inputs: Mapping[str, Input], rows: Sequence[Row], device: torch.device, seed: int
    ) -> None:
        """Take the rows to spoil."""
        self._strategy, self._inputs, self._rows, self._device, self._seed = strategy, inputs, rows, device, seed

    def __call__(self, choice: Callable[[Input], Choice], stream: int) -> dict[str, Encoded]:
        """Spoil every modality of every row, by the corruptions that `choice(input)` picks."""
        encoded = {}
        for position, (name, spec) in enumerate(self._inputs.items()):
            seed = int(np.random.SeedSequence([self._seed, stream, position]).generate_state(1)[0])
            column = spoil_column(self._rows, name, spec, choice(spec), seed, self._strategy.encoders[name])
            encoded[name] = encode_column(self._strategy, name, column, self._device)
        return encoded


def cross_fitted_scores(
    clean: Evidence,
    names: Sequence[str],
    fusion: Fusion,
    folds: Folds,
    refit: Callable[[Array], Fusion],
    seed: int,
    rules: Sequence[str] = tuple(RULES),
    listed: Array | None = None,
) -> dict[str, dict[str, list[float]]]:
    """Score each row's label under every rule and pattern by a fusion that was fitted on the other folds.

    Args: listed (K, M), the patterns; all when left out, or where they are many, a sample that is pooled by size.
    """
    sampled = listed_patterns(len(names))
    by_size = len(sampled) < 2 ** len(names) - 1
    listed = sampled if listed is None else listed
    found = {(rule, _names(p, names)): np.full(len(clean.labels), np.nan) for rule in rules for p in listed}
    for number in np.unique(folds.number):
        own = folds.number == number
        refitted = refit(~own)
        parameters = ("temperatures", "sharpness", "scales", "discounts")
        fitted = dataclasses.replace(fusion, **{key: getattr(refitted, key) for key in parameters})
        part = clean.rows(own)
        for pattern in listed:
            usable = part.present[pattern].all(axis=0)
            if usable.any():
                _score(part.rows(usable), pattern, names, fitted, np.flatnonzero(own)[usable], found, rules)
    return tabulate_scores(found, np.random.default_rng(seed), by_size=by_size)


def _score(
    part: Evidence,
    pattern: Array,
    names: Sequence[str],
    fusion: Fusion,
    at: Array,
    found: dict[tuple[str, tuple[str, ...]], Array],
    rules: Sequence[str],
) -> None:
    mask = np.repeat(pattern[:, None], len(part.labels), axis=1)
    for rule in rules:
        log_p = fuse(part.logits, mask, fusion, rule, part.excess).log_probabilities
        found[rule, _names(pattern, names)][at] = scores(log_p[np.arange(len(log_p)), part.labels])


def _names(pattern: Array, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name, there in zip(names, pattern, strict=True) if there)


def encode_samples(strategy: Strategy, samples: Samples, device: torch.device) -> dict[str, Encoded]:
    """Encode every column of decoded rows."""
    return {name: encode_column(strategy, name, column, device) for name, column in samples.columns.items()}


def fit_familiar(
    train: Mapping[str, Encoded], samples: Samples, val: Mapping[str, Encoded], spoiled: Mapping[str, Encoded]
) -> tuple[References, list[str]]:
    """Fit each modality's reference; returns them and notes on how well they tell."""
    references, notes = {}, []
    labels = samples.labels.numpy()
    for name, seen in train.items():
        if len(val[name].features) and len(seen.features):
            own, budget = labels[seen.present], min(FLOATS, ALL_FLOATS // len(train))
            reference, note = fit_reference(seen.features, own, val[name].features, spoiled[name].features, budget)
            references[name] = reference
            notes.append(
                f"unfamiliar {name} is judged by {note}: AUROC of validation against its spoiled copies, 0.5 is chance"
            )
    return References(references), notes


def gather(encoded: Mapping[str, Encoded], labels: Array, references: References) -> Evidence:
    """Put the opinions on labelled rows together with how unfamiliar each input is."""
    logits, present = stack(encoded)
    excess = np.zeros(present.shape)
    for m, (name, one) in enumerate(encoded.items()):
        if name in references.by_modality:
            reference = references.by_modality[name]
            excess[m, one.present] = reference.excess(reference.score(one.features))
    return Evidence.of(logits, present, labels, excess)


def fit_shares(clean: Evidence, names: Sequence[str]) -> dict[str, float]:
    """Weigh each modality by the log-odds of its accuracy alone, above chance: the best weights of independent votes."""
    chance, shares = 1 / clean.logits.shape[2], {}
    for m, name in enumerate(names):
        there = clean.present[m]
        right = clean.logits[m, there].argmax(axis=1) == clean.labels[there]
        accuracy = (right.sum() + 1) / (len(right) + 2)
        odds = accuracy / (1 - accuracy) * (1 - chance) / chance
        shares[name] = float(max(np.log(odds), 0.05))
    return shares


def class_shares(samples: Samples, classes: int) -> list[float]:
    """Return each class's share of the rows, one row more than it has: none is 0."""
    counts = np.bincount(samples.labels.numpy(), minlength=classes) + 1
    return [float(share) for share in counts / counts.sum()]
