"""Read a data set folder: find its tables, read and check them, and report all faults at once."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Collection, Mapping
from pathlib import Path

from mla_serve.errors import DataError
from mla_serve.table.build import table_from_lines
from mla_serve.table.dataset import Table, read_bytes
from mla_serve.table.declaration import DATASET_JSON
from mla_serve.table.faults import join_names
from mla_serve.table.formats import READERS
from mla_serve.table.options import TableOptions
from mla_serve.table.split_names import SPLITS, split_named

UNREAD = (".json", ".tsv", ".xlsx", ".xls", ".ods", ".arrow", ".feather", ".gz")
"""Suffixes of tables that are of no format that is read."""
EXPECTED = (
    "a data set folder holds train.jsonl, val.jsonl and test.jsonl (or .csv, .parquet), or one such table alone "
    "with a column 'split'; each row has a 'label' and a value in at least one of 'image', 'audio' (file paths inside "
    "the folder) and 'text'"
)


def read_table(path: Path, options: TableOptions = TableOptions()) -> Table:  # noqa: B008 (frozen)
    """Read a data set folder and check its structure.

    Raises: DataError with the number of faults and the first 20 of them, with table and line (.parquet: row), from 1;
            ConfigError when a .parquet table is given and pyarrow is not installed.
    """
    folder = path.resolve()
    tables = {table.name: read_bytes(table) for table in _find_tables(folder)}
    declared = {DATASET_JSON: read_bytes(folder / DATASET_JSON)} if (folder / DATASET_JSON).is_file() else {}
    lines = {name: list(READERS[Path(name).suffix.lower()](io.BytesIO(data))) for name, data in tables.items()}
    table = table_from_lines(lines, folder, _fingerprint(tables | declared), options, declared.get(DATASET_JSON))
    return dataclasses.replace(table, notes=(*table.notes, *_find_unread(folder, tables)))


def _find_tables(folder: Path) -> list[Path]:
    """Find train, val and test, or the only table of the folder. Raises: DataError when it is unclear which they are."""
    if not folder.is_dir():
        given = "a file" if folder.exists() else "a folder that does not exist"
        raise DataError(f"{folder}: got {given}, expected a data set folder; {EXPECTED}")
    found = [path for path in sorted(folder.glob("[!.]*")) if path.suffix.lower() in READERS and path.is_file()]
    if len(found) == 1:
        return found
    tables = [path for split in SPLITS for path in found if split_named(path.stem) == split]
    splits = [split_named(path.stem) for path in tables]
    if twice := [path.name for path, split in zip(tables, splits, strict=True) if splits.count(split) > 1]:
        raise DataError(f"{folder}: got {join_names(twice)}, expected one table per split; keep one of each")
    if "train" not in splits:
        names = join_names([path.name for path in found])
        raise DataError(f"{folder}: no train split; tables found: {names}; {EXPECTED}")
    return tables


def _find_unread(folder: Path, tables: Collection[str]) -> list[str]:
    """Describe the files that look like tables and are not read."""
    names = [path.name for path in sorted(folder.glob("[!.]*")) if path.suffix.lower() in (*READERS, *UNREAD)]
    unread = [name for name in names if name not in tables and name != DATASET_JSON]
    rule = "tables are train, val and test, of .jsonl, .csv or .parquet"
    return [f"not read: {join_names(unread)}; {rule}"] if unread else []


def _fingerprint(files: Mapping[str, bytes]) -> str:
    """Hash names, lengths and contents; with the lengths, different sets of files never give the same bytes to hash."""
    digest = hashlib.sha256()
    for name, data in files.items():
        digest.update(f"{name}\n{len(data)}\n".encode() + data)
    return digest.hexdigest()
