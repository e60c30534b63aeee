"""Decoding every value of a table."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
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
    assert lines[2].strip() == "train, id 'train-2', image (2.png): expected PNG; convert it"


def test_bugs_of_a_decoder_are_not_swallowed(tmp_path: Path, make: Make, good: Splits) -> None:
    def decode(modality: str, value: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        check_rows(read_table(make(tmp_path, good)), ("train",), decode)


def test_an_unknown_split_is_refused(tmp_path: Path, make: Make, good: Splits) -> None:
    with pytest.raises(DataError, match="'dev'"):
        check_rows(read_table(make(tmp_path, good)), ("dev",), lambda modality, value: None)
