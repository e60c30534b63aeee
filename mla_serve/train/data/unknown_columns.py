"""Leave out the columns of a table that no row for training has a value of: an input of kind `columns` does not know them."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from mla_serve.inputs import ColumnsInput, Input
from mla_serve.table import Row, Table
from mla_serve.table.faults import join_names
from mla_serve.table.schema import CELL_KINDS, ColumnRole

Dropped = Mapping[str, Collection[str]]
"""Modality -> columns."""
WHY = "ignored, no row for training has a value"


def leave_out_unknown(
    table: Table, rows: Mapping[str, Sequence[Row]], inputs: Mapping[str, Input]
) -> tuple[Table, dict[str, Sequence[Row]], list[str]]:
    """Leave out the cells of columns that the inputs do not know, and then the rows of which nothing remains.

    Adds a fault to those of the table for each of these rows.

    Args: rows, those to be used, by split; inputs, as chosen from the rows for training.
    Returns: the table, whose schema ignores these columns, the rows, and a note on each column.
    """
    unknown = [role for role in table.schema.roles if _is_unknown(role, inputs)]
    if not unknown:
        return table, dict(rows), []
    dropped: defaultdict[str, set[str]] = defaultdict(set)
    for role in unknown:
        dropped[str(role.modality)].add(role.column)
    roles = tuple(
        dataclasses.replace(role, role="ignored", modality=None, reason=WHY) if role in unknown else role
        for role in table.schema.roles
    )
    for row in (row for listed in table.splits.values() for row in listed):
        if not _without_cells(row, dropped).values:
            names = join_names([role.column for role in unknown])
            table.faults.add(row.place, f"no value but of {names}, and no row for training has one; remove the row")
    splits = {split: tuple(_without(listed, dropped)) for split, listed in table.splits.items()}
    kept: dict[str, Sequence[Row]] = {split: _without(listed, dropped) for split, listed in rows.items()}
    changed = dataclasses.replace(table, splits=splits, schema=dataclasses.replace(table.schema, roles=roles))
    return changed, kept, [f"{role.column}: {WHY}" for role in unknown]


def _is_unknown(role: ColumnRole, inputs: Mapping[str, Input]) -> bool:
    spec = inputs.get(role.modality or "")
    return role.role in CELL_KINDS and isinstance(spec, ColumnsInput) and role.column not in spec.by_name


def _without(rows: Sequence[Row], dropped: Dropped) -> list[Row]:
    """Leave out cells, then modalities and rows of which nothing remains."""
    return [kept for row in rows if (kept := _without_cells(row, dropped)).values]


def _without_cells(row: Row, dropped: Dropped) -> Row:
    values = dict(row.values)
    for modality, columns in dropped.items():
        if isinstance(cells := values.pop(modality, None), Mapping):
            left = {name: cell for name, cell in cells.items() if name not in columns}
            values |= {modality: left} if left else {}
    values = {name: values[name] for name in row.values if name in values}
    present = {rate: names & values.keys() or frozenset(values) for rate, names in row.present.items()}
    return dataclasses.replace(row, values=values, present=present)
