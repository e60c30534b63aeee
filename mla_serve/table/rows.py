"""Turn records into rows: read the cells of each, then check the rows against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mla_serve.table.cells import Value, find_cell, is_missing, read_name, read_present
from mla_serve.table.dataset import Row
from mla_serve.table.faults import Faults, Place, abbreviate, format_place, join_names
from mla_serve.table.formats import Cells
from mla_serve.table.label_forms import UNKNOWN, complete_labels
from mla_serve.table.records import Record
from mla_serve.table.schema import Schema
from mla_serve.tasks import TASKS, Label, Task
from mla_serve.tasks.base import sort_names

BuiltRows = Sequence[tuple[Record, Row]]
NOT_IN_TRAIN = "not in train"
SplitRows = Sequence[tuple[str, Row]]
"""Rows with their split."""


def build_row(
    record: Record, schema: Schema, groups: Mapping[str, str], known: Collection[str], folder: Path, faults: Faults
) -> Row:
    """Read the cells of a row; cells that cannot be used become faults and are left out.

    Args: groups, modality -> column that groups it; known, the names that `present` may hold.
    """
    cells, place = record.cells, record.place
    name, label = f"{record.split or 'row'}-{record.number}", None
    present: Mapping[str, frozenset[str]] = {}
    grouped: Mapping[str, str] = {}
    if schema.id:
        with faults.collecting(place, schema.id):
            name = read_name(cells[schema.id]) if record.has(schema.id) else name
    if schema.label:
        with faults.collecting(place, schema.label):
            label = schema.label_form.read(schema.label_form.find_cell(cells, schema.label))
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


def complete_all(built: BuiltRows, trained: Task | None) -> list[tuple[Record, Row]]:
    """Say of every label whether a row has it, see complete_labels. Args: trained, of the model that the table is read for."""
    labels = [row.label for _, row in built if isinstance(row.label, frozenset | Mapping)]
    found = (name for label in labels for name in label if not name.startswith(UNKNOWN))
    names = sort_names([*found, *(trained.names if trained else ())])
    return [(record, replace(row, label=complete_labels(row.label, names))) for record, row in built]


def complete_rows(rows: Sequence[Row], task: Task) -> tuple[Row, ...]:
    """Leave out that a row lacks a label which the task does not have."""
    return tuple(replace(row, label=complete_labels(row.label, task.names)) for row in rows)


def check_labels(rows: SplitRows, schema: Schema, faults: Faults) -> Task:
    """Return the task that the labels of train define.

    Adds faults for labels from which nothing can be learned, and for rows whose label train lacks.
    """
    train = [row for split, row in rows if split == "train" and row.label is not None]
    others = [row for split, row in rows if split != "train" and row.label is not None]
    task = make_task(schema, [row.label for row in train], [row.label for row in others])
    if rows and not train and not faults.found:
        place = (rows[0][1].place[0], 0)
        faults.add(place, "no train split; expected rows with split 'train', or a table of that name; add them")
    if train and not _add_unlearnable(train, task, faults):
        add_unknown_labels(others, task, NOT_IN_TRAIN, faults)
    return task


def make_task(schema: Schema, labels: Sequence[Label], others: Sequence[Label] = ()) -> Task:
    """Return the task that the labels of train define. Args: others, the labels of the other splits."""
    form = schema.label_form
    return TASKS[form.task].from_labels(labels, others, column=schema.label or "", unit=form.unit)


def check_singles(rows: Sequence[Row], schema: Schema, faults: Faults) -> None:
    """Check the labels of a table without splits: add a fault for each class that has one row only."""
    labelled = [row for row in rows if row.label is not None]
    task = make_task(schema, [row.label for row in labelled])
    if not labelled or _add_unlearnable(labelled, task, faults) or not task.exclusive:
        return
    counts = Counter(row.label for row in labelled)
    single = [row for row in labelled if counts[row.label] == 1 < len(counts)]
    if single:
        named = join_names([abbreviate(row.label) for row in single])
        message = f"{task.name} of one row only, which cannot be learned: {named}; add rows of them"
        faults.add(single[0].place, message, "label", also=[row.place for row in single[1:]])


def _add_unlearnable(rows: Sequence[Row], task: Task, faults: Faults) -> bool:
    """Add a fault if nothing can be learned from the labels, and return whether that is so."""
    reason = task.find_unlearnable([row.label for row in rows])
    if reason:
        faults.add((rows[0].place[0], 0), f"the {len(rows):,} rows for training have {reason}")
    return bool(reason)


def add_unknown_labels(rows: Sequence[Row], task: Task, what: str, faults: Faults) -> None:
    """Add a fault for each label that the task does not have, once per file, at its first row.

    Args: what, such a label is, NOT_IN_TRAIN or Task.expected_label.
    """
    places: dict[tuple[str, str], list[Place]] = {}
    for row in rows:
        for label in task.unknown(row.label):
            places.setdefault((row.place[0], label), []).append(row.place)
    known = f", which has {join_names(task.names)}" if task.names else ""
    advice = "correct it or add rows there" if what == NOT_IN_TRAIN else "correct it"
    for (_, label), (first, *others) in places.items():
        count = f" ({1 + len(others)} rows)" if others else ""
        faults.add(first, f"{abbreviate(label)}{count} is {what}{known}; {advice}", "label", also=others)


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
