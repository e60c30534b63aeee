"""The comparison of strategies, on a small table: cells are files, finished ones are kept, the report adds up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import strategies
from benchmarks.strategies import BenchConfig, Cell
from benchmarks.strategies_report import SHOWN, _right, json_rows, markdown, preferred, values, write_report


@pytest.fixture
def config(write_table: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BenchConfig:
    """A comparison of two strategies whose cells are trained in this process."""
    monkeypatch.setattr(strategies, "CORE", ("mla", "joint_concat"))
    monkeypatch.setattr(strategies, "GRID", {"adamw": (0.01,), "sgd": (0.1,)})
    trained: list[Cell] = []

    def run_cell(cell: Cell, work: Path) -> None:
        if not cell.path(work).exists():
            trained.append(cell)
            strategies.train_cell(cell, work)

    monkeypatch.setattr(strategies, "run_cell", run_cell)
    monkeypatch.setattr(strategies, "trained", trained, raising=False)
    folder = write_table()
    return BenchConfig(
        (f"small={folder}",),
        core=True,
        seeds=2,
        epochs=2,
        search_epochs=1,
        work=tmp_path / "work",
        out=tmp_path / "out",
    )


def test_a_comparison_is_searched_trained_reported_and_resumable(config: BenchConfig) -> None:
    cells = strategies.compare(config)
    assert [(cell.strategy, cell.seed) for cell in cells] == [
        ("mla", 0), ("mla", 1), ("joint_concat", 0), ("joint_concat", 1),
    ]  # fmt: skip
    assert len(strategies.trained) == 2 * (2 + 2)  # type: ignore[attr-defined]
    assert strategies.compare(config) == cells
    assert len(strategies.trained) == 8  # type: ignore[attr-defined]

    results = [strategies.read(cell, config.work) for cell in cells]
    write_report(results, config.out)
    rows = json.loads((config.out / "strategies.json").read_text())
    assert rows == json_rows(results)
    assert {row["condition"] for row in rows} >= {"full", "missing20", "missing50", "missing80", "text", "numbers"}
    assert {row["fusion"] for row in rows} == set(strategies.RULES)
    assert "| joint_concat |" in markdown(results)
    for condition in SHOWN:  # the paired differences are of the very figures in the table
        rule = preferred(results[:2])
        assert _right(results[:2], condition).mean(1) == pytest.approx(values(results[:2], condition, rule))
    assert (config.out / "strategies.svg").read_text().startswith("<?xml")
    assert preferred(results[:2]) in ("native", "calibrated")


def test_a_cell_that_fails_says_so_and_leaves_no_result(tmp_path: Path) -> None:
    from mla_serve.errors import ConfigError

    cell = Cell("none", str(tmp_path / "nowhere"), "mla", "adamw", 0.01, 0, 1)
    with pytest.raises(ConfigError, match="nowhere"):
        strategies.run_cell(cell, tmp_path)
    assert not cell.path(tmp_path).exists()
