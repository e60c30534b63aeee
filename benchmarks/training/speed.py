"""`make bench-train`: samples per second of our training loop, and of the same method written plainly in torch.

The plain loop is what one would write first: the same modules, augmentation and batches, one AdamW per part, fp32, torch's
own memory format, no protection of the head, nothing logged. Ours runs in fp32 and in bf16, channels last, and keeps freed
memory: part of a ratio above 1 is those two lines, which a plain loop could have too. Each loop has a process of its own;
blocks of steps are interleaved; the figure is the median over the blocks, of processor time, which other work on the
machine disturbs less than time on the clock. Takes about two minutes; writes speed.json and .md.

    python -m benchmarks.training.speed --data DIR
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from benchmarks.shared import write_results
from mla_serve.console import console, main
from mla_serve.train.allocator import keep_freed_memory
from mla_serve.train.choices import Choices
from mla_serve.train.config import TrainConfig
from mla_serve.train.data.batches import TrainingBatch, training_batches
from mla_serve.train.data.samples import Samples
from mla_serve.train.device import pick_precision
from mla_serve.train.plan import make_plan
from mla_serve.train.recipe import Recipe

Step = Callable[[TrainingBatch], object]
CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True)
class SpeedConfig:
    """Time training steps."""

    data: Path
    """Folder of a table, such as tri-digits."""
    repeats: int = 7
    """Interleaved blocks of steps for each loop."""
    steps: int = 4
    """Steps in a block."""
    out: Path = Path("benchmarks/training")
    """Folder that speed.json and .md are written to."""


def plain_step(recipe: Recipe) -> Step:
    """Return a step of alternating training as a first version would have it."""
    strategy = recipe.build().train()
    encoders, head = strategy.encoders, next(iter(strategy.heads.values()))
    parts = {name: torch.optim.AdamW([*encoder.parameters(), *head.parameters()]) for name, encoder in encoders.items()}
    loss = torch.nn.CrossEntropyLoss(label_smoothing=recipe.options.label_smoothing)

    def step(batch: TrainingBatch) -> None:
        for name, encoder in encoders.items():
            parts[name].zero_grad()
            loss(head(encoder(batch.inputs(name))), batch.targets[batch.present[name]]).backward()
            parts[name].step()

    return step


def own_step(recipe: Recipe, precision: str, steps: int) -> Step:
    """Return our step in a precision, in a process that keeps freed memory from here on."""
    keep_freed_memory()
    options = dataclasses.replace(recipe.options, precision=precision)
    strategy = dataclasses.replace(recipe, options=options).build().to(memory_format=torch.channels_last).train()
    strategy.prepare(steps, 1)
    return strategy.step


def endless_batches(samples: Samples, choices: Choices) -> Iterator[TrainingBatch]:
    """Hand out augmented batches for ever."""
    generator = torch.Generator().manual_seed(0)
    for _ in itertools.count():
        yield from training_batches(samples, choices.settings.rows_per_step, generator, CPU, choices.augment)


LOOPS: dict[str, Callable[[Recipe, int], Step]] = {
    "plain torch, fp32": lambda recipe, steps: plain_step(recipe),  # noqa: ARG005
    "mla_serve, fp32": lambda recipe, steps: own_step(recipe, "fp32", steps),
    "mla_serve, bf16": lambda recipe, steps: own_step(recipe, "bf16", steps),
}


def measure(config: SpeedConfig) -> dict[str, list[float]]:
    """Return each loop's samples per second of processor time, block by block."""
    context = multiprocessing.get_context("spawn")
    pipes = {name: context.Pipe() for name in LOOPS}
    processes = [
        context.Process(target=time_loop, args=(name, config, pipe[1]), daemon=True) for name, pipe in pipes.items()
    ]
    for process in processes:
        process.start()
    for _, theirs in pipes.values():
        theirs.close()  # a process that dies ends its pipe
    rates: defaultdict[str, list[float]] = defaultdict(list)
    for repeat in track(range(config.repeats + 1), "blocks", console=console):
        for name, (pipe, _) in pipes.items():
            pipe.send(config.steps)
            rate = pipe.recv()
            if repeat:  # the first is the warm-up
                rates[name].append(rate)
    return rates


def time_loop(name: str, config: SpeedConfig, pipe: Connection) -> None:
    """Take as many steps of a loop as are asked for, and answer with samples per second, for as long as one asks."""
    torch.set_num_threads(1)
    plan = make_plan(TrainConfig(data=config.data))
    samples = plan.samples("train")
    step = LOOPS[name](plan.recipe, (config.repeats + 1) * config.steps)
    batches = endless_batches(samples, plan.choices)
    with contextlib.suppress(EOFError):
        while True:
            block = itertools.islice(batches, pipe.recv())
            began, rows = time.process_time(), 0
            for batch in block:
                step(batch)
                rows += len(batch.targets)
            pipe.send(rows / (time.process_time() - began))


def markdown(rates: dict[str, list[float]]) -> str:
    """Write the table."""
    base = np.array(next(iter(rates.values())))
    lines = []
    for name, values in rates.items():
        ratios = np.array(values) / base
        spread = f"{ratios.min():.2f}-{ratios.max():.2f}"
        lines.append(f"| {name} | {np.median(values):.0f} | {np.median(ratios):.2f} ({spread}) |")
    has = torch.cpu.get_capabilities()
    bf16 = "with" if pick_precision("auto", CPU) == "bf16" else "without"
    return "\n".join(
        [
            "# Training speed\n",
            "Samples per second of processor time, one thread; the ratio to the first row in interleaved blocks (lowest-highest).",
            f"{has.get('cpu_name') or platform.processor()}, {os.cpu_count()} cores, {bf16} bf16; torch {torch.__version__}. "
            '`make bench-train ARGS="--data DIR"`\n',
            "| loop | samples/s | ratio |",
            "|---|---|---|",
            *lines,
            "",
        ]
    )  # fmt: skip


def run(config: SpeedConfig) -> None:
    """Measure and write."""
    rates = measure(config)
    write_results(config.out, "speed", rates, markdown(rates))
    console.print(markdown(rates), markup=False)


if __name__ == "__main__":
    main(run, SpeedConfig, needs="train")
