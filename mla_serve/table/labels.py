"""The column of the classes: which one it is, and how its cells are read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from mla_serve.table.cells import is_missing, read_name
from mla_serve.table.faults import InvalidValue, abbreviate, join_names

LABEL_NAMES = (
    "label", "labels", "target", "class", "category", "y", "species", "outcome", "diagnosis", "sentiment",
)  # fmt: skip
"""Usual names of the column of the classes, in lower case."""
MOST_CLASSES = 1000  # values of a column that is listed as a candidate
FEW_NUMBERS = 20  # different numbers that are taken for classes in any case
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")

Columns = Mapping[str, Sequence[object]]
"""Column -> its cells that are not missing."""


def find_label(columns: Columns, asked: str | None) -> str:
    """Return the column of the classes: the one asked for, or the only one with a usual name.

    Raises: InvalidValue with the candidates.
    """
    if asked is not None:
        if asked in columns:
            return asked
        raise InvalidValue(f"no column {asked!r}; it has: {join_names(columns)}; {_candidates(columns)}")
    if "label" in columns:
        return "label"
    usual = [name for name in columns if name.strip().lower() in LABEL_NAMES]
    if len(usual) == 1:
        return usual[0]
    found = (
        f"{join_names(usual)} might each be the column of the classes"
        if usual
        else "no column is called label, or has another usual name of the column of the classes"
    )
    raise InvalidValue(f"{found}; it has: {join_names(columns)}; {_candidates(columns)}")


def _candidates(columns: Columns) -> str:
    """Name the columns of few repeated values, with their number of values."""
    counts = {name: len(set(map(str, cells))) for name, cells in columns.items()}
    few = {name: n for name, n in counts.items() if 2 <= n <= min(MOST_CLASSES, len(columns[name]) // 2)}
    named = join_names([f"{name} ({count} values)" for name, count in sorted(few.items(), key=lambda item: item[1])])
    return f"say which with --label COLUMN, such as {named}" if few else "say which with --label COLUMN"


def check_labels(name: str, cells: Sequence[object]) -> None:
    """Refuse a column that cannot be predicted as classes. Raises: InvalidValue."""
    given = [cell for cell in cells if not is_missing(cell)]
    if not given:
        raise InvalidValue(f"no row has a label in {name!r}; fill the column, or choose another with --label")
    lists = [cell for cell in given if isinstance(cell, list | tuple | dict)]
    if 2 * len(lists) > len(given):
        raise InvalidValue(
            f"{name!r} holds lists, such as {abbreviate(lists[0])}, and several labels per row cannot be learned yet; "
            "write one label per row, or choose another column with --label"
        )
    numbers = Counter(str(cell) for cell in given)
    if not all(NUMBER.fullmatch(text.strip()) for text in numbers):
        return
    whole = all(float(text).is_integer() for text in numbers)
    if len(numbers) > (max(FEW_NUMBERS, len(given) // 3) if whole else FEW_NUMBERS):
        raise InvalidValue(
            f"{name!r} holds {len(numbers):,} different numbers, such as {abbreviate(next(iter(numbers)))}, and numbers "
            "cannot be predicted yet; write classes, such as low and high, or choose another column with --label"
        )


def type_of_labels(cells: Sequence[object]) -> str:
    """Return "int" or "bool" for labels that are all whole numbers or truth values, not texts; else ""."""
    if cells and all(isinstance(cell, bool) for cell in cells):
        return "bool"
    whole = all(type(cell) is int or (isinstance(cell, float) and cell.is_integer()) for cell in cells)
    return "int" if cells and whole else ""


def read_label(cell: object) -> str:
    """Return a label as text; 1.0 is 1. Raises: InvalidValue."""
    if isinstance(cell, bool):
        return str(cell)
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() else str(cell)
    name = read_name(cell)
    return name[: -len(name.partition(".")[2]) - 1] if re.fullmatch(r"-?\d+\.0+", name) else name
