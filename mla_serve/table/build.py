"""From the lines of tables to a checked Table: what every source of lines has in common, files and data frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mla_serve.table.cells import Value, is_missing
from mla_serve.table.check_files import check_files
from mla_serve.table.dataset import Row, Table, describe_lost_names, leave_out
from mla_serve.table.declaration import DATASET_JSON, STANDARD_KINDS, Declaration, parse_declaration
from mla_serve.table.faults import Faults, InvalidValue, abbreviate, format_place, join_names
from mla_serve.table.formats import Line
from mla_serve.table.hints import find_leaks, find_shared_values
from mla_serve.table.label_forms import LabelForm
from mla_serve.table.options import TableOptions
from mla_serve.table.records import UNSPLIT, Record, check_label_column, describe_renamed_splits, read_records
from mla_serve.table.roles import COLUMNS, Said, complete_schema, find_schema
from mla_serve.table.rows import (
    build_row,
    check_ids,
    check_labels,
    check_lengths,
    check_singles,
    complete_all,
    complete_rows,
    make_task,
)
from mla_serve.table.schema import Schema
from mla_serve.table.split import SHARE, split_rows
from mla_serve.table.split_names import SPLITS
from mla_serve.tasks import Label, Task

FEW_REASONS = 5  # why columns are ignored, in a message
RARE = 10  # rows of a class or label from which little can be learned

Built = Sequence[tuple[Record, Row]]
Splits = Mapping[str, tuple[Row, ...]]


@dataclass(frozen=True)
class _Lines:
    """What is known before rows are built: the labelled records, what the user says, and what the columns are."""

    records: Sequence[Record]
    said: Said
    schema: Schema
    notes: Sequence[str]


def table_from_lines(
    tables: Mapping[str, Sequence[Line]],
    folder: Path,
    fingerprint: str,
    options: TableOptions = TableOptions(),  # noqa: B008 (frozen)
    declared: bytes | None = None,
) -> Table:
    """Check the lines of one table or of one per split, and report all faults at once.

    Args: tables, name -> lines; folder, absolute: paths are relative to it; declared, the content of dataset.json.
    Raises: DataError with the number of faults and the first of them, with table and line; ConfigError for options that
            do not fit the table.
    """
    faults = Faults(folder, [DATASET_JSON, *tables], options.policy)
    lines = _find_columns(tables, folder, options, declared, faults)
    faults.columns = _single_columns(lines.schema)
    modalities = _order(lines.schema.modalities, lines.said.declaration)
    built = _build(lines, modalities, folder, faults)
    rows = leave_out((row for _, row in built), faults)
    splits, schema, said = _split(rows, {record.place: record for record, _ in built}, lines, fingerprint)
    task = _find_task(splits, schema, folder, options)
    splits = {split: complete_rows(found, task) for split, found in splits.items()}
    hints = find_leaks(splits, modalities, task)
    if schema.held_out and not lines.said.group_columns:
        hints += find_shared_values(splits, modalities)
    lost = describe_lost_names((row for _, row in built), task)
    schema = _describe_labels(schema, task, [row.label for row in rows], options)
    return Table(folder, modalities, splits, task, fingerprint, (*lines.notes, *said, *lost, *hints), schema, faults)


def _describe_labels(schema: Schema, task: Task, labels: Sequence[Label], options: TableOptions) -> Schema:
    """Say in the reasons of the columns of labels what is predicted, and how to have it otherwise where that is likely."""
    counts = Counter(name for label in labels for name in task.names_in(label))
    several = len(schema.label_columns) > 1
    other = _other_task(schema.label_form) if options.task is None and options.separator is None else ""

    def describe(column: str) -> str:
        return f"a label, of {counts[column]:,} rows" if several else task.describe_labels(labels) + other

    roles = (replace(role, reason=describe(role.column)) if role.role == "label" else role for role in schema.roles)
    return replace(schema, roles=tuple(roles))


def _other_task(form: LabelForm) -> str:
    """Say how cells that were inferred to be numbers or several labels are taken as classes; empty for others."""
    return "; --task classes takes each different cell as a class" if form.separator or form.task == "number" else ""


def _single_columns(schema: Schema) -> dict[str, str]:
    """Return modality -> its column, for modalities of one column."""
    columns = {name: schema.columns_of(name) for name in schema.modalities}
    return {name: found[0] for name, found in columns.items() if len(found) == 1}


def _find_columns(
    tables: Mapping[str, Sequence[Line]], folder: Path, options: TableOptions, declared: bytes | None, faults: Faults
) -> _Lines:
    """Read the records, and find what their columns are. Raises: DataError where there is nothing to go on with."""
    said = Said(parse_declaration(declared, faults), options)
    split, notes = _find_split(tables, said)
    records = read_records(tables, split, faults)
    if not records:
        faults.raise_if_any()
    if options.schema:
        schema = complete_schema(options.schema, records, options.label)
        _check_columns(schema, records, faults)
    else:
        schema = find_schema(records, said, folder, faults)
        _check_modalities(schema, records, faults)
    if schema.label is None:
        faults.raise_if_any()
    with_label = check_label_column(records, schema.label_columns, faults)
    labelled = [record for record in with_label if not _lacks_label(record, schema)]
    bare = [record for record in with_label if _lacks_label(record, schema)]
    notes += describe_renamed_splits(records, split) + _describe_unlabelled(bare, schema)
    return _Lines(labelled, said, schema, notes)


def _lacks_label(record: Record, schema: Schema) -> bool:
    form = schema.label_form
    return form.is_missing(form.find_cell(record.cells, schema.label or ""))


def _find_split(tables: Mapping[str, Sequence[Line]], said: Said) -> tuple[str | None, list[str]]:
    """Return the column of the splits, None if there is none, and a note on a column that is only called like it."""
    rows = (row for lines in tables.values() for _, row in lines if not isinstance(row, InvalidValue))
    cells = [row[said.split] for row in rows if not is_missing(row.get(said.split))]
    if said.is_split(said.split, cells):
        return said.split, []
    if not cells or said.split in said.kinds or said.options.schema:
        return None, []
    given, expected = abbreviate(cells[0]), ", ".join(SPLITS)
    return None, [f"{said.split}: expected {expected}, got {given} and the like; taken as a column like any other"]


def _check_columns(schema: Schema, records: Sequence[Record], faults: Faults) -> None:
    """Refuse a table that has none of the columns of the model. Raises: DataError."""
    have = dict.fromkeys(name for record in records for name in record.cells)
    lacking = schema.find_lacking(have)
    if len(lacking) == sum(role.modality is not None for role in schema.roles):
        named = f"none of the columns that the model reads, {join_names(lacking)}; it has {join_names(have)}"
        faults.add((records[0].place[0], 0), f"{named}; rename them")
        faults.raise_if_any()


def _check_modalities(schema: Schema, records: Sequence[Record], faults: Faults) -> None:
    """Refuse a table with nothing to learn from, and say why its columns are ignored. Raises: DataError."""
    if schema.modalities or schema.label is None:
        return
    why = [f"{role.column}: {role.reason}" for role in schema.roles if role.role == "ignored"]
    told = "; ".join([f"no column to learn from beside the label {schema.label!r}", *why[:FEW_REASONS]])
    advice = "say what one holds with --kinds COLUMN=KIND, or add columns" if why else "add columns"
    if not faults.refuses:
        faults.add((records[0].place[0], 0), f"{told}; {advice}")
    faults.raise_if_any()


def _describe_unlabelled(bare: Sequence[Record], schema: Schema) -> list[str]:
    such = ", ".join(format_place(record.place) for record in bare[:3])
    count = f"{len(bare):,} row{'s' if len(bare) > 1 else ''}"
    advice = "; write [] where a row has none of the labels" if schema.label_form.separator else ""
    return [f"{count} without a label left out ({such}{', ...' if len(bare) > 3 else ''}){advice}"] if bare else []


def _order(modalities: Mapping[str, str], declaration: Declaration) -> dict[str, str]:
    """Order modalities: image, audio, text, then as declared, then as their columns stand in the table."""
    names = dict.fromkeys([*STANDARD_KINDS, *declaration.modalities, *modalities])
    names[COLUMNS] = names.pop(COLUMNS, None)  # the last, unless there is none
    return {name: modalities[name] for name in names if name in modalities}


def _build(lines: _Lines, modalities: Mapping[str, str], folder: Path, faults: Faults) -> Built:
    """Read the cells of all rows and check them against each other. Raises: DataError with all faults."""
    said, schema = lines.said, lines.schema
    groups = said.groups(modalities)
    known = {**STANDARD_KINDS, **said.declaration.modalities, **modalities}
    rows = [(record, build_row(record, schema, groups, known, folder, faults)) for record in lines.records]
    built = complete_all(rows, said.options.trained)
    good = _leave_out(built, faults)
    check_ids(good, schema.id, faults)
    check_lengths(good, faults)
    good = _leave_out(good, faults)
    if said.options.schema is None:
        if any(record.split == UNSPLIT for record, _ in built):
            check_singles([row for _, row in good], schema, faults)
        else:
            check_labels([(record.split, row) for record, row in good], schema, faults)
    if faults.refuses:
        check_files([row for _, row in built], modalities, folder, faults)
    faults.raise_if_any()
    return [(record, replace(row, values=_in_order(row, modalities))) for record, row in built]


def _leave_out(built: Built, faults: Faults) -> list[tuple[Record, Row]]:
    """Leave out what is at fault, as the policy says; nothing if it refuses faults."""
    kept = {row.place: row for row in leave_out([row for _, row in built], faults)}
    return [(record, kept[row.place]) for record, row in built if row.place in kept]


def _in_order(row: Row, modalities: Mapping[str, str]) -> dict[str, Value]:
    return {name: row.values[name] for name in modalities if name in row.values}


def _split(
    rows: Sequence[Row], records: Mapping[tuple[str, int], Record], lines: _Lines, fingerprint: str
) -> tuple[Splits, Schema, list[str]]:
    """Return the rows by split, the schema with the split of a table that had none, and notes."""
    schema, options = lines.schema, lines.said.options
    if all(records[row.place].split != UNSPLIT for row in rows):
        found = {split: tuple(row for row in rows if records[row.place].split == split) for split in SPLITS}
        return {split: kept for split, kept in found.items() if kept}, schema, []
    before = options.schema or options.known
    if before and (before is options.schema or before.fingerprint == fingerprint):
        return _split_again(rows, records, schema, before, fingerprint)
    val, test = (SHARE if share is None else share for share in (options.val, options.test))
    task = make_task(schema, [row.label for row in rows])
    splits, note = split_rows(rows, val, test, options.seed, task)
    numbers = {split: tuple(records[row.place].number for row in splits.get(split, ())) for split in ("val", "test")}
    return splits, replace(schema, fingerprint=fingerprint, held_out=numbers), [note, *_describe_rare(rows, task)]


def _split_again(
    rows: Sequence[Row], records: Mapping[tuple[str, int], Record], schema: Schema, before: Schema, fingerprint: str
) -> tuple[Splits, Schema, list[str]]:
    """Split the table of training as training did; of any other table without splits all rows are test rows.

    Args: schema, to be returned; before, that of the training.
    """
    if fingerprint != before.fingerprint:
        return {"test": tuple(rows)}, schema, ["the table names no splits: all its rows are test rows"]
    split_of = {number: split for split, numbers in before.held_out.items() for number in numbers}
    schema = replace(schema, fingerprint=fingerprint, held_out=before.held_out)
    found = {
        split: tuple(row for row in rows if split_of.get(records[row.place].number, "train") == split)
        for split in SPLITS
    }
    return {split: kept for split, kept in found.items() if kept}, schema, ["split as in training"]


def _find_task(splits: Splits, schema: Schema, folder: Path, options: TableOptions) -> Task:
    """Return what the labels are. Raises: DataError if the rows that were left out leave too few."""
    rows = [(split, row) for split, found in splits.items() for row in found]
    if options.schema is not None:
        return options.trained or make_task(schema, [row.label for _, row in rows])
    left = Faults(folder, list(dict.fromkeys(row.place[0] for _, row in rows)))
    task = check_labels(rows, schema, left)
    left.raise_if_any()
    return task


def _describe_rare(rows: Sequence[Row], task: Task) -> list[str]:
    """Name the classes or labels of few rows."""
    counts = Counter(name for row in rows for name in task.names_in(row.label))
    rare = {name: count for name, count in sorted(counts.items()) if count < RARE}
    named = ", ".join(f"{name} ({count})" for name, count in list(rare.items())[:10])
    more = ", ..." if len(rare) > 10 else ""
    return [f"data: {task.name} of fewer than {RARE} rows, which are hardly learned: {named}{more}"] if rare else []
