"""Answers for the rows of a table, as a table of the same library."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mla_serve.bundle.answer_columns import ANSWER, BOUNDS, MISSING, OPINION, Column
from mla_serve.bundle.results import Prediction
from mla_serve.inputs import Array
from mla_serve.python.given import Given

LABELS = ("label", "labels")  # kinds of columns that hold names of classes
LABEL_TYPES: Mapping[str, Callable[[str], object]] = {"int": int, "bool": "True".__eq__}


@dataclasses.dataclass(frozen=True)
class Answered:
    """The answer to one sample, None where it has none, and the faults of the values that were left out, by modality."""

    prediction: Prediction | None
    faults: dict[str, str]

    @property
    def error(self) -> str | None:
        """The faults in one line; None if there are none."""
        return "; ".join(f"{name}: {fault}" for name, fault in self.faults.items()) or None


def to_table(given: Given, columns: Mapping[Column, list[Any]], label_type: str = "") -> Any:
    """Make a table of columns in the library that the samples came in: a data frame with the same index, or an Arrow table.

    Args: label_type, "int" or "bool" where the labels were that in training, and are again in the table.
    """
    cells = {each: _read_labels(own, label_type) if each.kind in LABELS else own for each, own in columns.items()}
    if given.form == "pandas":
        import pandas as pd

        return pd.DataFrame(
            {each.name: _pandas_column(each, own, label_type) for each, own in cells.items()}, given.index
        )
    import pyarrow as pa

    return pa.table({each.name: pa.array(own, _arrow_type(each, label_type)) for each, own in cells.items()})


def _read_labels(cells: list[Any], label_type: str) -> list[Any]:
    """Turn the names of classes, also in lists, into labels as they were in training."""
    read = LABEL_TYPES.get(label_type, str)
    return [
        [read(label) for label in cell] if isinstance(cell, list | tuple) else cell if cell is None else read(cell)
        for cell in cells
    ]


def _pandas_column(column: Column, cells: list[Any], label_type: str) -> Any:
    import pandas as pd

    if column.kind == "label" and label_type and None in cells:
        return pd.array(cells, {"int": "Int64", "bool": "boolean"}[label_type])  # types that know missing values
    if column.kind == "yes_no":
        return pd.array(cells, "boolean")
    return np.array(cells, float) if column.kind == "number" else cells


def to_class_table(given: Given, probabilities: Array, classes: Sequence[str]) -> Any:
    """Make a table of probabilities (B, C), one column for each class."""
    columns = {label: probabilities[:, c] for c, label in enumerate(classes)}
    if given.form == "pandas":
        import pandas as pd

        return pd.DataFrame(columns, given.index)
    import pyarrow as pa

    return pa.table(columns)


def _arrow_type(column: Column, label_type: str) -> Any:
    import pyarrow as pa

    label = {"int": pa.int64(), "bool": pa.bool_()}.get(label_type, pa.string())
    types = {"label": label, "labels": pa.list_(label), "number": pa.float64(), "yes_no": pa.bool_()}
    return {**types, "texts": pa.list_(pa.string()), "text": pa.string()}[column.kind]


def answer_columns(
    answers: Sequence[Answered], task: str, names: Sequence[str], bounds: bool
) -> dict[Column, list[Any]]:
    """Return the columns of a table of answers: one cell for each answer, None where it does not apply.

    The answer; weight.NAME, influence.NAME and unfamiliarity.NAME of each modality; missing; with bounds, the prediction set
    or interval; error. Args: task, its name.
    """
    by_modality = [_opinion_column(field, name) for field in OPINION for name in names]
    columns = [*ANSWER[task], *by_modality, MISSING, *(BOUNDS[task] if bounds else ())]
    given = [each.prediction for each in answers]
    cells = {column: [None if each is None else column.cell(each) for each in given] for column in columns}
    return cells | {Column("error", "text", str): [each.error for each in answers]}


def _opinion_column(field: str, name: str) -> Column:
    """Return the column of one field of a modality's opinions."""
    return Column(f"{field}.{name}", "number", lambda prediction: getattr(prediction.modalities.get(name), field, None))
