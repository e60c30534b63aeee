"""From the lines of tables to a checked Table: what every source of lines has in common, files and data frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mla_serve.table.dataset import Table
from mla_serve.table.declaration import DATASET_JSON, parse_declaration
from mla_serve.table.faults import Faults
from mla_serve.table.formats import Line
from mla_serve.table.options import TableOptions
from mla_serve.table.records import check_columns, describe_renamed_splits, read_records
from mla_serve.table.rows import build_row, check_classes, check_ids, check_lengths
from mla_serve.table.schema import ColumnRole, Schema
from mla_serve.table.split_names import SPLITS


def table_from_lines(
    tables: Mapping[str, Sequence[Line]],
    folder: Path,
    fingerprint: str,
    options: TableOptions = TableOptions(),  # noqa: ARG001, B008 (not used yet; frozen)
    declared: bytes | None = None,
) -> Table:
    """Check the lines of one table or of one per split, and report all faults at once.

    Args: tables, name -> lines; folder, absolute: paths are relative to it; declared, the content of dataset.json.
    Raises: DataError with the number of faults and the first of them, with table and line.
    """
    faults = Faults(folder, [DATASET_JSON, *tables])
    declaration = parse_declaration(declared, faults)
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
    notes = tuple(describe_renamed_splits(records))
    return Table(folder, modalities, found, classes, fingerprint, notes, _schema(modalities))


def _schema(modalities: Mapping[str, str]) -> Schema:
    return Schema("label", tuple(ColumnRole(name, kind, name, kind) for name, kind in modalities.items()))
