"""What each format makes of lines that are unusual: marks, quotes, names and bytes."""

from __future__ import annotations

import io
from typing import Any

import pytest

from mla_serve.table.faults import InvalidValue
from mla_serve.table.formats import BATCH, READERS

MARK = b"\xef\xbb\xbf"


def read(suffix: str, data: bytes) -> list[tuple[int, Any]]:
    lines = READERS[suffix](io.BytesIO(data))
    return [(line, str(cells) if isinstance(cells, InvalidValue) else cells) for line, cells in lines]


def test_a_byte_order_mark_is_passed_over_at_the_start_and_nowhere_else() -> None:
    assert read(".jsonl", MARK + b'{"a": 1}\n\n{"a": 2}') == [(1, {"a": 1}), (3, {"a": 2})]
    (_, first), (line, second) = read(".jsonl", b'{"a": 1}\n' + MARK + b'{"a": 2}')
    assert (first, line) == ({"a": 1}, 2)
    assert second.startswith("expected one JSON object")
    assert read(".csv", MARK + b"a,b\n1,2\n") == [(2, {"a": "1", "b": "2"})]


def test_what_is_no_json_object_is_quoted_with_the_reason() -> None:
    assert read(".jsonl", b"[1]") == [(1, "expected one JSON object, got '[1]' (not an object); repair the line")]
    [(_, broken)] = read(".jsonl", b'{"a": }')
    assert broken.startswith("expected one JSON object, got '{\"a\": }' (Expecting value")


def test_half_of_a_surrogate_pair_is_refused_and_a_whole_one_is_not() -> None:
    assert read(".jsonl", rb'{"a": "\ud83d\ude00"}') == [(1, {"a": "\N{GRINNING FACE}"})]
    for text in (rb'{"a": "\ud83d"}', rb'{"a": "\uDE00"}'):
        assert "surrogates not allowed" in read(".jsonl", text)[0][1]


def test_line_ends_inside_quotes_stay_as_they_are_and_lines_are_counted_with_them() -> None:
    assert read(".csv", b'a,b\r\n"x\r\ny","z\rw"\r\n\r\n3,4\r\n') == [
        (2, {"a": "x\r\ny", "b": "z\rw"}),
        (6, {"a": "3", "b": "4"}),
    ]


def test_the_first_column_that_is_there_twice_is_named() -> None:
    assert read(".csv", b"b,a, a ,b\n1,2,3,4\n") == [(1, "two columns are called 'b'; rename one")]
    assert read(".csv", b"a,,\n1,2,3\n") == [(2, {"a": "1", "": "3"})]  # columns without a name are passed over later


def test_a_row_that_is_longer_or_shorter_than_the_header_is_refused_and_the_next_is_read() -> None:
    lines = read(".csv", b"a,b\n1\n1,2,3\n1,2\n")
    assert [line for line, _ in lines] == [2, 3, 4]
    assert lines[0][1] == "expected 2 cells as in the header, got 1; quote cells that hold commas"
    assert lines[1][1] == "expected 2 cells as in the header, got 3; quote cells that hold commas"
    assert lines[2][1] == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("data", "line", "what"),
    [
        (b"\xffa,b\n1,2\n", 1, "invalid start byte at byte 0"),
        (b"a,b\n1,2\n3,\xe4\n", 3, "invalid continuation byte at byte 2"),
    ],
)
def test_the_line_that_is_not_utf8_is_named_with_its_byte(data: bytes, line: int, what: str) -> None:
    assert read(".csv", data)[-1] == (line, f"not UTF-8 ({what}); save the table as UTF-8")


def test_a_quote_that_does_not_end_is_refused_at_its_line() -> None:
    lines = read(".csv", b'a,b\n1,2\n"3,4\n5,6\n')
    assert lines[0] == (2, {"a": "1", "b": "2"})
    assert lines[-1][0] == 3
    assert lines[-1][1].startswith("not readable as CSV")


def test_a_cell_may_be_longer_than_the_csv_module_expects_and_its_limit_is_put_back() -> None:
    import csv

    before = csv.field_size_limit()
    long = b"1 " * before
    assert read(".csv", b"a,b\n" + long + b",2\n")[0][1]["a"] == long.decode()
    assert csv.field_size_limit() == before


def test_the_stream_stays_open_behind_a_table() -> None:
    stream = io.BytesIO(b"a\n1\n")
    assert list(READERS[".csv"](stream))
    assert not stream.closed


def test_rows_of_parquet_are_numbered_across_batches() -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    buffer = io.BytesIO()
    parquet.write_table(arrow.table({"a": list(range(BATCH + 2))}), buffer)
    lines = read(".parquet", buffer.getvalue())
    assert [line for line, _ in lines] == list(range(1, BATCH + 3))
    assert [cells["a"] for _, cells in lines] == list(range(BATCH + 2))
    [(line, damaged)] = read(".parquet", b"PAR1 no")
    assert line == 0
    assert damaged.startswith("not readable as Parquet")
