"""The comparison of columns: what is split, what both models get, what the page says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.columns import (
    MOST_CATEGORIES,
    ColumnsConfig,
    _cells,
    markdown,
    run,
    train_trees,
    write_built_in,
)
from mla_serve.errors import ConfigError
from mla_serve.inputs import Column, ColumnsInput
from mla_serve.table import Row, read_table


def test_a_built_in_table_is_split_by_class_and_anew_for_each_seed(tmp_path: Path) -> None:

    folders = [write_built_in("wine", seed, tmp_path / str(seed)) for seed in (0, 1)]
    tables = [read_table(folder) for folder in folders]
    for table in tables:
        assert {split: len(rows) for split, rows in table.splits.items()} == {"train": 106, "val": 36, "test": 36}
        assert all({row.label for row in rows} == {"0", "1", "2"} for rows in table.splits.values())
        assert table.modalities == {"columns": "columns"}
    assert [row.values for row in tables[0].splits["val"]] != [row.values for row in tables[1].splits["val"]]


def test_the_trees_get_the_same_cells_with_the_rarest_categories_as_one() -> None:
    spec = ColumnsInput((Column("brand", "category", tuple(map(str, range(300)))), Column("price", "number")))
    rows = [Row(str(n), "ab"[n % 2], {"facts": {"brand": str(n), "price": float(n)}}, {}, {}) for n in range(300)]
    cells, labels = _cells([*rows, Row("none", "a", {}, {}, {})], spec, "facts", ["a", "b"])
    assert cells[:, 0].max() == MOST_CATEGORIES
    np.testing.assert_array_equal(cells[:, 1], np.arange(300))
    assert labels[:3].tolist() == [0, 1, 0]
    found = train_trees(dict.fromkeys(("train", "val", "test"), (cells, labels)), spec, 0)
    assert 0.5 <= found["val"] == found["test"] <= 1


def test_the_page_has_means_deviations_and_differences() -> None:
    found = [
        {
            "rows": {"train": 6, "val": 2, "test": 2},
            "columns": 3,
            "classes": 2,
            "encoder": {"val": accuracy, "test": 0.5, "seconds": 2.0},
            "trees": {"val": 0.7, "test": 0.6, "seconds": 1.0},
        }
        for accuracy in (0.8, 0.9)
    ]
    page = markdown({"wine": found})
    assert (
        "| wine | 10 | 3 | 2 | 85.0 ± 5.0 | 70.0 ± 0.0 | +15.0 | 50.0 ± 0.0 | 60.0 ± 0.0 | -10.0 | 2.0 | 1.0 |" in page
    )


def test_a_table_without_a_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected NAME=DIR"):
        run(ColumnsConfig(data=("somewhere",)))
