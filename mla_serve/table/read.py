"""Read a data set folder: find its tables, read and check them, and report all faults at once."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

from mla_serve.errors import DataError
from mla_serve.table.dataset import Table, read_bytes
from mla_serve.table.declaration import DATASET_JSON, parse_declaration
from mla_serve.table.faults import Faults, join_names
from mla_serve.table.formats import READERS
from mla_serve.table.records import check_columns, describe_renamed_splits, read_records
from mla_serve.table.rows import build_row, check_classes, check_ids, check_lengths
from mla_serve.table.split_names import SPLITS, split_named

UNREAD = (".json", ".tsv", ".xlsx", ".xls", ".ods", ".arrow", ".feather", ".gz")
"""Suffixes of tables that are of no format that is read."""
EXPECTED = (
    "a data set folder holds train.jsonl, val.jsonl and test.jsonl (or .csv, .parquet), or one such table alone "
    "with a column 'split'; each row has a 'label' and a value in at least one of 'image', 'audio' (file paths inside "
    "the folder) and 'text'"
)


def read_table(folder: Path) -> Table:
    """Read a data set folder and check its structure.

    Raises: DataError with the number of faults and the first 20 of them, with table and line (.parquet: row), from 1;
            ConfigError when a .parquet table is given and pyarrow is not installed.
    """
    folder = folder.resolve()
    tables = {path.name: read_bytes(path) for path in _find_tables(folder)}
    unread = _find_unread(folder, tables)
    declared = {DATASET_JSON: read_bytes(folder / DATASET_JSON)} if (folder / DATASET_JSON).is_file() else {}
    faults = Faults(folder, [DATASET_JSON, *tables])
    declaration = parse_declaration(declared.get(DATASET_JSON), faults)
    records = read_records(tables, faults)
    check_columns(records, declaration, faults)
    modalities = {name: kind for name, kind in declaration.kinds.items() if any(record.has(name) for record in records)}
    built = [(record, build_row(record, declaration, modalities, folder, faults)) for record in records]
    classes = check_classes(built, faults)
    check_ids(built, faults)
    check_lengths(built, faults)
    faults.raise_if_any()
    splits = {split: tuple(row for record, row in built if record.split == split) for split in SPLITS}
    found = {split: rows for split, rows in splits.items() if rows}
    notes = (*describe_renamed_splits(records), *unread)
    return Table(folder, modalities, found, classes, _fingerprint(tables | declared), notes)


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
