"""Which column holds the classes, and what can be a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mla_serve.errors import DataError
from mla_serve.table import Table, TableOptions, read_table, table_from_lines
from mla_serve.tasks import Labels

Cells = dict[str, Any]
Make = Callable[..., Path]


def build(rows: Sequence[Cells], **options: Any) -> Table:
    return table_from_lines({"shop.csv": list(enumerate(rows, start=2))}, Path("/nowhere"), "", TableOptions(**options))


def rows_of(labels: Sequence[object], column: str = "label") -> list[Cells]:
    return [{column: label, "text": f"some words {number}"} for number, label in enumerate(labels)]


@pytest.mark.parametrize("column", ["label", "Label", "target", "class", "Category", "y", "Species"])
def test_a_usual_name_is_found(column: str) -> None:
    assert build(rows_of("abab", column)).schema.label == column


def test_label_goes_before_other_usual_names() -> None:
    rows = [{**row, "category": "xy"[n // 2 % 2]} for n, row in enumerate(rows_of("abab" * 3))]
    assert build(rows).schema.label == "label"
    assert build(rows, label="category").classes == ("x", "y")


def test_without_a_usual_name_the_candidates_are_listed() -> None:
    rows = [{"size": n % 3, "kind": "ab"[n % 2], "text": f"some words {n}"} for n in range(12)]
    expected = (
        r"no column is called label, .*; it has: size, kind, text; .*--label COLUMN, such as kind .2 values., size .3"
    )
    with pytest.raises(DataError, match=expected):
        build(rows)
    with pytest.raises(DataError, match=r"no column 'kin'; it has: size, kind, text; say which with --label"):
        build(rows, label="kin")


def test_two_usual_names_are_not_chosen_from() -> None:
    rows = [{"class": "ab"[n % 2], "category": "xy"[n % 2], "text": f"words {n}"} for n in range(12)]
    with pytest.raises(DataError, match=r"class, category might each be the column of the labels"):
        build(rows)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([True, False], ("False", "True")),
        ([0.0, 1.0], ("0", "1")),
        ([0.5, 1.5], ("0.5", "1.5")),
        (["1.0", "2"], ("1", "2")),
        (["v1.0", "v2.0"], ("v1.0", "v2.0")),
    ],
)
def test_few_truth_values_and_numbers_are_classes(labels: list[object], classes: tuple[str, ...]) -> None:
    assert build(rows_of(labels * 4)).classes == classes


@pytest.mark.parametrize("labels", [[n * 1.5 for n in range(60)], [str(n * 37) for n in range(60)]])
def test_many_different_numbers_are_a_number(labels: list[object]) -> None:
    table = build(rows_of(labels))
    assert table.task.name == "number"
    assert {row.label for rows in table.splits.values() for row in rows} == set(map(float, labels))  # type: ignore[arg-type]


def test_lists_are_labels() -> None:
    table = build(rows_of([["drama", "comedy"], ["comedy"]] * 4, "labels"))
    assert table.task == Labels(("comedy", "drama"))
    assert {row.label for rows in table.splits.values() for row in rows} == {
        frozenset({"drama", "comedy"}),
        frozenset({"comedy"}),
    }


def test_rows_without_a_label_are_left_out_and_counted() -> None:
    table = build(rows_of(["a", "b", None, "a", "b", " ", "a", "b", float("nan"), "a", "b"]))
    assert sum(map(len, table.splits.values())) == 8
    assert "3 rows without a label left out (shop.csv:4, shop.csv:7, shop.csv:10)" in table.notes
    with pytest.raises(DataError, match=r"no row has a label in 'label'"):
        build(rows_of([None, ""]))


def test_a_table_that_lacks_the_label_column_is_named(tmp_path: Path, make: Make) -> None:
    folder = make(tmp_path, {"train": rows_of("abab"), "test": [{"text": "some words"}]})
    with pytest.raises(DataError, match=r"test.jsonl: no column 'label'; it has: text"):
        read_table(folder)


def test_classes_of_one_row_are_refused_or_left_out() -> None:
    labels = [*"abab" * 3, "c", "d"]
    with pytest.raises(DataError, match=r"shop.csv:14: label: classes of one row only, .*: 'c', 'd'; .*\n.*--skip-bad"):
        build(rows_of(labels))
    assert build(rows_of(labels), skip_bad=True).classes == ("a", "b")


def test_classes_of_few_rows_are_said() -> None:
    notes = build(rows_of([*"ab" * 12, "c", "c"])).notes
    assert "data: classes of fewer than 10 rows, which are hardly learned: c (2)" in notes
