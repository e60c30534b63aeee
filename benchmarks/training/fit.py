"""`make bench-fit`: time and memory of all that is fitted to opinions after training, for each size of task.

That is the choice of the settings by cross-validation, the fusion, the discounts, and the cross-fitted prediction sets.
Opinions are generated. Each size is measured in a fresh process; its memory is what the fit adds to the opinions.

    python -m benchmarks.training.fit
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared import machine_in_full, run_in_process, status_mb, write_whole
from mla_serve.console import console, main
from mla_serve.tasks import Classes, Labels, Number, Task

NAMES = tuple("abcdefgh")


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """Measure time and memory of fitting the fusion."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One size: the task, its classes or labels, modalities and validation rows."""

    task: str
    outputs: int
    modalities: int
    rows: int

    def path(self, work: Path) -> Path:
        """Return the file of the results."""
        return work / f"{self.task}-{self.outputs}-{self.modalities}-{self.rows}.json"

    def make_task(self) -> Task:
        """Return the task, with made-up names."""
        names = tuple(f"c{number}" for number in range(self.outputs))
        made = {"classes": Classes(names), "labels": Labels(names), "number": Number()}
        return made[self.task]


CELLS = (
    Cell("classes", 10, 3, 20_000),
    Cell("classes", 1000, 8, 5000),
    Cell("labels", 25, 3, 20_000),
    Cell("number", 2, 3, 20_000),
)


def make_rows(cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """Return opinions (M, N, O) that are right more often than not, and too sure, and the targets (N, ...)."""
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(cell.modalities, cell.rows, cell.outputs)).astype(np.float32)
    if cell.task == "classes":
        targets = generator.integers(0, cell.outputs, cell.rows)
        noise[:, np.arange(cell.rows), targets] += 2.0 + np.log(cell.outputs)
        return 2 * noise, targets
    if cell.task == "labels":
        truth = (generator.random((cell.rows, cell.outputs)) < 0.1).astype(np.float32)
        return 2 * noise + 3 * truth - 3, truth
    truth = generator.normal(size=cell.rows).astype(np.float32)
    noise[..., 0] = truth + 0.5 * noise[..., 0]
    noise[..., 1] = -2.0
    return noise, truth


def measure(cell: Cell) -> dict[str, Any]:
    """Fit once; return the seconds of the fusion and of the sets, their processor time, and the memory added at its highest."""
    from mla_serve.train.fit.after_training import fit_fusion
    from mla_serve.train.fit.evidence import Evidence, UnseenOpinions
    from mla_serve.train.fit.intervals import cross_fitted_intervals

    generator, task = np.random.default_rng(1), cell.make_task()
    opinions, targets = make_rows(cell)
    present = generator.random(opinions.shape[:2]) < 0.8
    present[0] |= ~present.any(axis=0)
    clean = Evidence.of(opinions, present, targets, generator.exponential(0.2, present.shape), task)
    used = UnseenOpinions(clean, np.arange(cell.rows) % 5, "")
    before, begun, spent = status_mb("self", "VmRSS"), time.monotonic(), time.process_time()
    fusion, refit, note = fit_fusion(used, clean, NAMES[: cell.modalities], task.prior_of(targets))
    fusion = dataclasses.replace(fusion, prior=task.prior_of(targets))
    fitted, fitted_cpu = time.monotonic() - begun, time.process_time() - spent
    cross_fitted_intervals(clean, fusion, used.fold, refit, 0)
    return dataclasses.asdict(cell) | {
        "fusion_s": fitted,
        "fusion_cpu_s": fitted_cpu,
        "all_s": time.monotonic() - begun,
        "all_cpu_s": time.process_time() - spent,
        "added_mb": status_mb("self", "VmHWM") - before,
        "note": note,
    }


def run(config: FitConfig) -> None:  # noqa: ARG001
    """Measure every size, and print a line for each."""
    console.print(machine_in_full())
    with tempfile.TemporaryDirectory() as folder:
        for cell in CELLS:
            run_in_process("benchmarks.training.fit", cell, Path(folder))
            found = json.loads(cell.path(Path(folder)).read_text())
            console.print(
                f"{cell.task}, {cell.outputs} outputs, {cell.modalities} modalities, {cell.rows:,} rows: fusion "
                f"{found['fusion_s']:.1f} s ({found['fusion_cpu_s']:.1f} s of a processor), with the sets {found['all_s']:.1f} s "
                f"({found['all_cpu_s']:.1f} s), {found['added_mb']:.0f} MB more; {found['note']}"
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--cell"]:
        asked = Cell(**json.loads(sys.argv[2]))
        write_whole(asked.path(Path(sys.argv[3])), json.dumps(measure(asked)))
    else:
        main(run, FitConfig, prog="python -m benchmarks.training.fit")
