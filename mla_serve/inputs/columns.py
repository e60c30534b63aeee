"""Columns: numbers, categories, dates and yes/no values of one row of a table; each cell may be missing."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import functools
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np

from mla_serve.errors import InputError, MissingInput, TooLarge
from mla_serve.inputs.base import Array, Cell, Corruptions, Input, Payload, SentAs, unknown_fields
from mla_serve.inputs.corruptions import (
    LARGEST,
    CellLayout,
    missing_cells,
    number_noise,
    out_of_range,
    shuffled_cells,
    unknown_categories,
)

ColumnType = Literal["number", "category", "date", "yes_no"]
DATE_PARTS = ("days since 1970", "month", "day of month", "weekday", "hour")
"""What a date is decoded into: days with a fraction, 1 to 12, 1 to 31, 0 (Monday) to 6, hours with a fraction (UTC)."""
YES, NO = ("yes", "true", "y", "t", "1", "on"), ("no", "false", "n", "f", "0", "off")
EPOCH = datetime.datetime(1970, 1, 1)
DAY = datetime.timedelta(days=1)
MAX_CHARACTERS = 1000  # of one cell
MAX_NAME = 100  # characters of an unknown column's name that are compared and quoted


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a table, as it was in the training rows.

    values: the categories, the most frequent first. A category that is not among them is decoded as unknown.
    low, high: the range of a number, or of a date in days since 1970; None for other types.
    middle: the median of a number; 0 for other types.
    spread: the standard deviation of a number, or of a date in days.
    origin: a number is decoded as its distance from it. It is 0, or the median where all numbers of training are close to
    each other and far from 0, so that float32 tells ids of 1e9 apart.
    """

    name: str
    type: ColumnType
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    middle: float = 0.0
    spread: float = 1.0
    origin: float = 0.0

    @property
    def size(self) -> int:
        """How many numbers a cell is decoded into."""
        return len(DATE_PARTS) if self.type == "date" else 1

    def decode(self, cell: Cell) -> tuple[float, ...]:
        """Decode a cell that is not missing into `size` numbers. Raises: ValueError, saying what was expected."""
        return DECODERS[self.type](self, cell)

    @functools.cached_property
    def index(self) -> Mapping[str, int]:
        """The number of each category; unknown categories have the next number."""
        return {value: number for number, value in enumerate(self.values)}


def _decode_number(column: Column, cell: Cell) -> tuple[float, ...]:
    expected = "expected a number such as 12.5"
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        raise ValueError(f"{expected}, got {_quote(cell)}; send a number")
    try:
        number = float(cell)
    except (ValueError, OverflowError):
        raise ValueError(f"{expected}, got {_quote(cell)}; write it with digits and a decimal point only") from None
    if not math.isfinite(number):
        raise ValueError(f"{expected}, got {_quote(cell)}; leave the cell out if it is not known")
    return (min(max(number - column.origin, -LARGEST), LARGEST),)


def _decode_category(column: Column, cell: Cell) -> tuple[float, ...]:
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)  # JSON and pandas write 98103 as 98103.0
    if not isinstance(cell, str | int | float):
        raise ValueError(f"expected text, got {_quote(cell)}; send the category as text")
    return (float(column.index.get(str(cell).strip(), len(column.values))),)


def _decode_yes_no(column: Column, cell: Cell) -> tuple[float, ...]:  # noqa: ARG001
    word = str(cell).strip().lower() if isinstance(cell, str | int) else ""
    if isinstance(cell, bool) or word in YES or word in NO:
        return (float(cell is True or word in YES),)
    raise ValueError(f"expected yes or no, got {_quote(cell)}; send true or false")


def _decode_date(column: Column, cell: Cell) -> tuple[float, ...]:  # noqa: ARG001
    moment = _read_date(cell)
    hour = (moment - datetime.datetime.combine(moment, datetime.time())) / datetime.timedelta(hours=1)
    return ((moment - EPOCH) / DAY, float(moment.month), float(moment.day), float(moment.weekday()), hour)


