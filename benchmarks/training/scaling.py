"""`make bench-scaling`: what one training step costs with more and more modalities, in time and in memory.

Vector modalities, 2 to 32 of them, and ResNet-18 encoders on images of 224x224, 1 to 4. Each cell (one measurement) is a
fresh process and a file in --work, so an interrupted comparison goes on where it was; --again measures anew. Repeats are
interleaved: every cell is measured once before any is measured again.

    python -m benchmarks.training.scaling
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rich.progress

from mla_serve.console import console, main
from mla_serve.errors import ConfigError

# Every cell's process: arrays of 64 KiB and more go back to the system when they are freed, so that resident memory is
# what is alive; and idle threads sleep instead of spinning, so that processor time is work.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_WAIT_POLICY": "PASSIVE"}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {  # name: strategy and its options
    "mla": ("mla", {}),
    "mla_hgm_others": ("mla", {"hgm": "others"}),
    "mla_up_front": ("mla_up_front", {}),
    "joint_concat": ("joint_concat", {}),
}
CLASSES = 10
WIDTH = 128
MB = 2**20


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of modality and how it is measured."""

    shape: tuple[int, ...]
    encoder: str
    modalities: tuple[int, ...]
    variants: tuple[str, ...]
    batch: int
    steps: int
    threads: int


KINDS = {
    "vector": Kind(
        (64,), "small", (2, 4, 8, 16, 24, 32), ("mla", "mla_hgm_others", "joint_concat"), batch=256, steps=20, threads=1
    ),
    "resnet18": Kind(
        (3, 224, 224), "resnet18", (1, 2, 3, 4), ("mla", "mla_up_front", "joint_concat"), batch=32, steps=1, threads=2
    ),
}


