"""Read tables into records: every row with its place and its split; its cells are not read yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mla_serve.table.cells import find_cell, is_missing
from mla_serve.table.faults import BrokenTable, Faults, InvalidValue, Place, abbreviate, join_names
from mla_serve.table.formats import Cells, Line
from mla_serve.table.split_names import SPLITS, names_split, split_named, split_of_table

UNSPLIT = ""
"""The split of rows of a table that says nothing about splits."""


@dataclass(frozen=True)
class Record:
    """One row as it stands in its table; `number` counts the rows of a split from 0."""

    place: Place
    split: str
    number: int
    cells: Cells

    def has(self, column: str) -> bool:
        """Return whether the row has a value in a column."""
        return not is_missing(find_cell(self.cells, column))


def read_records(tables: Mapping[str, Sequence[Line]], split_column: str | None, faults: Faults) -> list[Record]:
    """Read all tables, name -> lines; rows that cannot be read become faults and are left out.

    Args: split_column, the column of the splits, for a table that is alone. If it is not there and the name of the table
    is no split, the split of all rows is UNSPLIT.
    """
    records = []
    numbers: Counter[str] = Counter()
    for name, lines in tables.items():
        rows = _read_rows(name, lines, faults)
        split = _split_of_table(name, rows, split_column, len(tables) == 1)
        for place, cells in rows.items():
            with faults.collecting(place, split_column or ""):
                chosen = _split_of_row(cells, split_column or "") if split is None else split
                records.append(Record(place, chosen, numbers[chosen], cells))
                numbers[chosen] += 1
    return records


def _read_rows(name: str, lines: Sequence[Line], faults: Faults) -> dict[Place, Cells]:
    """Read one table."""
    rows: dict[Place, Cells] = {}
    for line, cells in lines:
        if isinstance(cells, BrokenTable):
            faults.add_broken((name, line), str(cells))
        elif isinstance(cells, InvalidValue):
            faults.add((name, line), str(cells))
        else:
            rows[name, line] = cells
    if not lines:
        faults.add((name, 0), "holds no rows; fill it or remove it")
    return rows


def _split_of_table(name: str, rows: Mapping[Place, Cells], column: str | None, alone: bool) -> str | None:
    """Return the split that the name of a table stands for; None if every row names its own."""
    split = split_of_table(name, loose=not alone)
    if alone and any(column in cells for cells in rows.values()):
        return None
    return split or (UNSPLIT if alone else "train")


def _split_of_row(cells: Cells, column: str) -> str:
    given = cells.get(column)
    split = split_named(given) if isinstance(given, str) else None
    if split is None:
        raise InvalidValue(f"expected one of {join_names(SPLITS)}, got {abbreviate(given)}; correct it")
    return split


def check_label_column(records: Sequence[Record], labels: Sequence[str], faults: Faults) -> list[Record]:
    """Return the records of the tables that have a column of labels; add a fault for each other table."""
    columns: dict[str, dict[str, None]] = {}
    for record in records:
        columns.setdefault(record.place[0], {}).update(dict.fromkeys(record.cells))
    good = {name for name, found in columns.items() if any(label in found for label in labels)}
    for name in [name for name in columns if name not in good]:
        expected = f"no column {join_names(list(map(repr, labels)))}; it has: {join_names(columns[name])}"
        faults.add((name, 0), f"{expected}; rename the column of the labels, or name it with --label")
    return [record for record in records if record.place[0] in good]


def describe_renamed_splits(records: Sequence[Record], split_column: str | None) -> list[str]:
    """Describe the splits that have another name, as names of tables or in the column of the splits."""
    names = dict.fromkeys(record.place[0] for record in records)
    stems = {name: split for name in names if (split := split_of_table(name, loose=len(names) > 1))}
    notes = [f"{name} is read as {split}" for name, split in stems.items() if not names_split(name, split)]
    notes += [f"{name} is read as train" for name in names if len(names) > 1 and name not in stems]
    given_splits = [
        (str(record.cells[split_column]).strip(), record.split)
        for record in records
        if record.place[0] not in stems
        and record.split != UNSPLIT
        and split_column is not None
        and split_column in record.cells
    ]
    counts = Counter((given, split) for given, split in given_splits if given.lower() not in SPLITS)
    return notes + [f"split {given!r}, of {count} rows, is read as {split}" for (given, split), count in counts.items()]
