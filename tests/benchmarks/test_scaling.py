"""The comparison of costs: cells are files measured in turn, the high-water mark is one, fits find what they were given."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.mla_up_front import NAME, UpFront
from benchmarks.training import scaling, scaling_report
from benchmarks.training.scaling import Cell, PeakMemory, ScalingConfig
from benchmarks.training.scaling_report import fit, grouped, markdown, memory_ratios, write_report
from benchmarks.training.workloads import WORKLOADS, Workload
from mla_serve.errors import ConfigError
from mla_serve.train.strategies import STRATEGIES

TINY = {
    "vector": Workload((8,), "small", (2, 3, 4, 5), ("mla", "joint_concat"), batch=6, steps=2, threads=1),
    "resnet18": Workload(
        (3, 8, 8), "small", (1, 3), ("mla", "mla_up_front", "joint_concat"), batch=2, steps=1, threads=1
    ),
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScalingConfig:
    """A comparison of tiny cells that are measured in this process."""
    measured: list[Cell] = []

    def run_cell(cell: Cell, work: Path) -> None:
        if not cell.path(work).exists():
            measured.append(cell)
            scaling.measure_cell(cell, work)

    monkeypatch.setitem(STRATEGIES, NAME, UpFront)  # so that it is gone again after the test
    monkeypatch.setattr(scaling, "WORKLOADS", TINY)
    monkeypatch.setattr(scaling_report, "WORKLOADS", TINY)
    monkeypatch.setattr(scaling, "run_cell", run_cell)
    monkeypatch.setattr(scaling, "measured", measured, raising=False)
    return ScalingConfig(tuple(TINY), 2, work=tmp_path / "work", out=tmp_path / "out")


def made_up(workload: str, variant: str, modalities: int, **values: float) -> dict[str, Any]:
    facts = {"workload": workload, "variant": variant, "modalities": modalities, "repeat": 0, "machine": "paper"}
    return facts | {"peak_mb": 1.0, "step_cpu_seconds": 1.0, "step_wall_seconds": 1.0} | values


@pytest.mark.slow
def test_a_comparison_is_measured_in_turn_reported_and_resumable(config: ScalingConfig) -> None:
    scaling.run(config)
    measured: list[Cell] = scaling.measured  # type: ignore[attr-defined]
    assert measured == scaling.cells(config)
    half = len(measured) // 2
    assert [dataclasses.replace(cell, repeat=1) for cell in measured[:half]] == measured[half:]

    written = json.loads((config.out / "scaling.json").read_text())
    assert len(written["cells"]) == len(measured)
    assert {fit["variant"] for fit in written["fits"]} == {"mla", "joint_concat"}
    assert "joint_concat" in (config.out / "scaling.md").read_text()
    assert (config.out / "scaling.svg").read_text().startswith("<?xml")

    scaling.run(config)
    assert len(measured) == 2 * half
    scaling.run(dataclasses.replace(config, workloads=("vector",), again=True))
    assert {cell.workload for cell in measured[2 * half :]} == {"vector"}
    again = json.loads((config.out / "scaling.json").read_text())
    assert len(again["cells"]) == len(written["cells"]), "what was not measured again is still reported"


def test_the_peak_is_the_most_that_was_resident_since_the_last_one_was_asked_for() -> None:
    memory = PeakMemory()
    there = np.ones(64 * 2**20, np.uint8)
    assert there.all()
    del there
    assert 60 <= memory.peak_mb() < 80
    assert PeakMemory().peak_mb() < 16


@pytest.mark.slow
def test_mla_takes_the_memory_of_one_modality_and_joint_training_that_of_all(tmp_path: Path) -> None:
    peak = {}
    for variant, modalities in (("mla", 2), ("mla", 16), ("joint_concat", 16)):
        cell = Cell("vector", variant, modalities, 0)
        scaling.run_cell(cell, tmp_path)
        peak[variant, modalities] = json.loads(cell.path(tmp_path).read_text())["peak_mb"]
    assert peak["mla", 16] < 1.3 * peak["mla", 2]
    assert peak["mla", 16] < 0.3 * peak["joint_concat", 16]


def test_a_cell_that_fails_says_so_and_leaves_no_result(tmp_path: Path) -> None:
    cell = Cell("vector", "alternating", 2, 0)
    with pytest.raises(ConfigError, match="alternating"):
        scaling.run_cell(cell, tmp_path)
    assert not cell.path(tmp_path).exists()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"workloads": ("vectors",)}, "vectors.*vector, resnet18"),
        ({"workloads": ()}, "vector"),
        ({"repeats": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ScalingConfig(**wrong).check()


def by_count(seconds: Callable[[int], float]) -> dict[int, list[dict[str, Any]]]:
    return {m: [made_up("vector", "mla", m, step_cpu_seconds=seconds(m))] for m in WORKLOADS["vector"].modalities}


def test_a_line_is_found_and_leaves_nothing() -> None:
    found = fit("vector", "mla", "step_cpu_seconds", by_count(lambda m: 0.5 + 0.25 * m))
    assert (found.a, found.b) == pytest.approx((0.5, 0.25))
    assert set(found.residuals.values()) == {0.0}
    assert found.c == pytest.approx(0, abs=1e-12)


def test_a_quadratic_term_is_found() -> None:
    found = fit("vector", "mla", "step_cpu_seconds", by_count(lambda m: 1 + m + 0.01 * m**2))
    assert found.c == pytest.approx(0.01)
    assert found.c_error < 1e-9
    assert found.c_share == pytest.approx(0.01 * 32**2 / (33 + 0.01 * 32**2))
    assert found.residuals[32] > 0


def test_memory_is_compared_at_three_encoders() -> None:
    peaks = {("mla", 1): 100.0, ("mla", 3): 110.0, ("joint_concat", 3): 275.0}
    rows = [made_up("resnet18", *key, peak_mb=value) for key, value in peaks.items()]
    assert memory_ratios(grouped(rows)) == {"mla_of_single_modality": 1.1, "mla_of_joint_concat": 0.4}
    assert memory_ratios(grouped(rows[:2])) == {}
    assert "| 1.10 | 1.15 |" in markdown(grouped(rows), [])


def test_a_report_is_written_of_one_kind_alone(tmp_path: Path) -> None:
    rows = [made_up("vector", "mla", m, step_cpu_seconds=m / 10) for m in WORKLOADS["vector"].modalities]
    write_report(rows, tmp_path)
    text = (tmp_path / "scaling.md").read_text()
    assert "| mla | 32 | 1 | 1.00 | 3200 |" in text
    assert "resnet18\n" not in text
