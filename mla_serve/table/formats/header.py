"""The names of the columns, and the rows below them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mla_serve.table.faults import BrokenTable, InvalidValue, join_names
from mla_serve.table.formats.line import Cells, Say

UNNAMED = re.compile(r"(Unnamed: \d+)?")
"""A column without a name, and what pandas calls it when it reads one: usually the index of a data frame."""


class Header:
    """Column names of a table whose rows are lists of cells. Columns without a name are left out, and counted."""

    def __init__(self, names: Sequence[str], hint: str = "") -> None:
        """Args: names, in their order; hint, appended to the fault of a row of another length. Raises: BrokenTable."""
        self.names = [name.strip() for name in names]
        self.hint = hint
        self.named = [number for number, name in enumerate(self.names) if not UNNAMED.fullmatch(name)]
        self.unnamed = [number for number, name in enumerate(self.names) if UNNAMED.fullmatch(name)]
        self.left_out: Counter[int] = Counter()
        given = [self.names[number] for number in self.named]
        if twice := [name for name in given if given.count(name) > 1]:
            raise BrokenTable(f"two columns are called {twice[0]!r}; rename one")
        if not given:
            raise BrokenTable("no column has a name; write the names of the columns into the first line")

    def match(self, row: Sequence[Any]) -> Cells | InvalidValue:
        """Return column -> cell, or the fault of a row of another length. Empty cells behind the last column do not count."""
        width = len(self.names)
        if len(row) < width or any(map(_is_filled, row[width:])):
            return InvalidValue(f"expected {width} cells as in the header, got {len(row)}{self.hint}")
        if not self.unnamed:
            return dict(zip(self.names, row, strict=False))
        self.left_out.update(number for number in self.unnamed if _is_filled(row[number]))
        return {self.names[number]: row[number] for number in self.named}

    def say_left_out(self, say: Say) -> None:
        """Say which columns without a name held values."""
        if self.left_out:
            columns = [f"{n + 1} ({self.left_out[n]} values)" for n in sorted(self.left_out)]
            many = "columns without a name are" if len(columns) > 1 else "the column without a name is"
            index = ", as the index of a data frame is" if 0 in self.left_out else ""
            say(f"{many} left out{index}: column {join_names(columns)}; name it to use it")


def _is_filled(cell: object) -> bool:
    return cell is not None and cell != ""
