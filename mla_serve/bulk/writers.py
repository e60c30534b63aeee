"""Writers of the answers, by file suffix: Parquet, CSV and JSON Lines. A file of answers is recognised by its columns."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, parquet

from mla_serve.bundle.answer_columns import ANSWER
from mla_serve.output.targets import Replaceable

PROBABILITIES = "probabilities"
ANSWER_COLUMNS = {"row", "line", "id", "entropy", "missing", "error"}
"""The columns that a file of answers has, whatever the task, besides those of one of ANSWER."""
Write = Callable[[pa.Table], None]


@contextlib.contextmanager
def _write_parquet(path: Path, schema: pa.Schema) -> Iterator[Write]:
    with parquet.ParquetWriter(path, schema) as writer:
        yield writer.write_table


@contextlib.contextmanager
def _write_csv(path: Path, schema: pa.Schema) -> Iterator[Write]:
    """A CSV file has no nested columns: a field becomes a column of its own, such as weight.image, and a list JSON."""
    with csv.CSVWriter(path, flatten(schema.empty_table()).schema) as writer:
        yield lambda part: writer.write_table(flatten(part))


@contextlib.contextmanager
def _write_jsonl(path: Path, _: pa.Schema) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", errors="surrogatepass") as file:

        def write(part: pa.Table) -> None:
            file.writelines(
                json.dumps(_without_nan(row), ensure_ascii=False, default=str) + "\n" for row in part.to_pylist()
            )

        yield write


WRITERS: Mapping[str, Callable[[Path, pa.Schema], AbstractContextManager[Write]]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
}


def flatten(part: pa.Table) -> pa.Table:
    """Give each field of a nested column a column of its own, and write lists as JSON."""
    while any(pa.types.is_struct(field.type) for field in part.schema):
        part = part.flatten()
    for at, field in enumerate(part.schema):
        if pa.types.is_nested(field.type):
            cells = [None if cell is None else json.dumps(cell, default=str) for cell in part[at].to_pylist()]
            part = part.set_column(at, field.name, pa.array(cells, pa.string()))
    return part


def flatten_probabilities(part: pa.Table) -> pa.Table:
    """Replace the column `probabilities` by one for each class, probabilities.CLASS."""
    at = part.schema.get_field_index(PROBABILITIES)
    fields = part.select([at]).flatten()
    columns = [*part.columns[:at], *fields.columns, *part.columns[at + 1 :]]
    names = [*part.schema.names[:at], *fields.schema.names, *part.schema.names[at + 1 :]]
    return pa.table(columns, names=names)


def _without_nan(cell: object) -> object:
    """Return a cell with null for NaN and infinity, which JSON lacks."""
    if isinstance(cell, dict):
        return {name: _without_nan(own) for name, own in cell.items()}
    if isinstance(cell, list):
        return [_without_nan(own) for own in cell]
    return None if isinstance(cell, float) and cell - cell != 0 else cell


def _columns(path: Path) -> set[str]:
    """Read the names of the columns of a file of answers. Raises: ValueError (also of pyarrow) or OSError."""
    with path.open("rb") as file:
        line = file.readline()
    if line.startswith(b"PAR1"):
        return set(parquet.read_schema(path).names)
    return set(json.loads(line)) if line.startswith(b"{") else {name.strip('"\n') for name in line.decode().split(",")}


def _not_answers(path: Path) -> str | None:
    """Return why a file is not one that predict wrote."""
    try:
        columns = _columns(path)
    except (pa.ArrowException, OSError, ValueError, TypeError):
        return "is no file of answers"
    of_a_task = any(columns >= ANSWER_COLUMNS | {column.name for column in own} for own in ANSWER.values())
    return None if of_a_task else "is another file, no answers of a model"


ANSWERS = Replaceable("a file of answers that predict wrote", _not_answers)
