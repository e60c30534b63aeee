"""`make bench-strategies`: every training strategy on every data set, equal encoders, budget and search, several seeds.

For each data set and strategy, {SGD, AdamW} x a grid of learning rates is searched on validation with one seed of its own;
the best setting is then trained with every seed. Each cell (one training run) is a process of one thread and a file in
--work, so an interrupted comparison goes on where it was. Strategies take turns, seed by seed, so that what else the
machine does falls on all of them alike. The test split is asked once, by the final cells. What --out has results of is
not trained again: data sets and strategies can be added one after the other. The core six strategies on tri-digits and
mfeat take 1 h 42 min on two busy cores. Writes strategies.parquet, .md and .svg.

    python -m benchmarks.accuracy.strategies --data tri-digits=DIR mfeat=DIR --core
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import rich.progress

from benchmarks.accuracy.strategies_report import MASKS, REFERENCE, read_rows, write_report
from benchmarks.shared import run_in_process, status_mb, write_whole
from mla_serve.console import console, main
from mla_serve.errors import ConfigError
from mla_serve.fusion.formula import Array, Fusion
from mla_serve.table import Row
from mla_serve.tasks import Classes

CORE = ("mla", "ensemble", "joint_concat", "joint_dropout", "ogm_ge", "qmf")
REST = ("joint_sum", "joint_unimodal", "mmpareto", "dus", "mib")
VARIANTS: dict[str, dict[str, str]] = {  # ablations: mla at its own setting, but for these flags
    "mla_hgm_off": {"hgm": "off"},
    "mla_hgm_epoch": {"hgm": "epoch"},
    "mla_hgm_no_reset": {"hgm": "no-reset"},
    "mla_hgm_9_turns": {"hgm": "9"},
    "mla_separate": {"heads": "separate"},
    "mla_weak_turns": {"turns": "weak"},
    "mla_shuffled_turns": {"turns": "shuffled"},
    "mla_up_front": {"strategy": "mla_up_front"},
}
GRID = {"adamw": (1e-3, 3e-3), "sgd": (0.03, 0.1)}
WEIGHT_DECAY = {"adamw": 0.05, "sgd": 0.005}
"""Decoupled. A step shrinks weights by the rate times the decay, and SGD's rates are higher. Its decay is the usual 5e-4 of a
gradient with momentum .9, which adds ten such steps up."""
FEWEST_GROUPS = 10  # of test rows, to resample groups instead of rows
SEARCH_SEED = 1000
Job = tuple[str, str, str]  # data set, its folder, strategy
Setting = tuple[str, float]  # optimiser, learning rate
RULES = ("native", "calibrated")


@dataclasses.dataclass(frozen=True)
class BenchConfig:
    """Compare training strategies; resumable."""

    data: tuple[str, ...]
    """Data sets: NAME=FOLDER."""
    core: bool = False
    """Only the core six strategies."""
    ablations: bool = False
    """The variants of mla as well."""
    only: tuple[str, ...] = ()
    """Only these strategies; variants among them need results of mla."""
    again: tuple[str, ...] = ()
    """Strategies to search and train although their results are in --out."""
    seeds: int = 5
    """Training runs of each strategy at its best setting."""
    epochs: int = 15
    """Passes over the training rows, for every strategy alike."""
    search_epochs: int = 5
    """The same, while searching."""
    encoders: tuple[str, ...] = ()
    """As in mla_serve.train, for the data sets named in this call."""
    image_size: int | None = None
    """As in mla_serve.train, likewise."""
    jobs: int = os.cpu_count() or 1
    """Cells trained at a time."""
    work: Path = Path("runs/bench")
    """Folder of the finished cells."""
    out: Path = Path("benchmarks/accuracy")
    """Folder that strategies.parquet, .md and .svg are written to."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run."""

    dataset: str
    folder: str
    strategy: str
    optimizer: str
    lr: float
    seed: int
    epochs: int
    encoders: tuple[str, ...] = ()
    image_size: int | None = None

    def path(self, work: Path) -> Path:
        """Name the file of its results."""
        decay = WEIGHT_DECAY[self.optimizer]
        run = f"{self.strategy}-{self.optimizer}-{self.lr:g}-{decay:g}-{self.epochs}-{self.seed}"
        if options := (*self.encoders, *([str(self.image_size)] if self.image_size else [])):
            run += f"-{hashlib.sha256(' '.join(options).encode()).hexdigest()[:8]}"
        return work / self.dataset / f"{run}.json"


