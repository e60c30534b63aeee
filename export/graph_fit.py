"""Fit what follows training to the opinions of a bundle's graphs on labelled rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from mla_serve.bundle.predictor import Predictor
from mla_serve.evaluation.splits import usable_rows
from mla_serve.export.graph_features import encode_corrupted, encode_rows
from mla_serve.export.new_rows import NewRows, check_rows
from mla_serve.fusion.formula import Fusion
from mla_serve.fusion.novelty import AnyReference, References
from mla_serve.table import Row
from mla_serve.train.fit.after_training import (
    REFERENCE_ROWS,
    Fitted,
    ValidationRows,
    fit_references,
    fit_validated,
    read_inputs,
)
from mla_serve.train.fit.features import Encoded
from mla_serve.train.fit.novelty import ComparedInputs, scale_to


def fit_to_graphs(predictor: Predictor, new: NewRows, seed: int = 0) -> tuple[Fitted, Sequence[Row]]:
    """Fit everything that follows training to the opinions of a bundle's graphs.

    Returns: what was fitted, and the rows of new.fitted that were not left out.
    Raises: DataError with all faults that are not left out.
    """
    rows, clean = encode_rows(predictor, new.fitted, new.faults)
    check_rows(predictor, dataclasses.replace(new, fitted=rows))
    train, seen = _training_rows(predictor, new)
    compared = read_inputs(predictor.bundle.inputs, {"train": train or rows, "val": rows}, seed)
    targets = predictor.task.encode([row.label for row in rows])
    validation = ValidationRows(rows, targets, clean, encode_corrupted(predictor, rows, seed), compared)
    references, notes = _fit_references(predictor, train, seen, validation)
    before = predictor.bundle.fusion
    start = dataclasses.replace(
        Fusion.paper(predictor.names, predictor.task),
        prior=before.prior
        or (predictor.task.prior_of(predictor.task.encode([row.label for row in train])) if train else []),
        native=before.native,
        bias=before.bias,
        prior_shift=before.prior_shift,
    )
    config = predictor.bundle.manifest.training.get("config", {})
    fitted = fit_validated(validation, references, start, seed, precision=config.get("min_precision"))
    return dataclasses.replace(fitted, notes=[*notes, *fitted.notes]), rows


def _training_rows(predictor: Predictor, new: NewRows) -> tuple[Sequence[Row], Mapping[str, Encoded]]:
    """Encode the training rows that references are fitted to."""
    if not new.train:
        return (), {}
    return encode_rows(predictor, usable_rows(predictor, new.train, "train", new.faults), new.faults, REFERENCE_ROWS)


def _fit_references(
    predictor: Predictor, train: Sequence[Row], seen: Mapping[str, Encoded], validation: ValidationRows
) -> tuple[References, list[str]]:
    """Fit the references to training rows; of a modality without such rows, only the scale of the old one."""
    new, notes = References({}), list[str]()
    if train:
        targets = predictor.task.encode([row.label for row in train])
        given = (validation.clean, validation.corrupted, validation.compared)
        new, notes = fit_references(predictor.task, seen, targets, *given)
    kept = {
        name: _scaled(reference, validation.clean[name], validation.compared.get(name))
        for name, reference in predictor.bundle.references.by_modality.items()
        if name not in new.by_modality
    }
    if kept:
        notes.append(f"detector of unfamiliar {', '.join(kept)}: as before, its scale fitted to the new rows")
    return References({**kept, **new.by_modality}), notes


def _scaled(reference: AnyReference, clean: Encoded, compared: ComparedInputs | None) -> AnyReference:
    read = compared.val if reference.reads_input and compared else clean.features
    return scale_to(reference, reference.score(read))
