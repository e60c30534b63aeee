"""Rows and values with faults: each is listed once, and what is left out is exactly what is at fault."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mla_serve.errors import DataError
from mla_serve.table import Table, TableOptions, read_table
from mla_serve.table.dataset import Row, describe_left_out, leave_out
from mla_serve.table.faults import LIST_COLUMNS, FaultPolicy, Faults

Cells = dict[str, Any]
Injected = dict[int, str]
"""Number of the row, from 0, to the name of its fault."""

UNDECODABLE = {"empty.png": b"", "text.png": b"no picture", "cut.png": b"\x89PNG\r\n\x1a\n\0\0"}
VALUE_FAULTS: dict[str, tuple[str, object]] = {
    "no file": ("image", "gone.png"),
    "a folder": ("image", "sub"),
    "a loop of links": ("image", "loop.png"),
    "outside": ("image", "../a.png"),
    "no path": ("image", 5),
    "no text": ("text", 5),
    "no numbers": ("v", "one two"),
    "too few numbers": ("v", [1.0]),
}
ROW_FAULTS: dict[str, tuple[str, object]] = {
    "unreadable label": ("label", [1]),
    "id given twice": ("id", "first"),
    "unreadable id": ("id", [1]),
    "unreadable masks": ("present", "often"),
}
STRUCTURAL = VALUE_FAULTS | ROW_FAULTS
EVERY = STRUCTURAL | {name: ("image", name) for name in UNDECODABLE}
ROWS = 24


def injected(names: Mapping[str, object]) -> st.SearchStrategy[Injected]:
    """Draw faults for less than half of the rows. The first row keeps its id, which others repeat."""
    return st.dictionaries(st.integers(1, ROWS - 1), st.sampled_from(sorted(names)), min_size=1, max_size=ROWS // 2 - 1)


def good_row(number: int) -> Cells:
    cells = {"label": "ab"[number % 2], "image": "a.png", "text": f"text {number}", "v": [1.0, 2.0, float(number)]}
    return cells | {"id": "first" if number == 0 else f"row {number}"}


def write(folder: Path, faults: Injected) -> Path:
    """Write a data set with these faults: a table, a good picture, and files that are none."""
    folder.mkdir(exist_ok=True)
    content = io.BytesIO()
    Image.linear_gradient("L").resize((20, 20)).save(content, "PNG")
    (folder / "a.png").write_bytes(content.getvalue())
    for name, given_bytes in UNDECODABLE.items():
        (folder / name).write_bytes(given_bytes)
    (folder / "sub").mkdir()
    (folder / "loop.png").symlink_to("loop.png")
    # The column of ids is named, because one with many faults is not taken for it.
    declared = {"modalities": {"v": "vector"}, "columns": {"id": "id"}}
    (folder / "dataset.json").write_text(json.dumps(declared))
    rows = [good_row(number) for number in range(ROWS)]
    for number, name in faults.items():
        column, cell = EVERY[name]
        rows[number] |= {column: cell}
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def read_list(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def places(table: Table) -> set[int]:
    """Return the numbers of the rows that are left."""
    return {row.place[1] - 1 for row in table.splits["train"]}


@settings(max_examples=60)
@given(faults=injected(EVERY), structural=st.sampled_from(sorted(STRUCTURAL)))
def test_each_fault_is_listed_once_with_its_line_and_column(
    faults: Injected, structural: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Broken files too, although they are found later: a table that is refused is refused once."""
    faults = {**faults, 1: structural}
    folder = write(tmp_path_factory.mktemp("data"), faults)
    listed = folder / "runs" / "data.faults.csv"
    with pytest.raises(DataError) as refused:
        read_table(folder, TableOptions(show=100, faults_file=listed))
    found = read_list(listed)
    expected = sorted((number + 1, EVERY[name][0]) for number, name in faults.items())
    assert [(int(row["line"]), row["column"]) for row in found] == expected
    lines = str(refused.value).splitlines()
    assert f": {len(faults)} fault" in lines[0]
    assert lines[1 : len(faults) + 1] == [
        f"  train.jsonl:{one['line']}: {one['column']}: {one['fault']}" for one in found
    ]
    assert f"the whole list: {listed}" in lines


