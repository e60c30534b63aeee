"""Answer a slice of rows, in one process. A row that cannot be used gets an error instead of an answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mla_serve.bulk.own_columns import name_columns, take_columns
from mla_serve.bulk.slices import Slice
from mla_serve.bulk.writers import PROBABILITIES, flatten
from mla_serve.bundle.answer_columns import ANSWER, BOUNDS, MISSING, OPINION, Column
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.bundle.results import Prediction
from mla_serve.errors import DataError, InputError
from mla_serve.inputs import Array, Input
from mla_serve.inputs.columns import ColumnsInput
from mla_serve.table import ColumnRole, Schema, read_payload
from mla_serve.table.cells import is_missing
from mla_serve.table.check_files import describe_undecodable
from mla_serve.table.faults import InvalidValue, join_names
from mla_serve.table.formats import Cells
from mla_serve.table.schema import Sample
from mla_serve.tasks import Task

IDENTITY_COLUMNS = 3  # row, line, id
TYPES: Mapping[str, pa.DataType] = {
    "label": pa.string(),
    "labels": pa.list_(pa.string()),
    "texts": pa.list_(pa.string()),
    "number": pa.float64(),
    "yes_no": pa.bool_(),
}


@dataclasses.dataclass(frozen=True)
class Ask:
    """The request for every row: folder of the bundle, fusion rule, coverage of prediction sets or intervals or None, and the columns of
    the table to carry over.
    """

    model: Path
    rule: str
    coverage: float | None
    keep: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ReadRow:
    """One row: its decoded modalities, the reason for each that cannot be used, or why none is there."""

    sample: dict[str, Array]
    faults: dict[str, str]
    error: str | None = None


class Scorer:
    """Answers slices of rows with one predictor."""

    def __init__(self, ask: Ask, folder: Path) -> None:
        """Load the bundle. Args: folder, of the table, which paths in its cells are relative to."""
        self.predictor = Predictor(Bundle.load(ask.model))
        self.ask, self.folder = ask, folder
        self.columns = schema_of(self.predictor.bundle)
        task, bounds = self.predictor.task, ask.coverage is not None
        self.schema = schema(task, self.predictor.names, bounds)
        self.answer_columns = (*ANSWER[task.name], MISSING, *(BOUNDS[task.name] if bounds else ()))
        self.taken = {*self.schema.names, *flatten(self.schema.empty_table()).schema.names}

    def score(self, rows: Slice) -> pa.Table:
        """Answer the rows of a slice: a table with one row each, in their order."""
        read = [self._read(cells) for _, cells in rows.lines]
        answers = self._predict(read)
        records = [
            {"row": rows.first + n, "line": line, "id": self._identity(cells, rows.first + n), "faults": row.faults}
            | answer
            for n, ((line, cells), row, answer) in enumerate(zip(rows.lines, read, answers, strict=True))
        ]
        return self._with_own_columns(pa.Table.from_pylist(records, self.schema), rows)

    def _with_own_columns(self, answers: pa.Table, rows: Slice) -> pa.Table:
        """Put the columns to keep behind those that identify the row."""
        own = take_columns(rows.lines, self.ask.keep)
        for at, (column, name) in enumerate(name_columns(own, self.taken).items()):
            answers = answers.add_column(IDENTITY_COLUMNS + at, name, own[column])
        return answers

    def _identity(self, cells: Cells | InvalidValue, number: int) -> str:
        """Return the id of the row, or its number."""
        given = None if isinstance(cells, InvalidValue) else cells.get(self.columns.id or "id")
        return str(number if is_missing(given) else given)

    def _predict(self, rows: Sequence[ReadRow]) -> list[dict[str, Any]]:
        """Answer decoded rows; return the answer or the error of each.

        A modality for which the model returns no finite numbers becomes a fault, and the others answer.
        """
        answers: dict[int, dict[str, Any]] = {}
        while open_rows := [n for n, row in enumerate(rows) if row.sample and n not in answers]:
            samples = [rows[n].sample for n in open_rows]
            every = len(self.predictor.classes) or None
            found = self.predictor.predict_decoded(samples, self.ask.rule, every, self.ask.coverage)
            for n, each in zip(open_rows, found, strict=True):
                if isinstance(each, Prediction):
                    answers[n] = _record(each, self.answer_columns)
                else:
                    rows[n].faults[each.field] = each.message
                    del rows[n].sample[each.field]
        return [answers.get(n) or {"error": row.error or _join_faults(row.faults)} for n, row in enumerate(rows)]

    def _read(self, cells: Cells | InvalidValue) -> ReadRow:
        """Decode one row. A modality that cannot be read leaves the row to the others."""
        if isinstance(cells, InvalidValue):
            return ReadRow({}, {}, str(cells))
        sample = self.columns.read_sample(cells, self.folder)
        row = ReadRow({}, _faults_by_modality(sample, self.columns))
        for name, value in sample.values.items():
            try:
                row.sample[name] = self.predictor.decode_one(name, read_payload(value))
            except (InputError, DataError) as error:
                row.faults[name] = describe_undecodable(error, value, self.folder)
        if not row.sample and not row.faults:
            columns = [role.column for role in self.columns.roles if role.modality]
            return ReadRow({}, {}, f"no modality at all; fill one of {join_names(columns)}")
        return row


def schema_of(bundle: Bundle) -> Schema:
    """Return what the columns of a table are: as in training, and columns called as the modalities where that is not known."""
    modalities = bundle.manifest.modalities
    schema = Schema.from_dict(bundle.manifest.table) if bundle.manifest.table else Schema()
    used = [role for role in schema.roles if role.modality is None or role.modality in modalities]
    unknown = [name for name in modalities if name not in schema.modalities]
    roles = [*used, *(role for name in unknown for role in _roles_of(name, bundle.inputs[name]))]
    return dataclasses.replace(schema, roles=tuple(roles))


def _roles_of(modality: str, spec: Input) -> list[ColumnRole]:
    """Return the columns of a modality of which only the input is known."""
    if isinstance(spec, ColumnsInput):
        return [ColumnRole(column.name, column.type, modality) for column in spec.columns]
    return [ColumnRole(modality, spec.kind, modality)]


def _faults_by_modality(sample: Sample, columns: Schema) -> dict[str, str]:
    """Join the faults of the cells of each modality. Where it has several columns, each fault begins with the column."""
    faults: dict[str, list[str]] = {}
    for fault in sample.faults:
        several = len(columns.columns_of(fault.modality)) > 1
        faults.setdefault(fault.modality, []).append(f"{fault.column}: {fault.message}" if several else fault.message)
    return {name: " | ".join(found) for name, found in faults.items()}


def _join_faults(faults: Mapping[str, str]) -> str:
    return " | ".join(f"{name}: {fault}" for name, fault in faults.items())


def schema(task: Task, names: Sequence[str], bounds: bool) -> pa.Schema:
    """Return the columns of the answers. Args: names, of the modalities; bounds, whether a coverage was asked for.

    row counts from 0. line is the line of the text file, from 1; for Parquet it is the number of the row, from 1. Then come the
    columns of the answer, see answer_columns.py. probabilities has one field for each class or label; a number has none.
    weight, influence and unfamiliarity have one for each modality, null where it is missing. faults has one for each
    modality: why it could not be used, null if it could or is missing. error is null for a row with an answer. For a row
    without, it holds the reason, and the columns of the answer are null.
    """
    by_class = pa.struct([(name, pa.float64()) for name in task.names])
    by_modality = pa.struct([(name, pa.float64()) for name in names])
    columns: list[tuple[str, pa.DataType]] = [
        ("row", pa.int64()),
        ("line", pa.int64()),
        ("id", pa.string()),
        *((column.name, TYPES[column.kind]) for column in ANSWER[task.name]),
        *([(PROBABILITIES, by_class)] if task.names else []),
        *((column, by_modality) for column in OPINION),
        *((column.name, TYPES[column.kind]) for column in (MISSING, *(BOUNDS[task.name] if bounds else ()))),
        ("faults", pa.struct([(name, pa.string()) for name in names])),
        ("error", pa.string()),
    ]
    return pa.schema(columns)


def _record(prediction: Prediction, columns: Sequence[Column]) -> dict[str, Any]:
    """Return the cells of an answer."""
    by_modality = {
        column: {name: getattr(opinion, column) for name, opinion in prediction.modalities.items()}
        for column in OPINION
    }
    cells = {column.name: column.cell(prediction) for column in columns}
    return {**cells, PROBABILITIES: prediction.by_label(), **by_modality}
