"""`make bench-scaling`: what one training step costs with more and more modalities, in time and in memory.

Vector modalities, 2 to 32 of them, and ResNet-18 encoders on images of 224x224, 1 to 4. Each cell (one measurement) is a
fresh process and a file in --work, so an interrupted comparison goes on where it was; --again measures anew. Repeats are
interleaved: every cell is measured once before any is measured again. Takes about a quarter of an hour on two cores; writes
scaling.json, .md and .svg.

    python -m benchmarks.training.scaling
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rich.progress

from benchmarks.shared import run_in_process, status_mb, write_whole
from benchmarks.training.scaling_report import write_report
from benchmarks.training.workloads import WORKLOADS, Workload
from mla_serve.console import console, main
from mla_serve.errors import ConfigError

# Every cell's process: arrays of 64 KiB and more go back to the system when they are freed, so that resident memory is
# what is alive; and idle threads sleep instead of spinning, so that processor time is work.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_WAIT_POLICY": "PASSIVE"}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {  # name: strategy and its options
    "mla": ("mla", {}),
    "mla_hgm_epoch": ("mla", {"hgm": "epoch"}),
    "mla_up_front": ("mla_up_front", {}),
    "joint_concat": ("joint_concat", {}),
}
CLASSES = 10
WIDTH = 128


@dataclasses.dataclass(frozen=True)
class ScalingConfig:
    """Measure how training steps scale with the number of modalities; resumable."""

    workloads: tuple[str, ...] = tuple(WORKLOADS)
    """What to measure: vector, resnet18."""
    repeats: int = 3
    """Measurements of each cell."""
    again: bool = False
    """Measure the chosen workloads anew, also where there are results."""
    work: Path = Path("runs/scaling")
    """Folder of the finished cells."""
    out: Path = Path("benchmarks/training")
    """Folder that scaling.json, .md and .svg are written to."""

    def check(self) -> None:
        """Refuse what cannot be measured.

        Raises: ConfigError.
        """
        unknown = sorted(set(self.workloads) - set(WORKLOADS))
        if unknown or not self.workloads:
            raise ConfigError(f"--workloads {' '.join(unknown)}: expected one or more of {', '.join(WORKLOADS)}")
        if self.repeats < 1:
            raise ConfigError(f"--repeats {self.repeats}: expected a whole number of at least 1")
        if not CLEAR_REFS.exists():
            raise ConfigError("peak memory is read from /proc, which only Linux has; run this on Linux")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One measurement."""

    workload: str
    variant: str
    modalities: int
    repeat: int

    def path(self, work: Path) -> Path:
        """Name the file of its results."""
        return work / self.workload / f"{self.variant}-{self.modalities}-{self.repeat}.json"


def cells(config: ScalingConfig) -> list[Cell]:
    """List every cell, a whole round of them before the next."""
    return [
        Cell(workload, variant, modalities, repeat)
        for repeat in range(config.repeats)
        for workload in config.workloads
        for modalities in WORKLOADS[workload].modalities
        for variant in WORKLOADS[workload].variants
    ]


def run_cell(cell: Cell, work: Path) -> None:
    """Measure one cell in a fresh process, unless its results are there."""
    threads = {"OMP_NUM_THREADS": str(WORKLOADS[cell.workload].threads)}
    run_in_process("benchmarks.training.scaling", cell, work, ENVIRONMENT | threads)


def measure_cell(cell: Cell, work: Path) -> None:
    """Measure one cell in this process, and write its results whole."""
    workload = WORKLOADS[cell.workload]
    train_step, evaluate = _task(cell, workload)
    train_step(2)  # allocates the optimisers' states and loads code, at the memory of two rows
    memory = PeakMemory()
    seconds = [_timed(lambda: train_step(workload.batch)) for _ in range(workload.steps)]
    peak = memory.peak_mb()
    wall, processor = np.median(seconds, axis=0)
    results = {
        "batch": workload.batch,
        "threads": workload.threads,
        "step_wall_seconds": wall,
        "step_cpu_seconds": processor,
    }
    results |= {"baseline_mb": memory.baseline_mb, "peak_mb": peak, "machine": platform.machine()}
    if cell.workload == "vector":
        results["validation_cpu_seconds"] = _timed(evaluate)[1]
    write_whole(cell.path(work), json.dumps(dataclasses.asdict(cell) | results))


