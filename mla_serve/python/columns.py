"""Which modality each entry of a sample belongs to: samples name modalities, or the columns of the training table."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mla_serve.errors import InputError, UnknownField
from mla_serve.inputs import Input
from mla_serve.payloads import is_missing
from mla_serve.python.values import to_plain, to_value
from mla_serve.table.faults import InvalidValue
from mla_serve.table.files import read_file
from mla_serve.table.schema import CELL_KINDS, ColumnRole, Schema

FILE_ROLES = ("image", "audio")


@dataclasses.dataclass(frozen=True)
class Values:
    """The values of one sample, and why others cannot be used; both by modality."""

    values: dict[str, Any]
    faults: dict[str, str]


class Columns:
    """Reads samples for one model. `names`: every name that a sample may use for a part of the input."""

    def __init__(self, inputs: Mapping[str, Input], schema: Schema) -> None:
        """Take the inputs of the model, and what each column of its training table is."""
        self._inputs, self._schema = inputs, schema
        self._roles = {role.column: role for role in schema.roles}
        read = {role.column for role in schema.roles if role.modality in inputs}
        cells = {column.name for spec in inputs.values() for column in getattr(spec, "columns", ())}
        self._cell_of = {c.name: name for name, spec in inputs.items() for c in getattr(spec, "columns", ())}
        self.names = frozenset({*inputs, *read, *cells})
        self._known = self.names | self._roles.keys()

    def check_names(self, names: Collection[str]) -> None:
        """Refuse a name that is no modality and no column of the training table. Raises: UnknownField."""
        for name in names:
            if name not in self._known:
                near = difflib.get_close_matches(name, sorted(self.names), 1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise UnknownField(
                    name, f"this model has no such input; {hint}it reads {', '.join(sorted(self.names))}"
                )

    def check_table(self, columns: Collection[str]) -> list[str]:
        """Return the columns of a table that the model does not know. Raises: InputError when it has none that is read."""
        if not self.names & set(columns):
            raise InputError(
                "data", f"has the columns {', '.join(columns)}; expected some of {', '.join(sorted(self.names))}"
            )
        return [column for column in columns if column not in self._known]

    def read(self, sample: Mapping[str, Any], folder: Path, *, of_table: bool) -> Values:
        """Read the values of a sample by modality; missing ones are left out.

        Args: folder, of relative paths; of_table, whether the sample is a row of a table. A text in a table may come from
        anybody, so a path in it may not leave the folder.
        """
        found, cells = Values({}, {}), {}
        for name, value in sample.items():
            if name not in self.names or is_missing(value):
                continue
            role = self._roles.get(name)
            if name in self._cell_of or (role and role.role in (*CELL_KINDS, "vector")):
                cells[name] = to_plain(value)
            else:
                modality = str(role.modality) if role and role.modality else name
                self._read_one(modality, value, role, folder, of_table, found)
        self._read_cells(cells, folder, found)
        return found

    def _read_one(
        self, modality: str, value: Any, role: ColumnRole | None, folder: Path, of_table: bool, found: Values
    ) -> None:
        spec = self._inputs[modality]
        try:
            if of_table and spec.sent_as == "file" and isinstance(value, str):
                found.values[modality] = read_file(value, folder.resolve(), role.subfolder if role else "")
            else:
                found.values[modality] = to_value(modality, _place(value, role, folder), spec, folder)
        except InputError as error:
            found.faults[modality] = error.message
        except InvalidValue as error:
            found.faults[modality] = str(error)

    def _read_cells(self, cells: Mapping[str, Any], folder: Path, found: Values) -> None:
        """Read cells by the schema, as in training; without a schema they are taken as they are."""
        by_schema = {name: cell for name, cell in cells.items() if name in self._roles}
        sample = self._schema.read_sample(by_schema, folder)
        for fault in sample.faults:
            if fault.modality in self._inputs:
                before = found.faults.get(fault.modality)
                message = f"{fault.column}: {fault.message}"
                found.faults[fault.modality] = f"{before}; {message}" if before else message
        plain = {self._cell_of[name]: {name: cell} for name, cell in cells.items() if name not in by_schema}
        for modality, value in [*sample.values.items(), *plain.items()]:
            if modality in self._inputs and isinstance(value, Mapping):
                found.values[modality] = {**found.values.get(modality, {}), **value}
            elif modality in self._inputs:
                found.values[modality] = value


def _place(value: Any, role: ColumnRole | None, folder: Path) -> Any:
    """Add the subfolder of a column of files to a path that is not there without it."""
    if role and role.role in FILE_ROLES and role.subfolder and isinstance(value, str | os.PathLike):
        inside = folder / role.subfolder / value
        return value if (folder / value).exists() or not inside.exists() else inside
    return value
