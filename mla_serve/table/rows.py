"""Turn records into rows: read the cells of each, then check the rows against each other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from mla_serve.table.cells import Value, find_cell, is_missing, read_cell, read_name, read_present
from mla_serve.table.dataset import Row
from mla_serve.table.declaration import Declaration
from mla_serve.table.faults import Faults, InvalidValue, Place, abbreviate, format_place, join_names
from mla_serve.table.formats import Cells
from mla_serve.table.records import Record

BuiltRows = Sequence[tuple[Record, Row]]
MANY = 10  # training rows; if each of so many has a different label, the labels are no classes


def build_row(
    record: Record, declaration: Declaration, modalities: Mapping[str, str], folder: Path, faults: Faults
) -> Row:
    """Read the cells of a row; cells that cannot be used become faults and are left out.

    Args: modalities, those of the whole table.
    """
    cells, place = record.cells, record.place
    name, label = f"{record.split}-{record.number}", ""
    present: Mapping[str, frozenset[str]] = {}
    groups: Mapping[str, str] = {}
    with faults.collecting(place, "id"):
        name = read_name(cells["id"]) if record.has("id") else name
    with faults.collecting(place, "label"):
        label = _read_label(cells)
    values = _read_values(record, declaration.kinds, folder, faults)
    with faults.collecting(place, "present"):
        present = read_present(cells.get("present"), declaration.kinds, values)
    with faults.collecting(place, "group"):
        columns = {modality: column for modality, column in declaration.groups.items() if modality in modalities}
        groups = _read_groups(cells, columns)
    return Row(name, label, values, present, groups, place)


def _read_label(cells: Cells) -> str:
    if is_missing(cells.get("label")):
        raise InvalidValue("missing; fill it or remove the row")
    return read_name(cells["label"])


def _read_values(record: Record, kinds: Mapping[str, str], folder: Path, faults: Faults) -> dict[str, Value]:
    """Return the modalities of one row."""
    given = [name for name in kinds if record.has(name)]
    values = {}
    for name in given:
        with faults.collecting(record.place, name, modality=name):
            values[name] = read_cell(kinds[name], record.cells[name], folder)
    if not given:
        faults.add(record.place, f"no modality at all; fill one of {join_names(kinds)}, or remove the row")
    return values


def _read_groups(cells: Cells, columns: Mapping[str, str]) -> dict[str, str]:
    """Return modality -> group, without empty groups."""
    found = {name: find_cell(cells, column) for name, column in columns.items()}
    return {name: read_name(cell) for name, cell in found.items() if not is_missing(cell)}


def check_classes(built: BuiltRows, faults: Faults) -> tuple[str, ...]:
    """Return the labels of train; add faults for fewer than two, and for rows whose label train lacks."""
    train = [(record, row.label) for record, row in built if record.split == "train" and row.label]
    classes = _sorted_classes({label for _, label in train})
    if len(classes) == 1:
        message = f"train has one class only, {abbreviate(classes[0])}; expected two at least; add rows of another"
        faults.add((train[0][0].place[0], 0), message)
    if built and not classes and not faults.found:
        place = (built[0][0].place[0], 0)
        faults.add(place, "no train split; expected rows with split 'train', or a table of that name; add them")
    unknown = [(record.place, row.label) for record, row in built if row.label and row.label not in classes]
    if unknown and len(classes) == len(train) >= MANY:
        expected = f"each of the {len(train)} rows has a label of its own, such as {abbreviate(classes[0])}"
        faults.add((train[0][0].place[0], 0), f"{expected}; is the column 'label' an id, or a number to be predicted?")
    elif classes:
        _add_unknown_labels(unknown, classes, faults)
    return classes


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


def _sorted_classes(labels: set[str]) -> tuple[str, ...]:
    """Sort labels, as numbers where all are integers ("2" before "10")."""
    if all(re.fullmatch(r"-?[0-9]{1,18}", label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def check_ids(built: BuiltRows, faults: Faults) -> None:
    """Add faults for ids that occur twice in a split."""
    first: dict[tuple[str, str], Place] = {}
    for record, row in built:
        place = first.setdefault((record.split, row.id), record.place)
        if place != record.place:
            before = f"{abbreviate(row.id)} was given before in split {record.split}, at {format_place(place)}"
            faults.add(record.place, f"{before}; make it unique", "id")


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
