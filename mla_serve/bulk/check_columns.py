"""Check the columns of a table by its first rows, before any row is answered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mla_serve.bulk.own_columns import ALL, find_bytes, take_columns
from mla_serve.errors import ConfigError, DataError
from mla_serve.table.faults import join_names
from mla_serve.table.formats import Line
from mla_serve.table.schema import Schema


def check_columns(first: Sequence[Line], schema: Schema, keep: Sequence[str], out: Path) -> list[str]:
    """Check that the table has what the model reads and what is to be kept. Returns: a note on columns that it lacks.

    Args: first, the first lines of the table; keep, the columns to carry over to the file `out`.
    Raises: DataError for a table without any column of the model; ConfigError for columns that cannot be kept.
    """
    have = take_columns(first, [ALL])
    read = [role for role in schema.roles if role.modality]
    lacking = schema.find_lacking(have)
    if have and len(lacking) == len(read):
        raise DataError(
            f"--table: it has none of the columns that the model reads, {join_names(lacking)}; it has {join_names(have)}; "
            "rename them"
        )
    _check_keep(first, keep, list(have), out)
    return [f"not in the first rows of the table, and so taken as missing: {join_names(lacking)}"] if lacking else []


def _check_keep(first: Sequence[Line], keep: Sequence[str], have: Sequence[str], out: Path) -> None:
    if ALL in keep and len(keep) > 1:
        raise ConfigError(f"--keep {' '.join(keep)}: give {ALL} alone, or columns")
    own = take_columns(first, keep)
    if unknown := [name for name, cells in own.items() if name not in have and cells.null_count == len(cells)]:
        raise ConfigError(
            f"--keep {unknown[0]}: no such column; the table has {join_names(have)}; correct its spelling"
        )
    if out.suffix.lower() != ".parquet" and (column := find_bytes(own)):
        raise ConfigError(
            f"--keep: the column {column} holds bytes, which {out.suffix} cannot hold; name the columns without it, or "
            "write a .parquet file"
        )
