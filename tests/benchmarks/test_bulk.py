"""The comparison of table scoring with the predictor alone: its table, its arithmetic, its verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bulk.bulk import make_table
from benchmarks.bulk.report import ratios, write_report
from mla_serve.errors import ConfigError


def one_round(once: float, by_row: float) -> dict[str, Any]:
    """A command that pays something once and something by row, beside a ceiling of 1 ms a row on two cores."""
    cost = lambda rows: {"rows": rows, "wall_s": once + by_row * rows / 2, "cpu_s": once + by_row * rows}  # noqa: E731
    return {
        "ceiling": {"rows": 1000, "rows_per_s": 2000.0, "cpu_s": 1.0},
        "small": cost(512),
        "command": cost(40_000),
    }


def test_few_rows_and_many_tell_the_rate_for_all() -> None:
    ceiling, rate, ratio, processor = ratios(100_000, one_round(once=10, by_row=0.00125))
    assert ceiling == 2000
    assert rate == pytest.approx(100_000 / (10 + 62.5))
    assert ratio == pytest.approx(rate / 2000)
    assert processor == pytest.approx(100 / (10 + 125))


@pytest.mark.parametrize(("by_row", "said"), [(0.0011, "met"), (0.0013, "MISSED")])
def test_the_page_says_what_missed(tmp_path: Path, by_row: float, said: str) -> None:
    found = {
        "whole": {"mb": {"start": 500.0, "middle": 500.0, "end": 600.0}, "peak_mb": 610.0},
        "killed": {"parts_before": 5, "parts": 10, "each_row_once": True, "equal": False},
        "ray": {"rows": 10, "wall_s": 2.0, "each_row_once": True, "equal": True},
    }
    about = {"rows": 100_000, "slice": 256, "cores": 2, "machine": "any"}
    page = write_report(about, [one_round(0, by_row)], found, tmp_path)
    assert f"bar 0.85: {said}" in page
    assert "flat: NO" in page
    assert "the same as uninterrupted: NO" in page
    assert json.loads((tmp_path / "bulk.json").read_text())["whole"] == found["whole"]


def test_the_table_repeats_the_rows_and_links_the_files(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "images" / "1.png").write_bytes(b"1")
    (data / "train.jsonl").write_text('{"id": "a", "image": "images/1.png"}\n{"id": "b", "text": "σ"}\n')
    table = make_table(data, tmp_path / "work", 5)
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert [row["id"] for row in rows] == list("01234")
    assert [row.get("text") for row in rows] == [None, "σ", None, "σ", None]
    assert (table.parent / "images").is_symlink()
    assert (table.parent / rows[4]["image"]).read_bytes() == b"1"
    with pytest.raises(ConfigError, match="expected a folder with tables"):
        make_table(tmp_path / "data" / "images", tmp_path / "other", 5)
