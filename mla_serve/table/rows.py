"""Turn records into rows: read the cells of each, then check the rows against each other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from mla_serve.table.cells import Value, find_cell, is_missing, read_name, read_present
from mla_serve.table.dataset import Row
from mla_serve.table.faults import Faults, Place, abbreviate, format_place, join_names
from mla_serve.table.formats import Cells
from mla_serve.table.labels import read_label
from mla_serve.table.records import Record
from mla_serve.table.schema import Schema
from mla_serve.table.split import MANY

BuiltRows = Sequence[tuple[Record, Row]]
SplitRows = Sequence[tuple[str, Row]]
"""Rows with their split."""


def build_row(
    record: Record, schema: Schema, groups: Mapping[str, str], known: Collection[str], folder: Path, faults: Faults
) -> Row:
    """Read the cells of a row; cells that cannot be used become faults and are left out.

    Args: groups, modality -> column that groups it; known, the names that `present` may hold.
    """
    cells, place = record.cells, record.place
    name, label = f"{record.split or 'row'}-{record.number}", ""
    present: Mapping[str, frozenset[str]] = {}
    grouped: Mapping[str, str] = {}
    if schema.id:
        with faults.collecting(place, schema.id):
            name = read_name(cells[schema.id]) if record.has(schema.id) else name
    if schema.label:
        with faults.collecting(place, schema.label):
            label = read_label(cells[schema.label])
    values = _read_values(record, schema, folder, faults)
    with faults.collecting(place, "present"):
        given = [
            role.modality for role in schema.roles if role.modality and record.has(role.column)
        ]  # with those at fault
        present = read_present(cells.get("present") if schema.has("present") else None, known, given)
    with faults.collecting(place, "group"):
        grouped = _read_groups(cells, groups)
    return Row(name, label, values, present, grouped, place)


def _read_values(record: Record, schema: Schema, folder: Path, faults: Faults) -> dict[str, Value]:
    """Return the modalities of one row."""
    sample = schema.read_sample(record.cells, folder)
    kinds = schema.modalities
    for fault in sample.faults:
        part = kinds[fault.modality] == "columns"  # then the other cells of the modality are kept
        modality = f"{fault.modality}.{fault.column}" if part else fault.modality
        faults.add_value(record.place, modality, fault.message, fault.column)
    if not sample.values and not sample.faults:
        columns = join_names([role.column for role in schema.roles if role.modality])
        faults.add(record.place, f"no modality at all; fill one of {columns}, or remove the row")
    return sample.values


def _read_groups(cells: Cells, columns: Mapping[str, str]) -> dict[str, str]:
    """Return modality -> group, without empty groups."""
    found = {name: find_cell(cells, column) for name, column in columns.items()}
    return {name: read_name(cell) for name, cell in found.items() if not is_missing(cell)}


def check_classes(rows: SplitRows, faults: Faults) -> tuple[str, ...]:
    """Return the labels of train; add faults for fewer than two, and for rows whose label train lacks."""
    train = [row for split, row in rows if split == "train" and row.label]
    classes = sort_classes({row.label for row in train})
    _check_two_classes(train, classes, faults)
    if rows and not classes and not faults.found:
        place = (rows[0][1].place[0], 0)
        faults.add(place, "no train split; expected rows with split 'train', or a table of that name; add them")
    unknown = [(row.place, row.label) for _, row in rows if row.label and row.label not in classes]
    if unknown and len(classes) == len(train) >= MANY:
        _add_own_labels(train, faults)
    elif classes:
        _add_unknown_labels(unknown, classes, faults)
    return classes


def check_singles(rows: Sequence[Row], faults: Faults) -> None:
    """Check the labels of a table without splits: add a fault for each class that has one row only."""
    labelled = [row for row in rows if row.label]
    counts = Counter(row.label for row in labelled)
    _check_two_classes(labelled, sort_classes(set(counts)), faults)
    if len(counts) == len(labelled) >= MANY:
        _add_own_labels(labelled, faults)
        return
    single = [row for row in labelled if counts[row.label] == 1 < len(counts)]
    if single:
        named = join_names([abbreviate(row.label) for row in single])
        message = f"classes of one row only, which cannot be learned: {named}; add rows of them"
        faults.add(single[0].place, message, "label", also=[row.place for row in single[1:]])


def _check_two_classes(rows: Sequence[Row], classes: Sequence[str], faults: Faults) -> None:
    if len(classes) == 1:
        message = f"train has one class only, {abbreviate(classes[0])}; expected two at least; add rows of another"
        faults.add((rows[0].place[0], 0), message)


def _add_own_labels(rows: Sequence[Row], faults: Faults) -> None:
    expected = (
        f"each of the {len(rows)} rows has a label of its own, such as {abbreviate(min(row.label for row in rows))}"
    )
    faults.add((rows[0].place[0], 0), f"{expected}; is the column of the labels an id, or a number to be predicted?")


def _add_unknown_labels(unknown: Sequence[tuple[Place, str]], classes: Sequence[str], faults: Faults) -> None:
    """Add a fault for each label that train lacks, once per file, at its first row."""
    places: dict[tuple[str, str], list[Place]] = {}
    for place, label in unknown:
        places.setdefault((place[0], label), []).append(place)
    for (_, label), (first, *others) in places.items():
        rows = f" ({1 + len(others)} rows)" if others else ""
        expected = f"is not in train, which has {join_names(classes)}"
        message = f"{abbreviate(label)}{rows} {expected}; correct it or add rows there"
        faults.add(first, message, "label", also=others)


def sort_classes(labels: set[str]) -> tuple[str, ...]:
    """Sort labels, as numbers where all are integers ("2" before "10")."""
    if all(re.fullmatch(r"-?[0-9]{1,18}", label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def check_ids(built: BuiltRows, column: str | None, faults: Faults) -> None:
    """Add faults for ids that occur twice in a split. Args: column, of the ids."""
    first: dict[tuple[str, str], Place] = {}
    for record, row in built:
        place = first.setdefault((record.split, row.id), record.place)
        if place != record.place:
            where = f" in split {record.split}" if record.split else ""
            before = f"{abbreviate(row.id)} was given before{where}, at {format_place(place)}"
            faults.add(record.place, f"{before}; make it unique", column or "id")


def check_lengths(built: BuiltRows, faults: Faults) -> None:
    """Add faults for vectors whose length differs from that of most vectors of their modality."""
    vectors = [
        (record.place, name, len(value))
        for record, row in built
        for name, value in row.values.items()
        if isinstance(value, tuple)
    ]
    for modality in dict.fromkeys(name for _, name, _ in vectors):
        usual = Counter(length for _, name, length in vectors if name == modality).most_common(1)[0][0]
        for place, name, length in vectors:
            if name == modality and length != usual:
                faults.add_value(place, name, f"expected {usual} numbers as in most rows, got {length}; correct it")
