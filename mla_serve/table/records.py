"""Read tables into records: every row with its place and its split; its cells are not read yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mla_serve.table.cells import find_cell, is_missing
from mla_serve.table.declaration import WHOLE_FILE, Declaration
from mla_serve.table.faults import BrokenTable, Faults, InvalidValue, Place, abbreviate, join_names
from mla_serve.table.formats import Cells, Line
from mla_serve.table.split_names import SPLITS, split_named, split_of_table


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


def read_records(tables: Mapping[str, Sequence[Line]], faults: Faults) -> list[Record]:
    """Read all tables, name -> lines; rows that cannot be read become faults and are left out."""
    records = []
    numbers: Counter[str] = Counter()
    for name, lines in tables.items():
        rows = _read_rows(name, lines, faults)
        split = _split_of_table(name, rows, len(tables) == 1, faults)
        for place, cells in rows.items():
            with faults.collecting(place, "split"):
                chosen = split or _split_of_row(cells)
                records.append(Record(place, chosen, numbers[chosen], cells))
                numbers[chosen] += 1
    return records


def _read_rows(name: str, lines: Sequence[Line], faults: Faults) -> dict[Place, Cells]:
    """Read one table. If it has no label column, that is its only fault."""
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
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    if rows and "label" not in columns:
        faults.add((name, 0), f"no column 'label'; it has: {join_names(columns)}; rename the column of the classes")
        return {}
    return rows


def _split_of_table(name: str, rows: Mapping[Place, Cells], alone: bool, faults: Faults) -> str | None:
    """Return the split that the name of a table stands for; None if every row names its own."""
    split = split_of_table(name, loose=not alone)
    if alone and any("split" in cells for cells in rows.values()):
        return None
    if rows and split is None:
        expected = f"one table alone needs a column 'split' with {join_names(SPLITS)}"
        faults.add((name, 0), f"{expected}; add it, or name the tables by their split")
    return split or "train"


def _split_of_row(cells: Cells) -> str:
    given = cells.get("split")
    split = split_named(given) if isinstance(given, str) else None
    if split is None:
        raise InvalidValue(f"expected one of {join_names(SPLITS)}, got {abbreviate(given)}; correct it")
    return split


def describe_renamed_splits(records: list[Record]) -> list[str]:
    """Describe the splits that have another name, as names of tables or in the column `split`."""
    names = dict.fromkeys(record.place[0] for record in records)
    stems = {name: split for name in names if (split := split_of_table(name, loose=len(names) > 1))}
    notes = [f"{name} is read as {split}" for name, split in stems.items() if Path(name).stem.lower() not in SPLITS]
    counts = Counter(
        (str(record.cells["split"]).strip(), record.split)
        for record in records
        if record.place[0] not in stems and str(record.cells["split"]).strip().lower() not in SPLITS
    )
    return notes + [f"split {given!r}, of {count} rows, is read as {split}" for (given, split), count in counts.items()]


def check_columns(records: list[Record], declaration: Declaration, faults: Faults) -> None:
    """Add faults for declared modalities without training rows, and for group columns that do not exist."""
    train = [record for record in records if record.split == "train"]
    for name in declaration.declared:
        if train and not any(record.has(name) for record in train):
            faults.add(
                WHOLE_FILE, f"modalities: no row of train has a value for {name!r}; add some, or do not declare it"
            )
    for column in dict.fromkeys(declaration.groups.values()):
        if records and not any(record.has(column) for record in records):
            faults.add(WHOLE_FILE, f"group: no row has a value at {column!r}; correct its spelling or remove it")
