"""The registry of readers, by file suffix."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Generator, Mapping
from pathlib import PurePath
from typing import BinaryIO, cast

from mla_serve.table.faults import BrokenTable
from mla_serve.table.formats.arrow import read_arrow, read_parquet
from mla_serve.table.formats.delimited import delimited_reader
from mla_serve.table.formats.excel import read_excel
from mla_serve.table.formats.json_document import read_json_document
from mla_serve.table.formats.json_lines import read_json_lines
from mla_serve.table.formats.line import Line, Reader, Say, say_nothing


def _compressed(reader: Reader) -> Reader:
    """Return a reader of the same format, compressed by gzip."""

    def read(stream: BinaryIO, say: Say = say_nothing) -> Generator[Line, None, None]:
        stream.seek(0)
        try:
            with gzip.GzipFile(fileobj=stream) as content:
                yield from reader(cast(BinaryIO, content), say)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            yield 0, BrokenTable(f"not readable as gzip ({error}); compress it again")

    return read


_TEXT: Mapping[str, Reader] = {
    ".csv": delimited_reader(","),
    ".tsv": delimited_reader("\t"),
    ".tab": delimited_reader("\t"),
    ".txt": delimited_reader("\t"),
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json_document,
}

READERS: Mapping[str, Reader] = {
    **_TEXT,
    ".parquet": read_parquet,
    ".feather": read_arrow,
    ".arrow": read_arrow,
    ".xlsx": read_excel,
    ".xlsm": read_excel,
    **{f"{suffix}.gz": _compressed(reader) for suffix, reader in _TEXT.items()},
}
"""By file suffix. Each needs a seekable stream, and keeps only some rows in memory, except .json, which is read as a whole."""


def suffix_of(name: str | PurePath) -> str:
    """Return the suffix of a file for READERS, such as .csv or .csv.gz; "" if it is no table's."""
    suffixes = [suffix.lower() for suffix in PurePath(name).suffixes]
    longest = "".join(suffixes[-2:])
    return longest if longest in READERS else next((each for each in suffixes[-1:] if each in READERS), "")


def without_suffix(file_name: str) -> str:
    """Return the name of a table without the suffix that READERS knows."""
    return file_name[: len(file_name) - len(suffix_of(file_name))]
