"""`make bench-distributed`: several processes of one thread against one process of as many threads, on one machine.

The first steps of the default recipe on the same batches, group normalisation, no augmentation, fp32. The time on the
clock of a step is compared, in runs that alternate, and the losses: those of several processes should be no further from
those of one than another number of threads, which sums in another order too. Takes about five minutes; prints the
table and writes distributed.json and .md.

    python -m benchmarks.training.distributed --data DIR
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from benchmarks.shared import write_results
from mla_serve.console import console, main
from mla_serve.train.config import TrainConfig
from mla_serve.train.data.batches import TrainingBatch, training_batches
from mla_serve.train.data.samples import Samples
from mla_serve.train.distributed import collectives
from mla_serve.train.plan import count_steps, make_plan
from mla_serve.train.strategies import Strategy

CPU = torch.device("cpu")
WARM_UP = 3  # steps


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """Time training steps of one process and of several."""

    data: Path
    """Folder of a table, such as tri-digits."""
    processes: int = 2
    """How many."""
    steps: int = 20
    """Steps of a run."""
    repeats: int = 5
    """Runs of each kind."""
    batch_size: int = 64
    """Rows per batch, of all processes together."""
    encoders: tuple[str, ...] = ()
    """Encoders by modality, such as image=resnet18."""
    out: Path = Path("benchmarks/training")
    """Folder that distributed.json and .md are written to."""
    worker: Path | None = None
    """Used by the command itself: be one of the processes, and write to this file."""
    threads: int = 1
    """Used by the command itself."""


def train_steps(config: DistributedConfig, result: Path) -> None:
    """Take steps; rank 0 writes the losses and seconds of each."""
    torch.set_num_threads(config.threads)
    training = TrainConfig(
        config.data, augment="none", norm="group", precision="fp32", device="cpu", encoders=config.encoders
    )
    with collectives.process_group(CPU):
        planned = collectives.from_main(lambda: make_plan(training))
        samples = planned.samples("train")
        strategy = planned.build(0)
        for name, encoder in strategy.encoders.items():
            encoder.measure(samples.columns[name].windows[:])
        strategy.to(memory_format=torch.channels_last)
        collectives.convert_layers(strategy, CPU, batch_normalised=[])
        strategy.prepare(count_steps(planned), len(samples))
        strategy.train()
        torch.manual_seed(0)
        records = [
            timed_step(strategy, batch) for batch in itertools.islice(endless_batches(samples, config), config.steps)
        ]
    if collectives.is_main():
        result.write_text(json.dumps(records))


def endless_batches(samples: Samples, config: DistributedConfig) -> itertools.chain[TrainingBatch]:
    """Hand out batches for ever."""
    epochs = (torch.Generator().manual_seed(epoch) for epoch in itertools.count())
    return itertools.chain.from_iterable(training_batches(samples, config.batch_size, g, CPU, {}) for g in epochs)


def timed_step(strategy: Strategy, batch: TrainingBatch) -> dict[str, float]:
    """Take a step; returns its losses and seconds."""
    began = time.perf_counter()
    logged = strategy.step(batch)
    return {key: value for key, value in logged.items() if key.startswith("loss/")} | {
        "seconds": time.perf_counter() - began
    }


def launch(config: DistributedConfig, processes: int, threads: int) -> list[dict[str, float]]:
    """Run `train_steps` in processes of so many threads."""
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        flags = ["--data", config.data, "--worker", result, "--threads", threads]
        flags += ["--steps", config.steps, "--batch-size", config.batch_size]
        flags += ["--encoders", *config.encoders] if config.encoders else []
        command = [sys.executable, "-m", *(torchrun if processes > 1 else []), "benchmarks.training.distributed"]
        subprocess.run([*command, *map(str, flags)], check=True)
        records: list[dict[str, float]] = json.loads(result.read_text())
    return records


def measure(config: DistributedConfig) -> dict[str, Any]:
    """Alternate the kinds of runs; returns the seconds of a step, run by run, and how far losses are apart."""
    kinds = {"1 process, 1 thread": (1, 1), f"1 process, {config.processes} threads": (1, config.processes)}
    kinds[f"{config.processes} processes, 1 thread each"] = (config.processes, 1)
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    losses: dict[str, list[dict[str, float]]] = {}
    for _ in track(range(config.repeats), "repeats", console=console):
        for kind, (processes, threads) in kinds.items():
            losses[kind] = launch(config, processes, threads)
            seconds[kind].append(float(np.median([record.pop("seconds") for record in losses[kind]][WARM_UP:])))
    first = next(iter(losses.values()))
    apart = {kind: largest_difference(first, other) for kind, other in losses.items()}
    return {"seconds": seconds, "apart": apart, "steps": config.steps, "batch_size": config.batch_size}


def largest_difference(first: list[dict[str, float]], second: list[dict[str, float]]) -> float:
    """Return the largest difference between two runs' losses."""
    return max(abs(a[key] - b[key]) for a, b in zip(first, second, strict=True) for key in a)


def markdown(results: dict[str, Any]) -> str:
    """Write the table."""
    seconds = {kind: np.array(values) for kind, values in results["seconds"].items()}
    base = list(seconds.values())[1]
    lines = []
    for kind, values in seconds.items():
        ratios = base / values
        spread = f"{ratios.min():.2f}-{ratios.max():.2f}"
        apart = f"{results['apart'][kind]:.1e}"
        lines.append(f"| {kind} | {1000 * np.median(values):.0f} | {np.median(ratios):.2f} ({spread}) | {apart} |")
    return "\n".join(
        [
            "# Training by several processes\n",
            f"Milliseconds on the clock of a step of {results['batch_size']} rows, the median of the runs; speed beside one process "
            f"with the same cores, run by run (lowest-highest); how far losses are from the first row's in {results['steps']} steps. "
            f"{os.cpu_count()} cores; torch {torch.__version__}. "
            '`make bench-distributed ARGS="--data DIR"`\n',
            "| | ms per step | speed | losses |",
            "|---|---|---|---|",
            *lines,
            "",
        ]
    )  # fmt: skip


def run(config: DistributedConfig) -> None:
    """Measure and write, or be one of the processes."""
    if config.worker:
        train_steps(config, config.worker)
        return
    results = measure(config)
    write_results(config.out, "distributed", results, markdown(results))
    console.print(markdown(results), markup=False)


if __name__ == "__main__":
    main(run, DistributedConfig, needs="train")
