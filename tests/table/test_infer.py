"""What columns are taken for, whatever the order of the rows, and how they are read."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mla_serve.errors import ConfigError, DataError
from mla_serve.table import Table, TableOptions, read_table, table_from_lines
from mla_serve.table.schema import ColumnRole, Schema

Cells = dict[str, Any]
Make = Callable[..., Path]

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
WAV = b"RIFF\x24\0\0\0WAVEfmt " + bytes(20)


def build(rows: Sequence[Cells], folder: Path = Path("/nowhere"), **options: Any) -> Table:
    """Take rows through all steps but the reading of files."""
    return table_from_lines({"shop.csv": list(enumerate(rows, start=2))}, folder, "0" * 64, TableOptions(**options))


def table_of(column: str, cells: Sequence[Any], folder: Path = Path("/nowhere"), **options: Any) -> Table:
    """Build a table of two classes from the cells of one column."""
    rows = [{"label": "ab"[number % 2], "text": "some words", column: cell} for number, cell in enumerate(cells)]
    return build(rows, folder, **options)


def role_of(column: str, cells: Sequence[Any], folder: Path = Path("/nowhere"), **options: Any) -> str:
    roles = {role.column: role.role for role in table_of(column, cells, folder, **options).schema.roles}
    return roles[column]


COUNT = 24
EXAMPLES: dict[str, tuple[str, Sequence[Any]]] = {
    "fractions": ("number", [f"{n}.5" for n in range(COUNT)]),
    "decimal commas": ("number", [f"1.{n:03},5" for n in range(COUNT)]),
    "thousands": ("number", [f"{n + 1},500.25" for n in range(COUNT)]),
    "euros": ("number", [f"{n},50 €" for n in range(COUNT)]),
    "rupees": ("number", [f"Rs. {n * 100}" for n in range(COUNT)]),
    "accounts": ("number", [f"({n + 1},596)" if n % 2 else f"{n},878.5" for n in range(1, COUNT + 1)]),
    "kilograms": ("number", [f"{n} kg" for n in range(COUNT)]),
    "speeds": ("number", [f"{n}.5 km/h" for n in range(COUNT)]),
    "different units": ("category", [f"{n % 2} {('kg', 'g', 't')[n % 3]}" for n in range(COUNT)]),
    "seats": ("category", [f"A{n % 5}" for n in range(COUNT)]),
    "paid": ("number", [n * n * 10 + 25 for n in range(COUNT)]),
    "bid": ("number", [f"{n * n + 25}" for n in range(COUNT)]),
    "userId": ("ignored", [n * n + 25 for n in range(COUNT)]),
    "userid": ("ignored", [n * n + 25 for n in range(COUNT)]),
    "per cent": ("number", [f"{n} %" for n in range(COUNT)]),
    "numbers with gaps": ("number", [f"{n * 7 % 11}" if n % 3 else "N/A" for n in range(COUNT)]),
    "counts": ("number", [n % 4 for n in range(COUNT)]),
    "zip codes": ("category", [f"{80000 + n % 5}" for n in range(COUNT)]),
    "leading zeros": ("category", [f"0{n % 5}" for n in range(COUNT)]),
    "phone numbers": ("ignored", [f"06440449{n:02}" for n in range(COUNT)]),
    "phone numbers of all countries": ("ignored", [f"+49 30 1001{n:02}" for n in range(COUNT)]),
    "phone numbers of a few": ("category", [f"+49 30 1001{n % 5:02}" for n in range(COUNT)]),
    "colours": ("category", [("red", "green", "dark blue")[n % 3] for n in range(COUNT)]),
    "kitchens": ("category", [("Kitchen & Dining", "Baby Care")[n % 2] for n in range(COUNT)]),
    "yes and no": ("yes_no", [("yes", "No")[n % 2] for n in range(COUNT)]),
    "ja und nein": ("yes_no", [("ja", "nein")[n % 2] for n in range(COUNT)]),
    "truth values": ("yes_no", [n % 2 == 0 for n in range(COUNT)]),
    "boxes to tick": ("yes_no", ["x" if n % 3 else "" for n in range(COUNT)]),
    "ones and nothing": ("yes_no", [1 if n % 3 else None for n in range(COUNT)]),
    "yes always": ("ignored", ["yes"] * COUNT),
    "ISO dates": ("date", [f"2024-01-{n + 1:02}" for n in range(COUNT)]),
    "dates and times": ("date", [f"2024-01-{n + 1:02} 10:30" for n in range(COUNT)]),
    "days first": ("date", [f"{n + 1}/12/2024" for n in range(COUNT)]),
    "months by name": ("date", [f"{n + 1} Mar 2024" for n in range(COUNT)]),
    "months in German": ("date", [f"{n + 1}. Januar 2022" for n in range(COUNT)]),
    "two digits of the year": ("date", [f"{n + 1:02}-Jan-22" for n in range(COUNT)]),
    "dates without marks": ("date", [f"202401{n + 1:02}" for n in range(COUNT)]),
    "numbers of eight digits": ("number", [f"{20240101 + n * 7}" for n in range(COUNT)]),
    "times": ("category", [f"{n}:30" for n in range(20)] + ["0:30"] * 20),
    "date objects": ("date", [datetime.date(2024, 1, n + 1) for n in range(COUNT)]),
    "titles": ("text", [f"blue mug number {n}" for n in range(COUNT)]),
    "Chinese": ("text", [f"蓝色的杯子很好看{n}" for n in range(COUNT)]),
    "JSON lists": ("vector", [f"[{n}, 2.5]" for n in range(COUNT)]),
    "blanks": ("vector", [f"12 {n} 255" for n in range(COUNT)]),
    "commas": ("vector", [f"0,{n},2.5" for n in range(COUNT)]),
    "as NumPy prints": ("vector", [f"[0.1 {n}.\n 0.3]" for n in range(COUNT)]),
    "lists": ("vector", [[n, 2.5] for n in range(COUNT)]),
    "pictures in the table": ("image", [PNG for _ in range(COUNT)]),
    "as Hugging Face stores sound": ("audio", [{"bytes": WAV, "path": "a.wav"} for _ in range(COUNT)]),
    "hashes": ("ignored", [f"{n:032x}" for n in range(COUNT)]),
    "running numbers": ("ignored", list(range(COUNT))),
    "always the same": ("ignored", ["EUR"] * COUNT),
    "nothing": ("ignored", [None] * COUNT),
    "objects": ("ignored", [{"a": n} for n in range(COUNT)]),
    "web pages": ("ignored", [f"https://example.org/{n}" for n in range(COUNT)]),
    "videos": ("ignored", [f"clips/{n}.mp4" for n in range(COUNT)]),
    "lists of words": ("ignored", [["a", "b"] for _ in range(COUNT)]),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_column_is_taken_for_what_it_is(name: str) -> None:
    expected, cells = EXAMPLES[name]
    assert role_of(name, cells) == expected


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_order_of_the_rows_does_not_matter(name: str) -> None:
    cells = list(EXAMPLES[name][1])
    before = table_of(name, cells).schema
    random.Random(0).shuffle(cells)
    assert table_of(name, cells).schema.roles == before.roles


numbers = st.floats(-1e6, 1e6).map(lambda number: f"{number:.2f}")
dates = st.dates(datetime.date(1900, 1, 1)).map(datetime.date.isoformat)
missing = st.sampled_from(["", None, float("nan")])


@settings(max_examples=40, deadline=None)
@given(st.lists(numbers | missing, min_size=20, max_size=40).filter(lambda cells: len({*map(str, cells)}) > 4))
def test_numbers_with_gaps_are_numbers(cells: list[Any]) -> None:
    table = table_of("price", cells)
    assert {role.column: role.role for role in table.schema.roles}["price"] == "number"
    read = sum("columns" in row.values for rows in table.splits.values() for row in rows)
    assert read == sum(isinstance(cell, str) and bool(cell) for cell in cells)


@settings(max_examples=40, deadline=None)
@given(st.lists(dates | missing, min_size=20, max_size=40).filter(lambda cells: len({*map(str, cells)}) > 4))
def test_dates_with_gaps_are_dates(cells: list[Any]) -> None:
    assert role_of("bought", cells) == "date"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["red", "green", "dark blue", "été", "赤"]), min_size=20, max_size=40))
def test_few_repeated_words_are_categories_unless_all_are_the_same(cells: list[str]) -> None:
    assert role_of("colour", cells) == ("category" if len(set(cells)) > 1 else "ignored")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(
            st.sampled_from(["a", "blue", "mug", "with", "two", "small", "handles", "and", "no", "lid"]),
            min_size=4,
            max_size=9,
        ),
        min_size=20,
        max_size=30,
        unique_by=tuple,
    )
)
def test_different_sentences_are_texts(cells: list[list[str]]) -> None:
    assert role_of("title", [" ".join(words) for words in cells]) == "text"


def test_the_schema_is_the_same_after_json() -> None:
    rows = [{"label": "ab"[n % 2], **{name: cells[n] for name, (_, cells) in EXAMPLES.items()}} for n in range(COUNT)]
    schema = build(rows).schema
    assert schema.held_out["test"]
    assert Schema.from_dict(schema.to_dict()) == schema


def test_a_schema_keeps_the_columns_of_some_modalities_and_takes_those_of_an_earlier_table() -> None:
    rows = [{"label": "ab"[n % 2], "title": f"a blue mug {n}", "price": f"{n}.5", "id": n} for n in range(20)]
    rows = [row | {"patient": f"surname-{row['id']}"} for row in rows]
    schema = build(rows).schema
    assert schema.has("ignored")
    kept = schema.keep(["title"])
    assert [(role.column, role.reason) for role in kept.roles] == [("label", ""), ("title", ""), ("id", "")]
    assert kept.modalities == {"title": "text"}
    assert kept.join(schema).modalities == schema.modalities == {"title": "text", "columns": "columns"}


def test_columns_that_a_model_knows_are_read_as_before_and_others_are_inferred() -> None:
    rows = [{"label": "ab"[n % 2], "size": f"{n % 5}", "colour": ("red", "blue")[n % 3 % 2]} for n in range(20)]
    known = build(rows, kinds={"size": "category", "colour": "ignore"}).schema
    table = build(rows, known=known)
    assert {role.column: (role.role, role.modality) for role in table.schema.roles} == {
        "label": ("label", None), "size": ("category", "columns"), "colour": ("category", "columns_2")
    }  # fmt: skip
    assert table.schema.held_out == known.held_out


def test_cells_are_read_as_their_column_is_written() -> None:
    rows = [
        {"label": "ab"[n % 2], "price": f"1.{n:03},5 €", "bought": f"{n + 1}.2.2024", "zip": f"0{n % 5}", "new": ["ja", "nein"][n % 2]}
        for n in range(COUNT)
    ]  # fmt: skip
    table = build(rows)
    first = next(row for rows in table.splits.values() for row in rows if row.id == "row-0")
    assert first.values == {
        "columns": {"price": 1000.5, "bought": datetime.datetime(2024, 2, 1), "zip": "00", "new": True}
    }
    again = table.schema.read_sample({"price": "2,5", "bought": "3.4.2024", "zip": 7.0, "new": "Nein"}, Path())
    assert not again.faults
    assert again.values["columns"] == {
        "price": 2.5, "bought": datetime.datetime(2024, 4, 3), "zip": "7", "new": False
    }  # fmt: skip


def test_a_cell_that_does_not_read_is_a_fault_and_the_others_are_kept() -> None:
    cells = [f"{n}.5" for n in range(40)]
    cells[7] = "12O.5"
    with pytest.raises(DataError, match=r"shop.csv:9: price: expected a number such as 1234.5, got '12O.5'"):
        table_of("price", cells)
    rows = [{"label": "ab"[n % 2], "price": cell, "size": n % 7} for n, cell in enumerate(cells)]
    table = build(rows, skip_bad_values=True)
    assert next(row for rows in table.splits.values() for row in rows if row.id == "row-7").values == {
        "columns": {"size": 0.0}
    }


@pytest.mark.parametrize(("usual", "odd"), [("{}.50", "12,5"), ("$ {}.50", "12 €"), ("{} kg", "12 g"), ("{}", "1e999")])
def test_one_number_of_another_notation_is_a_fault_and_not_another_number(usual: str, odd: str) -> None:
    cells = [*(usual.format(n * 7 % 199) for n in range(199)), odd]
    with pytest.raises(DataError, match=f"shop.csv:201: price: expected a number such as 1234.5, got '{odd}'"):
        table_of("price", cells)
    with pytest.raises(DataError, match=f"shop.csv:201: price: expected a number such as 1234.5, got '{odd}'"):
        table_of("price", cells, kinds={"price": "number"})


def test_a_number_without_the_unit_of_its_column_is_read() -> None:
    schema = table_of("price", [f"$12.{n}" for n in range(10, 99)]).schema
    assert schema.read_sample({"price": "12.50"}, Path()).values == {"columns": {"price": 12.5}}


@pytest.mark.parametrize("word", ["N/A", "unknown"])
@pytest.mark.parametrize(
    ("expected", "cells"),
    [
        ("number", [n * 7 % 199 / 4 for n in range(199)]),
        ("number", [n * 7 % 199 for n in range(199)]),
        ("date", [datetime.datetime(2024, 1, 1) + datetime.timedelta(days=n) for n in range(199)]),
        ("date", [datetime.date(2024, 1, 1) + datetime.timedelta(days=n) for n in range(199)]),
    ],
)
def test_words_for_missing_beside_numbers_and_dates_that_are_no_texts(
    word: str, expected: str, cells: list[Any]
) -> None:
    table = table_of("size", [*cells, word])
    assert {role.column: role.role for role in table.schema.roles}["size"] == expected
    assert sum("columns" in row.values for rows in table.splits.values() for row in rows) == 199


def test_a_later_table_of_the_other_notation_has_faults() -> None:
    prices, days = [f"{n}.5" for n in range(COUNT)], [f"{n % 12 + 1}/{n + 5}/2024" for n in range(COUNT)]
    for column, cells, other in (("price", prices, "12,5"), ("bought", days, "31/12/2024")):
        sample = table_of(column, cells).schema.read_sample({column: other}, Path())
        assert not sample.values
        assert [fault.column for fault in sample.faults] == [column]


def test_a_date_that_swaps_day_and_month_is_a_fault() -> None:
    cells = [*(f"{n % 12 + 1}/{n % 28 + 1}/2024" for n in range(60)), "31/12/2024"]
    with pytest.raises(
        DataError, match=r"shop.csv:62: bought: expected a date such as 2024-12-31 or 12/31/2024, got '31"
    ):
        table_of("bought", cells)


def test_a_box_to_tick_is_yes_where_it_has_a_mark_and_missing_elsewhere() -> None:
    rows = [{"label": "ab"[n % 2], "size": n % 5, "new": "x" if n % 2 else ""} for n in range(20)]
    table = build(rows)
    assert "new: yes/no, 50 % missing, always 'x' or empty -> columns" in table.schema.describe()
    values = {row.id: row.values["columns"] for rows in table.splits.values() for row in rows}
    assert (values["row-0"], values["row-1"]) == ({"size": 0.0}, {"size": 1.0, "new": True})


def test_a_column_in_a_form_that_is_not_read_is_said_with_an_example() -> None:
    schema = table_of("opens", [f"{n % 13}:{n % 7}0" for n in range(40)]).schema
    assert schema.describe()[-1] == "opens: ignored, every value is different, such as '0:00'"


@pytest.mark.parametrize(
    "written", ["a.png", "./a.png", "sub\\b.png", "file://{folder}/a.png", "{folder}/sub/b.png", "sub/../a.png"]
)
def test_paths_as_people_write_them(tmp_path: Path, written: str) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).write_bytes(PNG)
    cells = [written.format(folder=tmp_path)] * 4
    if ".." in written:
        with pytest.raises(DataError, match="none of its files is in"):
            table_of("file_name", cells, tmp_path)
        return
    table = table_of("file_name", cells, tmp_path)
    assert table.modalities == {"image": "image", "text": "text"}
    assert {row.values["image"].name for rows in table.splits.values() for row in rows} <= {"a.png", "b.png"}  # type: ignore[union-attr]


def test_paths_that_are_relative_to_one_subfolder(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(PNG)
    table = table_of("Photo", ["a.png"] * 4, tmp_path)
    assert "Photo: 4 pictures, in images/ -> photo" in table.schema.describe()
    assert next(iter(table.splits.values()))[0].values["photo"] == tmp_path / "images" / "a.png"


def test_addresses_of_pictures_are_refused_with_the_reason() -> None:
    with pytest.raises(DataError, match=r"picture: 'https://x/0.jpg' is a web address, and nothing is fetched"):
        table_of("picture", [f"https://x/{n}.jpg" for n in range(4)])


def test_what_the_user_says_overrules_what_is_inferred() -> None:
    rows = [{"label": "ab"[n % 2], "brand": ["blue", "red"][n % 2], "notes": f"sent by mail {n}"} for n in range(20)]
    assert build(rows).modalities == {"notes": "text", "columns": "columns"}
    assert build(rows, kinds={"brand": "text", "notes": "ignore"}).modalities == {"brand": "text"}
    with pytest.raises(ConfigError, match=r"--kinds brnd=text: no such column; the table has label, brand, notes"):
        build(rows, kinds={"brnd": "text"})
    with pytest.raises(ConfigError, match="brand: unknown kind 'smell'; expected one of image, audio"):
        build(rows, kinds={"brand": "smell"})


def test_dataset_json_groups_columns_and_names_modalities(tmp_path: Path, make: Make) -> None:
    rows = [
        {
            "kind": "ab"[n % 2],
            "rooms": n % 5,
            "area": f"{n}.5",
            "year": 1990 + n % 9,
            "Product Name": f"house number {n}",
        }
        for n in range(20)
    ]
    declared = {
        "label": "kind",
        "columns": {"year": "category"},
        "modalities": {
            "facts": {"kind": "columns", "columns": ["rooms", "area"]},
            "title": {"kind": "text", "column": "Product Name"},
        },
    }
    table = read_table(make(tmp_path, {"houses": rows}, declared))
    assert table.modalities == {"facts": "columns", "title": "text", "columns": "columns"}
    row = next(row for rows in table.splits.values() for row in rows if row.id == "row-3")
    assert row.values == {
        "facts": {"rooms": 3.0, "area": 3.5}, "title": "house number 3", "columns": {"year": "1993"}
    }  # fmt: skip


def test_names_of_modalities_are_made_from_those_of_columns() -> None:
    cells = [f"some long words {n}" for n in range(20)]
    for column, expected in (
        ("Product Name", "product_name"),
        ("model", "model_text"),
        ("2nd", "text_2nd"),
        ("Größe", "grosse"),
    ):
        rows = [{"label": "ab"[n % 2], column: cell} for n, cell in enumerate(cells)]
        assert list(build(rows).modalities) == [expected]


def test_the_lines_that_are_said_of_a_table_are_those_of_the_page() -> None:
    rows = [
        {
            "sku": f"{n:06x}",
            "category": "ab"[n % 2],
            "title": f"blue mug number {n}",
            "price": f"{n},50" if n % 4 else "N/A",
            "brand": ("Acme", "Zeta", "")[n % 3],
            "added": f"{n % 9 + 1}/{n % 8 + 1}/2024",
        }
        for n in range(24)
    ]
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "prepare-data.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- lines -->\n```text\n")[2].partition("```\n<!-- end -->")[0]
    assert build(rows).schema.describe() == shown.splitlines()


def test_a_column_that_gives_the_label_away_is_said() -> None:
    rows = [{"label": "ab"[n % 2], "code": "xy"[n % 2], "size": n % 3} for n in range(40)]
    notes = [note for note in build(rows).notes if "--kinds" in note]
    assert notes == [
        "data: code: each of its 2 values goes with one label only; is it the label under another name? Then leave it out "
        "with --kinds code=ignore"
    ]


def test_a_schema_with_one_column_of_several_cells_is_the_same_after_json() -> None:
    schema = Schema("label", (ColumnRole("facts", "columns", "facts"),))
    assert Schema.from_dict(schema.to_dict()) == schema


def test_a_column_called_split_that_names_no_splits_is_a_column_like_any_other() -> None:
    cells = [("left", "right")[n // 3 % 2] for n in range(COUNT)]
    table = table_of("split", cells)
    assert [role.role for role in table.schema.roles if role.column == "split"] == ["category"]
    said = "split: expected train, val, test, got 'left' and the like; taken as a column like any other"
    assert said in table.notes
    assert len([row for rows in table.splits.values() for row in rows]) == COUNT
    again = build([{"label": "a", "split": "left"}], schema=replace(table.schema, fingerprint="of another table"))
    assert [row.values for row in again.splits["test"]] == [{"columns": {"split": "left"}}]


@pytest.mark.parametrize("kind", ["category", "ignore"])
def test_the_user_says_that_a_column_called_split_holds_no_splits(kind: str) -> None:
    cells = [("train", "val", "test")[n // 2 % 3] for n in range(COUNT)]
    assert role_of("split", cells) == "split"
    assert role_of("split", cells, kinds={"split": kind}) == {"ignore": "ignored"}.get(kind, kind)


def test_ids_that_repeat_name_no_rows_and_a_few_repeated_ones_are_faults() -> None:
    table = table_of("id", [n // 3 for n in range(COUNT)])
    said = (
        "ignored, its values repeat, so that it names no single rows; --group id keeps rows of the same id on one side"
    )
    assert [role.reason.startswith(said) for role in table.schema.roles if role.column == "id"] == [True]
    assert table.faults.found == []
    with pytest.raises(DataError, match=r"shop\.csv:25: id: '0' was given before, at shop\.csv:2; make it unique"):
        table_of("id", [*range(COUNT - 1), 0])


def test_a_table_with_nothing_to_learn_from_is_one_fault_that_says_why() -> None:
    rows = [{"category": "xy"[n % 2], "a": n} for n in range(50)]
    with pytest.raises(DataError) as refused:
        build(rows)
    assert str(refused.value).splitlines() == [
        "/nowhere: 1 fault in the data set:",
        "  shop.csv: no column to learn from beside the label 'category'; a: ignored, every value is different; say what "
        "one holds with --kinds COLUMN=KIND, or add columns",
    ]
    with pytest.raises(DataError, match="beside the label 'category'; add columns"):
        build([{"category": "xy"[n % 2]} for n in range(50)])


def test_a_later_table_without_the_columns_of_the_model_is_one_fault() -> None:
    schema = table_of("price", [f"{n}.5" for n in range(COUNT)]).schema
    with pytest.raises(DataError) as refused:
        build([{"label": "a", "cost": n} for n in range(40)], schema=schema)
    assert str(refused.value).splitlines() == [
        "/nowhere: 1 fault in the data set:",
        "  shop.csv: none of the columns that the model reads, text, price; it has label, cost; rename them",
    ]


def test_a_later_table_says_its_label_ids_and_masks_by_the_names_of_its_columns() -> None:
    schema = table_of("price", [f"{n}.5" for n in range(COUNT)]).schema
    rows = [
        {"kind": "ab"[n % 2], "text": "t", "price": n, "id": f"r{n}", "present": '{"50": ["text"]}'} for n in range(9)
    ]
    found = build(rows, schema=replace(schema, fingerprint="of another table"), label="kind").splits["test"]
    assert [row.id for row in found] == [f"r{n}" for n in range(9)]
    assert {row.label for row in found} == {"a", "b"}
    assert all(row.present == {"50": frozenset({"text"})} for row in found)


def test_one_of_several_tables_that_is_called_otherwise_is_said_to_be_read_as_train() -> None:
    rows = [{"label": "ab"[n % 2], "text": f"some words {n}"} for n in range(COUNT)]
    tables = {name: list(enumerate(rows, start=1)) for name in ("train", "extra")}
    assert "extra is read as train" in table_from_lines(tables, Path("/nowhere"), "0" * 64).notes
