"""Readers of the three file types. Each yields the lines of a table: the cells, or the fault of the line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Generator, Mapping
from typing import Any, BinaryIO

from mla_serve.errors import ConfigError
from mla_serve.table.faults import BrokenTable, InvalidValue, abbreviate

Cells = Mapping[str, Any]
"""One row as it stands in its table: column -> cell."""

Line = tuple[int, Cells | InvalidValue]
"""Line number from 1 (in .parquet the row number; 0: the whole file), and the cells or the fault."""

BATCH = 1024
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""Separators that other programs use: character -> its name. A header of one cell that contains one was not split."""


def _read_jsonl(stream: BinaryIO) -> Generator[Line, None, None]:
    """Read one JSON object per line; blank lines are skipped."""
    for line, raw in enumerate(stream, start=1):
        if content := (raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw).strip():
            yield line, _parse_object(content)


def _parse_object(raw: bytes) -> Cells | InvalidValue:
    try:
        cells = json.loads(raw.decode())
        if b"\\ud" in raw.lower():  # JSON allows half a surrogate pair, UTF-8 does not
            json.dumps(cells, ensure_ascii=False).encode()
        if isinstance(cells, dict):
            return cells
        reason = "not an object"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    given = abbreviate(raw.decode(errors="replace"))
    return InvalidValue(f"expected one JSON object, got {given} ({reason}); repair the line")


def _read_csv(stream: BinaryIO) -> Generator[Line, None, None]:
    """Read comma-separated values with a header, quoted as RFC 4180 says; blank lines are skipped."""
    limit = csv.field_size_limit(max(csv.field_size_limit(), stream.seek(0, io.SEEK_END)))  # a vector may be long
    stream.seek(0)
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    reader = csv.reader(text, strict=True)
    line = 1
    try:
        header: list[str] = []
        for row in reader:
            if row and header:
                yield line, _match_to_header(header, row)
            elif row:
                header = [name.strip() for name in row]
                if fault := _find_header_fault(header):
                    yield line, BrokenTable(fault)
                    return
            line = reader.line_num + 1
    except UnicodeDecodeError:
        yield _not_utf8(stream)
    except csv.Error as error:
        yield line, BrokenTable(f"not readable as CSV ({error}); check the quotes")
    finally:
        csv.field_size_limit(limit)
        text.detach()  # or the stream would be closed with it


def _find_header_fault(header: list[str]) -> str | None:
    """Return what is wrong with the column names; None if nothing is."""
    if twice := [name for name in header if name and header.count(name) > 1]:
        return f"two columns are called {twice[0]!r}; rename one"
    separators = [name for character, name in SEPARATORS.items() if len(header) == 1 and character in header[0]]
    if separators:
        return f"its columns are separated by {separators[0]}, expected commas; save it as comma-separated values"
    return None


def _not_utf8(stream: BinaryIO) -> Line:
    """Find the first line that is not UTF-8."""
    stream.seek(0)
    for line, raw in enumerate(stream, start=1):
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            return line, BrokenTable(f"not UTF-8 ({error.reason} at byte {error.start}); save the table as UTF-8")
    raise AssertionError("the table is not UTF-8, but each of its lines is")


def _match_to_header(header: list[str], row: list[str]) -> Cells | InvalidValue:
    if len(row) == len(header):
        return dict(zip(header, row, strict=True))
    return InvalidValue(f"expected {len(header)} cells as in the header, got {len(row)}; quote cells that hold commas")


def _read_parquet(stream: BinaryIO) -> Generator[Line, None, None]:
    """Read a Parquet file in batches. Raises: ConfigError when pyarrow is not installed."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ConfigError(
            "a .parquet table needs pyarrow, which is not installed; pip install pyarrow, or save as .jsonl"
        ) from error
    try:
        batches = parquet.ParquetFile(stream).iter_batches(BATCH)
        yield from enumerate((cells for batch in batches for cells in batch.to_pylist()), start=1)
    except (ArrowException, OSError, ValueError) as error:
        yield 0, BrokenTable(f"not readable as Parquet ({error}); write it again")


READERS: Mapping[str, Callable[[BinaryIO], Generator[Line, None, None]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
"""By file suffix. Each needs a seekable stream, and keeps only some rows in memory."""
