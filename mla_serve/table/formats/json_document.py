"""JSON documents: a list of objects, or one of the layouts of pandas' DataFrame.to_json. Rows are numbered from 1."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from mla_serve.table.faults import BrokenTable, InvalidValue, abbreviate
from mla_serve.table.formats.encoding import UnknownEncoding, find_encoding
from mla_serve.table.formats.json_lines import read_json_lines
from mla_serve.table.formats.line import Cells, Line, Say, say_nothing

LAYOUTS = '[{"column": value, ...}, ...], {"data": [...]} or {"column": [value, ...], ...}'


def read_json_document(stream: BinaryIO, say: Say = say_nothing) -> Generator[Line, None, None]:
    """Read a whole document into memory and yield its rows; a file of JSON Lines is read as such."""
    try:
        text = _read_text(stream, say)
        if _is_json_lines(text):
            say("holds one JSON object per line; it is read as .jsonl")
            yield from read_json_lines(stream, say)
            return
        rows = _rows(json.loads(text))
        yield from enumerate(map(_check_row, rows), start=1)
    except UnknownEncoding as error:
        yield 0, BrokenTable(str(error))
    except BrokenTable as error:
        yield 0, error
    except (ValueError, RecursionError) as error:  # also of an unreadable encoding
        yield 0, BrokenTable(f"not readable as JSON ({error}); correct it")


def _read_text(stream: BinaryIO, say: Say) -> str:
    encoding = find_encoding(stream, say)
    stream.seek(0)
    return stream.read().decode(encoding)


def _is_json_lines(text: str) -> bool:
    """Return whether the first line is a document of its own, and others follow."""
    first, _, rest = text.strip().partition("\n")
    if not rest or not first.startswith("{"):
        return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _check_row(row: object) -> Cells | InvalidValue:
    if isinstance(row, dict):
        return row
    return InvalidValue(f"expected one JSON object, got {abbreviate(row)}; repair it")


def _rows(given: object) -> Sequence[object]:
    """Return the rows of a document. Raises: BrokenTable."""
    if isinstance(given, list):
        return given
    if not isinstance(given, dict):
        raise BrokenTable(f"expected {LAYOUTS}, got {abbreviate(given)}; write it in one of these layouts")
    data = given.get("data")
    if isinstance(data, list) and isinstance(given.get("columns"), list):  # to_json(orient="split")
        return [_zip(given["columns"], row) for row in data]
    if isinstance(data, list) and (len(given) == 1 or all(isinstance(row, dict) for row in data)):
        return data
    return list(_rows_of_columns(given))


def _zip(columns: Sequence[object], row: object) -> object:
    """Return one row of the layout `split`; a row of another length is returned as it is, to become a fault."""
    fits = isinstance(row, list) and len(row) == len(columns)
    return dict(zip(map(str, columns), row, strict=True)) if isinstance(row, list) and fits else row


def _rows_of_columns(given: Mapping[str, Any]) -> Iterator[object]:
    """Yield the rows of {column: [cell, ...]} or {column: {row: cell}}. Raises: BrokenTable."""
    first = next(iter(given.values()), None)
    if isinstance(first, dict) and all(key.isdigit() for key in given):  # to_json(orient="index")
        yield from given.values()
        return
    if not isinstance(first, list | dict):
        raise BrokenTable(f"expected {LAYOUTS}, got one object with {abbreviate(list(given))}; write it so")
    keys = range(len(first)) if isinstance(first, list) else list(first)
    for column, cells in given.items():
        if type(cells) is not type(first) or len(cells) != len(first):
            raise BrokenTable(
                f"column {abbreviate(column)}: expected {len(first)} cells as in the first column; correct it"
            )
    if isinstance(first, dict):
        yield from ({column: cells.get(key) for column, cells in given.items()} for key in keys)
    else:
        yield from ({column: cells[key] for column, cells in given.items()} for key in keys)
