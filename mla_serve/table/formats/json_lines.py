"""JSON Lines: one object per line."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from typing import BinaryIO

from mla_serve.table.faults import BrokenTable, InvalidValue, abbreviate
from mla_serve.table.formats.encoding import UnknownEncoding, find_encoding, open_text
from mla_serve.table.formats.line import Cells, Line, Say, say_nothing


def read_json_lines(stream: BinaryIO, say: Say = say_nothing) -> Generator[Line, None, None]:
    """Read one JSON object per line; blank lines are skipped."""
    try:
        encoding = find_encoding(stream, say)
    except UnknownEncoding:
        encoding = "utf-8-sig"  # the fault of each line says what is wrong with it
    try:
        for line, raw in enumerate(_lines(stream, encoding), start=1):
            if content := raw.strip():
                yield line, parse_object(content)
    except UnicodeDecodeError as error:
        yield 0, BrokenTable(f"not readable as {error.encoding} ({error.reason}); save it as UTF-8")


def _lines(stream: BinaryIO, encoding: str) -> Iterator[bytes]:
    """Yield the lines in UTF-8. Only a line feed ends a line: texts may hold other line ends."""
    stream.seek(0)
    if encoding == "utf-8-sig":
        yield stream.readline().removeprefix(b"\xef\xbb\xbf")
        yield from stream
        return
    text = open_text(stream, encoding, newline="\n")
    try:
        yield from (line.encode() for line in text)
    finally:
        text.detach()


def parse_object(raw: bytes) -> Cells | InvalidValue:
    """Return the object that a line holds, or what is wrong with it."""
    try:
        cells = json.loads(raw.decode())
        if b"\\ud" in raw.lower():  # JSON allows half a surrogate pair, UTF-8 does not
            json.dumps(cells, ensure_ascii=False).encode()
        if isinstance(cells, dict):
            return cells
        reason = "not an object"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    given = abbreviate(raw.decode(errors="replace"))
    return InvalidValue(f"expected one JSON object, got {given} ({reason}); repair the line")
