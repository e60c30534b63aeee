"""`make bench-hgm`: how much each projector of the shared head (--hgm) keeps of a step, what it protects, and accuracy.

Two questions. Kept share: mla is trained for one epoch of 20, 200 and 2,000 batches. The rows are the same, repeated as
often as needed, so the number of batches alone differs. How much is kept of the head's steps should not depend on it.
Accuracy: mla is trained with several seeds, and scored on validation rows; the test split is not asked.

Each cell is a process of one thread and a file in --work, so an interrupted call goes on where it was. Without --data it
uses the generated data set. Writes hgm.json and hgm.md.

    python -m benchmarks.accuracy.hgm --data mfeat=DIR tri-digits=DIR
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared import machine, run_in_process, write_results, write_whole
from mla_serve.console import console, main

GENERATED = "keypad"
LAST = 0.25  # of the steps count for what is kept and disturbed at the end


@dataclasses.dataclass(frozen=True)
class HgmConfig:
    """Compare the projectors of the shared head; resumable."""

    data: tuple[str, ...] = ()
    """Data sets: NAME=FOLDER. Default: the generated one."""
    hgm: tuple[str, ...] = ("subspace", "epoch", "off")
    """Values of --hgm."""
    batches: tuple[int, ...] = (20, 200, 2000)
    """Batches per epoch for the kept share, of the first data set."""
    seeds: int = 3
    """Trainings for the accuracy."""
    epochs: int = 15
    """Passes over the training rows in each."""
    lr: float = 3e-3
    """Highest learning rate of AdamW."""
    work: Path = Path("runs/bench")
    """Folder of the finished cells."""
    out: Path = Path("benchmarks/accuracy")
    """Folder that hgm.json and .md are written to."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run: of `epochs` epochs, or of one epoch with `batches` batches where that is not 0."""

    dataset: str
    folder: str
    hgm: str
    seed: int
    epochs: int
    batches: int
    lr: float

    def path(self, work: Path) -> Path:
        """Name the file of its results."""
        length = f"{self.batches}-batches" if self.batches else f"{self.epochs}-epochs"
        return work / "hgm" / self.dataset / f"{self.hgm}-{length}-{self.lr:g}-{self.seed}.json"


def cells_of(config: HgmConfig) -> list[Cell]:
    """List the trainings: those for the kept share, then those for the accuracy, the values of --hgm in turn."""
    datasets = dict(item.partition("=")[::2] for item in config.data) or {GENERATED: ""}
    first = next(iter(datasets.items()))
    kept = [Cell(*first, hgm, 0, 1, batches, config.lr) for batches in config.batches for hgm in config.hgm]
    accuracy = [
        Cell(*dataset, hgm, seed, config.epochs, 0, config.lr)
        for dataset in datasets.items()
        for seed in range(config.seeds)
        for hgm in config.hgm
    ]
    return [cell for cell in kept if cell.hgm != "off"] + accuracy


def train_cell(cell: Cell, work: Path) -> None:
    """Train, and write what was kept, disturbed and scored."""
    import torch

    from mla_serve.train.config import TrainConfig
    from mla_serve.train.loop import Trainer
    from mla_serve.train.plan import make_plan
    from mla_serve.train.run_folder import RunFolder

    torch.set_num_threads(1)
    plan = make_plan(
        TrainConfig(
            data=Path(cell.folder) if cell.folder else None, hgm=cell.hgm, seed=cell.seed, epochs=cell.epochs, lr=cell.lr,
            augment="light", runs=work / "runs",
        )
    )  # fmt: skip
    strategy = plan.build(cell.seed)
    samples = {split: plan.samples(split) for split in ("train", "val")}
    if cell.batches:
        samples["train"] = repeated(samples["train"], cell.batches * plan.choices.settings.rows_per_step)
    folder = RunFolder(work / "runs" / "hgm" / cell.dataset / cell.path(work).stem)
    folder.path.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(strategy, samples, folder, choices=plan.choices, device=torch.device("cpu"))
    trainer.measure()
    steps = watch(strategy)
    records: list[dict[str, Any]] = []
    began = time.process_time()
    trainer.run(records.append)
    last = steps[-max(1, int(LAST * len(steps))) :]
    write_whole(
        cell.path(work),
        json.dumps(
            dataclasses.asdict(cell)
            | {
                "folder": Path(cell.folder).name,  # of the machine that measured, only the name is kept
                "seconds": time.process_time() - began,
                "kept": float(np.mean([kept for kept, _ in steps])),
                "kept_last": float(np.mean([kept for kept, _ in last])),
                "disturbed": float(np.mean([disturbed for _, disturbed in last])),
                "best": min(records, key=lambda record: record["nll"]),
            }
        ),
    )


def repeated(samples: Any, rows: int) -> Any:
    """Repeat the rows of samples in their order until there are `rows` of them."""
    import torch

    at = torch.arange(rows) % len(samples)
    columns = {
        name: dataclasses.replace(
            column,
            start=column.start[at],
            count=column.count[at],
            payloads=[column.payloads[row] for row in at.tolist()],
        )
        for name, column in samples.columns.items()
    }
    return dataclasses.replace(samples, targets=samples.targets[at], columns=columns)