def strategies(config: BenchConfig) -> tuple[str, ...]:
    """List what is compared.

    Raises: ConfigError for a strategy that is unknown, or named again but not among those compared.
    """
    known = CORE + REST + tuple(VARIANTS)
    chosen = config.only or (CORE if config.core else CORE + REST) + (tuple(VARIANTS) if config.ablations else ())
    for flag, names, expected in (("only", config.only, known), ("again", config.again, chosen)):
        if unknown := [name for name in names if name not in expected]:
            raise ConfigError(f"--{flag} {' '.join(unknown)}: expected one or more of {', '.join(expected)}")
    return chosen


def jobs_of(config: BenchConfig) -> list[Job]:
    """List (data set, folder, strategy) of what has no results in --out with as many seeds and epochs.

    Raises: ConfigError for a strategy that cannot be compared.
    """
    seeds = defaultdict(set)
    for row in read_rows(config.out):
        if row["epochs"] == config.epochs:
            seeds[row["dataset"], row["strategy"]].add(row["seed"])
    datasets = dict(item.partition("=")[::2] for item in config.data)
    return [
        (dataset, folder, strategy)
        for dataset, folder in datasets.items()
        for strategy in strategies(config)
        if strategy in config.again or len(seeds[dataset, strategy]) < config.seeds
    ]


def search_cells(config: BenchConfig, dataset: str, folder: str, strategy: str) -> list[Cell]:
    """List the cells of one strategy's search."""
    shared = (SEARCH_SEED, config.search_epochs, config.encoders, config.image_size)
    return [
        Cell(dataset, folder, strategy, optimizer, lr, *shared) for optimizer, rates in GRID.items() for lr in rates
    ]


def settled(config: BenchConfig) -> dict[tuple[str, str], Setting]:
    """Return the settings that earlier searches have found: {(data set, strategy): (optimiser, learning rate)}."""
    rows = [row for row in read_rows(config.out) if row["strategy"] not in config.again]
    return {(row["dataset"], row["strategy"]): (row["optimizer"], row["lr"]) for row in rows}


def best(cells: Sequence[Cell], work: Path) -> Setting:
    """Return the setting of a finished search that validation prefers."""
    chosen = max(cells, key=lambda cell: read(cell, work)["validation"])
    return chosen.optimizer, chosen.lr


def read(cell: Cell, work: Path) -> dict[str, Any]:
    """Return a finished cell's results."""
    results: dict[str, Any] = json.loads(cell.path(work).read_text())
    return results


def run_cell(cell: Cell, work: Path) -> None:
    """Train one cell in a process of its own, unless its results are there."""
    run_in_process("benchmarks.accuracy.strategies", cell, work)


