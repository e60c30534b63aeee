"""Notes on the data and on the training: what is shown, and what of it may leave the house with the bundle."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mla_serve.table import Table
from mla_serve.table.dataset import describe_left_out

DATA = "data: "
"""The beginning of every note on what may be wrong with the data."""


@dataclass(frozen=True)
class Finding:
    """A note on the data. text: as it is shown, with places of the table; counts: the same without them."""

    text: str
    counts: str


@dataclass
class Notes:
    """The notes of a plan, in their order.

    shown: all of them, for the screen and run.json. exported: those that the bundle holds. They quote no cell, no place of a
    table, no path, and no column that the model does not read.
    """

    shown: list[str] = field(default_factory=list)
    exported: list[str] = field(default_factory=list)

    def add(self, notes: Iterable[str]) -> None:
        """Add notes that may be exported."""
        listed = list(notes)
        self.shown += listed
        self.exported += listed

    def add_private(self, notes: Iterable[str]) -> None:
        """Add notes that quote the table."""
        self.shown += notes

    def add_findings(self, findings: Iterable[Finding]) -> None:
        """Add notes on the data; their places are not exported."""
        for finding in findings:
            self.shown.append(DATA + finding.text)
            self.exported.append(DATA + finding.counts)

    def add_left_out(self, table: Table) -> None:
        """Add what was left out of a table because of faults. Only the numbers are exported."""
        self.shown += [DATA + note for note in describe_left_out(table)]
        rows, values = len(table.faults.left_out()), sum(map(len, table.faults.left_out_values().values()))
        if rows or values:
            counts = f"{_count(rows, 'row')} and {_count(values, 'other value')}"
            self.exported.append(f"{DATA}{counts} left out because of faults")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
