"""Excel workbooks: rows keep the numbers and types that Excel shows."""

from __future__ import annotations

import datetime
import io
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mla_serve.errors import ConfigError
from mla_serve.table.formats import READERS

openpyxl = pytest.importorskip("openpyxl")
Read = Callable[..., list[tuple[int, Any]]]


def book(*sheets: Sequence[Sequence[Any]]) -> bytes:
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.active)
    for number, rows in enumerate(sheets, start=1):
        sheet = workbook.create_sheet(f"Sheet{number}")
        for row in rows:
            sheet.append(row)
    buffer = io.BytesIO()
    workbook.save(buffer)
    return buffer.getvalue()


def test_cells_keep_their_types_and_rows_their_numbers(read: Read) -> None:
    some_time = datetime.datetime(2024, 5, 1, 12, 30)
    rows = [["label", "n", 2024, "d"], [], ["a", 1.5, True, some_time], ["b", None, None, some_time.time()]]
    assert read(".xlsx", book(rows)) == [
        (3, {"label": "a", "n": 1.5, "2024": True, "d": some_time}),
        (4, {"label": "b", "n": None, "2024": None, "d": "12:30:00"}),
    ]


words = st.text(st.characters(categories=["L", "Nd", "P"], exclude_characters="="), min_size=1, max_size=9)


@settings(deadline=None, max_examples=25)
@given(
    rows=st.lists(
        st.tuples(
            words,
            st.none() | st.integers(-(2**50), 2**50) | st.booleans(),
            st.none() | words,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_openpyxl_writes_is_read_back(read: Read, rows: list[tuple[Any, ...]]) -> None:
    lines = read(".xlsx", book([("a", "b", "c"), *rows]))
    assert lines == [(number, dict(zip("abc", row, strict=True))) for number, row in enumerate(rows, start=2)]


def test_the_first_sheet_that_is_not_empty_is_read_and_the_others_are_named(read: Read) -> None:
    notes: list[str] = []
    assert read(".xlsx", book([], [["a"], ["x"]], [["b"], ["y"]]), notes) == [(2, {"a": "x"})]
    assert notes == ["the sheet 'Sheet2' is read, not 'Sheet3'; save the sheet that you want as a file of its own"]


def test_what_is_no_workbook_and_columns_of_the_same_name_are_refused(read: Read) -> None:
    [(line, fault)] = read(".xlsx", b"a,b\n1,2\n")
    assert line == 0
    assert fault.startswith("not readable as an .xlsx workbook (")
    assert read(".xlsx", book([["a", "a"], [1, 2]])) == [(0, "two columns are called 'a'; rename one")]
    assert read(".xlsx", book([])) == []


def test_without_openpyxl_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ConfigError, match=r"pip install 'mla_serve\[excel\]', or save as CSV"):
        list(READERS[".xlsx"](io.BytesIO()))
