"""Decoding every value of a table."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mla_serve.errors import DataError, InputError
from mla_serve.table import check_rows, read_table

Make = Callable[..., Path]
Splits = dict[str, list[dict[str, Any]]]


def test_every_value_is_decoded_once(tmp_path: Path, make: Make, good: Splits) -> None:
    folder = make(tmp_path, {**good, "train": [*good["train"], {"label": "a", "image": "a.png"}]})
    (folder / "a.png").write_bytes(b"png")
    seen, lock = [], threading.Lock()

    def decode(modality: str, value: object) -> None:
        with lock:
            seen.append((modality, value))

    check_rows(read_table(folder), ("train", "test"), decode)
    expected = [("text", "one"), ("text", "two"), ("image", b"png"), ("text", "four")]
    assert Counter(seen) == Counter(expected)


def test_rows_that_cannot_be_decoded_are_listed(tmp_path: Path, make: Make, good: Splits) -> None:
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
    assert lines[2].strip() == "train.jsonl:3: image (2.png): expected PNG; convert it"


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_faults_of_both_kinds_name_the_line_in_the_order_of_the_table(tmp_path: Path, ending: str) -> None:
    rows = [("test", "a", "0.png"), ("train", "b", "1.png"), ("train", "a", "2.png"), ("test", "b", "3.png")]
    for _, _, name in rows[:3]:
        (tmp_path / name).write_bytes(b"bad")
    columns = ("split", "label", "image")
    lines = [",".join(columns), *map(",".join, rows)] if ending == "csv" else [named(columns, row) for row in rows]
    (tmp_path / f"data.{ending}").write_text("\n".join(lines) + "\n")
    first = 2 if ending == "csv" else 1
    with pytest.raises(DataError) as structural:
        read_table(tmp_path)
    assert f"\n  data.{ending}:{first + 3}: image: no file '3.png'" in str(structural.value)
    (tmp_path / "3.png").write_bytes(b"bad")

    def decode(modality: str, value: object) -> None:
        raise InputError(modality, "expected PNG; convert it")

    with pytest.raises(DataError) as decoding:
        check_rows(read_table(tmp_path), ("train", "test"), decode)
    expected = [f"data.{ending}:{first + n}: image ({n}.png): expected PNG; convert it" for n in range(4)]
    assert [line.strip() for line in str(decoding.value).splitlines()[1:]] == expected


def named(columns: Sequence[str], cells: Sequence[str]) -> str:
    return json.dumps(dict(zip(columns, cells, strict=True)))


def test_bugs_of_a_decoder_are_not_swallowed(tmp_path: Path, make: Make, good: Splits) -> None:
    def decode(modality: str, value: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        check_rows(read_table(make(tmp_path, good)), ("train",), decode)


def test_an_unknown_split_is_refused(tmp_path: Path, make: Make, good: Splits) -> None:
    with pytest.raises(DataError, match="'dev'"):
        check_rows(read_table(make(tmp_path, good)), ("dev",), lambda modality, value: None)


def test_rows_without_an_id_are_numbered_in_their_split(tmp_path: Path, make: Make, good: Splits) -> None:
    table = read_table(make(tmp_path, good))
    assert [row.id for row in table.splits["train"]] == ["train-0", "train-1"]
    assert [row.id for row in table.splits["test"]] == ["test-0"]


def test_a_split_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path, make: Make, good: Splits) -> None:
    del good["val"]
    table = read_table(make(tmp_path, good))
    with pytest.raises(DataError, match=r"got the split 'val', expected some of train, test; choose those"):
        check_rows(table, ("train", "val"), lambda *_: None)


def test_a_value_that_is_no_file_is_told_without_one(tmp_path: Path, make: Make, good: Splits) -> None:
    table = read_table(make(tmp_path, good))

    def refuse(modality: str, payload: object) -> None:
        if payload == "two":
            raise InputError(modality, "not this one")

    with pytest.raises(DataError) as refused:
        check_rows(table, ("train",), refuse)
    assert str(refused.value).split("\n")[1:] == ["  train.jsonl:2: text: not this one"]
