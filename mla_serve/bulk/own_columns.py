"""The columns of the user's table that are carried over to the answers (--keep)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence

import pyarrow as pa

from mla_serve.table.cells import find_cell
from mla_serve.table.faults import InvalidValue
from mla_serve.table.formats import Cells, Line

ALL = "all"
"""Stands for every column of the table."""
PREFIX = "own_"


def take_columns(lines: Sequence[Line], keep: Sequence[str]) -> dict[str, pa.Array]:
    """Return the columns to keep: {column of the table: its cells, null where a line cannot be read or lacks it}.

    Args: keep, columns or dotted paths, or ALL alone.
    """
    rows: list[Cells] = [{} if isinstance(cells, InvalidValue) else cells for _, cells in lines]
    names = list(dict.fromkeys(name for cells in rows for name in cells)) if list(keep) == [ALL] else keep
    return {name: to_array([find_cell(cells, name) for cells in rows]) for name in names}


def to_array(cells: Sequence[object]) -> pa.Array:
    """Return cells as an array: of the type that Arrow infers, or as JSON texts where they have no common type."""
    try:
        return pa.array(cells)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array([_to_text(cell) for cell in cells], pa.string())


def _to_text(cell: object) -> str | None:
    return cell if cell is None or isinstance(cell, str) else json.dumps(cell, ensure_ascii=False, default=str)


def name_columns(columns: Iterable[str], taken: Collection[str]) -> dict[str, str]:
    """Return the name of each column among the answers: its own, or own_NAME where the answers have such a column."""
    used, names = set(taken), dict[str, str]()
    for column in columns:
        name = column
        while name in used:
            name = PREFIX + name
        used.add(name)
        names[column] = name
    return names


def unify(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return a schema with all columns in the order of their first occurrence, each of a type that all parts can have."""
    types: dict[str, list[pa.DataType]] = {}
    for schema in schemas:
        for field in schema:
            types.setdefault(field.name, []).append(field.type)
    return pa.schema([(name, _common_type(found)) for name, found in types.items()])


def _common_type(types: Sequence[pa.DataType]) -> pa.DataType:
    distinct = [pa.schema([("cell", each)]) for each in dict.fromkeys(types)]
    try:
        common = pa.unify_schemas(distinct, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.string()
    return pa.string() if pa.types.is_null(common) else common


def cast(part: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a part with the columns and types of the schema; a column that it lacks is null."""
    return pa.table([_cast(part, field) for field in schema], schema=schema)


def _cast(part: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    if field.name not in part.schema.names:
        return pa.nulls(len(part), field.type)
    column = part[field.name]
    if field.type == pa.string() and not pa.types.is_string(column.type):
        return pa.array([_to_text(cell) for cell in column.to_pylist()], pa.string())
    return column.cast(field.type, safe=False)


def find_bytes(columns: Mapping[str, pa.Array]) -> str | None:
    """Return the first column that holds bytes, which only Parquet can hold; None if none does."""
    return next((name for name, cells in columns.items() if _holds_bytes(cells.type)), None)


def _holds_bytes(of: pa.DataType) -> bool:
    return pa.types.is_binary(of) or any(_holds_bytes(of.field(at).type) for at in range(of.num_fields))
