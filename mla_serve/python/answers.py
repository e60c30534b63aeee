"""Answers for the rows of a table, as a table of the same library."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mla_serve.bundle.results import Prediction
from mla_serve.inputs import Array
from mla_serve.python.given import Given

NUMBERS = ("probability", "entropy")
BY_MODALITY = ("weight", "influence", "unfamiliarity")
LISTS = ("missing", "prediction_set")


@dataclasses.dataclass(frozen=True)
class Answered:
    """The answer to one sample, None where it has none, and the faults of the values that were left out, by modality."""

    prediction: Prediction | None
    faults: dict[str, str]

    @property
    def error(self) -> str | None:
        """The faults in one line; None if there are none."""
        return "; ".join(f"{name}: {fault}" for name, fault in self.faults.items()) or None


def to_table(given: Given, columns: dict[str, list[Any]]) -> Any:
    """Make a table of columns in the library that the samples came in: a data frame with the same index, or an Arrow table."""
    if given.form == "pandas":
        import pandas as pd

        return pd.DataFrame(
            {name: np.array(cells, float) if _is_number(name) else cells for name, cells in columns.items()},
            given.index,
        )
    import pyarrow as pa

    return pa.table({name: pa.array(cells, _arrow_type(name)) for name, cells in columns.items()})


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


def _arrow_type(column: str) -> Any:
    import pyarrow as pa

    texts = pa.list_(pa.string()) if column in LISTS else pa.string()
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
        columns["prediction_set"] = [getattr(each, "prediction_set", None) for each in given]
    return columns | {"error": [each.error for each in answers]}
