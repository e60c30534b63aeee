"""Read a table in slices of rows; identify a table by its hash and estimate its number of rows."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from mla_serve.errors import DataError
from mla_serve.table.faults import BrokenTable
from mla_serve.table.formats import READERS, Line, Say, say_nothing, suffix_of

READ_BYTES = 2**20  # at once, while hashing


@dataclasses.dataclass(frozen=True)
class Slice:
    """Consecutive rows: number of the slice, number of its first row from 0, its lines."""

    number: int
    first: int
    lines: Sequence[Line]


@dataclasses.dataclass(frozen=True)
class Source:
    """A table file: path, sha256, and number of rows, an estimate for text formats, whose cells may contain line breaks."""

    path: Path
    sha256: str
    rows: int

    @classmethod
    def of(cls, path: Path) -> Source:
        """Hash the file and count its lines. Raises: DataError when it is no table or cannot be read."""
        if not suffix_of(path):
            raise DataError(f"--table {path}: expected a table: {', '.join(READERS)}")
        sha256, breaks = hashlib.sha256(), 0
        try:
            with path.open("rb") as file:
                while chunk := file.read(READ_BYTES):
                    sha256.update(chunk)
                    breaks += chunk.count(b"\n")
        except OSError as error:
            raise DataError(f"--table {path}: cannot be read ({error.strerror}); give a file that exists") from None
        return cls(path.resolve(), sha256.hexdigest(), _parquet_rows(path) or breaks)

    def slices(self, size: int, say: Say = say_nothing) -> Iterator[Slice]:
        """Read the table in slices of `size` rows, the last one shorter; say takes what the reader notes.

        Raises: DataError when the table cannot be read to its end, because rows would be left out.
        """
        with self.path.open("rb") as file, contextlib.closing(READERS[suffix_of(self.path)](file, say)) as reader:
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
    """Return the number of rows of a Parquet file; None for another format, or an unreadable file."""
    if path.suffix.lower() != ".parquet":
        return None
    from pyarrow import ArrowException, parquet

    try:
        return int(parquet.read_metadata(path).num_rows)
    except (ArrowException, OSError):
        return None