def train_cell(cell: Cell, work: Path) -> None:
    """Train, fit the fusion on validation, score both splits, and write the results whole."""
    import torch

    from benchmarks import mla_up_front
    from mla_serve.train.allocator import keep_freed_memory
    from mla_serve.train.config import TrainConfig
    from mla_serve.train.data.folds import parts_by_group
    from mla_serve.train.loop import Diverged, modality_opinions
    from mla_serve.train.plan import make_plan

    torch.set_num_threads(1)
    keep_freed_memory()
    mla_up_front.register()
    config = TrainConfig(
        data=Path(cell.folder), augment="light", balance="none", batch_size=64, optimizer=cell.optimizer, lr=cell.lr, weight_decay=WEIGHT_DECAY[cell.optimizer], seed=cell.seed, epochs=cell.epochs, runs=work / "runs",
        encoders=cell.encoders, image_size=cell.image_size,
        **VARIANTS.get(cell.strategy, {"strategy": cell.strategy}),  # type: ignore[arg-type]
    )  # fmt: skip
    plan = make_plan(config)
    trainer, samples = _trainer(plan, cell, work)
    before, began = (
        status_mb("self", "VmHWM"),
        time.process_time(),
    )  # one thread: what other work on the machine hardly changes
    trainer.measure()
    try:
        trainer.run(lambda _: None)
    except Diverged:
        if cell.seed != SEARCH_SEED:
            raise
        write_whole(
            cell.path(work), json.dumps(dataclasses.asdict(cell) | {"validation": -1.0})
        )  # never the best setting
        return
    cost = {"train_seconds": time.process_time() - began, "peak_mb": status_mb("self", "VmHWM") - before}
    strategy, names = trainer.strategy, tuple(plan.recipe.inputs)
    shares = plan.recipe.task.prior_of(samples["train"].targets.numpy())
    scored: dict[str, tuple[Array, Array]] = {
        split: modality_opinions(strategy, samples[split], trainer.device) for split in ("val", "test")
    }
    fitted = _fit(*scored["val"], samples["val"].targets.numpy(), names, plan.rows["val"], shares)
    fusion = dataclasses.replace(fitted, native=strategy.native, bias=strategy.native_bias())
    conditions = {
        "val": _conditions(*scored["val"], samples["val"].targets.numpy(), fusion, _masks(plan.rows["val"], names)),
        "test": _conditions(*scored["test"], samples["test"].targets.numpy(), fusion, {}, MASKS),
    }
    logits = trainer.folder.path / "test.npz"
    np.savez_compressed(logits, logits=scored["test"][0], present=scored["test"][1], labels=samples["test"].targets)
    (trainer.folder.path / "last.pt").unlink(missing_ok=True)
    named = [f"{name}={encoder}" for name, encoder in plan.recipe.encoders.items()] if cell.encoders else []
    results = dataclasses.asdict(cell) | cost | {
        "encoders": named, "precision": plan.recipe.options.precision, "validation": _validation(conditions["val"]),
        "groups": parts_by_group(plan.rows["test"], FEWEST_GROUPS)[0].tolist(),
        "conditions": conditions, "fusion": fusion.to_dict(), "logits": str(logits),
    }  # fmt: skip
    write_whole(cell.path(work), json.dumps(results))


def _trainer(plan: Any, cell: Cell, work: Path) -> tuple[Any, Mapping[str, Any]]:
    """Return a trainer that has not begun, and the decoded splits; frozen features are shared by all cells."""
    import torch

    from mla_serve.train.loop import Trainer
    from mla_serve.train.run_folder import RunFolder

    strategy, device = plan.build(cell.seed), torch.device("cpu")
    plan.load_backbones(strategy, work / "cache", device)
    encoders = dict(strategy.encoders.items())
    samples = {split: plan.samples(split, encoders) for split in plan.rows}
    folder = RunFolder(work / "runs" / cell.dataset / cell.path(work).stem)
    folder.path.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(strategy, samples, folder, choices=plan.choices, device=device)
    return trainer, samples


def _fit(
    logits: Array, present: Array, labels: Array, names: tuple[str, ...], rows: Sequence[Row], shares: Sequence[float]
) -> Fusion:
    """Fit the calibrated rule; where classes are unbalanced, in the form that cross-validation chooses, as training does."""
    from mla_serve.train.data.folds import make_folds
    from mla_serve.train.fit.cross_validate import choose_setting
    from mla_serve.train.fit.evidence import Evidence
    from mla_serve.train.fit.formula import fit

    evidence = Evidence.of(logits, present, labels)
    if not Classes().prior_matters(shares):
        return fit(evidence, names)
    folds = make_folds(rows, 0, Classes())
    setting, _ = choose_setting(evidence, names, folds.number, shares)
    return dataclasses.replace(setting.formula(evidence, names), prior=shares)


