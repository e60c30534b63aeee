"""Read a data set: find its tables, read their lines, then check them and report all faults at once."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mla_serve.errors import DataError
from mla_serve.table.build import table_from_lines
from mla_serve.table.class_folders import read_class_folders
from mla_serve.table.dataset import Table, read_bytes
from mla_serve.table.declaration import DATASET_JSON
from mla_serve.table.faults import InvalidValue, join_names
from mla_serve.table.find_tables import EXPECTED, TableFile, find_tables, find_unread
from mla_serve.table.formats import READERS, Line, Say, suffix_of
from mla_serve.table.formats.arrow import class_converter
from mla_serve.table.options import TableOptions
from mla_serve.table.split_names import stem_of

HASHED_AT_ONCE = 2**20
DATASET_INFO = "dataset_info.json"
METADATA = "metadata"
"""Name of the tables of Hugging Face's imagefolder and audiofolder: their file names are relative to the table."""


@dataclasses.dataclass(frozen=True)
class DataLines:
    """The tables of a data set as they stand in their files.

    folder: absolute; paths in the cells are relative to it. tables: name -> lines; names are paths inside the folder.
    declared: the content of dataset.json. fingerprint: sha256 of tables and dataset.json, or of the names of the files in
    class folders. notes: what was told from the content, and what was not read.
    """

    folder: Path
    tables: Mapping[str, Sequence[Line]]
    fingerprint: str
    declared: bytes | None
    notes: tuple[str, ...]


def read_table(path: Path, options: TableOptions = TableOptions()) -> Table:  # noqa: B008 (frozen)
    """Read a data set, a table or a folder, and check its structure.

    Raises: DataError with the number of faults and the first of them, with table and line (or row), from 1;
            ConfigError when the package that reads a format is not installed.
    """
    read = read_lines(path, options.schema.label if options.schema else options.label)
    table = table_from_lines(read.tables, read.folder, read.fingerprint, options, read.declared)
    return dataclasses.replace(table, notes=(*read.notes, *table.notes))


def data_folder(path: Path) -> Path:
    """Return the folder that paths in the cells of --data are relative to: the folder itself, or that of the table."""
    return path.resolve() if path.is_dir() else path.resolve().parent


def read_lines(path: Path, label: str | None = None) -> DataLines:
    """Read the lines of a table, or of the tables of a folder.

    Args: label, the column of the labels, if it is known; see find_tables.
    Raises: DataError when there is none, or when it is unclear which they are; ConfigError as read_table.
    """
    folder = data_folder(path)
    declared = read_bytes(folder / DATASET_JSON) if (folder / DATASET_JSON).is_file() else None
    tables = find_tables(folder, label) if path.is_dir() else [_table_of_file(path)]
    if not tables:
        return _read_class_folders(path, declared)
    notes: list[str] = []
    lines = {table.name: list(_read_parts(folder, table, notes.append)) for table in tables}
    notes += [f"{table.name}: {len(table.parts)} files are one table" for table in tables if len(table.parts) > 1]
    unread = find_unread(folder, tables) if path.is_dir() else []
    if unread:
        notes.append(f"not read: {join_names(unread)}; --data FILE reads one table alone")
    return DataLines(folder, lines, _fingerprint(folder, tables, declared), declared, tuple(notes))


def _table_of_file(path: Path) -> TableFile:
    """Return the table that a file is. Raises: DataError."""
    if not path.exists():
        raise DataError(f"{path}: does not exist; {EXPECTED}")
    if not suffix_of(path):
        raise DataError(f"{path}: got a file called {path.suffix or path.name}, {EXPECTED}; save it as one of these")
    return TableFile(path.name, (path.resolve(),))


def _read_class_folders(path: Path, declared: bytes | None) -> DataLines:
    """Read a folder without tables. Raises: DataError."""
    found = read_class_folders(path.resolve())
    if found is None:
        unread = find_unread(path, [])
        given = f"not read: {join_names(unread)}" if unread else "no table in it"
        raise DataError(f"{path}: {given}; {EXPECTED}")
    digest = hashlib.sha256(found.listing + (declared or b""))
    return DataLines(path.resolve(), found.tables, digest.hexdigest(), declared, found.notes)


def _read_parts(folder: Path, table: TableFile, say: Say) -> Iterator[Line]:
    """Read the files of a table; the rows of the second are numbered on from the first."""
    lines = itertools.chain.from_iterable(_read_part(path, table.name, say) for path in table.parts)
    numbered: Iterable[Line] = enumerate((cells for _, cells in lines), start=1) if len(table.parts) > 1 else lines
    change = _cell_changes(folder, table)
    return ((number, cells if isinstance(cells, InvalidValue) else change(cells)) for number, cells in numbered)


def _read_part(path: Path, name: str, say: Say) -> Iterator[Line]:
    try:
        with path.open("rb") as stream:
            yield from READERS[suffix_of(path)](stream, lambda note: say(f"{name}: {note}"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check that it is there and readable") from error


def _cell_changes(folder: Path, table: TableFile) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Return what is done to the cells of each row: file names get the folder of the table, class numbers their names."""
    inside = PurePosixPath(table.name).parent
    names = _class_names(table.parts[0].parent, folder)
    is_metadata = bool(inside.parts) and stem_of(PurePosixPath(table.name).name) == METADATA
    if not is_metadata and not names:
        return lambda cells: cells

    def change(cells: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            column: str(inside / cell)
            if is_metadata and isinstance(cell, str) and column.endswith("file_name")
            else names[column](cell)
            if column in names
            else cell
            for column, cell in cells.items()
        }

    return change


def _class_names(*folders: Path) -> dict[str, Callable[[Any], Any]]:
    """Return class number -> name for the columns that dataset_info.json describes, in the first folder that has one."""
    for folder in folders:
        try:
            features = json.loads((folder / DATASET_INFO).read_bytes())["features"]
            return {column: convert for column, feature in features.items() if (convert := class_converter(feature))}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):  # none there, or of another program
            continue
    return {}


def _fingerprint(folder: Path, tables: Sequence[TableFile], declared: bytes | None) -> str:
    """Hash names, lengths and contents; with the lengths, different sets of files never give the same bytes to hash."""
    digest = hashlib.sha256()
    for path in (path for table in tables for path in table.parts):
        digest.update(f"{path.relative_to(folder).as_posix()}\n{path.stat().st_size}\n".encode())
        with path.open("rb") as stream:
            while data := stream.read(HASHED_AT_ONCE):
                digest.update(data)
    if declared is not None:
        digest.update(f"{DATASET_JSON}\n{len(declared)}\n".encode() + declared)
    return digest.hexdigest()
