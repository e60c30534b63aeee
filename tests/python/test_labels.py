"""Labels of a table in memory: lists, sets, arrays, numbers, several columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mla_serve.python.tables import table_in_memory
from mla_serve.table.options import TableOptions
from mla_serve.tasks import Labels, Number

TEXTS = [f"some words {number}" for number in range(40)]
TAGS = [["drama", "crime"], ["crime"], [], ["news", "drama"]] * 10


def read(data: Any, label: str = "genres", **options: Any) -> Any:
    return table_in_memory(data, Path("/nowhere"), TableOptions(label=label, **options))


@pytest.mark.parametrize("make", [list, set, frozenset, tuple, np.array])
def test_labels_of_a_frame(make: Any) -> None:
    table = read(pd.DataFrame({"text": TEXTS, "genres": [make(tags) for tags in TAGS]}))
    assert table.task == Labels(("crime", "drama", "news"))
    rows = sorted((row for rows in table.splits.values() for row in rows), key=lambda row: row.place)
    assert [row.label for row in rows] == list(map(frozenset, TAGS))


def test_labels_of_an_arrow_table_and_of_dicts() -> None:
    assert read(pa.table({"text": TEXTS, "genres": TAGS})).task == Labels(("crime", "drama", "news"))
    rows = [{"text": text, "genres": tags} for text, tags in zip(TEXTS, TAGS, strict=True)]
    assert read(rows).task == Labels(("crime", "drama", "news"))


@pytest.mark.parametrize(
    "values", [np.linspace(0, 9, 40), np.linspace(0, 9, 40).astype(np.float32), [n * 1.5 for n in range(40)]]
)
def test_numbers_of_a_frame(values: Any) -> None:
    assert isinstance(read(pd.DataFrame({"text": TEXTS, "genres": values})).task, Number)


def test_several_columns_of_a_frame() -> None:
    frame = pd.DataFrame(
        {"text": TEXTS, "a": [True, False] * 20, "b": pd.array([True, None, False, None] * 10, dtype="boolean")}
    )
    table = read(frame, "a,b")
    assert table.task == Labels(("a", "b"))
    assert sum(isinstance(row.label, dict) for rows in table.splits.values() for row in rows) == 20
