"""Answers for the rows of a table, as a table of the same library."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mla_serve.bundle.results import Prediction
from mla_serve.inputs import Array
from mla_serve.python.given import Given

NUMBERS = ("probability", "entropy")
BY_MODALITY = ("weight", "influence", "unfamiliarity")
LISTS = ("missing", "prediction_set")
LABELS = ("label", "prediction_set")
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


def to_table(given: Given, columns: dict[str, list[Any]], label_type: str = "") -> Any:
    """Make a table of columns in the library that the samples came in: a data frame with the same index, or an Arrow table.

    Args: label_type, "int" or "bool" where the labels were that in training, and are again in the table.
    """
    columns = {name: _read_labels(cells, label_type) if name in LABELS else cells for name, cells in columns.items()}
    if given.form == "pandas":
        import pandas as pd

        return pd.DataFrame(
            {name: _pandas_column(name, cells, label_type) for name, cells in columns.items()}, given.index
        )
    import pyarrow as pa

    return pa.table({name: pa.array(cells, _arrow_type(name, label_type)) for name, cells in columns.items()})


def _read_labels(cells: list[Any], label_type: str) -> list[Any]:
    """Turn the names of classes, also in lists, into labels as they were in training."""
    read = LABEL_TYPES.get(label_type, str)
    return [
        [read(label) for label in cell] if isinstance(cell, list | tuple) else cell if cell is None else read(cell)
        for cell in cells
    ]


def _pandas_column(name: str, cells: list[Any], label_type: str) -> Any:
    import pandas as pd

    if name == "label" and label_type and None in cells:
        return pd.array(cells, {"int": "Int64", "bool": "boolean"}[label_type])  # types that know missing values
    return np.array(cells, float) if _is_number(name) else cells


def to_class_table(given: Given, probabilities: Array, classes: Sequence[str]) -> Any:
    """Make a table of probabilities (B, C), one column for each class."""
    columns = {label: probabilities[:, c] for c, label in enumerate(classes)}
    if given.form == "pandas":
        import pandas as pd

        return pd.DataFrame(columns, given.index)
    import pyarrow as pa

    return pa.table(columns)


def _is_number(column: str) -> bool:
    return column in NUMBERS or column.partition(".")[0] in BY_MODALITY


def _arrow_type(column: str, label_type: str) -> Any:
    import pyarrow as pa

    cell = {"int": pa.int64(), "bool": pa.bool_()}.get(label_type, pa.string()) if column in LABELS else pa.string()
    texts = pa.list_(cell) if column in LISTS else cell
    return pa.float64() if _is_number(column) else texts


def answer_columns(answers: Sequence[Answered], names: Sequence[str], sets: bool) -> dict[str, list[Any]]:
    """Return the columns of a table of answers: one entry for each answer, None where it does not apply.

    label, probability, entropy; weight.NAME, influence.NAME and unfamiliarity.NAME of each modality; missing; with sets
    prediction_set; error.
    """
    given = [each.prediction for each in answers]
    columns: dict[str, list[Any]] = {
        field: [getattr(each, field, None) for each in given] for field in ("label", "probability", "entropy")
    }
    for field in BY_MODALITY:
        for name in names:
            opinions = [each.modalities.get(name) if each else None for each in given]
            columns[f"{field}.{name}"] = [getattr(opinion, field, None) for opinion in opinions]
    columns["missing"] = [getattr(each, "missing", None) for each in given]
    if sets:
        columns["prediction_set"] = [getattr(getattr(each, "prediction_set", None), "labels", None) for each in given]
    return columns | {"error": [each.error for each in answers]}