@settings(max_examples=60)
@given(faults=injected(STRUCTURAL))
def test_the_rows_that_remain_are_exactly_the_good_ones(
    faults: Injected, tmp_path_factory: pytest.TempPathFactory
) -> None:
    table = read_table(write(tmp_path_factory.mktemp("data"), faults), TableOptions(skip_bad=True))
    assert places(table) == set(range(ROWS)) - faults.keys()
    assert all(row.values.keys() == {"image", "text", "v"} for row in table.splits["train"])
    assert f"{len(faults)} of {ROWS} rows left out because of faults" in describe_left_out(table)[0]


@settings(max_examples=60)
@given(faults=injected(VALUE_FAULTS))
def test_only_the_values_at_fault_are_left_out(faults: Injected, tmp_path_factory: pytest.TempPathFactory) -> None:
    table = read_table(write(tmp_path_factory.mktemp("data"), faults), TableOptions(skip_bad_values=True))
    assert places(table) == set(range(ROWS))
    for row in table.splits["train"]:
        number = row.place[1] - 1
        lost = {EVERY[faults[number]][0]} if number in faults else set()
        assert row.values.keys() == {"image", "text", "v"} - lost
    assert describe_left_out(table)[0].startswith(f"{len(faults)} value")


@pytest.mark.parametrize("name", sorted(ROW_FAULTS))
def test_faults_of_a_row_are_refused_where_only_values_may_be_left_out(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, {3: name, 4: "no file"})
    with pytest.raises(DataError, match="1 fault in the data set") as refused:
        read_table(folder, TableOptions(skip_bad_values=True))
    assert f"train.jsonl:4: {EVERY[name][0]}: " in str(refused.value)
    both = read_table(folder, TableOptions(skip_bad=True, skip_bad_values=True))
    assert places(both) == set(range(ROWS)) - {3}
    assert next(row for row in both.splits["train"] if row.place[1] == 5).values.keys() == {"text", "v"}


def test_what_concerns_a_whole_file_is_refused_whatever_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text('label,text\na,x\nb,y\nb,"x" y\na,z\n')
    skipping = TableOptions(skip_bad=True, skip_bad_values=True)
    with pytest.raises(DataError, match=r"train\.csv:4: .*not readable as CSV") as refused:
        read_table(tmp_path, skipping)
    assert "--skip-bad" not in str(refused.value)  # it would not help
    (tmp_path / "train.csv").write_text("label,text\na,x\na,y\nb\n")
    with pytest.raises(DataError, match=r"train\.csv: the 2 rows for training have one class only, 'a'"):
        read_table(tmp_path, skipping)


def test_a_row_of_which_nothing_remains_is_left_out(tmp_path: Path) -> None:
    folder = write(tmp_path, {})
    with (folder / "train.jsonl").open("a") as file:
        file.write('{"label": "a", "image": "gone.png"}\n')
    table = read_table(folder, TableOptions(skip_bad_values=True))
    assert places(table) == set(range(ROWS))
    assert describe_left_out(table)[0].startswith(f"1 of {ROWS + 1} rows left out because of faults (image 1)")


def test_classes_without_a_good_row_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path, {})
    with (folder / "train.jsonl").open("a") as file:
        file.write('{"label": "rare", "image": "gone.png"}\n')
    table = read_table(folder, TableOptions(skip_bad=True))
    assert table.classes == ("a", "b")
    assert any("classes left out" in note and "'rare'" in note for note in table.notes)


def test_a_mask_that_names_a_value_at_fault_is_no_second_fault(tmp_path: Path) -> None:
    folder = write(tmp_path, {})
    with (folder / "train.jsonl").open("a") as file:
        file.write('{"label": "a", "text": "x", "image": "gone.png", "present": {"80": ["image"]}}\n')
    with pytest.raises(DataError, match="1 fault in the data set"):
        read_table(folder)
    table = read_table(folder, TableOptions(skip_bad_values=True))
    assert table.splits["train"][-1].present == {"80": {"text"}}


