"""Excel workbooks, through openpyxl. A line is a row of the sheet, as Excel numbers them."""

from __future__ import annotations

import datetime
import warnings
import zipfile
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO

from mla_serve.errors import ConfigError
from mla_serve.table.faults import BrokenTable, join_names
from mla_serve.table.formats.header import Header
from mla_serve.table.formats.line import Line, Say, say_nothing


def read_excel(stream: BinaryIO, say: Say = say_nothing) -> Generator[Line, None, None]:
    """Read the first sheet that is not empty; its first row holds the names of the columns, empty rows are skipped.

    A formula is read as the value that Excel saved with it. Raises: ConfigError when openpyxl is not installed.
    """
    try:
        import openpyxl
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as error:
        raise ConfigError(
            "an Excel table needs openpyxl, which is not installed; pip install 'mla_serve[excel]', or save as CSV"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of parts that hold no cells, such as rules of validation
            book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
            yield from _read_book(book, say)
    except BrokenTable as error:
        yield 0, error
    except (InvalidFileException, zipfile.BadZipFile, OSError, ValueError, KeyError) as error:
        yield (
            0,
            BrokenTable(f"not readable as an .xlsx workbook ({error}); save it as .xlsx without a password, or as CSV"),
        )


def _read_book(book: Any, say: Say) -> Iterator[Line]:
    filled = [sheet for sheet in book.worksheets if any(any(cells) for _, cells in _sheet_rows(sheet))]
    if len(filled) > 1:
        others = join_names([repr(sheet.title) for sheet in filled[1:]])
        say(f"the sheet {filled[0].title!r} is read, not {others}; save the sheet that you want as a file of its own")
    header: Header | None = None
    for number, cells in _sheet_rows(filled[0]) if filled else ():
        if header:
            yield number, header.match(cells)
        else:
            header = Header(["" if cell is None else str(cell) for cell in cells])
    if header:
        header.say_left_out(say)


def _sheet_rows(sheet: Any) -> Iterator[tuple[int, list[Any]]]:
    """Yield number and cells of the rows that are not empty, all as wide as the widest so far."""
    sheet.reset_dimensions()  # other programs write wrong ones
    width = 0
    for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
        cells = [str(cell) if isinstance(cell, datetime.time | datetime.timedelta) else cell for cell in row]
        if any(cell is not None for cell in cells):
            width = max(width, len(cells))
            yield number, cells + [None] * (width - len(cells))
