"""Say what of the rows that are measured the model cannot use: modalities and columns without a cell, unknown categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from mla_serve.inputs import ColumnsInput, Input
from mla_serve.inputs.columns import Column
from mla_serve.payloads import Value, is_missing
from mla_serve.table import Row
from mla_serve.table.faults import abbreviate, join_names


def describe_unknown(rows: Sequence[Row], inputs: Mapping[str, Input]) -> list[str]:
    """Return a line for the modalities and one for the columns that no row has, and for each column with unknown categories.

    Args: rows, at least one, whose cells can be decoded; inputs, of the model, by modality.
    """
    lacking = [name for name in inputs if not any(name in row.values for row in rows)]
    found = [f"no row has {join_names(lacking)}: measured without"] if lacking else []
    for name, spec in inputs.items():
        if isinstance(spec, ColumnsInput) and name not in lacking:
            found += _describe_columns([row.values[name] for row in rows if name in row.values], spec)
    return found


def _describe_columns(values: Sequence[Value], spec: ColumnsInput) -> list[str]:
    cells = [value for value in values if isinstance(value, Mapping)]
    empty = [c.name for c in spec.columns if all(is_missing(row.get(c.name)) for row in cells)]
    found = [f"no row has a cell in {join_names(empty)}: counted as missing"] if empty else []
    for column in spec.columns:
        if column.type == "category":
            unknown = Counter(str(row[column.name]) for row in cells if _is_unknown(column, row.get(column.name)))
            if unknown:
                most, _ = unknown.most_common(1)[0]
                found.append(
                    f"{column.name}: {unknown.total():,} of {len(cells):,} rows have a category that training did not have, "
                    f"such as {abbreviate(most)}: counted as unknown"
                )
    return found


def _is_unknown(column: Column, cell: object) -> bool:
    """Return whether a cell holds a category that is none of training."""
    return not is_missing(cell) and column.decode(cell) == (len(column.values),)  # type: ignore[arg-type]