def _read_date(cell: Cell) -> datetime.datetime:
    """Read a date without a zone; one with a zone is converted to UTC."""
    try:
        moment = datetime.datetime.fromisoformat(cell.strip()) if isinstance(cell, str) else cell
        if isinstance(moment, datetime.datetime):
            return moment.astimezone(datetime.UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"expected a date such as 2026-03-31 or 2026-03-31T14:30, got {_quote(cell)}; write it like that")


def _quote(cell: object) -> str:
    text = repr(cell)
    return text if len(text) <= 40 else f"{text[:30]}..."


DECODERS: Mapping[ColumnType, Callable[[Column, Cell], tuple[float, ...]]] = {
    "number": _decode_number,
    "category": _decode_category,
    "date": _decode_date,
    "yes_no": _decode_yes_no,
}


@dataclasses.dataclass(frozen=True)
class ColumnsInput(Input):
    """Cells of one row, by the name of their column; as text, a JSON object.

    Each cell is decoded into one number, or a date into DATE_PARTS; the numbers of all columns stand one after another.
    A number is its distance from the `origin` of its column, a category its index in `values`, yes is 1 and no is 0.
    A missing cell is NaN: None, NaN, blank text, or no cell of that name.
    """

    columns: tuple[Column, ...]

    kind: ClassVar[str] = "columns"
    tensor: ClassVar[str] = "cells"
    dtype: ClassVar[type[np.generic]] = np.float32
    sent_as: ClassVar[SentAs] = "cells"
    corruptions: ClassVar[Corruptions] = {
        "missing": missing_cells,
        "noise": number_noise,
        "unknown": unknown_categories,
        "shuffled": shuffled_cells,
        "out_of_range": out_of_range,
    }

    @property
    def shape(self) -> tuple[int]:
        """(numbers of all columns,)."""
        return (sum(column.size for column in self.columns),)

    @functools.cached_property
    def slices(self) -> Mapping[str, slice]:
        """Where the numbers of each column stand: {name of the column: slice}."""
        ends = np.cumsum([column.size for column in self.columns]).tolist()
        return {column.name: slice(end - column.size, end) for column, end in zip(self.columns, ends, strict=True)}

    @functools.cached_property
    def by_name(self) -> Mapping[str, Column]:
        """The columns by name."""
        return {column.name: column for column in self.columns}

    def decode(self, payload: Payload, field: str = "columns") -> Array:
        """Decode cells into (1, numbers) float32; NaN where a cell is missing."""
        cells = self.present_cells(payload, field)
        if not cells:
            raise MissingInput(field, "every cell is missing; fill one at least, or leave the field out")
        row = np.full((1, *self.shape), np.nan, dtype=np.float32)
        for name, cell in cells.items():
            try:
                row[0, self.slices[name]] = self.by_name[name].decode(cell)
            except ValueError as error:
                raise InputError(f"{field}.{name}", str(error)) from None
        return row

    def generate(self, generator: np.random.Generator) -> dict[str, Cell]:
        """Make random cells inside the ranges and categories of training; some are missing."""
        cells = {column.name: _generate(column, generator) for column in self.columns}
        kept = generator.random(len(cells)) < 0.8
        kept[generator.integers(len(cells))] = True
        return {name: cell for (name, cell), keep in zip(cells.items(), kept, strict=True) if keep}

    def generate_large(self, generator: np.random.Generator) -> dict[str, Cell]:
        """Make a cell for each column, some of them beyond the ranges and categories of training."""
        cells = {column.name: _generate(column, generator) for column in self.columns}
        for name, cell in cells.items():
            if generator.random() < 0.3 and self.by_name[name].type in ("number", "category"):
                cells[name] = f"not {cell}" if isinstance(cell, str) else 10 * cell + 1
        return cells

    def to_fields(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Split into JSON fields; a column has only those that its type uses."""
        return {"columns": [_to_dict(column) for column in self.columns]}, {}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], read: Callable[[str], bytes]) -> Self:
        """Rebuild the input from its fields. Raises: BundleError."""
        listed: Any = super().from_fields(fields, read).columns
        try:
            return cls(tuple(Column(**column | {"values": tuple(column.get("values", ()))}) for column in listed))
        except (TypeError, AttributeError):
            raise unknown_fields("columns input: its columns have other fields than this version knows") from None

    def _spoil(self, window: Array, corruption: str, severity: int, generator: np.random.Generator) -> None:
        window[...] = self.corruptions[corruption](window, severity, generator, self.layout)

    @functools.cached_property
    def layout(self) -> CellLayout:
        """What the numbers of a decoded row mean."""
        spread, unknown, origin = np.zeros(self.shape), np.full(self.shape, np.nan), np.zeros(self.shape)
        for column in self.columns:
            first = self.slices[column.name].start
            origin[first] = column.origin if column.type == "number" else 0.0
            spread[first] = column.spread if column.type in ("number", "date") else 0.0
            unknown[first] = len(column.values) if column.type == "category" else np.nan
        return CellLayout([*self.slices.values()], spread, unknown, origin)

    def present_cells(self, payload: Payload, field: str) -> dict[str, Cell]:
        """Return the cells of a payload that are not missing; of a payload without any, none.

        Raises: InputError, naming the column where one is not known.
        """
        given = self._parse(payload, field) if isinstance(payload, str | bytes) else payload
        if not isinstance(given, Mapping):
            example = json.dumps(dict.fromkeys(list(self.by_name)[:2]))
            raise InputError(field, f"expected an object of cells, got {type(given).__name__}; send one like {example}")
        for name in given:
            self.check_column(name, field)
        return {name: cell for name, cell in given.items() if not is_missing_cell(cell)}

    def check_column(self, name: str, field: str) -> None:
        """Refuse a column that there is not. Raises: InputError with the nearest name."""
        if name in self.by_name:
            return
        given = (
            str(name)[:MAX_NAME].encode(errors="replace").decode()
        )  # a lone surrogate cannot be written into an answer
        names = list(self.by_name)
        nearest = difflib.get_close_matches(given, names, 1, cutoff=0) or names[:1]
        raise InputError(f"{field}.{given}", f"no column {_quote(given)}; did you mean {nearest[0]!r}?")

    def _parse(self, text: str | bytes, field: str) -> Any:
        if len(text) > MAX_CHARACTERS * (len(self.columns) + 1):
            raise TooLarge(field, f"{len(text):,} characters for {len(self.columns)} columns; send shorter cells")
        try:
            return json.loads(text, object_pairs_hook=functools.partial(_without_repeats, field))
        except (ValueError, RecursionError):
            raise InputError(field, 'expected a JSON object such as {"price": 12.5}; correct the text') from None


def _without_repeats(field: str, members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make the dict of a JSON object. Raises: InputError for a name that occurs twice, of which JSON parsers read either one."""
    cells = dict(members)
    if len(cells) < len(members):
        raise InputError(field, "a column was sent more than once; send each once")
    return cells


def is_missing_cell(cell: object) -> bool:
    """Return whether a cell counts as missing: None, NaN, blank text."""
    return (
        cell is None or (isinstance(cell, float) and math.isnan(cell)) or (isinstance(cell, str) and not cell.strip())
    )


def to_json_cells(cells: Mapping[str, Cell]) -> dict[str, bool | float | str | None]:
    """Return cells as JSON can hold them, with dates as ISO 8601 text."""
    return {name: cell.isoformat() if isinstance(cell, datetime.datetime) else cell for name, cell in cells.items()}


def _generate(column: Column, generator: np.random.Generator) -> Any:
    """Make a random cell inside the range or the categories of a column."""
    if column.type == "yes_no":
        return bool(generator.integers(2))
    if column.type == "category":
        return column.values[generator.integers(len(column.values))] if column.values else "unknown"
    low, high = column.low or 0.0, column.high or 0.0
    value = low + (high - low) * generator.random()
    return (EPOCH + DAY * value).isoformat(timespec="minutes") if column.type == "date" else float(f"{value:.6g}")


def _to_dict(column: Column) -> dict[str, Any]:
    """Return the fields of a column that differ from their defaults."""
    values = dataclasses.asdict(column) | {"values": list(column.values)}
    defaults = {spec.name: spec.default for spec in dataclasses.fields(column)} | {"values": []}
    return {name: value for name, value in values.items() if value != defaults[name]}
