"""What test_distributed.py runs under torchrun, and in one process to compare: losses of strategies, runs that are killed.

torchrun --nproc-per-node=2 tests/train/distributed/ranks.py losses OUT
torchrun --nproc-per-node=2 --max-restarts=3 tests/train/distributed/ranks.py run DATA FOLDER [RESTART:STEP ...]
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mla_serve.inputs import AudioInput, ImageInput, Input, VectorInput
from mla_serve.tasks import Classes
from mla_serve.train.config import TrainConfig
from mla_serve.train.data.batches import training_batches
from mla_serve.train.data.samples import Column, Samples
from mla_serve.train.distributed import collectives
from mla_serve.train.distributed.local_rows import draw_per_row
from mla_serve.train.plan import make_plan
from mla_serve.train.recipe import Recipe
from mla_serve.train.run import train_as_planned
from mla_serve.train.strategies import STRATEGIES, Options, mla

CPU = torch.device("cpu")
EPOCHS, ROWS, BATCH, CLASSES = 4, 50, 11, 3  # five batches, all but the last of an odd number of rows
INPUTS: dict[str, Input] = {
    "numbers": VectorInput(6),
    "picture": ImageInput(8, 8, 1),
    "sound": AudioInput(1000, 160, 80),
}
INPUTS["rare"] = VectorInput(6)
SGD = {"optimizer": "sgd", "lr": 0.05}
CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in STRATEGIES} | {
    **{f"mla hgm={hgm}": ("mla", {"hgm": hgm}) for hgm in ("off", "epoch", "no-reset", "3")},
    "mla turns=shuffled": ("mla", {"turns": "shuffled"}),
    "mla turns=weak": ("mla", {"turns": "weak"}),
    "mla sgd": ("mla", SGD),
    "mmpareto": ("mmpareto", SGD),
}


def make_samples() -> Samples:
    """Rows with numbers, a picture and a recording of three windows, more than a third missing, and something rare."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(ROWS) % CLASSES
    columns = {}
    for name, spec in INPUTS.items():
        count = (torch.rand(ROWS, generator=generator) < (0.1 if name == "rare" else 0.6)).long()
        count[0] = 1
        if name == "sound":
            count *= 3
        windows = make_windows(spec, labels.repeat_interleave(count), generator)
        columns[name] = Column(spec, windows, count.cumsum(0) - count, count, [None] * ROWS)
    return Samples(labels, columns)