def watch(strategy: Any) -> list[tuple[float, float]]:
    """Return a list to which every turn appends the kept share of its step, and how much it disturbs the other modalities."""
    steps: list[tuple[float, float]] = []
    features: dict[str, Any] = {}
    turn, encode = strategy._turn, strategy.encode

    def encoded(name: str, part: Any) -> Any:
        h = encode(name, part)
        features[name] = h.detach()
        return h

    def watched(name: str, part: Any) -> dict[str, float]:
        weight = strategy.heads[strategy.head_of[name]].weight
        before = weight.detach().clone()
        logged: dict[str, float] = turn(name, part)
        step = weight.detach() - before
        shares = [
            float((step @ h.T).norm() / (step.norm() * h.norm()).clamp_min(1e-30))
            for other, h in features.items()
            if other != name
        ]
        if shares:
            steps.append((logged.get(f"kept/{name}", 1.0), float(np.mean(shares))))
        return logged

    strategy._turn, strategy.encode = watched, encoded
    return steps


def page(results: Sequence[dict[str, Any]]) -> str:
    """Write the tables."""
    kept = [one for one in results if one["batches"]]
    accuracy = [one for one in results if not one["batches"]]
    parts = ["# Projectors of the shared head\n", f"Made by `make bench-hgm` on {machine()}.\n"]
    parts += _kept_table(kept) if kept else []
    parts += ["## Accuracy on validation rows\n", ABOUT_ACCURACY]
    for dataset in dict.fromkeys(one["dataset"] for one in accuracy):
        parts += _accuracy_table([one for one in accuracy if one["dataset"] == dataset])
    return "\n".join(parts)


ABOUT_ACCURACY = """Best epoch by NLL, fused by mla's own rule; mean and standard deviation over the seeds, in per cent. Alone: mean over the
modalities. NLL: mean over all conditions, missing modalities among them. Disturbed: how much a step of the head dW changes the
logits of the other modalities, ||dW H^T|| / (||dW|| ||H||) for their features H, mean over the last quarter of the steps.
"""


def _kept_table(kept: Sequence[dict[str, Any]]) -> list[str]:
    lengths = sorted({one["batches"] for one in kept})
    lines = [
        "## What is kept of the head's steps\n",
        f"mla on {kept[0]['dataset']}, one epoch of as many batches. Share of a step that is kept: mean over the epoch, and over its last",
        "quarter.\n",
        "| --hgm | " + " | ".join(f"{length:,} batches" for length in lengths) + " |",
        "|---" * (len(lengths) + 1) + "|",
    ]
    for mode in dict.fromkeys(one["hgm"] for one in kept):
        found = {one["batches"]: one for one in kept if one["hgm"] == mode}
        cells = [f"{found[length]['kept']:.2f}, {found[length]['kept_last']:.2f}" for length in lengths]
        lines.append(f"| {mode} | {' | '.join(cells)} |")
    return [*lines, ""]


def _accuracy_table(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Write the table of one data set."""
    seeds = len({one["seed"] for one in runs})
    lines = [
        f"### {runs[0]['dataset']}, {runs[0]['epochs']} epochs, {seeds} seed{'s' if seeds > 1 else ''}\n",
        "| --hgm | all | alone | NLL | kept | disturbed | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for mode in dict.fromkeys(one["hgm"] for one in runs):
        own = [one for one in runs if one["hgm"] == mode]
        val = [one["best"]["val"] for one in own]
        together = 100 * np.array([one["full"] for one in val])
        singles = [[score for name, score in one.items() if name != "full" and "+" not in name] for one in val]
        alone, nll = 100 * np.mean(singles, axis=1), np.array([one["best"]["nll"] for one in own])
        means = [float(np.mean([one[key] for one in own])) for key in ("kept", "disturbed", "seconds")]
        lines.append(
            f"| {mode} | {together.mean():.1f} +- {together.std():.1f} | {alone.mean():.1f} +- {alone.std():.1f} | "
            f"{nll.mean():.4f} +- {nll.std():.4f} | {means[0]:.2f} | {means[1]:.3f} | {means[2]:.0f} |"
        )
    return [*lines, ""]


def run(config: HgmConfig) -> None:
    """Train what is not there yet, and write the page."""
    cells = cells_of(config)
    for number, cell in enumerate(cells, 1):
        console.print(f"{number}/{len(cells)}: {cell.path(config.work)}")
        run_in_process("benchmarks.accuracy.hgm", cell, config.work)
    results = [json.loads(cell.path(config.work).read_text()) for cell in cells]
    write_results(config.out, "hgm", results, page(results))
    console.print(f"{config.out}/hgm.md and .json are written")


if __name__ == "__main__":
    if "--cell" in sys.argv:
        train_cell(Cell(**json.loads(sys.argv[2])), Path(sys.argv[3]))
    else:
        main(run, HgmConfig, needs="train")
