"""How the labels of a table are written: found once, at training, and kept with the model, so that later tables are read alike.

A new task is a reader in READERS.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from mla_serve.table.cells import is_missing, read_name
from mla_serve.table.faults import InvalidValue, abbreviate
from mla_serve.table.formats import Cells
from mla_serve.table.scalars import NumberFormat, is_not_available, parse_number, parse_yes_no
from mla_serve.tasks import Label
from mla_serve.tasks.number import LARGEST

UNKNOWN = "?"
"""In a list, says that it is not known whether the row has the other labels; before a label, that it is not known."""
TOKEN = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^\s,'"\[\]{}()]+)""")


@dataclass(frozen=True)
class LabelForm:
    """How labels are written.

    task: key of TASKS. columns: one for each label, which says yes or no; empty where one column holds all. separator: between
    the labels of a text; lists: the cells are lists. decimal_comma, unit: of numbers.
    """

    task: str = "classes"
    columns: tuple[str, ...] = ()
    separator: str = ""
    lists: bool = False
    decimal_comma: bool = False
    unit: str = ""

    @property
    def number_format(self) -> NumberFormat:
        """How numbers are written."""
        return NumberFormat(self.decimal_comma, self.unit.lower())

    def find_cell(self, cells: Cells, column: str) -> object:
        """Return the cell of a row; with several columns, those that are not empty, None if there is none."""
        if not self.columns:
            return cells.get(column)
        return {name: cells[name] for name in self.columns if not is_missing(cells.get(name))} or None

    def is_missing(self, cell: object) -> bool:
        """Return whether a cell holds no label. An empty list says that the row has none of the labels."""
        if self.task == "labels" and is_list(cell):
            return False
        return is_missing(cell) or (self.task == "number" and is_not_available(cell))

    def read(self, cell: object) -> Label:
        """Read a cell. Raises: InvalidValue."""
        return READERS[self.task](self, cell)

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON; fields with their default are left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items() if value}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """Rebuild what `to_dict` wrote. Raises: TypeError."""
        return cls(**{**given, "columns": tuple(given.get("columns", ()))})


def is_list(cell: object) -> bool:
    """Return whether a cell is a list, or one that is written as text."""
    if isinstance(cell, str):
        text = cell.strip().removeprefix("frozenset(")
        return text[:1] in ("[", "{", "(") and text.rstrip(")")[-1:] in ("]", "}")
    return isinstance(cell, list | tuple | set | frozenset)


def read_list(cell: object) -> list[object]:
    """Return the items of a list: JSON, as Python and NumPy print it, or a list itself."""
    if not isinstance(cell, str):
        assert isinstance(cell, list | tuple | set | frozenset)
        return sorted(cell, key=str) if isinstance(cell, set | frozenset) else list(cell)
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, list):
        return found
    inside = cell.strip().removeprefix("frozenset(").strip("[]{}() ")
    if "," in inside and not re.search("['\"]", inside):
        return [part.strip() for part in inside.split(",")]
    return [next(filter(None, parts), "") for parts in TOKEN.findall(inside)]  # NumPy separates by blanks


def name_of_class(cell: object) -> str:
    """Return a class as text; 1.0 is 1. Raises: InvalidValue."""
    if isinstance(cell, bool):
        return str(cell)
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() else str(cell)
    if isinstance(cell, list | tuple | set | frozenset | Mapping):
        raise InvalidValue(
            f"expected one class, got {abbreviate(cell)}; write one, or write lists in all rows and predict them with --task labels"
        )
    name = read_name(cell)
    return name[: -len(name.partition(".")[2]) - 1] if re.fullmatch(r"-?\d+\.0+", name) else name


def read_class(_form: LabelForm, cell: object) -> Label:
    """Return a class as text. Raises: InvalidValue."""
    return name_of_class(cell)


def read_labels(form: LabelForm, cell: object) -> Label:
    """Return the labels of a row; where some are not known, label -> bool for those that are.

    A label with UNKNOWN before it stays as it is: `complete_labels` needs the names of all labels.
    Raises: InvalidValue.
    """
    if isinstance(cell, Mapping):
        return _read_truths(cell)
    names = [_read_name(item) for item in _items(form, cell)]
    given = [name for name in names if name]
    if UNKNOWN in given:
        return {name.removeprefix(UNKNOWN): True for name in given if not name.startswith(UNKNOWN)}
    return frozenset(given)


def _read_name(item: object) -> str:
    return UNKNOWN if item is None else name_of_class(item)


def _items(form: LabelForm, cell: object) -> Sequence[object]:
    if is_list(cell) and (form.lists or not isinstance(cell, str)):
        return read_list(cell)
    if form.lists:
        raise InvalidValue(f"expected a list of labels as in most rows, got {abbreviate(cell)}; write it as a list")
    if form.separator and isinstance(cell, str):
        return [part.strip() for part in cell.split(form.separator)]
    return [cell]


def _read_truths(cell: Mapping[Any, object]) -> Label:
    """Return label -> bool for the labels that are known; a frozenset where all are. Raises: InvalidValue."""
    known = {
        str(name): parse_yes_no(value) for name, value in cell.items() if not is_missing(value) and value != UNKNOWN
    }
    for name, truth in known.items():
        if truth is None:
            raise InvalidValue(
                f"{name}: expected yes or no, got {abbreviate(cell[name])}; correct it, or leave it empty"
            )
    return known


def read_number(form: LabelForm, cell: object) -> Label:
    """Return a finite number whose square is finite too. Raises: InvalidValue."""
    value = None
    if isinstance(cell, str):
        value = parse_number(cell, form.number_format)
    elif isinstance(cell, int | float) and not isinstance(cell, bool) and abs(cell) <= sys.float_info.max:
        value = float(cell)
    if value is None:
        example = "1234,5" if form.decimal_comma else "1234.5"
        unit = f", or with the unit {form.unit}" if form.unit else ""
        raise InvalidValue(
            f"expected a finite number such as {example}{unit}, got {abbreviate(cell)}; correct it, or predict classes with --task classes"
        )
    if abs(value) > LARGEST:
        raise InvalidValue(
            f"expected a number up to {LARGEST:g}, got {abbreviate(cell)}; correct it, or write all numbers in another unit"
        )
    return value


READERS: Mapping[str, Callable[[LabelForm, object], Label]] = {
    "classes": read_class,
    "labels": read_labels,
    "number": read_number,
}


def complete_labels(label: Label, names: Sequence[str]) -> Label:
    """Say of every label whether a row has it, where that is known. Args: names, of all labels.

    Returns: a frozenset where all are known, else label -> bool for those that are. What a row has is kept, whether it is
    among the names or not.
    """
    if isinstance(label, frozenset) and any(name.startswith(UNKNOWN) for name in label):
        return {name: name in label for name in names if f"{UNKNOWN}{name}" not in label}
    if isinstance(label, Mapping):
        known = {name: there for name, there in label.items() if there or name in names}
        return frozenset(name for name in known if known[name]) if known.keys() >= set(names) else known
    return label
