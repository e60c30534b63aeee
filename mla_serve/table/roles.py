"""Find what every column is: what the user says, what its name says, else what `infer.py` says; and name the modalities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mla_serve.errors import ConfigError
from mla_serve.inputs.base import name_of_column
from mla_serve.table.cells import find_cell, is_missing
from mla_serve.table.declaration import STANDARD_KINDS, WHOLE_FILE, Declaration, check_kind, is_usable_name
from mla_serve.table.faults import Faults, InvalidValue, Place, join_names
from mla_serve.table.infer import NEARLY_ALL, ROWS_TO_JUDGE, Column, force_role, infer_cell_role, infer_role
from mla_serve.table.label_forms import LabelForm
from mla_serve.table.labels import (
    find_label,
    infer_form,
    infer_form_of_columns,
    later_form,
    split_names,
    type_of_labels,
)
from mla_serve.table.options import TableOptions
from mla_serve.table.records import Record
from mla_serve.table.schema import CELL_KINDS, ColumnRole, Schema
from mla_serve.table.split_names import holds_splits

COLUMNS = "columns"
"""The modality of all numbers, categories, dates and yes/no columns that dataset.json does not group."""
WORDS_OF_FILES = {"path", "paths", "file", "files", "filename", "filepath", "name", "fname"}
WORDS_OF_MEDIA = {"image", "img", "picture", "pic", "photo", "audio", "sound", "wav", "recording", "clip"}


@dataclass(frozen=True)
class Said:
    """What the user says: dataset.json, and the options, which overrule it."""

    declaration: Declaration
    options: TableOptions

    @property
    def label(self) -> str | None:
        """The column of the labels, or several, separated by commas."""
        return self.options.label or self.declaration.label

    @property
    def split(self) -> str:
        """The column of the splits."""
        return self.declaration.split or "split"

    def is_split(self, column: str, cells: Iterable[object]) -> bool:
        """Return whether a column holds the splits: dataset.json says so, or its name and its cells do."""
        schema = self.options.schema or self.options.known or Schema()
        read = column in self.kinds or any(role.column == column and role.modality for role in schema.roles)
        return column == self.split and (bool(self.declaration.split) or (not read and holds_splits(cells)))

    @property
    def kinds(self) -> dict[str, str]:
        """Column -> what it holds."""
        return {**self.declaration.columns, **self.options.kinds}

    def groups(self, modalities: Mapping[str, str]) -> dict[str, str]:
        """Return modality -> column whose values group it."""
        column = self.options.group or self.declaration.group
        if column:
            return dict.fromkeys(modalities, column)
        return {name: column for name, column in self.declaration.groups.items() if name in modalities}

    @property
    def group_columns(self) -> list[str]:
        """All columns that group rows."""
        column = self.options.group or self.declaration.group
        return [column] if column else list(dict.fromkeys(self.declaration.groups.values()))


def find_schema(records: Sequence[Record], said: Said, folder: Path, faults: Faults) -> Schema:
    """Find the role of each column; columns that cannot be used become faults.

    Raises: ConfigError for options that name no column or no kind.
    """
    columns = _collect(records, said, folder)
    place = (records[0].place[0], 0)
    _check_options(columns, said.options)
    labels, form = _find_label(columns, said, place, faults)
    found = [_find_role(column, labels, said, place, faults) for column in columns.values()]
    roles = [_check_id(role, records, said) for role in found if role]
    taken = {*said.declaration.modalities, *(said.options.known.modalities if said.options.known else ())}
    named = tuple(_name_modalities(roles, taken))
    label_type = type_of_labels(columns[labels[0]].cells) if labels and form.task == "classes" else ""
    schema = Schema(", ".join(labels) or None, named, label_type=label_type, label_form=form)
    _check_declared(records, schema, said, faults)
    return schema


def _collect(records: Sequence[Record], said: Said, folder: Path) -> dict[str, Column]:
    """Gather the cells of each column, in the order of the columns; also of nested fields that are declared."""
    names = dict.fromkeys(name for record in records for name in record.cells)
    names |= dict.fromkeys(name for source in said.declaration.sources.values() for name in source)
    cells = {name: [find_cell(record.cells, name) for record in records] for name in names}
    return {
        name: Column(name, [cell for cell in found if not is_missing(cell)], len(records), folder)
        for name, found in cells.items()
    }


def _check_options(columns: Mapping[str, Column], options: TableOptions) -> None:
    for name, kind in options.kinds.items():
        if name not in columns:
            raise ConfigError(f"--kinds {name}={kind}: no such column; the table has {join_names(columns)}")
        try:
            check_kind(name, kind)
        except InvalidValue as error:
            raise ConfigError(f"--kinds {error}") from None


def _find_label(
    columns: Mapping[str, Column], said: Said, place: Place, faults: Faults
) -> tuple[tuple[str, ...], LabelForm]:
    """Return the columns of the labels, none where that is a fault, and how the labels are written."""
    known, cells = said.options.known, {name: column.cells for name, column in columns.items()}
    as_known = known if known and known.label_columns and cells.keys() >= set(known.label_columns) else None
    try:
        if as_known and not said.label:
            return as_known.label_columns, as_known.label_form
        labels = find_label(cells, said.label)
        if len(labels) > 1:
            return labels, infer_form_of_columns({name: cells[name] for name in labels}, said.options.task)
        return labels, infer_form(labels[0], cells[labels[0]], said.options.task, said.options.separator)
    except InvalidValue as error:
        faults.add(place, str(error))
        return (), LabelForm()


def _find_role(column: Column, labels: Sequence[str], said: Said, place: Place, faults: Faults) -> ColumnRole | None:
    """Return the role of a column; None for one that became a fault."""
    known = said.options.known if column.name not in labels else None
    decided = _known_role(column, known) or _role_by_name(column, labels, said)
    if decided:
        return decided
    with faults.collecting(place, column.name):
        return _declared_role(column, said) or _standard_role(column) or infer_role(column)
    return None


def _check_id(role: ColumnRole, records: Sequence[Record], said: Said) -> ColumnRole:
    """Return the role, or that of an ignored column for an `id` whose values repeat: it names something else than rows."""
    name = role.column
    if role.role != "id" or name in said.kinds or names_rows(records, name):
        return role
    advice = "" if said.group_columns else f"; --group {name} keeps rows of the same {name} on one side of the split"
    return replace(role, role="ignored", reason=f"ignored, its values repeat, so that it names no single rows{advice}")


def names_rows(records: Sequence[Record], column: str) -> bool:
    """Return whether nearly all values of a column name one row of a split. Rows that repeat one of the few others are faults."""
    rows = Counter((record.split, str(find_cell(record.cells, column))) for record in records if record.has(column))
    once = sum(count == 1 for count in rows.values())
    return rows.total() < ROWS_TO_JUDGE or once >= NEARLY_ALL * len(rows)


def complete_schema(schema: Schema, records: Sequence[Record], asked: str | None) -> Schema:
    """Add to the schema of training what a later table says of its rows by the names of its columns: label, id, masks.

    Args: asked, the column of the labels; None: that of training, or else `label`.
    """
    read = {role.column for role in schema.roles if role.modality}
    lacking = not any(name in record.cells for name in schema.label_columns for record in records)
    other = lacking and "label" not in read and any("label" in record.cells for record in records)
    added = [
        ColumnRole(name, name)
        for name in ("id", "present")
        if not schema.has(name) and name not in read and any(record.has(name) for record in records)
    ]
    roles = (*schema.roles, *(role for role in added if role.role != "id" or names_rows(records, "id")))
    have = {name for record in records for name in record.cells}
    names = split_names(asked, have) if asked else ("label",) if other else schema.label_columns
    cells = [record.cells[names[0]] for record in records if names and record.has(names[0])]
    form = later_form(schema.label_form, names, cells)
    return replace(schema, label=", ".join(names) or None, label_form=form, roles=roles)


def _known_role(column: Column, known: Schema | None) -> ColumnRole | None:
    """Return the role that a column has in a model, if it is part of a modality there."""
    roles = known.roles if known else ()
    return next((role for role in roles if role.column == column.name and role.modality), None)


def _role_by_name(column: Column, labels: Sequence[str], said: Said) -> ColumnRole | None:
    """Return the role that the name alone decides."""
    name, count = column.name, f"{column.different:,} values"
    if name in labels:
        return ColumnRole(name, "label", reason=f"label, {count}")
    used = name in said.kinds or name in STANDARD_KINDS or any(name in s for s in said.declaration.sources.values())
    if used or not column.cells:
        return None
    if said.is_split(name, column.cells):
        return ColumnRole(name, "split", reason="split")
    if name in said.group_columns:
        return ColumnRole(name, "group", reason=f"group, {count}")
    if name in ("id", "present"):
        return ColumnRole(name, name, reason="id of the rows" if name == "id" else "masks for evaluate --draws 0")
    return ColumnRole(name, "ignored", reason="ignored, part of meta") if name.startswith("meta.") else None


def _declared_role(column: Column, said: Said) -> ColumnRole | None:
    """Return the role that the user gives a column."""
    for modality, sources in said.declaration.sources.items():
        if column.name in sources and column.name not in said.options.kinds:
            kind = said.declaration.modalities[modality]
            return replace(_role_in_modality(column, kind), modality=modality) if column.cells else None
    return force_role(column, said.kinds[column.name]) if column.name in said.kinds else None


def _role_in_modality(column: Column, kind: str) -> ColumnRole:
    if kind != COLUMNS:
        return force_role(column, kind)
    nested = column.holds(dict)
    return ColumnRole(column.name, COLUMNS, reason="cells of several columns") if nested else infer_cell_role(column)


def _standard_role(column: Column) -> ColumnRole | None:
    """Return the role of a column called image, audio or text."""
    kind = STANDARD_KINDS.get(column.name)
    return replace(force_role(column, kind), modality=kind) if kind and column.cells else None


def _name_modalities(roles: Sequence[ColumnRole], taken: Collection[str]) -> list[ColumnRole]:
    """Give each column with values the modality that it is part of. Args: taken, names that cannot be given again."""
    together = COLUMNS if COLUMNS not in taken else f"{COLUMNS}_2"
    taken = {*taken, *(role.modality for role in roles if role.modality), COLUMNS, together}
    named = []
    for role in roles:
        modality = role.modality
        if modality is None and role.role in CELL_KINDS:
            modality = together
        elif modality is None and role.role in ("image", "audio", "text", "vector"):
            modality = _free_name(role, taken)
            taken.add(modality)
        named.append(replace(role, modality=modality))
    return named


def _free_name(role: ColumnRole, taken: Collection[str]) -> str:
    """Return a name for the modality of a column: its own in lower case, or its kind for names such as image_path."""
    slug = name_of_column(role.column)
    words = set(slug.split("_"))
    if words & WORDS_OF_FILES and words <= WORDS_OF_FILES | WORDS_OF_MEDIA and role.role in ("image", "audio"):
        slug = role.role
    slug = slug[:50]
    tries = [
        slug,
        f"{slug}_{role.role}",
        f"{role.role}_{slug}",
        *(f"{role.role}_{number}" for number in range(2, 10_000)),
    ]
    return next(name for name in tries if is_usable_name(name) and name not in taken)


def _check_declared(records: Sequence[Record], schema: Schema, said: Said, faults: Faults) -> None:
    """Add faults for declared modalities without training rows, and for group columns that do not exist."""
    train = [record for record in records if record.split in ("train", "")]
    declaration, modalities = said.declaration, schema.modalities
    for name, sources in declaration.sources.items():
        if train and not any(record.has(column) for record in train for column in sources):
            where = repr(name) if sources == (name,) else f"{name!r} in {join_names(sources)}"
            faults.add(
                WHOLE_FILE, f"modalities: no row of train has a value for {where}; add some, or do not declare it"
            )
    known = {**STANDARD_KINDS, **declaration.modalities, **modalities}
    for name in [name for name in declaration.groups if name not in known]:
        faults.add(WHOLE_FILE, f"group: unknown modality {name!r}; expected some of {join_names(known)}")
    for column in said.group_columns:
        if not any(record.has(column) for record in records):
            faults.add(WHOLE_FILE, f"group: no row has a value at {column!r}; correct its spelling or remove it")