@dataclasses.dataclass(frozen=True)
class ScalingConfig:
    """Measure how training steps scale with the number of modalities; resumable."""

    kinds: tuple[str, ...] = tuple(KINDS)
    """What to measure: vector, resnet18."""
    repeats: int = 3
    """Measurements of each cell."""
    again: bool = False
    """Measure the chosen kinds anew, also where there are results."""
    work: Path = Path("runs/scaling")
    """Folder of the finished cells."""
    out: Path = Path("benchmarks/training")
    """Folder that scaling.json, .md and .svg are written to."""

    def check(self) -> None:
        """Refuse what cannot be measured.

        Raises: ConfigError.
        """
        unknown = sorted(set(self.kinds) - set(KINDS))
        if unknown or not self.kinds:
            raise ConfigError(f"--kinds {' '.join(unknown)}: expected some of {', '.join(KINDS)}")
        if self.repeats < 1:
            raise ConfigError(f"--repeats {self.repeats}: expected a whole number of at least 1")
        if not CLEAR_REFS.exists():
            raise ConfigError("peak memory is read from /proc, which only Linux has; run this on Linux")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One measurement."""

    kind: str
    variant: str
    modalities: int
    repeat: int

    def path(self, work: Path) -> Path:
        """Name the file of its results."""
        return work / self.kind / f"{self.variant}-{self.modalities}-{self.repeat}.json"


def cells(config: ScalingConfig) -> list[Cell]:
    """List every cell, a whole round of them before the next."""
    return [
        Cell(kind, variant, modalities, repeat)
        for repeat in range(config.repeats)
        for kind in config.kinds
        for modalities in KINDS[kind].modalities
        for variant in KINDS[kind].variants
    ]


def run_cell(cell: Cell, work: Path) -> None:
    """Measure one cell in a fresh process, unless its results are there."""
    if cell.path(work).exists():
        return
    told = json.dumps(dataclasses.asdict(cell))
    threads = {"OMP_NUM_THREADS": str(KINDS[cell.kind].threads)}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training.scaling", "--cell", told, str(work)],
        env={**os.environ, **ENVIRONMENT, **threads}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise ConfigError(f"{cell.path(work).name}: {done.stderr.strip()[-2000:] or f'ended with {done.returncode}'}")


def measure_cell(cell: Cell, work: Path) -> None:
    """Measure one cell in this process, and write its results whole."""
    kind = KINDS[cell.kind]
    train_step, evaluate = _task(cell, kind)
    train_step(2)  # allocates the optimisers' states and loads code, at the memory of two rows
    memory = PeakMemory()
    seconds = [_timed(lambda: train_step(kind.batch)) for _ in range(kind.steps)]
    peak = memory.peak_mb()
    wall, processor = np.median(seconds, axis=0)
    results = {"batch": kind.batch, "threads": kind.threads, "step_wall_seconds": wall, "step_cpu_seconds": processor}
    results |= {"baseline_mb": memory.baseline_mb, "peak_mb": peak, "machine": platform.machine()}
    if cell.kind == "vector":
        results["validation_cpu_seconds"] = _timed(evaluate)[1]
    _write(cell.path(work), dataclasses.asdict(cell) | results)


def _task(cell: Cell, kind: Kind) -> tuple[Callable[[int], object], Callable[[], object]]:
    """Return a training step on so many rows, as the training loop takes it, and a validation after an epoch."""
    import torch

    from benchmarks import mla_up_front
    from mla_serve.fusion import Fusion
    from mla_serve.scores import evaluate
    from mla_serve.train.data import TrainingBatch
    from mla_serve.train.loop import opinions
    from mla_serve.train.run_folder import Recipe
    from mla_serve.train.strategies import Options

    torch.set_num_threads(kind.threads)
    mla_up_front.register()
    generator, device = torch.Generator().manual_seed(cell.repeat), torch.device("cpu")
    samples = _samples(kind, cell.modalities, generator)
    inputs = {name: column.spec for name, column in samples.columns.items()}
    name, options = VARIANTS[cell.variant]
    recipe = Recipe(
        tuple(map(str, range(CLASSES))), inputs, dict.fromkeys(inputs, kind.encoder), WIDTH, name, Options(**options)
    )
    strategy = recipe.build(cell.repeat).to(memory_format=torch.channels_last)
    strategy.prepare(kind.steps + 1, len(samples))
    strategy.train()

    def train_step(rows: int) -> object:
        return strategy.step(TrainingBatch(samples, torch.arange(rows), generator, device, augment=False))

    def validate() -> object:
        logits, present = opinions(strategy, samples, device)
        return evaluate(logits, present, samples.labels.numpy(), Fusion.paper(tuple(inputs)), ["paper"])

    return train_step, validate


def _samples(kind: Kind, modalities: int, generator: Any) -> Any:
    """Draw one batch of random rows that have every modality; what they hold does not matter here."""
    import torch

    from mla_serve.inputs import ImageInput, VectorInput
    from mla_serve.train.data.samples import Column, Samples

    spec = VectorInput(*kind.shape) if len(kind.shape) == 1 else ImageInput(kind.shape[2], kind.shape[1])
    one_each = torch.ones(kind.batch, dtype=torch.long)
    drawn = [torch.randint(0, 256, (kind.batch, *kind.shape), generator=generator) for _ in range(modalities)]
    columns = {
        f"m{number}": Column(
            spec, windows.to(torch.uint8 if spec.kind == "image" else torch.float32),
            torch.arange(kind.batch), one_each, [None] * kind.batch,
        )
        for number, windows in enumerate(drawn)
    }  # fmt: skip
    return Samples(torch.arange(kind.batch) % CLASSES, columns)


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
        self.baseline_mb = _status_mb("VmRSS")

    def peak_mb(self) -> float:
        """Return the MB (2^20 bytes) by which memory has risen at most."""
        return _status_mb("VmHWM") - self.baseline_mb


def _status_mb(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / MB for line in lines if line.startswith(f"{key}:"))


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def finished(work: Path) -> list[dict[str, Any]]:
    """Return the results of all finished cells, also of kinds that were not asked for this time."""
    paths = (work / kind for kind in KINDS)
    return [json.loads(path.read_text()) for folder in paths for path in sorted(folder.glob("*.json"))]


def run(config: ScalingConfig) -> None:
    """Measure and write the report."""
    from benchmarks.training.scaling_report import write_report

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
