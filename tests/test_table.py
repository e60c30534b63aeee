"""The data set format: three file types give the same rows, and every fault is told with its place."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mla_serve.errors import ConfigError, DataError, InputError
from mla_serve.table import Row, check_rows, payload, read_table, split_validation

Cells = dict[str, Any]
GOOD: dict[str, list[Cells]] = {
    "train": [{"label": "a", "text": "one"}, {"label": "b", "text": "two"}],
    "val": [{"label": "a", "text": "three"}],
    "test": [{"label": "b", "text": "four"}],
}


def _write_jsonl(path: Path, rows: Sequence[Cells]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _flat(row: Cells) -> Cells:
    """Lay nested objects out as CSV does: dotted columns, JSON for lists and for `present`."""
    flat: Cells = {}
    for name, cell in row.items():
        if name == "meta":
            flat |= {f"meta.{inner}": value for inner, value in cell.items()}
        else:
            flat[name] = json.dumps(cell) if isinstance(cell, list | dict) else cell
    return flat


def _write_csv(path: Path, rows: Sequence[Cells]) -> None:
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(flat)


def _write_parquet(path: Path, rows: Sequence[Cells]) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    parquet.write_table(arrow.table({name: [row.get(name) for row in rows] for name in columns}), path)


WRITERS: Mapping[str, Callable[[Path, Sequence[Cells]], None]] = {
    ".jsonl": _write_jsonl,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}


def make(
    folder: Path, splits: Mapping[str, Sequence[Cells]], options: object = None, suffix: str = ".jsonl", alone: str = ""
) -> Path:
    """Write a data set: one table per split, or one table of that name alone."""
    folder.mkdir(parents=True, exist_ok=True)
    if alone:
        WRITERS[suffix](
            folder / f"{alone}{suffix}", [{**row, "split": name} for name, rows in splits.items() for row in rows]
        )
    else:
        for name, rows in splits.items():
            WRITERS[suffix](folder / f"{name}{suffix}", rows)
    if options is not None:
        (folder / "dataset.json").write_text(json.dumps(options), encoding="utf-8")
    return folder


def fault(folder: Path) -> str:
    """Return what read_table says about a faulty data set."""
    with pytest.raises(DataError) as caught:
        read_table(folder)
    return str(caught.value)


# ---- what is read


def test_a_row_has_its_values_masks_and_groups(tmp_path: Path) -> None:
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
    assert [payload(value) for value in first.values.values()] == [b"png", "seven", (1.0, 2.5)]


def test_one_group_column_is_the_group_of_all_modalities(tmp_path: Path) -> None:
    rows = [{"label": name, "text": "x", "audio": "", "speaker": name} for name in "ab"]
    table = read_table(make(tmp_path, {"train": rows}, {"modalities": {"audio": "audio"}, "group": "speaker"}))
    assert table.splits["train"][0].groups == {"audio": "a", "text": "a"}


def test_a_declaration_changes_the_kind_of_a_standard_column(tmp_path: Path) -> None:
    rows = [{"label": name, "text": [1, 2]} for name in "ab"]
    table = read_table(make(tmp_path, {"train": rows}, {"modalities": {"text": "vector"}}))
    assert table.modalities == {"text": "vector"}
    assert table.splits["train"][0].values == {"text": (1.0, 2.0)}


@pytest.mark.parametrize(("labels", "classes"), [("10 9 2", "2 9 10"), ("b 10 9", "10 9 b"), ("-1 1 0", "-1 0 1")])
def test_classes_are_sorted_as_numbers_where_all_are(tmp_path: Path, labels: str, classes: str) -> None:
    table = read_table(make(tmp_path, {"train": [{"label": label, "text": "x"} for label in labels.split()]}))
    assert table.classes == tuple(classes.split())


@pytest.mark.parametrize("cell", ["[1, 2.5, -3]", "1 2.5 -3", "1;2.5;-3", " 1; 2.5; -3 "])
def test_vectors_in_csv(tmp_path: Path, cell: str) -> None:
    rows = [{"label": name, "v": cell} for name in "ab"]
    table = read_table(make(tmp_path, {"train": rows}, {"modalities": {"v": "vector"}}, ".csv"))
    assert table.splits["train"][0].values == {"v": (1.0, 2.5, -3.0)}


def test_a_long_vector_in_csv(tmp_path: Path) -> None:
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
def test_jsonl_csv_and_parquet_give_the_same_rows(tmp_path_factory: pytest.TempPathFactory, rows: list[Cells]) -> None:
    every = {"v": [0.5, 1.0, 2.0], "image": "a.png", "meta": {"who": "me"}, "present": {"50": ["v"], "20": ["text"]}}
    rows = [{"label": "1", "text": "x", **every}, {"label": "2", "text": "y"}, {"label": "10", "text": "z"}, *rows]
    options = {"modalities": {"v": "vector"}, "group": {"text": "meta.who"}}
    base = tmp_path_factory.mktemp("same")
    read = []
    for suffix in WRITERS:
        for alone in ("", "all"):
            folder = make(base / "data", {"train": rows, "test": rows[:2]}, options, suffix, alone)
            (folder / "a.png").touch()
            table = read_table(folder)
            read.append((table.modalities, table.splits, table.classes))
            shutil.rmtree(folder)
    assert all(outcome == read[0] for outcome in read)
    assert len(read[0][1]["train"]) == len(rows)


def test_the_fingerprint_follows_tables_and_declaration_only(tmp_path: Path) -> None:
    folder = make(tmp_path / "a", GOOD)
    first = read_table(folder).fingerprint
    (folder / "media.png").write_bytes(b"x")
    assert read_table(folder).fingerprint == first
    assert read_table(make(tmp_path / "b", GOOD)).fingerprint == first  # the place does not matter
    make(folder, {}, {"about": "made by hand"})
    second = read_table(folder).fingerprint
    make(folder, {"test": [{"label": "b", "text": "five"}]})
    assert len({first, second, read_table(folder).fingerprint}) == 3


def test_tables_beside_the_three_are_ignored_and_val_may_be_absent(tmp_path: Path) -> None:
    make(tmp_path, {**GOOD, "notes": [{"anything": 1}]})
    (tmp_path / "val.jsonl").unlink()
    assert list(read_table(tmp_path).splits) == ["train", "test"]


# ---- faults of one row

ROW_FAULTS: dict[str, tuple[Cells, str]] = {
    "no such file": ({"image": "gone.png"}, "image: no file 'gone.png' in the folder"),
    "a folder": ({"image": "sub"}, "image: no file 'sub'"),
    "name too long": ({"image": "x" * 5000}, "image: no file"),
    "NUL in a path": ({"image": "a\0b"}, "image: no file"),
    "parent folder": ({"image": "../secret.png"}, "leaves the folder"),
    "parent folder inside": ({"image": "sub/../../secret.png"}, "leaves the folder"),
    "parent folder, Windows": ({"image": "..\\secret.png"}, "leaves the folder"),
    "absolute": ({"audio": "/etc/passwd"}, "audio: the path '/etc/passwd' leaves the folder"),
    "absolute, Windows": ({"audio": "C:\\a.wav"}, "leaves the folder"),
    "path is a number": ({"image": 5}, "image: expected the path of a file"),
    "text is a number": ({"text": 5}, "text: expected text, got 5"),
    "label missing": ({"label": None}, "label: missing"),
    "label blank": ({"label": "  "}, "label: missing"),
    "label is a fraction": ({"label": 1.5}, "label: expected text or a whole number, got 1.5"),
    "label is a truth value": ({"label": True}, "label: expected text or a whole number, got True"),
    "nothing to see": ({"text": " "}, "no modality at all"),
    "vector of words": ({"v": "one two"}, "v: expected a list of numbers"),
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
    "id given twice": ({"id": "first"}, "id: 'first' was given before in split train, at 1"),
    "id unusable": ({"id": 1.5}, "id: expected text or a whole number"),
    "group unusable": ({"who": [1]}, "group: expected text or a whole number"),
}


@pytest.mark.parametrize("name", ROW_FAULTS)
def test_a_faulty_row_is_told_with_its_line(tmp_path: Path, name: str) -> None:
    change, expected = ROW_FAULTS[name]
    good = [{"label": label, "text": "x", "v": [1.0, 2.0, 3.0], "who": "w"} for label in "abab"]
    rows = [{**good[0], "id": "first"}, good[1], {"label": "a", "text": "x", **change}, *good[2:]]
    (tmp_path / "sub").mkdir()
    message = fault(make(tmp_path, {"train": rows}, {"modalities": {"v": "vector"}, "group": "who"}))
    assert f"train.jsonl:3: {expected}" in message or ("train.jsonl:3: " in message and expected in message)
    assert "1 fault in the data set" in message


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_label_that_train_does_not_have(tmp_path: Path, split: str) -> None:
    rows: list[Cells] = [{"label": "a", "text": "x"}, {"label": "z", "text": "x"}]
    message = fault(make(tmp_path, {**GOOD, split: rows}))
    assert f"{split}.jsonl:2: label: 'z' is not in train, which has a, b" in message


@pytest.mark.parametrize(
    "line", [b"{oops", b"[1, 2]", b"5", b'{"label": "\xff"}', b'{"text": "\\ud800"}', b"[" * 100_000]
)
def test_a_malformed_line(tmp_path: Path, line: bytes) -> None:
    make(tmp_path, GOOD)
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
        (b"label,text\na,x\nb,\xff\n", "train.csv:3: not UTF-8"),
        (b"label,text,text\na,x,y\nb,x,y\n", "train.csv:1: two columns are called 'text'"),
        (b"label;text\na;x\nb;x\n", "train.csv: no column 'label'"),
    ],
)
def test_malformed_csv(tmp_path: Path, text: bytes, expected: str) -> None:
    (tmp_path / "train.csv").write_bytes(text)
    assert expected in fault(tmp_path)


def test_malformed_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and no more")
    assert "train.parquet: not readable as Parquet" in fault(tmp_path)


def test_a_row_of_parquet_is_called_a_row(tmp_path: Path) -> None:
    rows: list[Cells] = [{"label": "a", "text": "x"}, {"label": None, "text": "x"}, {"label": "b", "text": "x"}]
    assert "train.parquet:row 2: label: missing" in fault(make(tmp_path, {"train": rows}, suffix=".parquet"))


def test_the_first_twenty_faults_and_the_count_of_all(tmp_path: Path) -> None:
    bad: list[Cells] = [{"label": "a", "image": f"{i}.png"} for i in range(30)]
    rows = [*GOOD["train"], *bad]
    message = fault(make(tmp_path, {"val": rows[2:5], "train": rows}))
    assert "33 faults in the data set; the first 20:" in message
    assert [f"train.jsonl:{line}: image" in message for line in (3, 22, 23)] == [True, True, False]
    assert message.count("\n") == 20


# ---- faults of the whole


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    message = fault(tmp_path / "nowhere")
    assert "does not exist" in message
    assert "train.jsonl" in message
    (tmp_path / "file").touch()
    assert "got a file" in fault(tmp_path / "file")


def test_no_tables_no_train_and_unclear_tables(tmp_path: Path) -> None:
    assert "no train split; tables found: none" in fault(make(tmp_path / "empty", {}))
    assert "no train split; tables found: test.jsonl, val.jsonl" in fault(make(tmp_path / "a", {"val": [], "test": []}))
    assert "no train split" in fault(make(tmp_path / "b", {"test": GOOD["train"]}, alone="all"))
    twice = make(make(tmp_path / "c", GOOD), GOOD, suffix=".csv")
    assert "got train.csv, train.jsonl, expected one table per split" in fault(twice)


def test_train_is_empty_or_has_one_class(tmp_path: Path) -> None:
    assert "train.jsonl: holds no rows" in fault(make(tmp_path / "a", {**GOOD, "train": []}))
    message = fault(make(tmp_path / "b", {"train": GOOD["train"][:1] * 3}))
    assert "train.jsonl: train has one class only, 'a'" in message


def test_one_table_alone_needs_its_split_column(tmp_path: Path) -> None:
    make(tmp_path, {"all": GOOD["train"]})
    assert "needs a column 'split'" in fault(tmp_path)
    _write_jsonl(tmp_path / "all.jsonl", [{**row, "split": "dev"} for row in GOOD["train"]])
    assert "all.jsonl:2: split: expected one of train, val, test, got 'dev'" in fault(tmp_path)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "not usable JSON: expected an object"),
        ({"modality": {}}, "unknown entry 'modality'"),
        ({"modalities": ["v"]}, "modalities: expected"),
        ({"modalities": {"v": "video"}}, "v: unknown kind 'video'; expected one of image, audio, text, vector"),
        ({"modalities": {"v": ["image"]}}, "v: unknown kind"),
        ({"modalities": {"../v": "vector"}}, "the name '../v' cannot be used"),
        ({"modalities": {"label": "text"}}, "the name 'label' cannot be used"),
        ({"group": 5}, "group: expected"),
        ({"group": {"audio": 5}}, "group: expected"),
        ({"group": {"camera": "who"}}, "group: unknown modality 'camera'"),
        ({"group": "meta.speaker"}, "group: no row has a value at 'meta.speaker'"),
    ],
)
def test_faults_of_the_declaration(tmp_path: Path, options: object, expected: str) -> None:
    message = fault(make(tmp_path, GOOD, options))
    assert "dataset.json: " in message
    assert expected in message


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="needs pyarrow"):
        read_table(tmp_path)


# ---- decoding


def test_every_value_is_decoded_once(tmp_path: Path) -> None:
    folder = make(tmp_path, {**GOOD, "train": [*GOOD["train"], {"label": "a", "image": "a.png"}]})
    (folder / "a.png").write_bytes(b"png")
    seen, lock = [], threading.Lock()

    def decode(modality: str, value: object) -> None:
        with lock:
            seen.append((modality, value))

    check_rows(read_table(folder), ("train", "test"), decode)
    expected = [("text", "one"), ("text", "two"), ("image", b"png"), ("text", "four")]
    assert Counter(seen) == Counter(expected)


def test_rows_that_cannot_be_decoded_are_listed(tmp_path: Path) -> None:
    rows = [{"label": "ab"[i % 2], "image": f"{i}.png", "text": "x"} for i in range(30)]
    folder = make(tmp_path, {"train": rows})
    for i in range(30):
        (folder / f"{i}.png").write_bytes(b"bad" if i else b"good")
    table = read_table(folder)
    (folder / "1.png").unlink()

    def decode(modality: str, value: object) -> None:
        if value == b"bad":
            raise InputError(modality, "expected PNG; convert it")

    with pytest.raises(DataError) as caught:
        check_rows(table, ("train",), decode)
    lines = str(caught.value).splitlines()
    assert "29 values that cannot be decoded" in lines[0]
    assert len(lines) == 21
    assert "cannot be read" in lines[1]
    assert lines[2].strip() == "train, id 'train-2', image (2.png): expected PNG; convert it"


def test_bugs_of_a_decoder_are_not_swallowed(tmp_path: Path) -> None:
    def decode(modality: str, value: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        check_rows(read_table(make(tmp_path, GOOD)), ("train",), decode)


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'dev'"):
        check_rows(read_table(make(tmp_path, GOOD)), ("dev",), lambda modality, value: None)


# ---- validation split


def row(index: int, label: str, groups: Mapping[str, str] | None = None) -> Row:
    return Row(str(index), label, {"text": "x"}, {}, groups or {})


labelled = st.lists(st.sampled_from("abc"), min_size=2, max_size=60).filter(
    lambda labels: max(Counter(labels).values()) > 1
)


@settings(max_examples=50, deadline=None)
@given(labels=labelled, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 9))
def test_a_plain_split_keeps_every_class_in_train(labels: list[str], fraction: float, seed: int) -> None:
    rows = [row(index, label) for index, label in enumerate(labels)]
    train, val, note = split_validation(rows, fraction, seed)
    assert sorted((*train, *val), key=rows.index) == rows
    assert list(train) == sorted(train, key=rows.index)
    assert val
    assert {r.label for r in train} == set(labels)
    assert "no groups" in note
    held = Counter(r.label for r in val)
    for label, count in Counter(labels).items():
        assert held[label] < fraction * count + 1 or len(val) == 1
    assert split_validation(rows, fraction, seed) == (train, val, note)


def test_a_plain_split_has_the_size_asked_for() -> None:
    rows = [row(index, "abcdefghij"[index % 10]) for index in range(20)]
    train, val, _ = split_validation(rows, 0.2, 0)
    assert (len(train), len(val)) == (16, 4)  # two rows a class: no class alone has a whole row to give
    assert split_validation(rows, 0.2, 1)[1] != val


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_together(seed: int) -> None:
    rows = [row(i, "ab"[i % 2], {"audio": f"s{i % 20}", "image": f"w{i % 40}"}) for i in range(400)]
    train, val, note = split_validation(rows, 0.2, seed)
    for name in ("audio", "image"):
        assert not {r.groups[name] for r in train} & {r.groups[name] for r in val}
    assert 40 <= len(val) <= 160
    assert "no group of audio or image is on both sides" in note


def test_where_all_groups_together_cannot_be_parted_one_modality_is() -> None:
    rows = [row(i, "ab"[i % 2], {"audio": "one voice", "image": f"w{i // 4}"}) for i in range(100)]
    train, val, note = split_validation(rows, 0.2, 0)
    assert not {r.groups["image"] for r in train} & {r.groups["image"] for r in val}
    assert len(val) == 20
    assert "no group of image is on both sides" in note
    assert "audio, 1 separate parts, the largest of 100 rows" in note


def test_where_no_groups_can_be_parted_the_split_is_plain() -> None:
    rows = [row(i, "ab"[i % 2], {"audio": "ab"[i % 2]}) for i in range(100)]  # a class is a group: none can leave train
    _, val, note = split_validation(rows, 0.2, 0)
    assert Counter(r.label for r in val) == {"a": 10, "b": 10}
    assert "groups are on both sides" in note


def test_a_split_that_cannot_be_made() -> None:
    rows = [row(0, "a"), row(1, "b")]
    with pytest.raises(DataError, match="no two of a class"):
        split_validation(rows, 0.2, 0)
    for fraction in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            split_validation(rows, fraction, 0)
