"""What each column of a table is: found once, at training, and kept with the model, so that later tables are read alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from mla_serve.errors import BundleError
from mla_serve.inputs import INPUTS, Cell
from mla_serve.table.cells import Value, find_cell, is_missing, read_cell
from mla_serve.table.faults import InvalidValue, abbreviate
from mla_serve.table.files import read_file
from mla_serve.table.formats import Cells
from mla_serve.table.label_forms import LabelForm
from mla_serve.table.scalars import NumberFormat, is_not_available, parse_date, parse_number, parse_yes_no

CELL_KINDS = ("number", "category", "date", "yes_no")
"""Kinds of columns that together are one modality of kind `columns`."""
COLUMN_KINDS = ("image", "audio", "text", "vector", *CELL_KINDS, "ignore", "id")
"""What a user can say that a column holds, with --kinds or in dataset.json."""
FILE_KINDS = ("image", "audio")
ROLES = {*COLUMN_KINDS, "label", "split", "group", "present", "ignored"}


@dataclass(frozen=True)
class ColumnRole:
    """What one column is.

    role: label, split, id, group, present, ignored, or the kind of its modality or cell. modality: the one that its cells
    are part of, None if of none. reason: why, in a few words.
    decimal_comma: numbers are written as 1.234,5; day_first: dates as 31/12/2024; unit: a currency or % that is left out;
    subfolder: where its files are.
    """

    column: str
    role: str
    modality: str | None = None
    reason: str = ""
    decimal_comma: bool = False
    day_first: bool = False
    unit: str = ""
    subfolder: str = ""


@dataclass(frozen=True)
class CellFault:
    """A cell that cannot be read. Of a modality of kind `columns` the other cells may still be there."""

    column: str
    modality: str
    message: str


@dataclass(frozen=True)
class Sample:
    """The values of one row by modality, without those that are missing or at fault, and the faults."""

    values: dict[str, Value]
    faults: list[CellFault]


@dataclass(frozen=True)
class Schema:
    """What each column of the training table became.

    label: column of the labels, None if there is none, or several, separated by commas; label_form: how labels are written;
    label_type: int or bool, where all cells of classes were that.
    fingerprint, held_out: of a table without splits, its hash, and the numbers of its rows (from 0) that were taken for
    val and test.
    """

    label: str | None = None
    roles: tuple[ColumnRole, ...] = ()
    fingerprint: str = ""
    held_out: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    label_type: str = ""
    label_form: LabelForm = field(default=LabelForm())

    @property
    def modalities(self) -> dict[str, str]:
        """Modality -> kind, in the order of the columns."""
        return {
            role.modality: "columns" if role.role in CELL_KINDS else role.role for role in self.roles if role.modality
        }

    @property
    def id(self) -> str | None:
        """The column that names the rows."""
        return next((role.column for role in self.roles if role.role == "id"), None)

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns of the labels."""
        return self.label_form.columns or ((self.label,) if self.label else ())

    def has(self, role: str) -> bool:
        """Return whether a column has this role."""
        return any(one.role == role for one in self.roles)

    def columns_of(self, modality: str) -> list[str]:
        """Return the columns of a modality."""
        return [role.column for role in self.roles if role.modality == modality]

    def find_lacking(self, have: Collection[str]) -> list[str]:
        """Return the columns of modalities that a table lacks, and that none called as the modality stands for."""
        return [role.column for role in self.roles if role.modality and not _stands_in(role, have)]

    def keep(self, modalities: Collection[str]) -> Self:
        """Leave out ignored columns, those of all other modalities, and the reasons, which may quote cells."""
        used = [role for role in self.roles if role.role != "ignored"]
        kept = [role for role in used if role.modality is None or role.modality in modalities]
        return dataclasses.replace(self, roles=tuple(dataclasses.replace(role, reason="") for role in kept))

    def join(self, before: Schema) -> Self:
        """Add the columns of modalities of an earlier table that this one lacks."""
        names = {role.column for role in self.roles}
        added = tuple(role for role in before.roles if role.modality and role.column not in names)
        return dataclasses.replace(self, roles=(*self.roles, *added))

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON; fields with their default are left out."""
        split = {"fingerprint": self.fingerprint, "held_out": {name: list(n) for name, n in self.held_out.items()}}
        fields = {"label": self.label, "columns": [_without_defaults(role) for role in self.roles]}
        labels: dict[str, Any] = {"label_type": self.label_type} if self.label_type else {}
        if self.label_form != LabelForm():
            labels["label_form"] = self.label_form.to_dict()
        return fields | labels | (split if self.held_out else {})

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Rebuild what `to_dict` wrote. Raises: BundleError for anything else."""
        try:
            roles = tuple(ColumnRole(**role) for role in fields["columns"])
            held_out = {name: tuple(numbers) for name, numbers in fields.get("held_out", {}).items()}
            form = LabelForm.from_dict(fields.get("label_form", {}))
            schema = cls(
                fields["label"], roles, fields.get("fingerprint", ""), held_out, fields.get("label_type", ""), form
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"the columns of the training table: {error}; written by another version") from None
        for role in roles:
            if role.role not in {*ROLES, *INPUTS}:
                raise BundleError(f"column {role.column!r}: {role.role!r} is no role; written by another version")
            if Path(role.subfolder).name != role.subfolder or role.subfolder == "..":
                raise BundleError(f"column {role.column!r}: {role.subfolder!r} is no folder beside the table")
        return schema

    def describe(self) -> list[str]:
        """Return one line for each column, to be said before training."""
        return [_describe(role) for role in self.roles]

    def read_sample(self, cells: Cells, folder: Path) -> Sample:
        """Read the cells of a row, of the table this was found for or of another one with the same columns.

        Args: folder, paths are relative to it.
        """
        values: dict[str, Value] = {}
        grouped: dict[str, dict[str, Cell]] = {}
        faults = []
        for role in self.roles:
            cell = self._find_cell(cells, role)
            if role.modality is None or _is_missing(role, cell):
                continue
            try:
                if role.role in CELL_KINDS:
                    grouped.setdefault(role.modality, {})[role.column] = _read_scalar(role, cell)
                elif role.role in FILE_KINDS:
                    values[role.modality] = read_file(cell, folder, role.subfolder)
                else:
                    values[role.modality] = read_cell(role.role, cell, folder)
            except InvalidValue as error:
                faults.append(CellFault(role.column, role.modality, str(error)))
        return Sample({**values, **{name: found for name, found in grouped.items() if found}}, faults)

    def _find_cell(self, cells: Cells, role: ColumnRole) -> object:
        """Return the cell of a column, or else that of a column called as its modality."""
        cell = find_cell(cells, role.column)
        alone = cell is None and role.modality and role.role not in CELL_KINDS
        return find_cell(cells, role.modality) if alone and role.modality else cell


