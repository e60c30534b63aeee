"""The three file types: each reader gives the lines of a table with their cells, or with what is wrong with the line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

from mla_serve.errors import ConfigError
from mla_serve.table.faults import Unusable, short

Cells = Mapping[str, Any]
"""One row as it stands in its table: column -> cell."""

Line = tuple[int, Cells | Unusable]
"""Number from 1 (in .parquet of the row; 0: the whole file), and the cells."""


def _read_jsonl(data: bytes) -> list[Line]:
    """Read one JSON object per line; blank lines are skipped."""
    lines = enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1)
    return [(line, _parse_object(raw)) for line, raw in lines if raw.strip()]


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


def _read_csv(data: bytes) -> list[Line]:
    """Read comma-separated values with a header, quoted as RFC 4180 says; blank lines are skipped."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 ({error.reason} at byte {error.start}); save the table as UTF-8"
        return [(data.count(b"\n", 0, error.start) + 1, Unusable(reason))]
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    limit = csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # a vector may be longer than the default
    try:
        for row in reader:
            rows += [(line, row)] if row else []
            line = reader.line_num + 1
    except csv.Error as error:
        return [(line, Unusable(f"not readable as CSV ({error}); check the quotes"))]
    finally:
        csv.field_size_limit(limit)
    return _under_header(rows)


def _under_header(rows: list[tuple[int, list[str]]]) -> list[Line]:
    """Join the cells of each row with the names in the first."""
    if not rows:
        return []
    (line, first), *rest = rows
    header = [name.strip() for name in first]
    if twice := [name for name in header if name and header.count(name) > 1]:
        return [(line, Unusable(f"two columns are called {twice[0]!r}; rename one"))]
    return [(line, _joined(header, row)) for line, row in rest]


def _joined(header: list[str], row: list[str]) -> Cells | Unusable:
    if len(row) == len(header):
        return dict(zip(header, row, strict=True))
    return Unusable(f"expected {len(header)} cells as in the header, got {len(row)}; quote cells that hold commas")


def _read_parquet(data: bytes) -> list[Line]:
    """Read a Parquet file. Raises: ConfigError when pyarrow is not installed."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ConfigError(
            "a .parquet table needs pyarrow, which is not installed; pip install pyarrow, or save as .jsonl"
        ) from error
    try:
        return list(enumerate(parquet.ParquetFile(io.BytesIO(data)).read().to_pylist(), start=1))
    except (ArrowException, OSError, ValueError) as error:
        return [(0, Unusable(f"not readable as Parquet ({error}); write it anew"))]


READERS: Mapping[str, Callable[[bytes], list[Line]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
