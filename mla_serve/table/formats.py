"""The three file types: each reader gives the lines of a table with their cells, or with what is wrong with the line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Generator, Mapping
from typing import Any, BinaryIO

from mla_serve.errors import ConfigError
from mla_serve.table.faults import Unreadable, Unusable, short

Cells = Mapping[str, Any]
"""One row as it stands in its table: column -> cell."""

Line = tuple[int, Cells | Unusable]
"""Number from 1 (in .parquet of the row; 0: the whole file), and the cells."""

BATCH = 1024
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""What other programs put between columns: character -> its name. A header of one cell that holds one was not split."""


def _read_jsonl(stream: BinaryIO) -> Generator[Line, None, None]:
    """Read one JSON object per line; blank lines are skipped."""
    for line, raw in enumerate(stream, start=1):
        if content := (raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw).strip():
            yield line, _parse_object(content)


def _parse_object(raw: bytes) -> Cells | Unusable:
    try:
        cells = json.loads(raw.decode())
        if b"\\ud" in raw.lower():  # half of a surrogate pair is legal in JSON and can be written nowhere else
            json.dumps(cells, ensure_ascii=False).encode()
        if isinstance(cells, dict):
            return cells
        reason = "not an object"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    given = short(raw.decode(errors="replace"))
    return Unusable(f"expected one JSON object, got {given} ({reason}); repair the line")


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
                yield line, _joined(header, row)
            elif row:
                header = [name.strip() for name in row]
                if fault := _header_fault(header):
                    yield line, Unreadable(fault)
                    return
            line = reader.line_num + 1
    except UnicodeDecodeError:
        yield _not_utf8(stream)
    except csv.Error as error:
        yield line, Unreadable(f"not readable as CSV ({error}); check the quotes")
    finally:
        csv.field_size_limit(limit)
        text.detach()  # or the stream would be closed with it


def _header_fault(header: list[str]) -> str | None:
    """Say why the columns cannot be told apart by their names."""
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
            return line, Unreadable(f"not UTF-8 ({error.reason} at byte {error.start}); save the table as UTF-8")
    raise AssertionError("what is not UTF-8 has a line that is not")


def _joined(header: list[str], row: list[str]) -> Cells | Unusable:
    if len(row) == len(header):
        return dict(zip(header, row, strict=True))
    return Unusable(f"expected {len(header)} cells as in the header, got {len(row)}; quote cells that hold commas")


def _read_parquet(stream: BinaryIO) -> Generator[Line, None, None]:
    """Read a Parquet file, some rows at a time. Raises: ConfigError when pyarrow is not installed."""
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
        yield 0, Unreadable(f"not readable as Parquet ({error}); write it anew")


READERS: Mapping[str, Callable[[BinaryIO], Generator[Line, None, None]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
"""By suffix. Each reads from a stream that can be sought, and holds only some rows at a time."""