def make_windows(spec: Input, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Make windows that tell the class, through noise: (N, *shape)."""
    noise = torch.randn(len(labels), *spec.shape, generator=generator)
    if isinstance(spec, ImageInput):
        return (noise * 30 + 90 + 30 * labels.view(-1, 1, 1, 1)).clamp(0, 255).to(torch.uint8)
    if isinstance(spec, AudioInput):
        return (torch.arange(spec.window) / spec.rate * 600 * (1 + labels[:, None])).sin() + 0.3 * noise
    return 0.5 * noise + 4 * torch.eye(*spec.shape)[labels]


def train_steps(case: str, augment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Take 20 steps; returns what each logged, the weights' sums, the projector's, and how many rows were rare."""
    strategy_name, options = CASES[case]
    mla.STRONG = 0.9 if case == "mla turns=weak" else 0.5  # so few steps make nobody really strong
    samples = make_samples()
    inputs = {name: column.spec for name, column in samples.columns.items()}
    classes = tuple(map(str, range(CLASSES)))
    recipe = Recipe(
        Classes(classes), inputs, dict.fromkeys(inputs, "small"), 16, strategy_name, Options(**options), norm="group"
    )
    strategy = recipe.build(0)
    for name, encoder in strategy.encoders.items():
        encoder.measure(samples.columns[name].windows)
    strategy.to(torch.get_default_dtype())
    collectives.convert_layers(strategy, CPU, batch_normalised=[])
    strategy.prepare(5 * EPOCHS, ROWS)
    strategy.train()
    records: list[dict[str, float]] = []
    rare: list[int] = []
    torch.manual_seed(0)
    for epoch in range(EPOCHS):
        strategy.start_epoch()
        generator = torch.Generator().manual_seed(epoch)
        for batch in training_batches(samples, BATCH, generator, CPU, augment or {}):
            records.append(strategy.step(batch))
            rare.append(int(batch.present_everywhere["rare"].sum()))
    projector = getattr(strategy, "projector", None)
    return {
        "records": records,
        "rare": rare,
        "weights": [float(value.double().abs().sum()) for value in strategy.state_dict().values()],
        "projector": float(projector.turn("picture").sum()) if projector else None,
    }


def reductions(out: Path) -> dict[str, Any]:
    """Apply every function of the module to what differs by rank; rank 0 has no value, rank 1 no row."""
    rank = collectives.rank()
    own, values = torch.full((2, 3), float(rank + 1)), torch.arange(float(rank))
    collectives.all_reduce([own])
    there = torch.arange(7) % 2 == 0
    local = collectives.local_rows(there)
    learned = (10.0 * torch.arange(4)[local.positions]).requires_grad_()
    everyones = collectives.gather_rows(learned, local)
    everyones.sum().backward()
    torch.manual_seed(rank)
    collectives.sync_random_state()
    state = {"weight": torch.full((2,), float(rank))}
    collectives.broadcast(state)
    with local.encoding():
        drawn = draw_per_row(torch.rand, len(local.encoded))
    return {
        "sum": own.tolist(),
        "values": collectives.sum_values({"a": 1.0, "b": float(rank)}),
        "mean": collectives.row_mean(values).item(),
        "rows": collectives.local_part(torch.arange(7)).tolist(),
        "at": local.positions.tolist(),
        "lined up": everyones.tolist(),
        "gradient": learned.grad.tolist() if learned.grad is not None else None,
        "drawn": dict(zip(local.encoded.tolist(), drawn.tolist(), strict=True)),
        "weight": state["weight"].tolist(),
        "made": collectives.from_main(lambda: rank),
        "found": collectives.main_first(lambda: find_or_leave(out / "left")),
    }


def find_or_leave(path: Path) -> bool:
    """Say whether a file is there; if not, leave one after a while."""
    found = path.exists()
    time.sleep(0.2)
    path.touch()
    return found


def losses(out: Path) -> None:
    """Write what every case logged, a file for each process.

    In float64: AdamW makes whole steps of what summing in another order rounds off a gradient that is zero.
    """
    result = {
        "reductions": reductions(out),
        "augmented": train_steps("mla", augment={"picture": "light", "sound": "light"}),
    }
    torch.set_default_dtype(torch.float64)
    result |= {case: train_steps(case) for case in CASES}
    (out / f"{collectives.rank()}.json").write_text(json.dumps(result))


def run(data: Path, runs: Path, kills: list[str], launch: str | None) -> None:
    """Train into runs/small; rank 1 is killed at given steps after given restarts, counted from 0."""
    attempt, steps = os.environ["TORCHELASTIC_RESTART_COUNT"], 0

    def die_where_told() -> None:
        if collectives.rank() == 1 and f"{attempt}:{steps}" in kills:
            os.kill(os.getpid(), 9)

    def step() -> None:
        nonlocal steps
        steps += 1
        die_where_told()

    config = TrainConfig(data=data, name="small", runs=runs, epochs=4, batch_size=16, width=16, device="cpu")
    planned = collectives.from_main(lambda: make_plan(config))
    die_where_told()
    train_as_planned(config, planned, lambda record: print(f"epoch {record['epoch']}", flush=True), step, launch)


def alone() -> None:
    """Fail on rank 1 while rank 0 waits for it."""
    if collectives.rank() == 1:
        raise ValueError("the one at fault")
    collectives.sum_values({"a": 1.0})


if __name__ == "__main__":
    torch.set_num_threads(1)
    with collectives.process_group(CPU) as launch:
        if sys.argv[1] == "losses":
            losses(Path(sys.argv[2]))
        elif sys.argv[1] == "alone":
            alone()
        else:
            run(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:], launch)
