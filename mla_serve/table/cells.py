"""One cell: what counts as empty, and how it is read. The readers raise InvalidValue."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from mla_serve.inputs import INPUTS, Cell
from mla_serve.inputs.base import SentAs
from mla_serve.inputs.columns import is_missing_cell
from mla_serve.table.faults import InvalidValue, abbreviate, join_names
from mla_serve.table.files import read_file

Value = Path | bytes | str | tuple[float, ...] | Mapping[str, Cell]
"""The absolute path of a file, its content where the table holds it, a text, the numbers of a vector, or cells by column."""


def is_missing(cell: object) -> bool:
    """Return whether a cell counts as empty: null, NaN (as pandas writes it), blank text, an empty list."""
    if isinstance(cell, float):
        return math.isnan(cell)
    return cell is None or cell == [] or (isinstance(cell, str) and cell.strip() in ("", "[]"))


def find_cell(cells: object, path: str) -> object:
    """Return the cell of that name, or else the one at that dotted path; None if there is none."""
    if not isinstance(cells, Mapping) or path in cells:
        return cells[path] if isinstance(cells, Mapping) else None
    head, _, rest = path.partition(".")
    return find_cell(cells.get(head), rest)


def read_name(cell: object) -> str:
    """Return a label, id or group as text."""
    if isinstance(cell, bool) or not isinstance(cell, str | int):
        raise InvalidValue(f"expected text or a whole number, got {abbreviate(cell)}; correct it")
    return str(cell).strip()


def _read_text(cell: object, _folder: Path) -> str:
    if not isinstance(cell, str):
        raise InvalidValue(f"expected text, got {abbreviate(cell)}; put it in quotes")
    return cell


def _read_numbers(cell: object, _folder: Path) -> tuple[float, ...]:
    """Return numbers from a list, or from text: a JSON list, or numbers separated by blanks, semicolons or commas."""
    try:
        numbers = parse_numbers(cell) if isinstance(cell, str) else cell
        if not isinstance(numbers, list) or not numbers or not all(type(x) in (float, int) for x in numbers):
            raise ValueError
        vector = tuple(map(float, numbers))
    except (ValueError, OverflowError):
        raise InvalidValue(
            f"expected a list of numbers, got {abbreviate(cell)}; correct it, or leave the cell empty"
        ) from None
    if not all(map(math.isfinite, vector)):
        raise InvalidValue("expected finite numbers, got NaN or infinity; correct them, or leave the cell empty")
    return vector


def parse_numbers(text: str) -> object:
    """Read a list of numbers: JSON, as NumPy prints it, or without brackets. Raises: ValueError."""
    if "[" in text:
        try:
            return json.loads(text)
        except RecursionError:
            raise ValueError("too deep") from None
        except ValueError:
            printed = re.fullmatch(r"\s*\[([^\[\],;]*)\]\s*", text)  # NumPy separates by blanks and breaks lines
            if printed is None:
                raise
            text = printed[1]
    separator = ";" if ";" in text else "," if "," in text else None
    parts = text.split(separator) if separator else [text]
    return [float(number) for part in parts for number in part.split() or [part]]  # "1;;3" lacks one


def _read_cells(cell: object, _folder: Path) -> dict[str, Cell]:
    """Return the cells of an object, or of JSON text with one, that are not missing."""
    given = _read_object(cell, '{"price": 12.5, ...}')
    cells = {name: value for name, value in given.items() if not is_missing_cell(value)}
    wrong = [name for name, value in cells.items() if not isinstance(value, str | int | float | datetime.datetime)]
    if wrong or not cells:
        problem = f"got {abbreviate(given[wrong[0]])} as {wrong[0]!r}" if wrong else "got nothing but missing cells"
        raise InvalidValue(f"expected numbers, texts, dates or true and false, {problem}; correct it")
    return cells  # type: ignore[return-value]  # checked above


CELL_READERS: Mapping[SentAs, Callable[[object, Path], Value]] = {
    "file": read_file,
    "text": _read_text,
    "numbers": _read_numbers,
    "cells": _read_cells,
}


def read_cell(kind: str, cell: object, folder: Path) -> Value:
    """Read the cell of a modality; kind is a key of INPUTS, and paths are relative to the folder."""
    return CELL_READERS[INPUTS[kind].sent_as](cell, folder)


def read_present(cell: object, kinds: Collection[str], values: Collection[str]) -> dict[str, frozenset[str]]:
    """Return missing rate -> modalities left, from an object or JSON text; without modalities that the row lacks.

    Args: kinds, all modalities of the table; values, those of the row.
    """
    masks = {}
    for rate, names in {} if is_missing(cell) else _read_object(cell, '{"20": ["image", ...], ...}').items():
        if names is None:  # Parquet gives every row every key of a struct
            continue
        if not isinstance(names, list) or not all(isinstance(name, str) and name in kinds for name in names):
            raise InvalidValue(
                f"{rate}: expected a list out of {join_names(kinds)}, got {abbreviate(names)}; correct it"
            )
        masks[rate] = frozenset(names) & frozenset(values)
        if values and not masks[rate]:
            raise InvalidValue(f"{rate}: leaves nothing of this row; name at least one of {join_names(values)}")
    return masks


def _read_object(cell: object, example: str) -> dict[str, object]:
    try:
        given = json.loads(cell) if isinstance(cell, str) else cell
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise InvalidValue(f"expected {example}, got {abbreviate(cell)}; correct it or leave it empty")
    return given