def test_a_mask_that_loses_its_last_modality_keeps_the_others() -> None:
    row = Row("1", "a", {"text": "x", "image": Path("a.png")}, {"80": frozenset({"image"})}, {}, ("t.csv", 2))
    faults = Faults(Path("D"), ["t.csv"], FaultPolicy(skip_bad_values=True))
    faults.add_value(("t.csv", 2), "image", "broken")
    (left,) = leave_out([row], faults)
    assert (left.values, left.present) == ({"text": "x"}, {"80": {"text"}})
    assert leave_out([row], Faults()) == (row,)


def test_what_was_left_out_is_left_out_again_and_what_is_new_is_told(tmp_path: Path) -> None:
    folder = write(tmp_path, {3: "no file", 5: "unreadable id"})
    options = TableOptions(skip_bad=True, advise=False)
    before = read_table(folder, options)
    before.faults.add_value(("train.jsonl", 8), "image", "broken")  # as decoding does
    kept = json.loads(json.dumps(before.faults.to_dicts()))
    again = read_table(folder, options)
    assert again.faults.restore(kept) == []
    assert {fault.place[1] for fault in again.faults.found} == {4, 6, 8}
    assert len(again.faults.found) == 3
    later = read_table(write(tmp_path / "later", {3: "no file", 9: "no text"}), options)
    assert [str(fault).split(": ")[:2] for fault in later.faults.restore(kept)] == [["train.jsonl:10", "text"]]
    with pytest.raises(DataError) as refused:
        read_table(folder, TableOptions(advise=False))
    assert "--skip-bad" not in str(refused.value)


def test_more_than_half_left_out_is_said() -> None:
    faults = Faults(Path("D"), ["t.csv"], FaultPolicy(skip_bad=True))
    for line in (2, 3):
        faults.add(("t.csv", line), "missing", "label")
    assert faults.describe_left_out([("t.csv", 4), ("t.csv", 5)]) == [
        "2 of 4 rows left out because of faults (label 2): t.csv:2, t.csv:3"
    ]
    said = faults.describe_left_out([("t.csv", 4)])
    assert said[1].startswith("more than half of the rows are left out")


def test_the_list_is_written_over_no_other_file(tmp_path: Path) -> None:
    def refuse(message: str) -> str:
        faults = Faults(Path("D"), ["t.csv"], FaultPolicy(faults_file=tmp_path / "t.faults.csv"))
        faults.add(("t.csv", 2), message, "image")
        with pytest.raises(DataError) as refused:
            faults.raise_if_any()
        return str(refused.value)

    (tmp_path / "t.faults.csv").write_text("mine\n")
    (tmp_path / "t.faults-2.csv").mkdir()
    for message in ("no file", "a path with\na line break"):  # the second list replaces the first
        assert f"the whole list: {tmp_path / 't.faults-3.csv'}" in refuse(message)
        assert read_list(tmp_path / "t.faults-3.csv") == [
            dict(zip(LIST_COLUMNS, ("t.csv", "2", "image", message), strict=True))
        ]
    assert (tmp_path / "t.faults.csv").read_text() == "mine\n"


def test_a_list_that_cannot_be_written_hides_no_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    faults = Faults(Path("D"), ["t.csv"], FaultPolicy(faults_file=tmp_path / "file" / "t.faults.csv"))
    faults.add(("t.csv", 2), "missing", "label")
    with pytest.raises(DataError, match=r"t\.csv:2: label: missing") as refused:
        faults.raise_if_any()
    assert "the whole list could not be written" in str(refused.value)


def test_line_breaks_in_names_do_not_break_the_lines_of_a_message() -> None:
    faults = Faults(Path("D"), ["t\n.csv"])
    faults.add(("t\n.csv", 2), "missing", "la\nbel\x1b[31m")
    with pytest.raises(DataError) as refused:
        faults.raise_if_any()
    assert str(refused.value).splitlines()[1] == r"  t\n.csv:2: la\nbel\x1b[31m: missing"
