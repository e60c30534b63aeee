"""What is wrong with a data set, collected with its place, to be told all at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from mla_serve.errors import DataError

SHOWN = 20

Place = tuple[str, int]
"""File name and line; in .parquet the row, from 1; 0 means the whole file."""


class Unusable(ValueError):
    """A value that cannot be used; the message says why."""


class Unreadable(Unusable):
    """What ends a table before its last row."""


class Faults:
    """Collect faults; `refuse` tells them in the order of the files."""

    def __init__(self, folder: Path, files: Sequence[str]) -> None:
        self.folder = folder
        self.files = files
        self.found: list[tuple[Place, str]] = []

    def add(self, place: Place, message: str) -> None:
        """Note a fault."""
        self.found.append((place, message))

    @contextmanager
    def noting(self, place: Place, field: str) -> Iterator[None]:
        """Note the Unusable that is raised inside, and go on behind."""
        try:
            yield
        except Unusable as unusable:
            self.add(place, f"{field}: {unusable}")

    def refuse(self) -> None:
        """Raise DataError if there is any fault."""
        if self.found:
            found = sorted(self.found, key=lambda fault: (self.files.index(fault[0][0]), fault[0][1]))
            lines = [f"{written(place)}: {message}" for place, message in found]
            raise DataError(summary(self.folder, lines, "fault", "in the data set"))


def written(place: Place) -> str:
    """Write a place as train.jsonl:3."""
    file, line = place
    unit = "row " if file.lower().endswith(".parquet") else ""
    return f"{file}:{unit}{line}" if line else file


def summary(folder: Path, found: Sequence[str], noun: str, rest: str) -> str:
    """Write the count and the first 20 lines."""
    count = f"{len(found)} {noun}{'s' if len(found) > 1 else ''} {rest}"
    more = f"; the first {SHOWN}" if len(found) > SHOWN else ""
    return "\n  ".join([f"{folder}: {count}{more}:", *found[:SHOWN]])


def short(value: object) -> str:
    """Quote a value, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def listed(names: Collection[str]) -> str:
    """Join names, the first ten."""
    return ", ".join([*islice(names, 10), *(["..."] if len(names) > 10 else [])]) or "none"
