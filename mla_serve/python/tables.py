"""A table in memory, turned into the lines that a table file is read into."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mla_serve.errors import DataError, InputError
from mla_serve.python.given import read_given
from mla_serve.python.values import to_cell
from mla_serve.table import Table, table_from_lines
from mla_serve.table.formats import Line
from mla_serve.table.options import TableOptions

NAME = "data"  # of the only table, in messages: "data:3" is its third row


def table_in_memory(data: Any, folder: Path, options: TableOptions) -> Table:
    """Check a table, or several by split, as if they had been read from files.

    Args: folder, absolute: paths are relative to it.
    Raises: DataError, with the rows counted from 1.
    """
    several = isinstance(data, Mapping) and all(not isinstance(each, str | bytes) for each in data.values())
    tables = {str(split): _lines(each) for split, each in (data if several else {NAME: data}).items()}
    return table_from_lines(tables, folder, _fingerprint(tables), options)


def _lines(data: Any) -> list[Line]:
    """Turn the rows of a table into lines of cells. Raises: DataError."""
    try:
        given = read_given(data, {})
        return [
            (number, {name: to_cell(name, value) for name, value in row.items()})
            for number, row in enumerate(given.samples, start=1)
        ]
    except InputError as error:
        raise DataError(str(error)) from None


def _fingerprint(tables: Mapping[str, list[Line]]) -> str:
    """Hash the cells of every row."""
    digest = hashlib.sha256()
    for name, lines in tables.items():
        digest.update(f"{name}\n{len(lines)}\n".encode())
        for _, cells in lines:
            assert isinstance(cells, Mapping)
            for column, cell in cells.items():
                content = cell if isinstance(cell, bytes) else repr(cell).encode(errors="surrogatepass")
                digest.update(f"{column}\n{len(content)}\n".encode(errors="surrogatepass") + content)
    return digest.hexdigest()
