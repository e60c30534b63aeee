"""CSV, TSV and other tables of separated cells.

Read by Python's csv module and not by pandas or pyarrow: those do not tell in which line a row stands, and they turn texts
into numbers, so that 9007199254740993 and 007 change.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Generator, Iterator
from typing import BinaryIO

from mla_serve.table.faults import BrokenTable, InvalidValue
from mla_serve.table.formats.dialect import SAMPLE, Dialect, find_dialect
from mla_serve.table.formats.encoding import UnknownEncoding, find_encoding, open_text
from mla_serve.table.formats.header import Header
from mla_serve.table.formats.line import Line, Reader, Say, say_nothing

LONGEST_CELL = 2**31 - 1  # a vector may be long; the largest limit that every platform accepts


def delimited_reader(usual: str) -> Reader:
    """Return the reader of tables with a header whose cells are usually separated by this character.

    Blank lines, and rows at the end whose cells are all empty, are left out.
    """

    def read(stream: BinaryIO, say: Say = say_nothing) -> Generator[Line, None, None]:
        try:
            text = open_text(stream, find_encoding(stream, say))
        except UnknownEncoding as error:
            yield error.line
            return
        limit = csv.field_size_limit(LONGEST_CELL)
        try:
            yield from _read_text(text, usual, say)
        finally:
            csv.field_size_limit(limit)
            text.detach()  # or the stream would be closed with it

    return read


def _read_text(text: io.TextIOWrapper, usual: str, say: Say) -> Iterator[Line]:
    try:
        sample = text.read(SAMPLE)
        dialect = find_dialect(sample, len(sample) == SAMPLE, usual)
        if dialect.separator != usual:
            say(f"its cells are separated by {dialect.separators}")
        text.seek(0)
        for _ in range(dialect.skipped_lines):
            text.readline()
        yield from _drop_empty_end(_read_rows(text, dialect, say), say)
    except BrokenTable as error:
        yield 1, error
    except UnicodeDecodeError as error:
        yield 0, BrokenTable(f"not readable as {error.encoding} ({error.reason}); save it as UTF-8")


def _read_rows(text: io.TextIOWrapper, dialect: Dialect, say: Say) -> Iterator[Line]:
    reader = dialect.reader(text)
    line = 1 + dialect.skipped_lines
    header: Header | None = None
    try:
        for row in reader:
            if row and header:
                yield line, header.match(row)
            elif row:
                header = Header(row, f"; quote cells that hold {dialect.separators}")
            line = reader.line_num + 1 + dialect.skipped_lines
    except BrokenTable as error:
        yield line, error
    except csv.Error as error:
        yield line, BrokenTable(f"not readable as CSV ({error}); check the quotes")
    if header:
        header.say_left_out(say)


def _drop_empty_end(lines: Iterator[Line], say: Say) -> Iterator[Line]:
    """Leave out rows at the end that have no value, as spreadsheets write them."""
    held: list[Line] = []
    for line in lines:
        if isinstance(line[1], InvalidValue) or any(line[1].values()):
            yield from held
            held.clear()
            yield line
        else:
            held.append(line)
    if held:
        say(f"its end is empty and left out: {len(held)} rows from line {held[0][0]} on")
