"""Training on a table with broken files: all are listed, or left out and said."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mla_serve.errors import ConfigError, DataError
from mla_serve.train.config import TrainConfig
from mla_serve.train.plan import make_plan

ROWS = 24
BROKEN = {3: b"", 8: b"<html>not found</html>", 15: b"\x89PNG\r\n\x1a\n\0\0"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A table of pictures and texts without splits, with three broken pictures."""
    folder = tmp_path / "shop"
    folder.mkdir()
    noise = np.random.default_rng(0)
    with (folder / "shop.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["Picture", "name", "category"])
        for number in range(ROWS):
            content = io.BytesIO()
            Image.fromarray(noise.integers(0, 256, (16, 16), dtype=np.uint8)).save(content, "PNG")
            (folder / f"{number}.png").write_bytes(BROKEN.get(number, content.getvalue()))
            table.writerow([f"{number}.png", f"the thing called {number}", "ab"[number % 2]])
    return folder


def config(data: Path, **given: bool) -> TrainConfig:
    return TrainConfig(data=data, runs=data.parent / "runs", cache=data.parent / "cache", **given)  # type: ignore[arg-type]


def read_lines(data: Path) -> list[int]:
    """Return the lines of the list of faults."""
    with (data.parent / "runs" / "shop.faults.csv").open(newline="") as file:
        return [int(row["line"]) for row in csv.DictReader(file)]


def test_broken_files_are_listed_together(data: Path) -> None:
    with pytest.raises(DataError, match="3 faults in the data set") as refused:
        make_plan(config(data))
    assert "shop.csv:10: Picture: '8.png': this is HTML, as a failed download leaves it" in str(refused.value)
    assert read_lines(data) == [number + 2 for number in BROKEN]


def test_rows_with_broken_files_are_left_out_and_said(data: Path) -> None:
    planned = make_plan(config(data, skip_bad=True))
    rows = [row for listed in planned.rows.values() for row in listed]
    assert {row.place[1] - 2 for row in rows} == set(range(ROWS)) - BROKEN.keys()
    said = "data: 3 of 24 rows left out because of faults (Picture 3): shop.csv:5, shop.csv:10, shop.csv:17"
    assert said in planned.notes
    assert f"data: the whole list: {data.parent / 'runs' / 'shop.faults.csv'}" in planned.notes
    assert read_lines(data) == [number + 2 for number in BROKEN]


def test_rows_are_used_without_their_broken_files(data: Path) -> None:
    planned = make_plan(config(data, skip_bad_values=True))
    rows = {row.place[1] - 2: row for listed in planned.rows.values() for row in listed}
    assert rows.keys() == set(range(ROWS))
    assert all(("picture" in row.values) is (number not in BROKEN) for number, row in rows.items())
    assert any("3 values left out because of faults, the rest of the row is used" in note for note in planned.notes)


def test_the_reasons_are_listed_where_no_picture_can_be_read(data: Path) -> None:
    for path in data.glob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="24 faults in the data set; the first 20"):
        make_plan(config(data))
    with pytest.raises(ConfigError, match="none of the first training images can be read"):
        make_plan(config(data, skip_bad=True))


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    """Two columns in one modality; a test row has words where the training rows have numbers."""
    folder = tmp_path / "facts"
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps({"modalities": {"facts": "columns"}}))
    for split, count in (("train", ROWS), ("test", 8)):
        rows = [
            {"label": "ab"[n % 2], "text": f"thing {n}", "facts": {"price": n + 0.5, "kind": "uv"[n % 2]}}
            for n in range(count)
        ]
        if split == "test":
            rows[3]["facts"] = {"price": "much", "kind": "u"}
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_column_of_a_cell_that_cannot_be_decoded_is_named(facts: Path) -> None:
    with pytest.raises(DataError, match=r"test\.jsonl:4: price: expected a number such as 12\.5, got 'much'"):
        make_plan(config(facts))


def test_a_row_is_used_without_the_cells_that_cannot_be_decoded(facts: Path) -> None:
    planned = make_plan(config(facts, skip_bad_values=True))
    bad = next(row for row in planned.rows["test"] if row.place == ("test.jsonl", 4))
    assert bad.values == {"text": "thing 3"}
    assert planned.samples("test").columns["facts"].present.tolist() == [n != 3 for n in range(8)]
    assert (
        "data: 1 value left out because of faults, the rest of the row is used (price 1): test.jsonl:4" in planned.notes
    )
