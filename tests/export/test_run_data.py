"""The data set of a run, read again: what training left out is left out, and what is new is told."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mla_serve.errors import DataError
from mla_serve.export.run_data import read_table_again
from mla_serve.table import TableOptions, read_table


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A table of pictures and texts, with a path that has no file."""
    content = io.BytesIO()
    Image.linear_gradient("L").resize((20, 20)).save(content, "PNG")
    with (tmp_path / "shop.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["picture", "name", "label"])
        for number in range(12):
            (tmp_path / f"{number}.png").write_bytes(content.getvalue())
            table.writerow([f"{number}.png", f"thing {number}", "ab"[number % 2]])
    (tmp_path / "4.png").unlink()
    return tmp_path


def train(data: Path) -> dict[str, Any]:
    """Return the facts of a run that left out the path without a file, and row 8, which could not be decoded."""
    table = read_table(data, TableOptions(skip_bad=True))
    table.faults.add_value(("shop.csv", 10), "picture", "broken")
    config = {"fingerprint": table.fingerprint, "skip_bad": True}
    return {"config": config, "table": table.schema.to_dict(), "left_out": table.faults.to_dicts()}


def rows(facts: dict[str, Any], data: Path) -> set[int]:
    table = read_table_again(facts, data)
    return {row.place[1] - 2 for listed in table.splits.values() for row in listed}


def test_what_training_left_out_is_left_out_again(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert rows(train(data), data) == set(range(12)) - {4, 8}
    assert caplog.text == ""


def test_a_file_that_was_removed_since_is_left_out_with_a_warning(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    facts = train(data)
    (data / "1.png").unlink()
    assert rows(facts, data) == set(range(12)) - {1, 4, 8}
    assert (
        "1 more left out because of faults that were not there at training: shop.csv:3: picture: no file '1.png'"
        in caplog.text
    )


def test_without_a_flag_it_is_refused_and_no_flag_is_advised(data: Path) -> None:
    facts = train(data)
    facts["config"]["skip_bad"] = False
    with pytest.raises(DataError, match=r"shop\.csv:6: picture: no file '4\.png'") as refused:
        read_table_again(facts, data)
    assert "--skip-bad" not in str(refused.value)
