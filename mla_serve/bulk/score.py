"""A slice of rows to a slice of answers: what one process does. A row that cannot be used gets its reason instead."""

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
from mla_serve.table import payload
from mla_serve.table.cells import KINDS, lookup, missing
from mla_serve.table.faults import Unusable, listed
from mla_serve.table.formats import Cells

OPINION = ("weight", "influence", "unfamiliarity")


@dataclasses.dataclass(frozen=True)
class Ask:
    """What every row is asked: the bundle's folder, the fusion rule, the coverage of prediction sets or None."""

    model: Path
    rule: str
    coverage: float | None


class Scorer:
    """One process's predictor, and the rows it is given."""

    def __init__(self, ask: Ask, folder: Path) -> None:
        """Open the bundle. Args: folder, that of the table: files are looked for in it."""
        self.predictor = Predictor(Bundle.load(ask.model))
        self.ask, self.folder = ask, folder
        self.kinds = {name: each.kind for name, each in self.predictor.bundle.manifest.modalities.items()}
        self.schema = schema(self.predictor.classes, self.predictor.names, ask.coverage is not None)

    def score(self, rows: Slice) -> pa.Table:
        """Answer every row of a slice, in its order."""
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
        """Answer decoded rows, or say why there is no answer."""
        every = len(self.predictor.classes)
        answers = self.predictor.predict_decoded(samples, self.ask.rule, every, self.ask.coverage)
        return [_record(each) if isinstance(each, Prediction) else {"error": str(each)} for each in answers]

    def _read(self, cells: Cells | Unusable) -> dict[str, Array] | str:
        """Decode one row: {modality: array}, or what is wrong with it."""
        if isinstance(cells, Unusable):
            return str(cells)
        given = [name for name in self.kinds if not missing(lookup(cells, name))]
        if not given:
            return f"no modality at all; fill one of {listed(self.kinds)}"
        try:
            return {name: self.predictor.decode_one(name, self.payload(name, cells)) for name in given}
        except (InputError, DataError) as error:
            return str(error)
        except Unusable as error:
            return f"{given[0] if len(given) == 1 else 'row'}: {error}"

    def payload(self, name: str, cells: Cells) -> Payload:
        """Read one modality of a row. Raises: InputError."""
        try:
            return payload(KINDS[self.kinds[name]](lookup(cells, name), self.folder))
        except Unusable as error:
            raise InputError(name, str(error)) from None


def schema(classes: Sequence[str], names: Sequence[str], sets: bool) -> pa.Schema:
    """Return the columns of the answers.

    row counts from 0, line as an editor does; in Parquet, line counts rows from 1. probabilities has a field per class.
    weight, influence and unfamiliarity have one per modality, null where it was missing. Where there is an answer, error
    is null. Where there is none, error says why, and all but row, line and id is null.
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
        *((what, by_modality) for what in OPINION),
        ("missing", pa.list_(pa.string())),
        *([("prediction_set", pa.list_(pa.string()))] if sets else []),
        ("error", pa.string()),
    ]
    return pa.schema(columns)


def _identity(cells: Cells | Unusable) -> str | None:
    given = None if isinstance(cells, Unusable) else cells.get("id")
    return None if missing(given) else str(given)


def _record(prediction: Prediction) -> dict[str, Any]:
    record: dict[str, Any] = {
        "label": prediction.label,
        "probability": prediction.probability,
        "entropy": prediction.entropy,
        "probabilities": prediction.by_label(),
        "missing": prediction.missing,
        "prediction_set": prediction.prediction_set,
    }
    said = {what: {name: getattr(o, what) for name, o in prediction.modalities.items()} for what in OPINION}
    return record | said
