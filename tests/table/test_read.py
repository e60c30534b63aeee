"""Three file types give the same rows."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mla_serve.errors import DataError
from mla_serve.table import read_payload, read_table

Cells = dict[str, Any]
Make = Callable[..., Path]
Splits = dict[str, list[dict[str, Any]]]


def test_a_row_has_its_values_masks_and_groups(tmp_path: Path, make: Make) -> None:
    row = {
        "label": 7,
        "image": "media/a.png",
        "text": "seven",
        "audio": "",
        "pixels": [1, 2.5],
        "present": {"20": ["image", "text", "audio"], "50": ["text"]},
        "meta": {"speaker": "theo", "writer": 12},
        "comment": "ignored",
    }
    other = {"label": "10", "text": "ten", "image": None}
    options = {"modalities": {"pixels": "vector"}, "group": {"audio": "meta.speaker", "image": "meta.writer"}}
    folder = make(tmp_path, {"train": [row, other]}, options)
    (folder / "media").mkdir()
    (folder / "media" / "a.png").write_bytes(b"png")
    table = read_table(folder)
    first, second = table.splits["train"]
    assert table.modalities == {"image": "image", "text": "text", "pixels": "vector"}  # audio occurs nowhere
    assert list(table.modalities) == ["image", "text", "pixels"]
    assert table.classes == ("7", "10")
    assert first.id == "train-0"
    assert first.label == "7"
    assert first.values == {"image": folder.resolve() / "media" / "a.png", "text": "seven", "pixels": (1.0, 2.5)}
    assert first.present == {"20": frozenset({"image", "text"}), "50": frozenset({"text"})}
    assert all(type(names) is frozenset for names in first.present.values())
    assert first.groups == {"image": "12"}  # a group is kept for modalities of the table
    assert second.groups == {}
    assert [read_payload(value) for value in first.values.values()] == [b"png", "seven", (1.0, 2.5)]


def test_one_group_column_is_the_group_of_all_modalities(tmp_path: Path, make: Make) -> None:
    rows = [{"label": name, "text": "x", "v": [1] if name == "a" else [], "speaker": name} for name in "ab"]
    table = read_table(make(tmp_path, {"train": rows}, {"modalities": {"v": "vector"}, "group": "speaker"}))
    assert table.splits["train"][1].values == {"text": "x"}
    assert table.splits["train"][1].groups == {"text": "b", "v": "b"}  # not image: it occurs nowhere


def test_a_declaration_changes_the_kind_of_a_standard_column(tmp_path: Path, make: Make) -> None:
    rows = [{"label": name, "text": [1, 2]} for name in "ab"]
    table = read_table(make(tmp_path, {"train": rows}, {"modalities": {"text": "vector"}}))
    assert table.modalities == {"text": "vector"}
    assert table.splits["train"][0].values == {"text": (1.0, 2.0)}


@pytest.mark.parametrize(("labels", "classes"), [("10 9 2", "2 9 10"), ("b 10 9", "10 9 b"), ("-1 1 0", "-1 0 1")])
def test_classes_are_sorted_as_numbers_where_all_are(tmp_path: Path, labels: str, classes: str, make: Make) -> None:
    table = read_table(make(tmp_path, {"train": [{"label": label, "text": "x"} for label in labels.split()]}))
    assert table.classes == tuple(classes.split())


@pytest.mark.parametrize("cell", ["[1, 2.5, -3]", "1 2.5 -3", "1;2.5;-3", " 1; 2.5; -3 "])
def test_vectors_in_csv(tmp_path: Path, cell: str, make: Make) -> None:
    rows = [{"label": name, "v": cell} for name in "ab"]
    table = read_table(make(tmp_path, {"train": rows}, {"modalities": {"v": "vector"}}, ".csv"))
    assert table.splits["train"][0].values == {"v": (1.0, 2.5, -3.0)}


def test_a_long_vector_in_csv(tmp_path: Path, make: Make) -> None:
    before = csv.field_size_limit()
    rows = [{"label": name, "v": [0.125] * 30000} for name in "ab"]
    table = read_table(make(tmp_path, {"train": rows}, {"modalities": {"v": "vector"}}, ".csv"))
    assert table.splits["train"][1].values["v"] == (0.125,) * 30000
    assert csv.field_size_limit() == before


def test_byte_order_marks_and_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(b"\xef\xbb\xbflabel,text\r\na,one\r\n\r\nb,two\r\n")
    (tmp_path / "test.jsonl").write_bytes(b'\xef\xbb\xbf{"label": "a", "text": "x\\u2028y"}\r\n')
    table = read_table(tmp_path)
    assert [row.values["text"] for row in table.splits["train"]] == ["one", "two"]
    assert table.splits["test"][0].values["text"] == "x\u2028y"


words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
    lambda text: bool(text.strip())
)
numbers = st.floats(allow_nan=False, allow_infinity=False)
samples = st.fixed_dictionaries(
    {"label": st.sampled_from(["1", "2", "10"]), "text": words},
    optional={
        "v": st.lists(numbers, min_size=3, max_size=3),
        "image": st.just("a.png"),
        "meta": st.fixed_dictionaries({"who": words}),
        "present": st.fixed_dictionaries({"50": st.just(["text"])}, optional={"20": st.just(["text", "v"])}),
    },
)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(samples, min_size=1, max_size=6))
def test_jsonl_csv_and_parquet_give_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Cells], make: Make
) -> None:
    every = {"v": [0.5, 1.0, 2.0], "image": "a.png", "meta": {"who": "me"}, "present": {"50": ["v"], "20": ["text"]}}
    rows = [{"label": "1", "text": "x", **every}, {"label": "2", "text": "y"}, {"label": "10", "text": "z"}, *rows]
    options = {"modalities": {"v": "vector"}, "group": {"text": "meta.who"}}
    base = tmp_path_factory.mktemp("same")
    read = []
    for suffix in (".jsonl", ".csv", ".parquet"):
        for alone in ("", "all"):
            folder = make(base / "data", {"train": rows, "test": rows[:2]}, options, suffix, alone)
            (folder / "a.png").touch()
            table = read_table(folder)
            read.append((table.modalities, table.splits, table.classes))
            shutil.rmtree(folder)
    assert all(outcome == read[0] for outcome in read)
    assert len(read[0][1]["train"]) == len(rows)


def test_the_fingerprint_follows_tables_and_declaration_only(tmp_path: Path, make: Make, good: Splits) -> None:
    folder = make(tmp_path / "a", good)
    first = read_table(folder).fingerprint
    (folder / "media.png").write_bytes(b"x")
    assert read_table(folder).fingerprint == first
    assert read_table(make(tmp_path / "b", good)).fingerprint == first  # the place does not matter
    make(folder, {}, {"about": "made by hand"})
    second = read_table(folder).fingerprint
    make(folder, {"test": [{"label": "b", "text": "five"}]})
    assert len({first, second, read_table(folder).fingerprint}) == 3


def test_tables_beside_the_three_are_named_and_val_may_be_absent(tmp_path: Path, make: Make, good: Splits) -> None:
    make(tmp_path, {**good, "extra": [{"anything": 1}]}, {"about": "mine"})
    (tmp_path / "val.jsonl").unlink()
    for name in ("new.csv", "old.xls", "labels.json", ".hidden.csv", "~$extra.xlsx", "readme.txt"):
        (tmp_path / name).touch()
    table = read_table(tmp_path)
    assert list(table.splits) == ["train", "test"]
    others = "extra.jsonl, labels.json, new.csv, old.xls"
    assert table.notes == (f"not read: {others}; --data FILE reads one table alone",)


@pytest.mark.parametrize("alone", ["", "all"])
@pytest.mark.parametrize("name", ["validation", "valid", "dev", "eval", "VALIDATION", "Dev", "Val"])
def test_splits_go_by_their_usual_names_and_it_is_said(
    tmp_path: Path, make: Make, good: Splits, name: str, alone: str
) -> None:
    plain = read_table(make(tmp_path / "plain", good, alone=alone))
    named = {"Training": good["train"], name: good["val"], "testing": good["test"]}
    table = read_table(make(tmp_path / "named", named, alone=alone))
    assert table.splits == plain.splits
    assert plain.notes == ()
    expected = {"Training": "train", name: "val", "testing": "test"}
    expected = {given: split for given, split in expected.items() if given.lower() != split}
    counts = {"Training": 2, name: 1, "testing": 1}
    told = (
        [f"split {given!r}, of {counts[given]} rows, is read as {split}" for given, split in expected.items()]
        if alone
        else [f"{given}.jsonl is read as {split}" for given, split in expected.items()]
    )
    assert list(table.notes) == told


def test_nan_is_an_empty_cell_as_null_is(tmp_path: Path) -> None:
    lines = (
        '{"label": "a", "text": "x", "v": NaN, "id": NaN}',
        '{"label": "b", "text": NaN, "v": [1.0]}',
        '{"label": "b", "text": "y", "v": null, "present": NaN}',
    )
    (tmp_path / "dataset.json").write_text('{"modalities": {"v": "vector"}}')
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    rows = read_table(tmp_path).splits["train"]
    assert [dict(row.values) for row in rows] == [{"text": "x"}, {"v": (1.0,)}, {"text": "y"}]
    assert [row.id for row in rows] == ["train-0", "train-1", "train-2"]


def test_a_folder_that_does_not_exist_is_said_to_be_that(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: does not exist; expected a table"):
        read_table(tmp_path / "gone")
