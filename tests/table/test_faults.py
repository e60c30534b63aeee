"""Every fault is told with its place."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mla_serve.errors import ConfigError
from mla_serve.table import read_table

Cells = dict[str, Any]
Make = Callable[..., Path]
Splits = dict[str, list[dict[str, Any]]]
Fault = Callable[[Path], str]

ROW_FAULTS: dict[str, tuple[Cells, str]] = {
    "no such file": ({"image": "gone.png"}, "image: no file 'gone.png' in the folder"),
    "a folder": ({"image": "sub"}, "image: 'sub' is a folder, expected a file"),
    "a link to itself": ({"image": "loop"}, "image: 'loop' is a link that leads to no file"),
    "a link to nothing": ({"image": "broken"}, "image: 'broken' is a link that leads to no file"),
    "name too long": ({"image": "x" * 5000}, "image: no file"),
    "NUL in a path": ({"image": "a\0b"}, "image: no file"),
    "parent folder": ({"image": "../secret.png"}, "leaves the folder"),
    "parent folder inside": ({"image": "sub/../../secret.png"}, "leaves the folder"),
    "parent folder, Windows": ({"image": "..\\secret.png"}, "leaves the folder"),
    "absolute": ({"audio": "/etc/passwd"}, "audio: the path '/etc/passwd' leaves the folder"),
    "absolute, Windows": ({"audio": "C:\\a.wav"}, "leaves the folder"),
    "path is a number": ({"image": 5}, "image: expected the path of a file"),
    "text is a number": ({"text": 5}, "text: expected text, got 5"),
    "label is an object": ({"label": {"a": 1}}, "label: expected one class"),
    "nothing to see": ({"text": " "}, "no modality at all"),
    "vector of words": ({"v": "one two"}, "v: expected a list of numbers"),
    "vector with a gap": ({"v": "1;;2;3"}, "v: expected a list of numbers"),
    "vector of vectors": ({"v": [[1, 2, 3]]}, "v: expected a list of numbers"),
    "vector of truth values": ({"v": [True, False, True]}, "v: expected a list of numbers"),
    "vector is a number": ({"v": 3.5}, "v: expected a list of numbers"),
    "vector with NaN": ({"v": [1.0, float("nan"), 2.0]}, "v: expected finite numbers"),
    "vector with infinity": ({"v": "1 inf 2"}, "v: expected finite numbers"),
    "vector too big": ({"v": [10**400, 1, 2]}, "v: expected a list of numbers"),
    "vector too short": ({"v": [1.0, 2.0]}, "v: expected 3 numbers as in most rows, got 2"),
    "present is no object": ({"present": "often"}, "present: expected"),
    "present is a list": ({"present": [1]}, "present: expected"),
    "present is no list": ({"present": {"20": "text"}}, "present: 20: expected a list"),
    "present unknown": ({"present": {"20": ["camera"]}}, "present: 20: expected a list out of image, audio, text, v"),
    "present leaves nothing": ({"present": {"80": ["image"]}}, "present: 80: leaves nothing"),
    "id given twice": ({"id": "first"}, "id: 'first' was given before in split train, at train.jsonl:1"),
    "id unusable": ({"id": 1.5}, "id: expected text or a whole number"),
    "group unusable": ({"who": [1]}, "group: expected text or a whole number"),
}


@pytest.mark.parametrize("name", ROW_FAULTS)
def test_a_faulty_row_is_told_with_its_line(tmp_path: Path, name: str, make: Make, fault: Fault, good: Splits) -> None:
    change, expected = ROW_FAULTS[name]
    good = [{"label": label, "text": "x", "v": [1.0, 2.0, 3.0], "who": "w"} for label in "abab"]
    rows = [{**good[0], "id": "first"}, good[1], {"label": "a", "text": "x", **change}, *good[2:]]
    (tmp_path / "sub").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "broken").symlink_to("nothing")
    message = fault(make(tmp_path, {"train": rows}, {"modalities": {"v": "vector"}, "group": "who"}))
    assert f"train.jsonl:3: {expected}" in message or ("train.jsonl:3: " in message and expected in message)
    assert "1 fault in the data set" in message


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_label_that_train_does_not_have(tmp_path: Path, split: str, make: Make, fault: Fault, good: Splits) -> None:
    rows: list[Cells] = [{"label": "a", "text": "x"}, {"label": "z", "text": "x"}]
    message = fault(make(tmp_path, {**good, split: rows}))
    assert f"{split}.jsonl:2: label: 'z' is not in train, which has a, b" in message


def test_a_label_that_train_does_not_have_is_told_once_for_all_its_rows(
    tmp_path: Path, make: Make, fault: Fault, good: Splits
) -> None:
    rows: list[Cells] = [{"label": label, "text": "x"} for label in "azzyz"]
    message = fault(make(tmp_path, {**good, "val": rows}))
    assert "2 faults in the data set" in message
    assert "val.jsonl:2: label: 'z' (3 rows) is not in train" in message
    assert "val.jsonl:4: label: 'y' is not in train" in message


def test_labels_that_are_no_classes_are_one_fault(tmp_path: Path, make: Make, fault: Fault) -> None:
    train: list[Cells] = [{"label": f"n{number}", "text": f"text {number}"} for number in range(40)]
    val: list[Cells] = [{"label": f"n{100 + number}", "text": f"text {number}"} for number in range(30)]
    message = fault(make(tmp_path, {"train": train, "val": val}))
    assert "1 fault in the data set" in message
    assert "train.jsonl: the 40 rows for training have a label of its own each, such as 'n0'" in message


@pytest.mark.parametrize(
    "line", [b"{oops", b"[1, 2]", b"5", b'{"label": "\x81"}', b'{"text": "\\ud800"}', b"[" * 100_000]
)
def test_a_malformed_line(tmp_path: Path, line: bytes, make: Make, fault: Fault, good: Splits) -> None:
    make(tmp_path, good)
    path = tmp_path / "train.jsonl"
    path.write_bytes(path.read_bytes() + b"\n" + line + b"\n")
    message = fault(tmp_path)
    assert "train.jsonl:4: expected one JSON object" in message
    assert len(message) < 1000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"label,text\na,x\nb,x,y\n", "train.csv:3: expected 2 cells as in the header, got 3"),
        (b'label,text\na,"x\ny"\nb\n', "train.csv:4: expected 2 cells as in the header, got 1"),
        (b'label,text\na,x\nb,"x" y\n', "train.csv:3: not readable as CSV"),
        (b"label,text\na,x\nb,\x81\n", "train.csv:3: its encoding is not known: neither UTF-8"),
        (b"label,text,text\na,x,y\nb,x,y\n", "train.csv:1: two columns are called 'text'"),
        (b"# by x\nlabel,text\na,x\nb,x\n", "train.csv:1: begins with a comment, '# by x'"),
    ],
)
def test_malformed_csv(tmp_path: Path, text: bytes, expected: str, fault: Fault) -> None:
    (tmp_path / "train.csv").write_bytes(text)
    assert expected in fault(tmp_path)


def test_malformed_parquet(tmp_path: Path, fault: Fault) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and no more")
    assert "train.parquet: not readable as Parquet" in fault(tmp_path)


def test_a_row_of_parquet_is_called_a_row(tmp_path: Path, make: Make, fault: Fault) -> None:
    rows: list[Cells] = [{"label": "a", "text": "x"}, {"label": "a", "text": None}, {"label": "b", "text": "x"}]
    assert "train.parquet:row 2: no modality at all" in fault(make(tmp_path, {"train": rows}, suffix=".parquet"))


def test_the_first_twenty_faults_and_the_count_of_all(tmp_path: Path, make: Make, fault: Fault, good: Splits) -> None:
    bad: list[Cells] = [{"label": "a", "image": f"{i}.png"} for i in range(30)]
    rows = [*good["train"], *bad]
    message = fault(make(tmp_path, {"val": rows[2:5], "train": rows}))
    assert "33 faults in the data set; the first 20:" in message
    assert [f"train.jsonl:{line}: image" in message for line in (3, 22, 23)] == [True, True, False]
    assert message.splitlines()[21:] == [
        "by column: image 33",
        "correct them, or add --skip-bad to leave out these 33 rows, or --skip-bad-values to leave out only these values",
    ]


def test_a_folder_that_is_not_there(tmp_path: Path, fault: Fault) -> None:
    message = fault(tmp_path / "nowhere")
    assert "does not exist" in message
    assert "expected a table (.csv, .tsv, .jsonl," in message
    (tmp_path / "file.doc").touch()
    assert "got a file called .doc, expected a table (.csv" in fault(tmp_path / "file.doc")


def test_no_tables_no_train_and_unclear_tables(tmp_path: Path, make: Make, fault: Fault, good: Splits) -> None:
    assert "no table in it; expected a table (.csv" in fault(make(tmp_path / "empty", {}))
    assert "holds 2 tables and none is called train: test.jsonl, val.jsonl; choose one: --data" in fault(
        make(tmp_path / "a", {"val": [], "test": []})
    )
    assert "no train split" in fault(make(tmp_path / "b", {"test": good["train"]}, alone="all"))
    twice = make(make(tmp_path / "c", good), {"train": good["train"]}, suffix=".csv")
    assert "got train.csv, train.jsonl, expected one table per split" in fault(twice)
    twice = make(tmp_path / "d", {**good, "dev": good["val"]})
    assert "got dev.jsonl, val.jsonl, expected one table per split" in fault(twice)


def test_train_is_empty_or_has_one_class(tmp_path: Path, make: Make, fault: Fault, good: Splits) -> None:
    assert "train.jsonl: holds no rows" in fault(make(tmp_path / "a", {**good, "train": []}))
    message = fault(make(tmp_path / "b", {"train": good["train"][:1] * 3}))
    assert "train.jsonl: the 3 rows for training have one class only, 'a'" in message


def test_a_split_of_another_name_is_told(tmp_path: Path, make: Make, fault: Fault, good: Splits) -> None:
    rows = [{**row, "split": "train"} for row in good["train"]]
    make(tmp_path, {"all": [*rows, {**rows[0], "split": "spare"}]})
    assert "all.jsonl:3: split: expected one of train, val, test, got 'spare'" in fault(tmp_path)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="needs pyarrow"):
        read_table(tmp_path)


def test_a_label_that_cannot_be_read_is_one_fault_not_two(
    tmp_path: Path, make: Make, fault: Fault, good: Splits
) -> None:
    good["val"].append({"label": {"a": 1}, "text": "x"})
    assert fault(make(tmp_path, good)).split("\n") == [
        f"{tmp_path}: 1 fault in the data set:",
        "  val.jsonl:2: label: expected one class, got {'a': 1}; write one, or write lists in all rows and predict them with --task labels",
        "correct it, or add --skip-bad to leave out this row",
    ]


def test_a_table_of_one_row_without_a_train_split_is_told_as_a_whole(tmp_path: Path, make: Make, fault: Fault) -> None:
    lines = fault(make(tmp_path, {"val": [{"label": "a", "text": "x"}]}, alone="data")).split("\n")
    assert lines[1:] == [
        "  data.jsonl: no train split; expected rows with split 'train', or a table of that name; add them"
    ]


def test_a_label_that_train_lacks_is_told_once_with_the_number_of_its_rows(
    tmp_path: Path, make: Make, fault: Fault, good: Splits
) -> None:
    good["val"] += [{"label": label, "text": "x"} for label in ("c", "d", "c", "e", "e", "e")]
    good["test"].append({"label": "c", "text": "x"})
    expected = "is not in train, which has a, b; correct it or add rows there"
    assert fault(make(tmp_path, good)).split("\n")[1:] == [
        f"  val.jsonl:2: label: 'c' (2 rows) {expected}",
        f"  val.jsonl:3: label: 'd' {expected}",
        f"  val.jsonl:5: label: 'e' (3 rows) {expected}",
        f"  test.jsonl:2: label: 'c' {expected}",
        "correct them, or add --skip-bad to leave out these 7 rows",
    ]


@pytest.mark.parametrize(("rows", "is_an_id"), [(9, False), (10, True), (11, True)])
def test_a_label_of_its_own_in_ten_rows_or_more_is_taken_for_an_id(
    tmp_path: Path, make: Make, fault: Fault, rows: int, is_an_id: bool
) -> None:
    train = [{"label": f"n{number:02}", "text": "x"} for number in range(rows)]
    lines = fault(make(tmp_path, {"train": train, "val": [{"label": "other", "text": "x"}]})).split("\n")[1:]
    assert len(lines) == (1 if is_an_id else 2)
    assert lines[0].startswith(
        f"  train.jsonl: the {rows} rows for training have a label of its own each"
        if is_an_id
        else "  val.jsonl:1: label: 'other'"
    )


def test_a_split_that_is_no_text_is_told_with_its_line(tmp_path: Path, make: Make, fault: Fault, good: Splits) -> None:
    folder = make(tmp_path, good, alone="data")
    with (folder / "data.jsonl").open("a") as file:
        file.write('{"label": "a", "text": "x", "split": 5}\n')
    assert fault(folder).split("\n")[1:] == [
        "  data.jsonl:5: split: expected one of train, val, test, got 5; correct it",
        "correct it, or add --skip-bad to leave out this row",
    ]
