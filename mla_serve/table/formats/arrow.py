"""Parquet, Feather and Arrow files, through pyarrow. Rows are numbered from 1.

Cells become plain Python values: decimals, times and durations too. Class numbers of Hugging Face data sets become their
names, which the schema holds.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, BinaryIO
from uuid import UUID

from mla_serve.errors import ConfigError
from mla_serve.table.faults import BrokenTable
from mla_serve.table.formats.line import Line, Say, say_nothing

BATCH = 1024
INDEX = "__index_level_"
"""Columns that begin so hold the index of a pandas data frame."""
EMPTY_FILE = {"bytes": None, "path": None}
"""A picture or recording that is missing, as Hugging Face data sets store it."""


def read_parquet(stream: BinaryIO, say: Say = say_nothing) -> Generator[Line, None, None]:
    """Read a Parquet file in batches. Raises: ConfigError when pyarrow is not installed."""
    pyarrow = _import_pyarrow("Parquet")
    try:
        from pyarrow import parquet

        file = parquet.ParquetFile(stream)
        yield from _rows(pyarrow, file.schema_arrow, file.iter_batches(BATCH), say)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        yield 0, BrokenTable(f"not readable as Parquet ({error}); write it again")


def read_arrow(stream: BinaryIO, say: Say = say_nothing) -> Generator[Line, None, None]:
    """Read an Arrow file, which Feather is too, or an Arrow stream. Raises: ConfigError when pyarrow is not installed."""
    pyarrow = _import_pyarrow("Arrow")
    try:
        stream.seek(0)
        if stream.read(6) == b"ARROW1":
            file = pyarrow.ipc.open_file(stream)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        else:
            stream.seek(0)
            file = batches = pyarrow.ipc.open_stream(stream)
        yield from _rows(pyarrow, file.schema, batches, say)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        yield 0, BrokenTable(f"not readable as Arrow ({error}); write it again")


def _import_pyarrow(name: str) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise ConfigError(
            f"a table in {name} format needs pyarrow, which is not installed; pip install pyarrow, or save as .jsonl"
        ) from error
    return pyarrow


def _rows(pyarrow: Any, schema: Any, batches: Iterable[Any], say: Say) -> Iterator[Line]:
    """Yield the rows of record batches."""
    if twice := [name for name in schema.names if schema.names.count(name) > 1]:
        yield 0, BrokenTable(f"two columns are called {twice[0]!r}; rename one")
        return
    names = [name for name in schema.names if not name.startswith(INDEX)]
    if len(names) < len(schema.names):
        say("the index of the data frame is left out; call reset_index() before saving it to use it")
    converters = _class_names(schema.metadata or {})
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH):
            part = batch.slice(start, BATCH)
            columns = [_cells(pyarrow, part.column(name), converters.get(name)) for name in names]
            for row in zip(*columns, strict=True):
                number += 1
                yield number, dict(zip(names, row, strict=True))


def _cells(pyarrow: Any, column: Any, converter: Callable[[Any], Any] | None) -> list[Any]:
    """Return the cells of a column as Python values."""
    if pyarrow.types.is_timestamp(column.type) and column.type.unit == "ns":  # Python's datetime ends at microseconds
        column = column.cast(pyarrow.timestamp("us", column.type.tz), safe=False)
    elif pyarrow.types.is_duration(column.type):
        column = column.cast(pyarrow.duration("us"), safe=False)
    cells = column.to_pylist()
    return [(converter or _plain)(cell) for cell in cells] if converter or _needs_plain(pyarrow, column.type) else cells


def _needs_plain(pyarrow: Any, kind: Any) -> bool:
    """Return whether values of an Arrow type may be of a Python type that JSON does not know."""
    types = pyarrow.types
    return not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_string(kind))


def _plain(cell: Any) -> Any:
    """Turn a value into one of the types that cells have."""
    if isinstance(cell, Decimal):
        return int(cell) if cell == cell.to_integral_value() else float(cell)
    if isinstance(cell, datetime.timedelta):
        return cell.total_seconds()
    if isinstance(cell, datetime.time | UUID):
        return str(cell)
    if isinstance(cell, list):
        return [_plain(each) for each in cell]
    if isinstance(cell, dict):
        return None if cell == EMPTY_FILE else {name: _plain(each) for name, each in cell.items()}
    return cell


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, Callable[[Any], Any]]:
    """Return how the class numbers of each column become names, from what a Hugging Face data set writes into its schema."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {column: convert for column, feature in features.items() if (convert := class_converter(feature))}
    except (ValueError, LookupError, AttributeError, TypeError):  # another program's entry of that name
        return {}


def class_converter(feature: object) -> Callable[[Any], Any] | None:
    """Return class number -> name for a column of class numbers, or of lists of them; None for any other column."""
    if isinstance(feature, list) and feature:
        return class_converter(feature[0])
    if not isinstance(feature, dict):
        return None
    names = feature.get("names")
    if feature.get("_type") == "ClassLabel" and isinstance(names, list):
        return lambda cell: _named(cell, names)
    return class_converter(feature.get("feature"))


def _named(cell: Any, names: list[str]) -> Any:
    """Return the name of a class number, None for -1, which marks rows without a class."""
    if isinstance(cell, list):
        return [_named(each, names) for each in cell]
    if isinstance(cell, int) and cell == -1:
        return None
    return names[cell] if isinstance(cell, int) and 0 <= cell < len(names) else cell