def _stands_in(role: ColumnRole, have: Collection[str]) -> bool:
    names = [role.column] if role.role in CELL_KINDS else [role.column, role.modality]
    return any(name in have or str(name).split(".")[0] in have for name in names)


def _is_missing(role: ColumnRole, cell: object) -> bool:
    return is_missing(cell) or (role.role in ("number", "date") and is_not_available(cell))


def _read_scalar(role: ColumnRole, cell: object) -> Cell:
    """Read a cell of kind number, category, date or yes_no. Raises: InvalidValue."""
    found, expected = SCALAR_READERS[role.role](role, cell)
    if found is None:
        raise InvalidValue(f"expected {expected}, got {abbreviate(cell)}; correct it, or leave the cell empty")
    return found


def _read_number(role: ColumnRole, cell: object) -> tuple[Cell, str]:
    if isinstance(cell, bool | int | float):
        return _finite(cell), "a finite number"
    form = NumberFormat(role.decimal_comma, role.unit)
    example = "1234,5" if role.decimal_comma else "1234.5"
    return parse_number(cell, form) if isinstance(cell, str) else None, f"a number such as {example}"


def _finite(number: float) -> float | None:
    try:
        value = float(number)
    except OverflowError:
        return None
    return value if abs(value) != float("inf") else None


def _read_category(_role: ColumnRole, cell: object) -> tuple[Cell, str]:
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)  # pandas writes whole numbers with gaps as 98103.0
    return str(cell).strip() if isinstance(cell, str | int | float) else None, "a text or a number"


def _read_date(role: ColumnRole, cell: object) -> tuple[Cell, str]:
    example = "31/12/2024" if role.day_first else "12/31/2024"
    return parse_date(cell, day_first=role.day_first), f"a date such as 2024-12-31 or {example}"


def _read_yes_no(_role: ColumnRole, cell: object) -> tuple[Cell, str]:
    return parse_yes_no(cell), "yes or no"


SCALAR_READERS: Mapping[str, Callable[[ColumnRole, object], tuple[Cell, str]]] = {
    "number": _read_number,
    "category": _read_category,
    "date": _read_date,
    "yes_no": _read_yes_no,
}


def _describe(role: ColumnRole) -> str:
    elsewhere = role.modality and role.modality != role.column
    return f"{role.column}: {role.reason}" + (f" -> {role.modality}" if elsewhere else "")


def _without_defaults(role: ColumnRole) -> dict[str, Any]:
    """Return the fields that differ from their default."""
    values = {field.name: getattr(role, field.name) for field in dataclasses.fields(role)}
    return {name: value for name, value in values.items() if value}
