"""The faults of a data set, collected with their places and reported all at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from mla_serve.errors import DataError

MOST_SHOWN = 20

Place = tuple[str, int]
"""File name and line; in .parquet the row, from 1; 0 means the whole file."""


class InvalidValue(ValueError):
    """A value that cannot be used; the message says what was given, what was expected and what to do."""


class BrokenTable(InvalidValue):
    """A fault after which no further row of the table can be read."""


class Faults:
    """Collects faults; `raise_if_any` reports them in the order of the files."""

    def __init__(self, folder: Path, files: Sequence[str]) -> None:
        self.folder = folder
        self.files = files
        self.found: list[tuple[Place, str]] = []

    def add(self, place: Place, message: str) -> None:
        """Add a fault."""
        self.found.append((place, message))

    @contextmanager
    def collecting(self, place: Place, field: str) -> Iterator[None]:
        """Add an InvalidValue that is raised in the block as a fault, and continue after the block."""
        try:
            yield
        except InvalidValue as error:
            self.add(place, f"{field}: {error}")

    def raise_if_any(self) -> None:
        """Raise DataError if there is any fault."""
        if self.found:
            found = sorted(self.found, key=lambda fault: (self.files.index(fault[0][0]), fault[0][1]))
            lines = [f"{format_place(place)}: {message}" for place, message in found]
            raise DataError(format_faults(self.folder, lines, "fault", "in the data set"))


def format_place(place: Place) -> str:
    """Format a place as train.jsonl:3."""
    file, line = place
    unit = "row " if file.lower().endswith(".parquet") else ""
    return f"{file}:{unit}{line}" if line else file


def format_faults(folder: Path, found: Sequence[str], noun: str, rest: str) -> str:
    """Format the number of faults and the first 20 of them."""
    count = f"{len(found)} {noun}{'s' if len(found) > 1 else ''} {rest}"
    more = f"; the first {MOST_SHOWN}" if len(found) > MOST_SHOWN else ""
    return "\n  ".join([f"{folder}: {count}{more}:", *found[:MOST_SHOWN]])


def abbreviate(value: object) -> str:
    """Quote a value, and cut a long one."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def join_names(names: Collection[str]) -> str:
    """Join the first ten names with commas."""
    return ", ".join([*islice(names, 10), *(["..."] if len(names) > 10 else [])]) or "none"
