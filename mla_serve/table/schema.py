"""What each column of a table is: found once, at training, and kept with the model, so that later tables are read alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mla_serve.table.cells import Value, find_cell, is_missing, read_cell
from mla_serve.table.faults import InvalidValue
from mla_serve.table.formats import Cells

CELL_KINDS = ("number", "category", "date", "yes_no")
"""Kinds of columns that together are one modality of kind `columns`."""
COLUMN_KINDS = ("image", "audio", "text", "vector", *CELL_KINDS, "ignore", "id")
"""What a user can say that a column holds, with --kinds or in dataset.json."""
ROLES = ("label", "split", "id", "group", "present", "image", "audio", "text", "vector", *CELL_KINDS, "ignored")


@dataclass(frozen=True)
class ColumnRole:
    """What one column is.

    role: one of ROLES; modality: the modality that its cells are part of, None if of none; reason: why, in a few words.
    decimal_comma: numbers are written as 1.234,5; day_first: dates as 31/12/2024; subfolder: where its files are.
    """

    column: str
    role: str
    modality: str | None = None
    reason: str = ""
    decimal_comma: bool = False
    day_first: bool = False
    subfolder: str = ""


@dataclass(frozen=True)
class Sample:
    """The values of one row, and the faults of those that cannot be read; both by modality."""

    values: dict[str, Value]
    faults: dict[str, str]


@dataclass(frozen=True)
class Schema:
    """What each column of the training table became. label: its column, None if there is none."""

    label: str | None = None
    roles: tuple[ColumnRole, ...] = ()

    @property
    def modalities(self) -> dict[str, str]:
        """Modality -> kind, in the order of the columns."""
        found = [role for role in self.roles if role.modality]
        return {str(role.modality): "columns" if role.role in CELL_KINDS else role.role for role in found}

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON; fields with their default are left out."""
        return {"label": self.label, "columns": [_without_defaults(role) for role in self.roles]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Rebuild what `to_dict` wrote."""
        return cls(fields["label"], tuple(ColumnRole(**role) for role in fields["columns"]))

    def describe(self) -> list[str]:
        """Return one line for each column, to be said before training."""
        return [f"{role.column}: {role.reason}" for role in self.roles]

    def read_sample(self, cells: Cells, folder: Path) -> Sample:
        """Read the cells of a row, of the table this was found for or of another one with the same columns.

        Args: folder, paths are relative to it.
        Returns: the values, without missing modalities; a modality with a fault is in `faults` only.
        """
        values, faults = {}, {}
        for role in self.roles:
            cell = find_cell(cells, role.column)
            if role.modality and not is_missing(cell):
                try:
                    values[role.modality] = read_cell(role.role, cell, folder)
                except InvalidValue as error:
                    faults[role.modality] = str(error)
        return Sample(values, faults)


def _without_defaults(role: ColumnRole) -> dict[str, Any]:
    plain = ColumnRole(role.column, role.role)
    return {
        field.name: getattr(role, field.name)
        for field in dataclasses.fields(role)
        if field.name in ("column", "role") or getattr(role, field.name) != getattr(plain, field.name)
    }
