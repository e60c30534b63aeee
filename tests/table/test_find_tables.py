"""Which files of --data are its tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from mla_serve.errors import DataError
from mla_serve.table import ColumnRole, Schema, TableOptions
from mla_serve.table.read import DataLines, read_lines, read_table
from mla_serve.table.split_names import is_shard, split_named, split_of_table

Cells = dict[str, Any]
ROWS: list[Cells] = [{"label": "cat", "text": "one"}, {"label": "dog", "text": "two"}]
CSV = b"label,text\ncat,one\ndog,two\n"
CLASSES = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}


def write_parquet(path: Path, rows: list[Cells], metadata: Mapping[str, Any] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    parquet.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(metadata)}) if metadata else table, path
    )


def write_arrow(path: Path, rows: list[Cells]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)


def put(folder: Path, *names: str, content: bytes = CSV) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def cells(read: DataLines) -> dict[str, list[Any]]:
    return {name: [row for _, row in lines] for name, lines in read.tables.items()}


@pytest.mark.parametrize(
    ("name", "split", "loose"),
    [
        ("train.csv", "train", "train"),
        ("Train.CSV.gz", "train", "train"),
        ("hold-out.tsv", "test", "test"),
        ("train-00000-of-00002.parquet", "train", "train"),
        ("data/validation-00001-of-00002-0123456789abcdef.parquet", "val", "val"),
        ("dev/metadata.jsonl", "val", "val"),
        ("train/data-00000-of-00001.arrow", "train", "train"),
        ("default/test/0000.parquet", "test", "test"),
        ("photos/", None, None),
        ("train/", "train", "train"),
        ("my_train.csv", None, "train"),
        ("shop-test-2024.csv", None, "test"),
        ("train_test.csv", None, None),
        ("contrast.csv", None, None),
        ("2024.csv", None, None),
    ],
)
def test_the_split_of_a_table_is_told_from_its_path(name: str, split: str | None, loose: str | None) -> None:
    assert split_of_table(name) == split
    assert split_of_table(name, loose=True) == loose


def test_only_other_names_of_splits_are_said(tmp_path: Path) -> None:
    put(tmp_path, "train/metadata.csv", "test/metadata.csv", "dev/metadata.csv")
    notes = read_table(tmp_path).notes
    assert [note for note in notes if "is read as" in note] == ["dev/metadata.csv is read as val"]


@pytest.mark.parametrize("name", ["Train", " VALIDATION ", "hold-out", "holdout", "dev", "eval", "evaluation"])
def test_splits_have_their_usual_names_in_any_case(name: str) -> None:
    assert split_named(name) in ("train", "val", "test")


def test_the_name_of_a_shard_ends_in_a_number() -> None:
    assert [is_shard(name) for name in ("a-00001-of-00002.csv", "a_1.csv", "a.csv", "2.csv")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_table_alone_is_read_as_in_its_folder(tmp_path: Path) -> None:
    folder = put(tmp_path, "shop.csv")
    (folder / "dataset.json").write_text('{"about": "mine"}')
    alone, whole = read_lines(folder / "shop.csv"), read_lines(folder)
    assert alone == whole
    assert alone.folder == folder.resolve()
    assert cells(alone) == {"shop.csv": ROWS}
    assert alone.declared == b'{"about": "mine"}'


def test_one_of_several_tables_is_chosen_by_its_path(tmp_path: Path) -> None:
    folder = put(tmp_path, "a.csv", "b.csv", "train.csv", "val.csv")
    assert list(read_lines(folder).tables) == ["train.csv", "val.csv"]
    assert read_lines(folder).notes == ("not read: a.csv, b.csv; --data FILE reads one table alone",)
    assert list(read_lines(folder / "b.csv").tables) == ["b.csv"]
    assert read_lines(folder / "b.csv").notes == ()


def test_several_tables_that_are_no_splits_are_listed(tmp_path: Path) -> None:
    folder = put(tmp_path, "a.csv", "b.tsv")
    with pytest.raises(
        DataError, match=r"holds 2 tables and none is called train: a.csv, b.tsv; choose one: --data .*a.csv"
    ):
        read_lines(folder)


def test_words_of_the_names_tell_the_splits_if_no_table_has_that_name(tmp_path: Path) -> None:
    folder = put(tmp_path, "shop_train.csv", "shop_dev.csv", "shop_test.csv", "shop.csv")
    assert list(read_lines(folder).tables) == ["shop_train.csv", "shop_dev.csv", "shop_test.csv"]
    put(tmp_path, "train.csv")
    assert list(read_lines(folder).tables) == ["train.csv"]


@pytest.mark.parametrize("name", ["rows.json", "train.json"])
def test_a_json_document_is_the_table_where_it_is_alone_or_named_as_a_split(tmp_path: Path, name: str) -> None:
    put(tmp_path, name, content=json.dumps(ROWS).encode())
    put(tmp_path, "readme.txt", "state_of_things.md", content=b"text")
    assert cells(read_lines(tmp_path)) == {name: ROWS}


def test_class_numbers_of_a_hub_folder_become_names_and_its_shards_are_read_in_order(tmp_path: Path) -> None:
    numbers = [{"label": 0, "text": "one"}, {"label": 1, "text": "two"}]
    for shard in range(2):
        write_parquet(tmp_path / "data" / f"train-0000{shard}-of-00002.parquet", numbers[shard : shard + 1], CLASSES)
    write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", numbers, CLASSES)
    put(tmp_path, "README.md", ".gitattributes", content=b"text")
    assert cells(read_lines(tmp_path)) == {
        "data/train-00000-of-00002.parquet": ROWS[:1],
        "data/train-00001-of-00002.parquet": ROWS[1:],
        "data/validation-00000-of-00001.parquet": ROWS,
    }


@pytest.mark.parametrize("splits", [("train", "test"), ()])
def test_a_saved_hugging_face_data_set_is_read(tmp_path: Path, splits: tuple[str, ...]) -> None:
    if splits:
        put(tmp_path, "dataset_dict.json", content=json.dumps({"splits": splits}).encode())
    for folder in [tmp_path / split for split in splits] or [tmp_path]:
        for shard in range(2):
            write_arrow(folder / f"data-0000{shard}-of-00002.arrow", [{"label": shard, "text": "x"}])
        write_arrow(folder / "cache-0123.arrow", [{"label": 9, "text": "of a map"}])
        put(folder, "state.json", content=b"{}")
        put(folder, "dataset_info.json", content=json.dumps(CLASSES["info"]).encode())
    read = read_lines(tmp_path)
    expected = [(1, {"label": "cat", "text": "x"}), (2, {"label": "dog", "text": "x"})]
    names = [f"{split}/data-*.arrow" for split in splits] or ["data-*.arrow"]
    assert read.tables == dict.fromkeys(names, expected)
    assert read.notes[: len(names)] == tuple(f"{name}: 2 files are one table" for name in names)


def test_a_saved_data_set_without_its_rows_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "dataset_dict.json", content=b'{"splits": ["train"]}')
    with pytest.raises(DataError, match=r"no data-\*.arrow in train; copy the whole folder"):
        read_lines(tmp_path)
    put(tmp_path, "dataset_dict.json", content=b"[]")
    with pytest.raises(DataError, match=r'dataset_dict.json: expected {"splits": \[...\]}'):
        read_lines(tmp_path)


def test_file_names_of_metadata_get_the_folder_of_the_table(tmp_path: Path) -> None:
    for split in ("train", "test"):
        put(tmp_path, f"{split}/metadata.csv", content=b"file_name,label\n1.png,cat\n")
        put(tmp_path, f"{split}/1.png")
    assert cells(read_lines(tmp_path)) == {
        f"{split}/metadata.csv": [{"file_name": f"{split}/1.png", "label": "cat"}] for split in ("train", "test")
    }


def test_several_data_sets_in_one_folder_are_listed(tmp_path: Path) -> None:
    put(tmp_path, "a/train.csv", "a/test.csv", "b/train/metadata.csv", "c/other.csv")
    with pytest.raises(DataError, match=r"holds several data sets: a, b; choose one: --data .*/a$"):
        read_lines(tmp_path)


def test_files_that_spark_wrote_are_one_table(tmp_path: Path) -> None:
    for number in range(2):
        write_parquet(tmp_path / f"part-0000{number}.parquet", ROWS[number : number + 1])
    read = read_lines(tmp_path)
    assert read.tables == {"part-*.parquet": [(1, ROWS[0]), (2, ROWS[1])]}


def test_notes_name_their_table(tmp_path: Path) -> None:
    put(tmp_path, "t.csv", content="label;text\ncat;Käse\n".encode("cp1252"))
    first, second = read_lines(tmp_path / "t.csv").notes
    assert first.startswith("t.csv: is not UTF-8; it is read as Windows-1252")
    assert second == "t.csv: its cells are separated by semicolons"


Change = Callable[[Path], object]


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: put(folder, "train.csv", content=CSV + b"cat,three\n"),
        lambda folder: put(folder, "test.csv"),
        lambda folder: put(folder, "dataset.json", content=b"{}"),
    ],
)
def test_the_fingerprint_follows_the_content(tmp_path: Path, change: Change) -> None:
    before = read_lines(put(tmp_path, "train.csv")).fingerprint
    assert read_lines(put(tmp_path, "other.png")).fingerprint == before
    change(tmp_path)
    assert read_lines(tmp_path).fingerprint != before


def test_of_several_tables_the_one_with_the_label_is_taken(tmp_path: Path) -> None:
    """A table to be scored may lie beside that of training, and a list of faults is no table."""
    (tmp_path / "shop.csv").write_text("text;category\na;x\nb;y\nc;x\nd;y\ne;x\nf;y\n")
    (tmp_path / "new.csv").write_text("text;price\na;1\nb;2\n")
    (tmp_path / "shop.faults.csv").write_text("file,line,column,fault\n")
    known = Schema("category", (ColumnRole("text", "text", "text"), ColumnRole("category", "label")))
    for options in (TableOptions(schema=known), TableOptions(label="category")):
        table = read_table(tmp_path, options)
        assert {row.place[0] for rows in table.splits.values() for row in rows} == {"shop.csv"}
        assert "not read: new.csv; --data FILE reads one table alone" in table.notes
    with pytest.raises(DataError, match=r"holds 2 tables and none is called train: new.csv, shop.csv"):
        read_table(tmp_path)
    with pytest.raises(DataError, match="holds 2 tables"):
        read_table(tmp_path, TableOptions(label="text"))
