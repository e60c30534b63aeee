"""Tables of separated cells: encodings, separators, quotes and headers as other programs write them."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mla_serve.table.formats import READERS
from mla_serve.table.formats.dialect import SAMPLE, SEPARATORS

Read = Callable[..., list[tuple[int, Any]]]
MARK = b"\xef\xbb\xbf"

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")
WESTERN = st.characters(codec="cp1252", exclude_categories=["Cc"])
# A lone carriage return ends a line, but the csv module of Python 3.11 does not quote it.
cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12)
names = st.lists(
    st.text(st.characters(categories=["L", "Nd"], include_characters="_. -"), min_size=1, max_size=8).filter(
        lambda name: name == name.strip() and not name.startswith("Unnamed")
    ),
    min_size=2,
    max_size=5,
    unique=True,
)


@st.composite
def tables(draw: st.DrawFn, cell: st.SearchStrategy[str] = cells) -> tuple[list[str], list[list[str]]]:
    """Draw column names, and rows of which the last is not empty."""
    header = draw(names)
    rows = draw(st.lists(st.lists(cell, min_size=len(header), max_size=len(header)), min_size=1, max_size=6))
    return header, [*rows, ["end"] * len(header)]


def write(header: list[str], rows: list[list[str]], **dialect: Any) -> tuple[str, list[int]]:
    """Write a table with the csv module; return it with the line in which each row begins."""
    written, begins, line = [], [], 1
    for row in [header, *rows]:
        text = io.StringIO(newline="")
        csv.writer(text, **dialect).writerow(row)
        written.append(text.getvalue())
        begins.append(line)
        line += len(io.StringIO(text.getvalue(), newline="").readlines())
    return "".join(written), begins[1:]


@settings(deadline=None)
@given(
    table=tables(),
    separator=st.sampled_from(list(SEPARATORS)),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    encoding=st.sampled_from(ENCODINGS),
    suffix=st.sampled_from([".csv", ".tsv", ".txt"]),
)
def test_whatever_the_csv_module_writes_is_read_back_cell_for_cell_with_its_lines(
    read: Read,
    table: tuple[list[str], list[list[str]]],
    separator: str,
    end: str,
    quoting: Any,
    encoding: str,
    suffix: str,
) -> None:
    header, rows = table
    text, begins = write(header, rows, delimiter=separator, lineterminator=end, quoting=quoting)
    expected = [(line, dict(zip(header, row, strict=True))) for line, row in zip(begins, rows, strict=True)]
    assert read(suffix, text.encode(encoding)) == expected


@settings(deadline=None)
@given(table=tables(st.text(WESTERN, max_size=12)))
def test_windows_1252_is_told_from_the_content_and_said(read: Read, table: tuple[list[str], list[list[str]]]) -> None:
    header, rows = ["id", "text"], [[str(number), "".join(row)] for number, row in enumerate(table[1])]
    rows.append(["last", "Käse für 5 €"])
    text, _ = write(header, rows, delimiter=";")
    notes: list[str] = []
    assert [list(row.values()) for _, row in read(".csv", text.encode("cp1252"), notes)] == rows
    assert "is read as Windows-1252" in notes[0]
    assert notes[1:] == ["its cells are separated by semicolons"]


@settings(deadline=None, max_examples=50)
@given(
    frame=tables().map(lambda table: pd.DataFrame(table[1], columns=table[0])),
    separator=st.sampled_from(list(SEPARATORS)),
    index=st.booleans(),
)
def test_whatever_pandas_writes_is_read_back_without_its_index(
    read: Read, frame: pd.DataFrame, separator: str, index: bool
) -> None:
    notes: list[str] = []
    text = frame.to_csv(sep=separator, index=index)
    assert [row for _, row in read(".csv", text.encode(), notes)] == frame.to_dict("records")
    left_out = [note for note in notes if "left out" in note]
    expected = f"the column without a name is left out, as the index of a data frame is: column 1 ({len(frame)} values)"
    assert left_out == ([f"{expected}; name it to use it"] if index else [])


def test_a_byte_order_mark_is_passed_over(read: Read) -> None:
    assert read(".csv", MARK + b"a,b\n1,2\n") == [(2, {"a": "1", "b": "2"})]


def test_a_table_as_german_excel_writes_it(read: Read) -> None:
    notes: list[str] = []
    data = 'Artikel;Preis;Größe\r\n"Tasse; blau";1.234,50;groß\r\n;;\r\n;;\r\n'.encode("cp1252")
    assert read(".csv", data, notes) == [(2, {"Artikel": "Tasse; blau", "Preis": "1.234,50", "Größe": "groß"})]
    assert notes == [
        "is not UTF-8; it is read as Windows-1252, which gives 'Größe' in line 1; if that is wrong, save it as UTF-8",
        "its cells are separated by semicolons",
        "its end is empty and left out: 2 rows from line 3 on",
    ]


def test_the_unicode_text_of_excel_is_read(read: Read) -> None:
    data = 'a\tb\r\n"x\ty"\t5" wide\r\n'.encode("utf-16")
    assert read(".txt", data) == [(2, {"a": "x\ty", "b": '5" wide'})]


def test_a_line_that_tells_excel_the_separator_is_followed(read: Read) -> None:
    assert read(".csv", b"sep=;\r\na,b;c\r\n1,5;2\r\n") == [(3, {"a,b": "1,5", "c": "2"})]
    assert read(".csv", b'"sep=^"\na^b\n1^2\n') == [(3, {"a": "1", "b": "2"})]


def test_the_separator_of_the_rows_counts_and_not_one_in_a_name(read: Read) -> None:
    assert read(".csv", b"price, EUR;name\n1,5;x\n2;y\n")[0] == (2, {"price, EUR": "1,5", "name": "x"})
    assert read(".csv", b"a|b\nx\ny\n") == [(2, {"a|b": "x"}), (3, {"a|b": "y"})]
    assert read(".csv", b"label,text\na,x;y\nb,x;y\n")[0] == (2, {"label": "a", "text": "x;y"})


def test_quotes_behind_blanks_and_quotes_behind_backslashes_are_understood(read: Read) -> None:
    assert read(".csv", b'"a", "b"\n"1", "2, 3"\n') == [(2, {"a": "1", "b": "2, 3"})]
    assert read(".csv", b'a, b\n1, "2, 3"\n') == [(2, {"a": "1", "b": "2, 3"})]
    assert read(".csv", rb"a,b" + b"\n" + rb'"say \"hi\", then",2' + b"\n") == [(2, {"a": 'say "hi", then', "b": "2"})]


def test_quotes_of_a_table_that_quotes_nothing_are_characters(read: Read) -> None:
    data = b'a\tb\n"open\t1\nx\t2\n"y\t3\n'
    assert read(".tsv", data) == [(2, {"a": '"open', "b": "1"}), (3, {"a": "x", "b": "2"}), (4, {"a": '"y', "b": "3"})]


def test_line_ends_inside_quotes_stay_as_they_are_and_lines_are_counted_with_them(read: Read) -> None:
    assert read(".csv", b'a,b\r\n"x\r\ny","z\rw"\r\n\r\n3,4\r\n') == [
        (2, {"a": "x\r\ny", "b": "z\rw"}),
        (6, {"a": "3", "b": "4"}),
    ]


def test_a_cell_with_a_comma_below_a_single_column_is_a_fault_of_its_row(read: Read) -> None:
    fault = "expected 1 cells as in the header, got 2; quote cells that hold commas"
    assert read(".csv", b"text\nhello\nbye, now\n") == [(2, {"text": "hello"}), (3, fault)]
    assert read(".txt", b"text\nhello\nbye, now\n")[1] == (3, {"text": "bye, now"})


def test_the_first_column_that_is_there_twice_is_named(read: Read) -> None:
    assert read(".csv", b"b,a, a ,b\n1,2,3,4\n") == [(1, "two columns are called 'b'; rename one")]


def test_columns_without_a_name_are_left_out_and_their_values_counted(read: Read) -> None:
    notes: list[str] = []
    assert read(".csv", b"a,,Unnamed: 2,\n1,2,3,\n1,,4,\n", notes) == [(2, {"a": "1"}), (3, {"a": "1"})]
    assert notes == ["columns without a name are left out: column 2 (1 values), 3 (2 values); name it to use it"]
    assert read(".csv", b",\n1,2\n") == [
        (1, "no column has a name; write the names of the columns into the first line")
    ]


def test_empty_cells_behind_the_last_column_do_not_count(read: Read) -> None:
    assert read(".csv", b"a;b\n1;2;;\n") == [(2, {"a": "1", "b": "2"})]


def test_a_row_that_is_longer_or_shorter_than_the_header_is_refused_and_the_next_is_read(read: Read) -> None:
    lines = read(".csv", b"a,b\n1\n1,2,3\n1,2\n")
    assert [line for line, _ in lines] == [2, 3, 4]
    assert lines[0][1] == "expected 2 cells as in the header, got 1; quote cells that hold commas"
    assert lines[1][1] == "expected 2 cells as in the header, got 3; quote cells that hold commas"
    assert lines[2][1] == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"# made by x\na,b\n1,2\n3,4\n", "begins with a comment, '# made by x'; remove the lines above"),
        (b"# by x, 2024\n# (c) y\na,b\n1,2\n", "begins with a comment, '# by x, 2024'; remove the lines above"),
        (b"Report\n\na;b;c\n1;2;3\n4;5;6\n", "the header 'Report' has one cell, the rows below it have 3; remove"),
    ],
)
def test_lines_above_the_header_are_refused(read: Read, data: bytes, expected: str) -> None:
    [(line, fault)] = read(".csv", data)
    assert line == 1
    assert fault.startswith(expected)


def test_a_comment_above_a_table_longer_than_the_sample_is_refused(read: Read) -> None:
    [(_, fault)] = read(".csv", b"# made by x\n" + b"label,text\n" * (SAMPLE // 10))
    assert fault.startswith("begins with a comment")


def test_a_header_may_begin_with_a_number_sign(read: Read) -> None:
    assert read(".csv", b"#id,b\n1,2\n") == [(2, {"#id": "1", "b": "2"})]


@pytest.mark.parametrize(
    ("data", "line", "expected"),
    [
        ("a,b\nä,ö\nü,ß\n".encode() + b"3,\xe4\n", 4, "not UTF-8 (invalid continuation byte at byte 2); save"),
        (
            b"a,b\n3,\x81\xe4\n",
            2,
            "its encoding is not known: neither UTF-8 (invalid start byte at byte 2) nor Windows",
        ),
        ("a,b\n1,2\n".encode("utf-16-le"), 1, "every other byte is 0, as in UTF-16; save the table as UTF-8"),
        ("a,b\n1,2\n".encode("utf-16") + b"\x00", 0, "not readable as utf-16"),
    ],
)
def test_an_encoding_that_cannot_be_told_is_refused_at_its_line(
    read: Read, data: bytes, line: int, expected: str
) -> None:
    found, fault = read(".csv", data)[-1]
    assert found == line
    assert fault.startswith(expected)


def test_a_quote_that_does_not_end_is_refused_at_its_line(read: Read) -> None:
    lines = read(".csv", b'a,b\n1,2\n"3,4\n5,6\n')
    assert lines[0] == (2, {"a": "1", "b": "2"})
    assert lines[-1][0] == 3
    assert lines[-1][1].startswith("not readable as CSV")


def test_a_cell_may_be_longer_than_the_csv_module_expects_and_its_limit_is_put_back(read: Read) -> None:
    before = csv.field_size_limit()
    long = b"1 " * max(before, SAMPLE)
    assert read(".csv", b"a,b\n" + long + b',2\n"' + long + b'",3\n')[1][1]["a"] == long.decode()
    assert csv.field_size_limit() == before


def test_the_table_goes_on_behind_the_sample_that_tells_its_dialect(read: Read) -> None:
    rows = [(str(number), f"first; {number}\nsecond, {number}") for number in range(SAMPLE // 20)]
    text, begins = write(["n", "text"], [list(row) for row in rows], delimiter=";")
    lines = read(".csv", text.encode())
    assert [line for line, _ in lines] == begins
    assert [tuple(row.values()) for _, row in lines] == rows


def test_rows_are_yielded_before_the_whole_table_is_read() -> None:
    stream = io.BytesIO(b"a,b\n" + b"1,2\n" * SAMPLE)
    reader = READERS[".csv"](stream)
    assert len(list(itertools.islice(reader, 3))) == 3
    assert stream.tell() < len(stream.getvalue()) / 2
    reader.close()


def test_the_stream_stays_open_behind_a_table() -> None:
    stream = io.BytesIO(b"a\n1\n")
    assert list(READERS[".csv"](stream))
    assert not stream.closed
