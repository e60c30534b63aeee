"""Write small data sets in all three formats."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mla_serve.errors import DataError
from mla_serve.table import read_table

Cells = dict[str, Any]


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


def _make(
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


@pytest.fixture(scope="session")
def make() -> Callable[..., Path]:
    return _make


@pytest.fixture(scope="session")
def fault() -> Callable[[Path], str]:
    """Return what read_table says about a faulty data set."""

    def told(folder: Path) -> str:
        with pytest.raises(DataError) as caught:
            read_table(folder)
        return str(caught.value)

    return told


@pytest.fixture
def good() -> dict[str, list[Cells]]:
    return {
        "train": [{"label": "a", "text": "one"}, {"label": "b", "text": "two"}],
        "val": [{"label": "a", "text": "three"}],
        "test": [{"label": "b", "text": "four"}],
    }
