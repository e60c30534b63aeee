"""Classify a slice of rows, in one process. A row that cannot be used gets an error instead of an answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mla_serve.bulk.slices import Slice
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.bundle.results import Prediction
from mla_serve.errors import DataError, InputError
from mla_serve.inputs import Array, Payload
from mla_serve.table import read_payload
from mla_serve.table.cells import find_cell, is_missing, read_cell
from mla_serve.table.faults import InvalidValue, join_names
from mla_serve.table.formats import Cells

OPINION_COLUMNS = ("weight", "influence", "unfamiliarity")


@dataclasses.dataclass(frozen=True)
class Ask:
    """The request for every row: folder of the bundle, fusion rule, coverage of prediction sets or None."""

    model: Path
    rule: str
    coverage: float | None


class Scorer:
    """Classifies slices of rows with one predictor."""

    def __init__(self, ask: Ask, folder: Path) -> None:
        """Load the bundle. Args: folder, of the table, which paths in its cells are relative to."""
        self.predictor = Predictor(Bundle.load(ask.model))
        self.ask, self.folder = ask, folder
        self.kinds = {name: each.kind for name, each in self.predictor.bundle.manifest.modalities.items()}
        self.schema = schema(self.predictor.classes, self.predictor.names, ask.coverage is not None)

    def score(self, rows: Slice) -> pa.Table:
        """Classify the rows of a slice: a table with one row each, in their order."""
        read = [self._read(cells) for _, cells in rows.lines]
        good = [sample for sample in read if not isinstance(sample, str)]
        answers = iter(self._predict(good))
        records = [
            {"row": rows.first + n, "line": line[0], "id": _identity(line[1])}
            | ({"error": sample} if isinstance(sample, str) else next(answers))
            for n, (line, sample) in enumerate(zip(rows.lines, read, strict=True))
        ]
        return pa.Table.from_pylist(records, self.schema)

    def _predict(self, samples: Sequence[Mapping[str, Array]]) -> list[dict[str, Any]]:
        """Classify decoded rows; return the answer or the error of each."""
        every = len(self.predictor.classes)
        answers = self.predictor.predict_decoded(samples, self.ask.rule, every, self.ask.coverage)
        return [_record(each) if isinstance(each, Prediction) else {"error": str(each)} for each in answers]

    def _read(self, cells: Cells | InvalidValue) -> dict[str, Array] | str:
        """Decode one row into {modality: array}, or return its error."""
        if isinstance(cells, InvalidValue):
            return str(cells)
        given = [name for name in self.kinds if not is_missing(find_cell(cells, name))]
        if not given:
            return f"no modality at all; fill one of {join_names(self.kinds)}"
        try:
            return {name: self.predictor.decode_one(name, self.payload(name, cells)) for name in given}
        except (InputError, DataError) as error:
            return str(error)
        except InvalidValue as error:
            return f"{given[0] if len(given) == 1 else 'row'}: {error}"

    def payload(self, name: str, cells: Cells) -> Payload:
        """Read one modality of a row. Raises: InputError."""
        try:
            return read_payload(read_cell(self.kinds[name], find_cell(cells, name), self.folder))
        except InvalidValue as error:
            raise InputError(name, str(error)) from None


def schema(classes: Sequence[str], names: Sequence[str], sets: bool) -> pa.Schema:
    """Return the columns of the answers.

    row counts from 0. line is the line of the text file, from 1; for Parquet it is the number of the row, from 1.
    probabilities has one field per class. weight, influence and unfamiliarity have one per modality, null where it is
    missing. error is null for a row with an answer. For a row without, it holds the reason, and the columns of the answer
    are null.
    """
    by_class = pa.struct([(name, pa.float64()) for name in classes])
    by_modality = pa.struct([(name, pa.float64()) for name in names])
    columns: list[tuple[str, pa.DataType]] = [
        ("row", pa.int64()),
        ("line", pa.int64()),
        ("id", pa.string()),
        ("label", pa.string()),
        ("probability", pa.float64()),
        ("entropy", pa.float64()),
        ("probabilities", by_class),
        *((column, by_modality) for column in OPINION_COLUMNS),
        ("missing", pa.list_(pa.string())),
        *([("prediction_set", pa.list_(pa.string()))] if sets else []),
        ("error", pa.string()),
    ]
    return pa.schema(columns)


def _identity(cells: Cells | InvalidValue) -> str | None:
    given = None if isinstance(cells, InvalidValue) else cells.get("id")
    return None if is_missing(given) else str(given)


def _record(prediction: Prediction) -> dict[str, Any]:
    record: dict[str, Any] = {
        "label": prediction.label,
        "probability": prediction.probability,
        "entropy": prediction.entropy,
        "probabilities": prediction.by_label(),
        "missing": prediction.missing,
        "prediction_set": prediction.prediction_set,
    }
    by_modality = {
        column: {name: getattr(opinion, column) for name, opinion in prediction.modalities.items()}
        for column in OPINION_COLUMNS
    }
    return record | by_modality
