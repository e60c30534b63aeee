"""JSON Lines, and JSON documents in the layouts that pandas writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

Read = Callable[..., list[tuple[int, Any]]]
MARK = b"\xef\xbb\xbf"

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=4,
)
rows = st.lists(st.dictionaries(st.text(st.characters(codec="utf-8")), values, max_size=4), min_size=2, max_size=5)


@given(
    rows=rows, ascii_only=st.booleans(), encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]), end=st.booleans()
)
def test_json_lines_are_read_back_as_they_were_written(
    read: Read, rows: list[dict[str, Any]], ascii_only: bool, encoding: str, end: bool
) -> None:
    text = ("\r\n" if end else "\n").join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    expected = list(enumerate(rows, start=1))
    assert read(".jsonl", text.encode(encoding)) == expected
    if not text.startswith("[") and rows[0]:
        notes: list[str] = []
        assert read(".json", text.encode(encoding), notes) == expected
        assert notes[-1] == "holds one JSON object per line; it is read as .jsonl"


@given(rows=rows, indent=st.sampled_from([None, 2]))
def test_a_list_of_objects_is_read_back_as_it_was_written(
    read: Read, rows: list[dict[str, Any]], indent: int | None
) -> None:
    expected = list(enumerate(rows, start=1))
    assert read(".json", json.dumps(rows, indent=indent).encode()) == expected
    assert read(".json", json.dumps({"data": rows, "version": 1}, indent=indent).encode()) == expected


@pytest.mark.parametrize("orient", ["records", "columns", "split", "table", "index"])
def test_every_layout_of_pandas_gives_the_same_rows(read: Read, orient: Any) -> None:
    frame = pd.DataFrame({"label": ["a", "b"], "n": [2**53 + 1, 2], "x": [0.5, None]})
    lines = read(".json", frame.to_json(orient=orient).encode())
    cells = [{name: cell for name, cell in row.items() if name != "index"} for _, row in lines]
    assert cells == [{"label": "a", "n": 2**53 + 1, "x": 0.5}, {"label": "b", "n": 2, "x": None}]
    assert [line for line, _ in lines] == [1, 2]


def test_columns_of_lists_are_rows(read: Read) -> None:
    assert read(".json", b'{"a": [1, 2], "b": ["x", null]}') == [(1, {"a": 1, "b": "x"}), (2, {"a": 2, "b": None})]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"3", 'expected [{"column": value, ...}, ...], {"data": [...]} or {"column": [value, ...], ...}, got 3'),
        (b'{"a": 1}', "expected [{"),
        (b'{"a": [1], "b": [1, 2]}', "column 'b': expected 1 cells as in the first column; correct it"),
        (b'[{"a": 1}', "not readable as JSON ("),
        (b"", "not readable as JSON ("),
        (b"[" * 100_000, "not readable as JSON ("),
    ],
)
def test_a_document_in_another_layout_is_refused(read: Read, data: bytes, expected: str) -> None:
    [(line, fault)] = read(".json", data)
    assert line == 0
    assert fault.startswith(expected)


def test_what_is_no_object_in_a_list_is_a_fault_of_its_row(read: Read) -> None:
    assert read(".json", b'[{"a": 1}, 2]') == [(1, {"a": 1}), (2, "expected one JSON object, got 2; repair it")]


def test_a_byte_order_mark_is_passed_over_at_the_start_and_nowhere_else(read: Read) -> None:
    assert read(".jsonl", MARK + b'{"a": 1}\n\n{"a": 2}') == [(1, {"a": 1}), (3, {"a": 2})]
    (_, first), (line, second) = read(".jsonl", b'{"a": 1}\n' + MARK + b'{"a": 2}')
    assert (first, line) == ({"a": 1}, 2)
    assert second.startswith("expected one JSON object")


def test_what_is_no_json_object_is_quoted_with_the_reason(read: Read) -> None:
    assert read(".jsonl", b"[1]") == [(1, "expected one JSON object, got '[1]' (not an object); repair the line")]
    [(_, broken)] = read(".jsonl", b'{"a": }')
    assert broken.startswith("expected one JSON object, got '{\"a\": }' (Expecting value")


def test_a_line_that_is_not_utf8_is_a_fault_of_that_line_only(read: Read) -> None:
    lines = read(".jsonl", '{"a": "äöü"}\n'.encode() + b'{"a": "\xe4"}\n{"a": 3}\n')
    assert [line for line, _ in lines] == [1, 2, 3]
    assert "invalid continuation byte" in lines[1][1]
    assert lines[2][1] == {"a": 3}


def test_half_of_a_surrogate_pair_is_refused_and_a_whole_one_is_not(read: Read) -> None:
    assert read(".jsonl", rb'{"a": "\ud83d\ude00"}') == [(1, {"a": "\N{GRINNING FACE}"})]
    for text in (rb'{"a": "\ud83d"}', rb'{"a": "\uDE00"}'):
        assert "surrogates not allowed" in read(".jsonl", text)[0][1]
