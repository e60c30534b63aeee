"""The comparison of one process with several runs on a small table, and finds their losses equal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from benchmarks.training.distributed import DistributedConfig, markdown, run


def test_losses_agree_and_both_are_timed(write_table: Callable[..., Path], tmp_path: Path) -> None:
    run(DistributedConfig(write_table(), repeats=1, steps=6, batch_size=16, out=tmp_path / "out"))
    results = json.loads((tmp_path / "out" / "distributed.json").read_text())
    assert max(results["apart"].values()) < 1e-5
    assert [len(values) for values in results["seconds"].values()] == [1, 1, 1]
    assert "| 2 processes, 1 thread each |" in (tmp_path / "out" / "distributed.md").read_text()


def test_speed_is_compared_run_by_run() -> None:
    seconds = {"1, 1": [0.4, 0.4], "1, 2": [0.2, 0.3], "2, 1": [0.1, 0.3]}
    apart = dict.fromkeys(seconds, 1e-6)
    table = markdown({"seconds": seconds, "apart": apart, "steps": 20, "batch_size": 64})
    assert "| 2, 1 | 200 | 1.50 (1.00-2.00) | 1.0e-06 |" in table
