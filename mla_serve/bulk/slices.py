"""A table in slices of rows, read one after the other; what identifies a table, and about how long it is."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from mla_serve.errors import DataError
from mla_serve.table.faults import BrokenTable
from mla_serve.table.formats import READERS, Line

PIECE = 2**20


@dataclasses.dataclass(frozen=True)
class Slice:
    """Some rows that follow one another: number of the slice, number of its first row from 0, its lines."""

    number: int
    first: int
    lines: Sequence[Line]


@dataclasses.dataclass(frozen=True)
class Source:
    """A table file: its path, sha256, and the number of rows, which is a guess for text with line breaks in cells."""

    path: Path
    sha256: str
    rows: int

    @classmethod
    def of(cls, path: Path) -> Source:
        """Read the file once. Raises: DataError when it is no table or cannot be read."""
        if path.suffix.lower() not in READERS:
            raise DataError(f"--table {path}: expected a table: {', '.join(READERS)}")
        sha256, breaks = hashlib.sha256(), 0
        try:
            with path.open("rb") as file:
                while piece := file.read(PIECE):
                    sha256.update(piece)
                    breaks += piece.count(b"\n")
        except OSError as error:
            raise DataError(f"--table {path}: cannot be read ({error.strerror}); give a file that is there") from None
        return cls(path.resolve(), sha256.hexdigest(), _parquet_rows(path) or breaks)

    def slices(self, size: int) -> Iterator[Slice]:
        """Read the table in slices of `size` rows, the last one shorter.

        Raises: DataError when it cannot be read to its end: rows would be left out.
        """
        with self.path.open("rb") as file, contextlib.closing(READERS[self.path.suffix.lower()](file)) as reader:
            lines = map(self._readable, reader)
            for number in itertools.count():
                part = list(itertools.islice(lines, size))
                if not part:
                    return
                yield Slice(number, number * size, part)

    def _readable(self, line: Line) -> Line:
        if isinstance(line[1], BrokenTable):
            raise DataError(
                f"--table {self.path}, line {line[0]}: {line[1]}" if line[0] else f"--table {self.path}: {line[1]}"
            )
        return line


def _parquet_rows(path: Path) -> int | None:
    """Return the number of rows that a Parquet file states; None for another, or one that does not."""
    if path.suffix.lower() != ".parquet":
        return None
    from pyarrow import ArrowException, parquet

    try:
        return int(parquet.read_metadata(path).num_rows)
    except (ArrowException, OSError):
        return None
