"""A folder with a folder of files for each class is a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mla_serve.errors import DataError
from mla_serve.table import read_table
from mla_serve.table.faults import InvalidValue
from mla_serve.table.read import read_lines


def put(folder: Path, *names: str, content: bytes = b"x") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def rows(path: Path) -> dict[str, list[Any]]:
    return {name: [cells for _, cells in lines] for name, lines in read_lines(path).tables.items()}


def test_the_folder_of_a_file_is_its_label(tmp_path: Path) -> None:
    folder = put(tmp_path / "pets", "cat/1.jpg", "cat/2.PNG", "dog/deep/1.jpg", "dog/.hidden.jpg", "readme.md")
    assert rows(folder) == {
        "pets/": [
            {"label": "cat", "image": "cat/1.jpg"},
            {"label": "cat", "image": "cat/2.PNG"},
            {"label": "dog", "image": "dog/deep/1.jpg"},
        ]
    }
    assert read_lines(folder).notes == (
        "no table: each file is a row, and its folder is its label (cat, dog); 3 rows, 3 with image",
    )


def test_folders_of_splits_hold_folders_of_classes(tmp_path: Path) -> None:
    folder = put(tmp_path, "Train/cat/1.wav", "Train/dog/1.wav", "validation/cat/2.wav", "test/dog/3.wav", "test/4.wav")
    assert rows(folder) == {
        "Train/": [{"label": "cat", "audio": "Train/cat/1.wav"}, {"label": "dog", "audio": "Train/dog/1.wav"}],
        "validation/": [{"label": "cat", "audio": "validation/cat/2.wav"}],
        "test/": [{"label": "dog", "audio": "test/dog/3.wav"}],
    }
    table = read_table(folder)
    assert table.classes == ("cat", "dog")
    assert {split: len(each) for split, each in table.splits.items()} == {"train": 2, "val": 1, "test": 1}
    assert read_lines(folder).notes[1] == "not read: 1 .wav, directly in a split, without a label"


def test_files_of_the_same_name_and_of_different_kinds_are_one_row(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.jpg", "cat/1.wav", "cat/2.jpg", "dog/3.wav", "dog/4.jpg", "dog/4.png")
    [(_, found)] = rows(tmp_path).items()
    assert found == [
        {"label": "cat", "image": "cat/1.jpg", "audio": "cat/1.wav"},
        {"label": "cat", "image": "cat/2.jpg"},
        {"label": "dog", "audio": "dog/3.wav"},
        {"label": "dog", "image": "dog/4.jpg"},
        {"label": "dog", "image": "dog/4.png"},
    ]
    [note] = read_lines(tmp_path).notes
    assert note.endswith("5 rows, 4 with image, 2 with audio; 1 of them hold files of the same name")


def test_texts_are_read_where_there_is_nothing_else_or_beside_most_files(tmp_path: Path) -> None:
    put(tmp_path / "a", "pos/1.txt", "neg/1.txt", content="schön\n".encode())
    assert rows(tmp_path / "a")["a/"] == [{"label": label, "text": "schön\n"} for label in ("neg", "pos")]
    put(tmp_path / "b", "cat/1.jpg", "cat/1.txt", "dog/1.jpg")
    assert [set(row) for row in rows(tmp_path / "b")["b/"]] == [{"label", "image", "text"}, {"label", "image"}]
    put(tmp_path / "c", "cat/1.jpg", "cat/2.jpg", "dog/3.jpg", "cat/readme.txt", "dog/thumbs.db")
    assert [set(row) for row in rows(tmp_path / "c")["c/"]] == [{"label", "image"}] * 3
    assert read_lines(tmp_path / "c").notes[1] == "not read: 1 .db, 1 .txt"


def test_a_text_of_unknown_encoding_is_a_fault_of_its_row(tmp_path: Path) -> None:
    put(tmp_path, "a/1.txt", content=b"\x81\xff")
    [(number, fault)] = next(iter(read_lines(tmp_path).tables.values()))
    assert number == 1
    assert isinstance(fault, InvalidValue)
    assert str(fault).startswith("text: a/1.txt: its encoding is not known")


def test_splits_beside_other_folders_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "train/cat/1.jpg", "test/cat/1.jpg", "extra/1.jpg")
    with pytest.raises(DataError, match="holds splits, test, train, and other folders, extra; move them"):
        read_lines(tmp_path)
    put(tmp_path / "twice", "train/cat/1.jpg", "val/cat/1.jpg", "dev/cat/1.jpg")
    with pytest.raises(DataError, match="holds dev, train, val, expected one folder per split; join them"):
        read_lines(tmp_path / "twice")


@pytest.mark.parametrize("names", [("1.jpg", "2.jpg"), ("a/readme.md",), ()])
def test_a_folder_without_classes_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"no table in it; expected a table \(.csv, .*, or with a folder of pictures"):
        read_lines(put(tmp_path, *names))


def test_the_fingerprint_follows_names_and_sizes_of_the_files(tmp_path: Path) -> None:
    seen = {read_lines(put(tmp_path, "cat/1.jpg", "dog/1.jpg")).fingerprint}
    seen.add(read_lines(put(tmp_path, "cat/2.jpg")).fingerprint)
    seen.add(read_lines(put(tmp_path, "cat/2.jpg", content=b"xx")).fingerprint)
    seen.add(read_lines(put(tmp_path, "dataset.json", content=b"{}")).fingerprint)
    assert len(seen) == 4
