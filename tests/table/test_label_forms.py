"""Labels of three tasks: how they are written, which task is inferred, and what is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_serve.errors import DataError
from mla_serve.table import Row, Table, TableOptions, table_from_lines
from mla_serve.table.label_forms import LabelForm, complete_labels
from mla_serve.table.schema import Schema
from mla_serve.tasks import Classes, Labels, Number

TAGS = ("comedy", "crime", "drama", "news", "sci fi")


def tag_lists(count: int = 60) -> list[list[str]]:
    generator = random.Random(0)
    return [generator.sample(TAGS, generator.randint(1, 3)) for _ in range(count)]


def build_cells(rows: Sequence[dict[str, Any]], **options: Any) -> Table:
    lines = [(number, {**row, "text": f"some words {number}"}) for number, row in enumerate(rows, start=2)]
    return table_from_lines({"t.csv": lines}, Path("/nowhere"), "", TableOptions(**options))


def build(labels: Sequence[object], **options: Any) -> Table:
    return build_cells([{"label": label} for label in labels], **options)


def refusal(labels: Sequence[object], **options: Any) -> str:
    with pytest.raises(DataError) as refused:
        build(labels, **options)
    return str(refused.value)


def rows_of(table: Table) -> list[Row]:
    return sorted((row for rows in table.splits.values() for row in rows), key=lambda row: row.place)


def labels_of(table: Table) -> list[Any]:
    return [row.label for row in rows_of(table)]


WRITERS = {
    "lists": lambda tags: tags,
    "sets": set,
    "JSON": json.dumps,
    "Python": repr,
    "NumPy": lambda tags: str(np.array(tags)),
    "a Python set": lambda tags: repr(set(tags)),
    "bars": "|".join,
    "semicolons": "; ".join,
    "commas": ", ".join,
    "a bar at the end": lambda tags: "".join(f"{tag}|" for tag in tags),
}


@pytest.mark.parametrize("written", WRITERS)
def test_labels_are_read_however_they_are_written(written: str) -> None:
    lists = tag_lists()
    table = build([WRITERS[written](tags) for tags in lists])
    assert table.task == Labels(TAGS)
    assert labels_of(table) == list(map(frozenset, lists))
    assert any(line.startswith("label: labels, 5 different, 1 to 3 per row") for line in table.schema.describe())


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=9), max_size=5)
)
def test_lists_written_by_json_and_python_are_read_back(names: list[str]) -> None:
    form = LabelForm("labels", lists=True)
    given = [f"n{name}" for name in names]  # none begins with a question mark
    expected = frozenset(name.strip() for name in given)
    assert form.read(given) == form.read(json.dumps(given)) == expected


NO_LABELS = {
    "names of towns": [f"{town}, WA" for town in ("Seattle", "Tacoma", "Olympia")] * 20,
    "parts that are always two": [f"{who} | {what}" for who in ("Men", "Women") for what in ("Shoes", "Shirts")] * 15,
    "one cell of many": ["cat", "dog"] * 60 + ["cat, dog", "dog, cat"] * 2,
    "words": ["a", "b", "c"] * 20,
}


@pytest.mark.parametrize("name", NO_LABELS)
def test_texts_are_classes_where_no_separator_is_clear(name: str) -> None:
    assert build(NO_LABELS[name]).task == Classes(tuple(sorted(set(NO_LABELS[name]))))


def test_the_task_and_the_separator_can_be_said() -> None:
    assert build(NO_LABELS["names of towns"], task="labels").task.names == ("Olympia", "Seattle", "Tacoma", "WA")
    assert build(["/".join(tags) for tags in tag_lists()], separator="/").task == Labels(TAGS)
    assert build(["|".join(tags) for tags in tag_lists(2)] * 20, task="classes").task.name == "classes"
    assert build([1, 2, 3] * 20, task="number").task.name == "number"
    assert "no cell of 'label' holds the separator '/'" in refusal(["a", "b"] * 10, separator="/")
    assert "only the task labels has several" in refusal(["a/b", "b"] * 10, separator="/", task="number")


def test_a_row_without_any_label_is_kept_where_its_list_is_empty() -> None:
    table = build([["a"], [], None, ["b"], "[]", ""] * 10)
    assert labels_of(table) == [frozenset("a"), frozenset(), frozenset("b"), frozenset()] * 10
    assert "20 rows without a label left out (t.csv:4, t.csv:7, t.csv:10, ...)" in table.notes


def test_labels_that_are_not_known_are_left_open() -> None:
    table = build(["a|b", "b|c", "a|?c", "b|?", "c", "a|c"] * 10)
    first = labels_of(table)[:6]
    assert first[2] == {"a": True, "b": False}
    assert first[3] == {"b": True}
    assert first[4] == frozenset("c")
    targets = table.task.encode(first)
    np.testing.assert_array_equal(targets[2], [1, 0, np.nan])
    np.testing.assert_array_equal(targets[3], [np.nan, 1, np.nan])


def test_a_label_that_is_only_ever_unknown_is_no_label_of_the_model() -> None:
    table = build([["a"], ["b"], ["a", "?c"], ["a", "?b"]] * 10)
    assert table.task == Labels(("a", "b"))
    assert np.isnan(table.task.encode(labels_of(table))).sum() == 10


def test_several_columns_say_yes_no_or_nothing() -> None:
    rows = [
        {"drama": ("yes", "no", "")[n % 3], "crime": (1, 0)[n % 2], "news": (True, None, False)[n // 2 % 3]}
        for n in range(60)
    ]
    table = build_cells(rows, label="drama,crime, news")
    assert table.task == Labels(("crime", "drama", "news"))
    assert table.schema.label_columns == ("drama", "crime", "news")
    assert labels_of(table)[0] == {"drama", "crime", "news"}
    assert labels_of(table)[2] == {"crime": True}
    assert "drama: a label, of 20 rows" in table.schema.describe()
    with pytest.raises(DataError, match="no column 'crim'; it has: drama, crime, news, text"):
        build_cells(rows, label="drama,crim")
    with pytest.raises(
        DataError, match="'text': expected yes or no in each of several columns of labels, got cells such as"
    ):
        build_cells(rows, label="drama,text")
    with pytest.raises(DataError, match="2 columns of labels, drama, crime, and the task number"):
        build_cells(rows, label="drama,crime", task="number")


def test_boxes_that_are_only_ever_ticked_tell_nothing() -> None:
    rows = [{"drama": ("x", "")[n % 2], "crime": (1, 0)[n % 2]} for n in range(60)]
    with pytest.raises(
        DataError, match="'drama': the same in every cell that is not empty, and an empty one means not known"
    ):
        build_cells(rows, label="drama,crime")


@pytest.mark.parametrize(
    ("labels", "values", "unit", "log"),
    [
        ([n * 1.5 for n in range(60)], [n * 1.5 for n in range(60)], "", False),
        ([f"{n * 37},50 €" for n in range(60)], [n * 37 + 0.5 for n in range(60)], "€", False),
        ([f"USD {n * 1037:,}" for n in range(60)], [n * 1037 for n in range(60)], "USD", False),
        ([f"{n * 37} kg" if n % 9 else "N/A" for n in range(60)], [n * 37 for n in range(60) if n % 9], "kg", False),
        ([2.0 ** (n / 4) for n in range(60)], [2.0 ** (n / 4) for n in range(60)], "", True),
    ],
)
def test_many_different_numbers_are_read_as_columns_of_numbers_are(
    labels: list[object], values: list[float], unit: str, log: bool
) -> None:
    table = build(labels)
    task = table.task
    assert isinstance(task, Number)
    assert (task.unit, task.log, task.column) == (unit, log, "label")
    assert labels_of(table) == values
    train = np.array([row.label for row in table.splits["train"]])
    assert (task.low, task.high) == (train.min(), train.max())
    encoded = task.encode(list(train))
    assert (encoded.mean(), encoded.std()) == pytest.approx((0, 1), abs=1e-5)
    assert unit in table.schema.describe()[0]
    json.dumps(task.to_dict())


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([n * 1.25 if n != 9 else float("inf") for n in range(60)], "t.csv:11: label: expected a finite number such as 1234.5, got inf"),
        ([n * 1.25 if n != 9 else -1e160 for n in range(60)], "t.csv:11: label: expected a number up to 1e+130, got -1e+160; correct it, or write all"),
        ([n * 1.25 if n != 9 else "inf" for n in range(60)], "t.csv:11: label: expected a finite number such as 1234.5, got 'inf'"),
        ([n * 1.25 if n != 9 else 10**400 for n in range(60)], "t.csv:11: label: expected a finite number"),
        ([str(n * 7) if n % 4 else "big" for n in range(80)], "t.csv:6: label: expected a finite number such as 1234.5, got 'big'"),
        ([["a", "b"][: 1 + n % 2] if n % 9 else "a" for n in range(1, 60)], "t.csv:10: label: expected a list of labels as in most rows, got 'a'"),
        (["ab"[n % 2] if n % 9 else ["a"] for n in range(1, 60)], "t.csv:10: label: expected one class, got ['a']"),
    ],
)  # fmt: skip
def test_a_label_of_another_kind_is_a_fault_of_its_row(labels: list[object], expected: str) -> None:
    assert expected in refusal(labels)
    kept = build(labels, skip_bad=True)
    assert len(rows_of(kept)) < len(labels)


@pytest.mark.parametrize(
    ("labels", "options", "expected"),
    [
        ([["a", "b"], ["b"]] * 10, {"task": "classes"}, "t.csv:2: label: expected one class, got ['a', 'b']"),
        (["a", "b"] * 10, {"task": "number"}, "t.csv:2: label: expected a finite number such as 1234.5, got 'a'; correct it, or predict classes"),
        ([5.5] * 60, {"task": "number"}, "the 60 rows for training have the same number, 5.5; expected different numbers"),
        (list(range(1, 61)), {}, "'label' numbers its rows, 1 to 60; choose another column with --label, or say --task number"),
        ([["a", "b"]] * 30, {}, "the 30 rows for training have the same labels, a, b; expected rows with different ones"),
        ([[]] * 30, {"task": "labels"}, "no row has a label in 'label'"),
        ([[f"t{n}"] for n in range(30)], {}, "the 30 rows for training have labels of its own each, such as 't0'"),
        (["0" + str(1000 + n) for n in range(60)], {}, "the 60 rows for training have a label of its own each, such as '01000'"),
    ],
)  # fmt: skip
def test_a_column_that_fits_no_task_is_refused(labels: list[object], options: dict[str, Any], expected: str) -> None:
    assert expected in refusal(labels, **options)


def test_a_label_that_train_lacks_is_refused_or_left_out() -> None:
    rows = [{"label": ["a", "b"][: 1 + n % 2], "split": "val" if n % 5 == 0 else "train"} for n in range(60)]
    rows[5]["label"] = ["a", "new"]
    with pytest.raises(
        DataError, match=r"t\.csv:7: label: 'new' is not in train, which has a, b; correct it or add rows there"
    ):
        build_cells(rows)
    assert 7 not in {row.place[1] for row in rows_of(build_cells(rows, skip_bad=True))}


def test_the_logarithm_is_taken_only_where_every_split_has_one() -> None:
    generator = random.Random(0)
    rows = [{"label": generator.lognormvariate(5, 2), "split": "val" if n % 5 == 0 else "train"} for n in range(300)]
    assert build_cells(rows).task.to_dict()["log"] is True
    rows[5]["label"] = -1.0
    assert build_cells(rows).task.to_dict()["log"] is False


def test_how_labels_are_written_is_kept_with_the_model_and_later_tables_may_differ() -> None:
    schema = build(["|".join(tags) for tags in tag_lists()]).schema
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    known = Labels(TAGS)
    for written in (["crime", "news"], '["crime", "news"]', "crime|news"):
        later = build([written, ["drama"] if isinstance(written, list) else written], schema=schema, trained=known)
        assert labels_of(later)[0] == {"crime", "news"}
        assert later.task is known
    columns = build_cells([{"crime": "yes", "news": "no"}], schema=schema, trained=known, label="crime,news")
    assert labels_of(columns) == [{"crime": True, "news": False}]
    unheard = build([["crime", "?news"]], schema=schema, trained=known)
    assert labels_of(unheard) == [{"comedy": False, "crime": True, "drama": False, "sci fi": False}]


def test_a_schema_of_an_older_model_reads_classes() -> None:
    fields = {"label": "kind", "columns": [{"column": "text", "role": "text", "modality": "text"}]}
    schema = Schema.from_dict(fields)
    assert schema.label_form == LabelForm("classes")
    assert labels_of(build_cells([{"kind": "a|b"}, {"kind": 2.0}], schema=schema)) == ["a|b", "2"]


def test_labels_are_completed_by_the_names_of_all() -> None:
    assert complete_labels(frozenset({"a", "?c"}), ("a", "b", "c")) == {"a": True, "b": False}
    assert complete_labels({"a": True, "b": False}, ("a", "b")) == frozenset("a")
    assert complete_labels({"a": True}, ("a", "b")) == {"a": True}
    assert complete_labels("a", ()) == "a"
    assert complete_labels(0.5, ()) == 0.5


def test_a_column_that_gives_a_label_or_a_number_away_is_said() -> None:
    generator = random.Random(0)
    rows = [
        {
            "label": tags,
            "is_news": "yes" if "news" in tags else "no",
            "size": generator.choice("sml"),
            "weight": generator.random(),
        }
        for tags in tag_lists(100)
    ]
    hints = [note for note in build_cells(rows).notes if "under another name" in note]
    assert [hint.split(";")[0] for hint in hints] == ["data: is_news: its values tell whether a row has news"]
    numbers = [
        {
            "label": n * 1.5,
            "euro": round(n * 1.38, 2),
            "size": generator.choice("sml"),
            "other": n + generator.gauss(0, 9),
        }
        for n in range(100)
    ]
    hints = [note for note in build_cells(numbers).notes if "under another name" in note]
    assert [hint.split(";")[0] for hint in hints] == ["data: euro: it follows the label, with a correlation of 1.00000"]


def test_the_lines_that_are_said_of_labels_are_those_of_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "data-format.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- tasks -->\n```text\n")[2].partition("```\n<!-- end -->")[0].splitlines()
    prices = np.geomspace(22_000, 5_858_000, 60).round()
    tables = {
        "genres": ["|".join(tags) for tags in tag_lists()],
        "price": [f"{price:,.0f} USD" for price in prices],
        "kind": ["a", "b", "c"] * 20,
    }
    tables = {
        column: build_cells([{column: label} for label in labels], label=column) for column, labels in tables.items()
    }
    assert [table.schema.describe()[0] for table in tables.values()] == shown
