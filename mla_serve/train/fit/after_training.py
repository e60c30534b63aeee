"""Fit everything that follows training: the references for unfamiliar input, the fusion, the prediction sets or intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from mla_serve.fusion.formula import Array, Fusion
from mla_serve.fusion.intervals import Intervals
from mla_serve.fusion.novelty import References
from mla_serve.fusion.rules import fuse
from mla_serve.inputs import ColumnsInput, Input, TextInput
from mla_serve.table import Row
from mla_serve.tasks import Task
from mla_serve.tasks.base import log_softmax
from mla_serve.train.data.folds import FOLDS, make_folds
from mla_serve.train.data.samples import Samples
from mla_serve.train.fit.cross_validate import choose_setting, mix_rows
from mla_serve.train.fit.evidence import Evidence, UnseenOpinions
from mla_serve.train.fit.features import (
    Encoded,
    any_corruption,
    decode_corrupted,
    decode_rows,
    encode_column,
    encode_corrupted,
    encode_some,
    stack,
)
from mla_serve.train.fit.formula import RIDGE, fit_discounts
from mla_serve.train.fit.intervals import cross_fitted_intervals
from mla_serve.train.fit.novelty import FLOATS, ComparedInputs, fit_reference
from mla_serve.train.fit.thresholds import fit_thresholds
from mla_serve.train.strategies import Strategy

MOST_SCALED = 2.0  # |log of the scale of shifted answers|
REFERENCE_ROWS, INPUT_ROWS = 5000, 20_000  # of training, that features and inputs are compared with
ALL_FLOATS = 440_000  # in the references of all modalities together
FEW_VALIDATION_ROWS = 300
"""With fewer validation rows, opinions of cross-validation on all rows fit the fusion better (`--folds`)."""
COMPARED = (TextInput, ColumnsInput)
"""Kinds of input that are compared with training rows by the input itself, too."""
LEAST_WEIGHT = 0.05  # of the rule `static`


@dataclasses.dataclass(frozen=True)
class Fitted:
    """The fusion, the thresholds of prediction sets or intervals, the references, notes on how they were fitted, and the task."""

    fusion: Fusion
    intervals: Intervals
    references: References
    notes: list[str]
    task: Task


@dataclasses.dataclass(frozen=True)
class ValidationRows:
    """Validation rows and their targets (N, ...), encoded as they are, and copies with every modality corrupted.

    compared: the decoded inputs, of modalities whose reference may read them, see `read_inputs`.
    """

    rows: Sequence[Row]
    targets: Array
    clean: Mapping[str, Encoded]
    corrupted: Mapping[str, Encoded]
    compared: Mapping[str, ComparedInputs]

    def gather(self, references: References, task: Task) -> tuple[Evidence, Evidence]:
        """Join the opinions with how unfamiliar each input is: of the rows, and of their corrupted copies."""
        val = {name: one.val for name, one in self.compared.items()}
        corrupted = {name: one.corrupted for name, one in self.compared.items()}
        return (
            gather(self.clean, self.targets, references, val, task),
            gather(self.corrupted, self.targets, references, corrupted, task),
        )


def fit_after_training(
    strategy: Strategy,
    inputs: Mapping[str, Input],
    samples: Mapping[str, Samples],
    rows: Mapping[str, Sequence[Row]],
    device: torch.device,
    seed: int,
    *,
    prior_shift: Sequence[float] = (),
    precision: float | None = None,
    unseen: UnseenOpinions | None = None,
) -> Fitted:
    """Fit everything for a trained strategy.

    Args: samples and rows, the splits train and val, decoded and as rows of the table; prior_shift, of the answers, applied
    after everything has been fitted to validation rows, which have the class frequencies of training; precision, see
    `fit_thresholds`; unseen, what cross-validation answered, which is used in place of the opinions on validation rows.
    Discounts are always fitted on validation rows, of which there are corrupted copies.
    """
    train = encode_for_references(strategy, samples["train"], device)
    task, targets = strategy.task, samples["train"].targets.numpy()
    validation = ValidationRows(
        rows["val"],
        samples["val"].targets.numpy(),
        encode_samples(strategy, samples["val"], device),
        encode_corrupted_rows(strategy, inputs, rows["val"], device, seed),
        read_inputs(inputs, rows, seed),
    )
    references, notes = fit_references(
        task, train, targets, validation.clean, validation.corrupted, validation.compared
    )
    start = Fusion.paper(tuple(inputs), task)
    start = dataclasses.replace(
        start,
        prior=task.prior_of(targets),
        native=strategy.native,
        bias=strategy.native_bias(),
        prior_shift=list(prior_shift),
    )
    fitted = fit_validated(validation, references, start, seed, precision=precision, unseen=unseen)
    return dataclasses.replace(fitted, notes=[*notes, *fitted.notes])


def fit_validated(
    validation: ValidationRows,
    references: References,
    start: Fusion,
    seed: int,
    *,
    precision: float | None = None,
    unseen: UnseenOpinions | None = None,
) -> Fitted:
    """Fit what rests on validation rows: the fusion, the thresholds of labels, the prediction sets or intervals.

    Args: start, with what is not fitted here: the task, the prior, native rule and bias, and the shift of the prior; precision
    and unseen, see `fit_after_training`.
    """
    task, names, rows = start.task, tuple(start.temperatures), validation.rows
    clean, all_corrupted = validation.gather(references, task)
    corrupted = mix_rows(clean, all_corrupted, np.random.default_rng(seed))
    used = unseen or on_validation(clean, rows, seed)
    evidence = used.evidence
    fusion, refit, how = fit_fusion(used, clean.and_also(corrupted), names, start.prior)
    fusion = dataclasses.replace(fusion, prior=start.prior, native=start.native, bias=start.bias)
    fusion = dataclasses.replace(fusion, shares=fit_static_weights(evidence, fusion))
    fusion = fit_shift(evidence, fusion, start.prior_shift)
    task, told = fit_thresholds(evidence, fusion, precision)

    intervals = cross_fitted_intervals(evidence, fusion, used.fold, refit, seed)
    fusion = dataclasses.replace(fusion, task=task)
    return Fitted(fusion, intervals, references, [how, used.note, *told], task)


def fit_fusion(
    used: UnseenOpinions, mixed: Evidence, names: tuple[str, ...], prior: Sequence[float]
) -> tuple[Fusion, Callable[[Array], Fusion], str]:
    """Choose a setting and fit the formula to it; then the discounts, to clean rows and copies with corrupted modalities.

    Returns: the fusion; a function that fits it to the rows of a mask (N,), with the discounts held; and a note.
    """
    setting, how = choose_setting(used.evidence, names, used.fold, prior)
    fusion = fit_discounts(mixed, names, setting.formula(used.evidence, names))

    def refit(kept: Array) -> Fusion:
        fitted = setting.formula(used.evidence.rows(kept), names, fusion)
        return dataclasses.replace(fitted, discounts=fusion.discounts)

    return fusion, refit, how


def on_validation(clean: Evidence, rows: Sequence[Row], seed: int) -> UnseenOpinions:
    """Return the opinions on validation rows, with folds of them."""
    folds = make_folds(rows, seed, clean.task)
    note = f"the fusion and the prediction sets were fitted on {len(rows)} validation rows; {folds.note}"
    few = (
        f"; --folds {FOLDS} would fit them on all rows that are not for test" if len(rows) < FEW_VALIDATION_ROWS else ""
    )
    return UnseenOpinions(clean, folds.number, note + few)


def fit_shift(clean: Evidence, fusion: Fusion, prior_shift: Sequence[float]) -> Fusion:
    """Shift the prior of the answers, and fit how sure they are then: the scale with the lowest NLL, each class counting alike.

    Label smoothing teaches that no class has a probability below smoothing / C. The shift multiplies that for rare classes,
    so all answers would be too unsure (on mfeat at 1:100: accuracy .94, ECE .46). The scale does not change which class is
    answered. Classes without a validation row do not count.
    """
    if not prior_shift:
        return fusion
    shifted = dataclasses.replace(fusion, prior_shift=list(prior_shift))
    there = clean.present.any(axis=0)
    labels = clean.targets[there]
    log_p = fuse(clean.opinions[:, there], clean.present[:, there], shifted, excess=clean.excess[:, there]).answers
    weights = 1 / np.bincount(labels)[labels]

    def loss(log_scale: float) -> float:
        scaled = log_softmax(np.exp(log_scale) * log_p)
        nll = -scaled[np.arange(len(labels)), labels]
        return float(np.average(nll, weights=weights)) + RIDGE * log_scale**2

    found = minimize_scalar(loss, bounds=(-MOST_SCALED, MOST_SCALED), method="bounded")
    return dataclasses.replace(shifted, shift_scale=float(np.exp(found.x)))


def encode_for_references(strategy: Strategy, samples: Samples, device: torch.device) -> dict[str, Encoded]:
    """Encode as many rows of every column as references need."""
    return {
        name: encode_some(strategy, name, column, device, REFERENCE_ROWS) for name, column in samples.columns.items()
    }


def encode_samples(strategy: Strategy, samples: Samples, device: torch.device) -> dict[str, Encoded]:
    """Encode every column of decoded rows."""
    return {name: encode_column(strategy, name, column, device) for name, column in samples.columns.items()}


def encode_corrupted_rows(
    strategy: Strategy, inputs: Mapping[str, Input], rows: Sequence[Row], device: torch.device, seed: int
) -> dict[str, Encoded]:
    """Encode copies of rows with every modality corrupted, by a corruption that is drawn for each."""
    return {
        name: encode_corrupted(
            strategy, rows, name, spec, any_corruption(spec), corruption_seed(seed, position), device
        )
        for position, (name, spec) in enumerate(inputs.items())
    }


def corruption_seed(seed: int, position: int) -> int:
    """Return the seed of the corruptions of a modality."""
    return int(np.random.SeedSequence([seed, 1, position]).generate_state(1)[0])


def read_inputs(inputs: Mapping[str, Input], rows: Mapping[str, Sequence[Row]], seed: int) -> dict[str, ComparedInputs]:
    """Decode texts and columns, by modality: of some training rows, of validation rows, and of their corrupted copies."""
    generator = np.random.default_rng(0)
    some = [rows["train"][number] for number in generator.permutation(len(rows["train"]))[:INPUT_ROWS]]
    found = {}
    for position, (name, spec) in enumerate(inputs.items()):
        if isinstance(spec, COMPARED) and all(any(name in row.values for row in part) for part in (some, rows["val"])):
            corrupted = decode_corrupted(rows["val"], name, spec, corruption_seed(seed, position))
            train, val = (decode_rows(part, name, spec) for part in (some, rows["val"]))
            pad = spec.pad if isinstance(spec, TextInput) else None
            found[name] = ComparedInputs(train, val, corrupted, pad)
    return found


def fit_references(
    task: Task,
    train: Mapping[str, Encoded],
    targets: Array,
    val: Mapping[str, Encoded],
    corrupted: Mapping[str, Encoded],
    decoded: Mapping[str, ComparedInputs],
) -> tuple[References, list[str]]:
    """Fit the reference of each modality; returns them and notes on how well they detect corrupted input.

    Args: targets (N, ...), of the training rows; decoded, see `read_inputs`.
    """
    references, notes = {}, []
    budget = min(FLOATS, ALL_FLOATS // len(train))
    for name, seen in train.items():
        if len(val[name].features) and len(seen.features):
            indicators = task.indicators(targets[seen.present])
            features = (seen.features, indicators, val[name].features, corrupted[name].features)
            references[name], note = fit_reference(*features, budget, decoded.get(name))
            notes.append(f"detector of unfamiliar {name}: {note}; AUROC on corrupted validation rows, 0.5 is chance")
    return References(references), notes


def gather(
    encoded: Mapping[str, Encoded], targets: Array, references: References, decoded: Mapping[str, Array], task: Task
) -> Evidence:
    """Join the opinions on labelled rows with how unfamiliar each input is. Args: decoded (rows, L), see `read_inputs`."""
    opinions, present = stack(encoded)
    excess = np.zeros(present.shape)
    for m, (name, one) in enumerate(encoded.items()):
        if name in references.by_modality:
            reference = references.by_modality[name]
            read = decoded[name] if reference.reads_input else one.features
            excess[m, one.present] = reference.excess(reference.score(read))
    return Evidence.of(opinions, present, targets, excess, task)


def fit_static_weights(clean: Evidence, fusion: Fusion) -> dict[str, float]:
    """Return each modality's weight for the rule `static`: how much it says by itself on average, in nats.

    That is the NLL of the answer without any modality, minus the NLL of the modality's calibrated answer.
    """
    weights = {}
    for m, name in enumerate(fusion.temperatures):
        own = clean.rows(clean.present[m])
        mask = np.repeat((np.arange(len(clean.opinions)) == m)[:, None], len(own.targets), axis=1)
        alone = fuse(own.opinions, mask, fusion).answers
        nothing = np.broadcast_to(clean.task.uninformed(fusion.prior), alone.shape)
        said = clean.task.nll(nothing, own.targets) - clean.task.nll(alone, own.targets)
        weights[name] = max(float(said.mean()), LEAST_WEIGHT) if len(said) else LEAST_WEIGHT
    return weights