def _conditions(logits: Any, present: Any, labels: Any, fusion: Any, masks: Any, draws: int = 0) -> dict[str, Any]:
    from mla_serve.evaluation.scores import evaluate

    return evaluate(logits, present, labels, fusion, RULES, masks, draws)


def _masks(rows: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    from mla_serve.evaluation.splits import masks_of

    return masks_of(rows, names)


def _validation(conditions: Mapping[str, Any]) -> float:
    """Score a setting: accuracy averaged over full and missing rates, by the better of native and calibrated."""
    chosen = [rules for name, rules in conditions.items() if name == "full" or name.startswith("missing")]
    return max(float(np.mean([rules[rule]["accuracy"] for rules in chosen])) for rule in ("native", "calibrated"))


def compare(config: BenchConfig) -> list[Cell]:
    """Run every cell that is missing; returns the final ones, by data set and strategy."""
    jobs, settings, seeds = jobs_of(config), settled(config), range(config.seeds)
    variants = [job for job in jobs if job[2] in VARIANTS and tuned(job) not in settings]
    if variants and REFERENCE not in strategies(config):
        raise ConfigError(
            f"--only: variants have the setting of {REFERENCE}, which has no results; name {REFERENCE} too"
        )
    folders = {tuned(job): job[1] for job in jobs}
    searches = {
        (dataset, strategy): search_cells(config, dataset, folder, strategy)
        for (dataset, strategy), folder in folders.items()
        if (dataset, strategy) not in settings
    }
    total = sum(map(len, searches.values())) + len(jobs) * config.seeds
    with rich.progress.Progress(
        *rich.progress.Progress.get_default_columns(), rich.progress.TimeElapsedColumn(), console=console
    ) as progress:
        task = progress.add_task("cells", total=total)
        _run_cells(config, _in_turn(searches.values()), lambda: progress.advance(task))
        settings |= {key: best(cells, config.work) for key, cells in searches.items()}
        final = [
            [
                Cell(*job, *settings[tuned(job)], seed, config.epochs, config.encoders, config.image_size)
                for seed in seeds
            ]
            for job in jobs
        ]
        _run_cells(config, _in_turn(final), lambda: progress.advance(task))
    return [cell for cells in final for cell in cells]


def tuned(job: Job) -> tuple[str, str]:
    """Return whose setting a job has, (data set, strategy): a variant has that of mla."""
    dataset, _, strategy = job
    return dataset, REFERENCE if strategy in VARIANTS else strategy


def _in_turn(cells: Iterable[Sequence[Cell]]) -> list[Cell]:
    """Order cells so that strategies take turns: all of the first seed or setting, then all of the second."""
    return [cell for each in zip(*cells, strict=True) for cell in each]


def _run_cells(config: BenchConfig, cells: Sequence[Cell], done: Callable[[], None]) -> None:
    """Run cells, --jobs at a time; after a failure no other is begun.

    Raises: ConfigError.
    """
    with ThreadPoolExecutor(config.jobs) as pool:
        futures = [pool.submit(run_cell, cell, config.work) for cell in cells]
        try:
            for future in as_completed(futures):
                future.result()
                done()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def run(config: BenchConfig) -> None:
    """Compare and write the report."""
    cells = compare(config)
    write_report([read(cell, config.work) for cell in cells], config.out)
    console.print(f"{config.out}/strategies.md, .parquet and .svg are written")


if __name__ == "__main__":
    if "--cell" in sys.argv:
        given = json.loads(sys.argv[2])
        train_cell(Cell(**given | {"encoders": tuple(given["encoders"])}), Path(sys.argv[3]))
    else:
        main(run, BenchConfig, needs="train")
