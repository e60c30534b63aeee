"""Tell how a text file is encoded.

UTF-8, or what a byte order mark says, or else Windows-1252, the encoding in which Excel saves CSV in western Europe and
America. A file that is almost everywhere UTF-8 has faults, and is not read as Windows-1252: every letter beyond ASCII would
come out wrong.
"""

from __future__ import annotations

import codecs
import io
import re
from typing import BinaryIO

from mla_serve.table.faults import BrokenTable
from mla_serve.table.formats.line import Line, Say

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks and the codecs that pass over them."""

CHUNK = 2**20
BAD = re.compile("[\udc80-\udcff]")  # what the error handler surrogateescape makes of a byte that cannot be decoded
GOOD = re.compile("[^\x00-\x7f\udc80-\udcff]")
UNDEFINED = b"\x81\x8d\x8f\x90\x9d"  # in Windows-1252
WORD = re.compile(r"\w*[^\x00-\x7f]\w*")


class UnknownEncoding(Exception):
    """The encoding cannot be told; holds the line to yield."""

    def __init__(self, line: Line) -> None:
        super().__init__(str(line[1]))
        self.line = line


def find_encoding(stream: BinaryIO, say: Say) -> str:
    """Return the codec of a text, and rewind the stream. Raises: UnknownEncoding."""
    stream.seek(0)
    head = stream.read(CHUNK)
    for mark, codec in MARKS:
        if head.startswith(mark):
            return codec if codec != "utf-8-sig" else _check_utf8(stream, say)
    if head.count(0) * 3 > len(head):
        raise UnknownEncoding((1, BrokenTable("every other byte is 0, as in UTF-16; save the table as UTF-8")))
    return _check_utf8(stream, say)


def _check_utf8(stream: BinaryIO, say: Say) -> str:
    """Return utf-8-sig or cp1252, whichever the content is. Raises: UnknownEncoding."""
    if _is_utf8(stream):
        return "utf-8-sig"
    good, bad, undefined = _count(stream)
    line, column, given, reason = _find_bad_line(stream)
    if good > bad:
        raise UnknownEncoding((line, BrokenTable(f"not UTF-8 ({reason} at byte {column}); save the table as UTF-8")))
    if undefined:
        known = f"neither UTF-8 ({reason} at byte {column}) nor Windows-1252"
        raise UnknownEncoding((line, BrokenTable(f"its encoding is not known: {known}; save the table as UTF-8")))
    found = WORD.search(given.decode("cp1252"))
    example = f", which gives {found[0]!r} in line {line}" if found else ""
    say(f"is not UTF-8; it is read as Windows-1252{example}; if that is wrong, save it as UTF-8")
    return "cp1252"


def _is_utf8(stream: BinaryIO) -> bool:
    """Return whether a stream is UTF-8 to its end, and rewind it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    stream.seek(0)
    try:
        while chunk := stream.read(CHUNK):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    finally:
        stream.seek(0)
    return True


def _count(stream: BinaryIO) -> tuple[int, int, int]:
    """Count the characters beyond ASCII, the bytes that are not UTF-8, and those that are not Windows-1252."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    good = bad = undefined = 0
    stream.seek(0)
    while chunk := stream.read(CHUNK):
        if chunk.isascii() and not decoder.getstate()[0]:
            continue
        text = decoder.decode(chunk)
        bad += len(BAD.findall(text))
        good += len(GOOD.findall(text))
        undefined += len(chunk) - len(chunk.translate(None, UNDEFINED))
    bad += len(decoder.decode(b"", final=True))
    stream.seek(0)
    return good, bad, undefined


def _find_bad_line(stream: BinaryIO) -> tuple[int, int, bytes, str]:
    """Find the first line that is not UTF-8: its number, the place in it, its bytes, and the reason."""
    stream.seek(0)
    for line, raw in enumerate(stream, start=1):
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            stream.seek(0)
            return line, error.start, raw, error.reason
    raise AssertionError("the table is not UTF-8, but each of its lines is")


def open_text(stream: BinaryIO, encoding: str, newline: str = "") -> io.TextIOWrapper:
    """Decode a stream from its start. Detach the result, or the stream is closed with it."""
    stream.seek(0)
    return io.TextIOWrapper(stream, encoding, newline=newline)
