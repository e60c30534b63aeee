"""The comparison of training loops runs on a small table and tells ratios."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from benchmarks.training.speed import SpeedConfig, markdown, run


def test_every_loop_is_timed_and_compared_with_the_plain_one(write_table: Callable[..., Path], tmp_path: Path) -> None:
    run(SpeedConfig(write_table(), repeats=2, steps=1, out=tmp_path / "out"))
    rates = json.loads((tmp_path / "out" / "speed.json").read_text())
    assert [len(values) for values in rates.values()] == [2, 2, 2]
    assert all(value > 0 for values in rates.values() for value in values)
    assert "| plain torch, fp32 |" in (tmp_path / "out" / "speed.md").read_text()


def test_a_ratio_is_taken_block_by_block() -> None:
    table = markdown({"plain": [100.0, 50.0], "ours": [200.0, 150.0]})
    assert "| plain | 75 | 1.00 (1.00-1.00) |" in table
    assert "| ours | 175 | 2.50 (2.00-3.00) |" in table