def _task(cell: Cell, workload: Workload) -> tuple[Callable[[int], object], Callable[[], object]]:
    """Return a training step on so many rows, as the training loop takes it, and a validation after an epoch."""
    import torch

    from benchmarks import mla_up_front
    from mla_serve.evaluation.scores import evaluate
    from mla_serve.fusion.formula import Fusion
    from mla_serve.tasks import Classes
    from mla_serve.train.data.batches import TrainingBatch
    from mla_serve.train.loop import modality_opinions
    from mla_serve.train.recipe import Recipe
    from mla_serve.train.strategies import Options

    torch.set_num_threads(workload.threads)
    mla_up_front.register()
    generator, device = torch.Generator().manual_seed(cell.repeat), torch.device("cpu")
    samples = _samples(workload, cell.modalities, generator)
    inputs = {name: column.spec for name, column in samples.columns.items()}
    name, options = VARIANTS[cell.variant]
    recipe = Recipe(
        Classes(tuple(map(str, range(CLASSES)))),
        inputs,
        dict.fromkeys(inputs, workload.encoder),
        WIDTH,
        name,
        Options(**options),
    )
    strategy = recipe.build(cell.repeat).to(memory_format=torch.channels_last)
    strategy.prepare(workload.steps + 1, len(samples))
    strategy.train()

    def train_step(rows: int) -> object:
        return strategy.step(TrainingBatch(samples, torch.arange(rows), generator, device, augment={}))

    def validate() -> object:
        logits, present = modality_opinions(strategy, samples, device)
        return evaluate(logits, present, samples.targets.numpy(), Fusion.paper(tuple(inputs)), ["paper"])

    return train_step, validate


def _samples(workload: Workload, modalities: int, generator: Any) -> Any:
    """Draw one batch of random rows that have every modality; what they hold does not matter here."""
    import torch

    from mla_serve.inputs import ImageInput, VectorInput
    from mla_serve.train.data.samples import Column, Samples

    spec = (
        VectorInput(*workload.shape) if len(workload.shape) == 1 else ImageInput(workload.shape[2], workload.shape[1])
    )
    one_each = torch.ones(workload.batch, dtype=torch.long)
    drawn = [torch.randint(0, 256, (workload.batch, *workload.shape), generator=generator) for _ in range(modalities)]
    columns = {
        f"m{number}": Column(
            spec, windows.to(torch.uint8 if spec.kind == "image" else torch.float32),
            torch.arange(workload.batch), one_each, [None] * workload.batch,
        )
        for number, windows in enumerate(drawn)
    }  # fmt: skip
    return Samples(torch.arange(workload.batch) % CLASSES, columns)


def _timed(task: Callable[[], object]) -> tuple[float, float]:
    """Run a task; returns the seconds on the clock, and those that the process's threads have worked."""
    wall, processor = time.perf_counter(), time.process_time()
    task()
    return time.perf_counter() - wall, time.process_time() - processor


CLEAR_REFS = Path("/proc/self/clear_refs")


class PeakMemory:
    """The process's highest resident memory from here on, above what is resident now. Linux."""

    def __init__(self) -> None:
        """Free what can be freed and start from there."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        CLEAR_REFS.write_text("5")  # sets the high-water mark to what is resident
        self.baseline_mb = status_mb("self", "VmRSS")

    def peak_mb(self) -> float:
        """Return the MB (2^20 bytes) by which memory has risen at most."""
        return status_mb("self", "VmHWM") - self.baseline_mb


def finished(work: Path) -> list[dict[str, Any]]:
    """Return the results of all finished cells, also of workloads that were not asked for this time."""
    paths = (work / workload for workload in WORKLOADS)
    return [json.loads(path.read_text()) for folder in paths for path in sorted(folder.glob("*.json"))]


def run(config: ScalingConfig) -> None:
    """Measure and write the report."""
    config.check()
    todo = cells(config)
    if config.again:
        for cell in todo:
            cell.path(config.work).unlink(missing_ok=True)
    for cell in rich.progress.track(todo, "cells", console=console):
        run_cell(cell, config.work)
    write_report(finished(config.work), config.out)
    console.print(f"{config.out}/scaling.md, .json and .svg are written")


if __name__ == "__main__":
    if "--cell" in sys.argv:
        measure_cell(Cell(**json.loads(sys.argv[2])), Path(sys.argv[3]))
    else:
        main(run, ScalingConfig, needs="train")
