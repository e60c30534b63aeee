"""Single cells, names and lists in messages: what is empty, what is found at a path, how much is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mla_serve.errors import DataError
from mla_serve.table.cells import find_cell, is_missing, read_cell, read_name, read_present
from mla_serve.table.faults import (
    MOST_SHOWN,
    Fault,
    Faults,
    InvalidValue,
    abbreviate,
    format_faults,
    format_place,
    join_names,
)


@pytest.mark.parametrize("cell", [None, "", "  ", "\n\t", [], "[]", " [] "])
def test_null_blank_text_and_an_empty_list_are_empty(cell: object) -> None:
    assert is_missing(cell)


@pytest.mark.parametrize("cell", ["a", 0, False, 0.0, [0], ["a"], "[0]", "null", "XX"])
def test_everything_else_is_something(cell: object) -> None:
    assert not is_missing(cell)


@pytest.mark.parametrize(
    ("cells", "path", "expected"),
    [
        ({"a": 1}, "a", 1),
        ({"a": 1}, "b", None),
        ({"a": {"b": {"c": 1}}}, "a.b.c", 1),
        ({"a.b": 1, "a": {"b": 2}}, "a.b", 1),
        ({"a": {"b.c": 1}}, "a.b.c", 1),
        ({"a": 1}, "a.b", None),
        ({"a": None}, "a.b", None),
        ({}, "a.b.c", None),
        ({"a": {"b": 1}}, "a.", None),
        ("text", "a", None),
    ],
)
def test_a_cell_is_found_by_its_name_or_else_by_its_dotted_path(cells: Any, path: str, expected: object) -> None:
    assert find_cell(cells, path) == expected


@pytest.mark.parametrize(("cell", "name"), [("a", "a"), (" a b ", "a b"), (7, "7"), (-1, "-1"), (0, "0")])
def test_a_name_is_text_or_a_whole_number(cell: object, name: str) -> None:
    assert read_name(cell) == name


@pytest.mark.parametrize("cell", [True, 1.0, None, [1], {"a": 1}])
def test_nothing_else_is_a_name(cell: object) -> None:
    with pytest.raises(InvalidValue, match="expected text or a whole number"):
        read_name(cell)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ([1, 2.5], (1.0, 2.5)),
        ("[1, 2.5]", (1.0, 2.5)),
        ("1 2.5", (1.0, 2.5)),
        ("1;2.5", (1.0, 2.5)),
        ("1; 2.5 ;-3e2", (1.0, 2.5, -300.0)),
        ("7", (7.0,)),
    ],
)
def test_a_vector_is_a_list_or_numbers_parted_by_blanks_or_semicolons(cell: object, expected: tuple[float]) -> None:
    assert read_cell("vector", cell, Path()) == expected


def test_missing_rates_keep_what_the_row_has_and_pass_over_what_is_null() -> None:
    kinds, values = ("image", "audio", "text"), ("image", "text")
    given = {"20": None, "40": ["image", "audio"], "60": None, "80": ["text"]}
    assert read_present(given, kinds, values) == {"40": {"image"}, "80": {"text"}}
    assert read_present('{"40": ["text"]}', kinds, values) == {"40": {"text"}}
    assert read_present(None, kinds, values) == {}
    assert read_present({"40": ["audio"]}, kinds, ()) == {"40": frozenset()}  # the row has a fault of its own


def test_a_path_of_a_file_is_inside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").touch()
    for kind in ("image", "audio"):
        assert read_cell(kind, "sub/a.png", tmp_path) == tmp_path / "sub" / "a.png"


def test_a_text_is_the_text_as_it_stands() -> None:
    assert read_cell("text", " a\n", Path()) == " a\n"


@pytest.mark.parametrize(
    ("length", "expected"), [(78, "'" + "x" * 78 + "'"), (79, "'" + "x" * 59 + "... (81 characters)")]
)
def test_a_long_value_is_cut(length: int, expected: str) -> None:
    assert abbreviate("x" * length) == expected


def test_the_first_ten_names_are_listed() -> None:
    names = [str(number) for number in range(12)]
    assert join_names([]) == "none"
    assert join_names(names[:1]) == "0"
    assert join_names(names[:10]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert join_names(names[:11]) == join_names(names) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..."


@pytest.mark.parametrize(
    ("count", "head"),
    [
        (1, "D: 1 fault in the data set:"),
        (2, "D: 2 faults in the data set:"),
        (MOST_SHOWN, "D: 20 faults in the data set:"),
        (MOST_SHOWN + 1, "D: 21 faults in the data set; the first 20:"),
    ],
)
def test_a_summary_counts_and_shows_the_first(count: int, head: str) -> None:
    found = [f"fault {number}" for number in range(count)]
    assert format_faults(Path("D"), found, "fault", "in the data set").split("\n  ") == [head, *found[:MOST_SHOWN]]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (("a.jsonl", 3), "a.jsonl:3"),
        (("a.csv", 1), "a.csv:1"),
        (("a.csv", 0), "a.csv"),
        (("a.parquet", 7), "a.parquet:row 7"),
        (("A.PARQUET", 7), "A.PARQUET:row 7"),
        (("a.parquet", 0), "a.parquet"),
    ],
)
def test_a_place_is_a_file_and_a_line_or_row(place: tuple[str, int], expected: str) -> None:
    assert format_place(place) == expected


def test_faults_are_told_in_the_order_of_the_files_and_their_lines() -> None:
    faults = Faults(Path("D"), ["z.csv", "a.csv"])
    faults.raise_if_any()  # nothing to refuse
    for place in (("a.csv", 1), ("z.csv", 10), ("z.csv", 9), ("a.csv", 0)):
        faults.add(place, "b" if place[1] == 9 else "a")
    with pytest.raises(DataError) as refused:
        faults.raise_if_any()
    assert [line.split(": ")[0] for line in str(refused.value).split("\n  ")[1:]] == [
        "z.csv:9",
        "z.csv:10",
        "a.csv",
        "a.csv:1",
    ]


def test_a_fault_is_noted_with_its_field_and_reading_goes_on() -> None:
    faults = Faults(Path("D"), ["a.csv"])
    with faults.collecting(("a.csv", 2), "label"):
        raise InvalidValue("missing")
    assert faults.found == [Fault(("a.csv", 2), "label", "missing")]
    with pytest.raises(KeyError), faults.collecting(("a.csv", 2), "label"):
        raise KeyError("a bug")
