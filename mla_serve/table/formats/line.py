"""What every reader gives: the lines of a table."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, BinaryIO, Protocol

from mla_serve.table.faults import InvalidValue

Cells = Mapping[str, Any]
"""One row as it stands in its table: column -> cell."""

Line = tuple[int, Cells | InvalidValue]
"""The number of a line from 1 and its cells or its fault. Formats without lines have row numbers; 0 is the whole file."""

Say = Callable[[str], None]
"""Takes a note: what was told from the content, or left out."""


def say_nothing(note: str) -> None:
    """Drop a note."""


class Reader(Protocol):
    """Reads one format."""

    def __call__(self, stream: BinaryIO, say: Say = say_nothing) -> Generator[Line, None, None]:
        """Yield the lines of a table. Args: stream, seekable, left open; say, takes the notes."""
