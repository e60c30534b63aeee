"""`make bench-defaults`: choose the defaults of training that depend on the table, by measuring them on parts of tables.

rows       how many epochs, and how large a batch, for 100, 1,000 and 100,000 training rows
skew       what --balance does where some classes have a tenth or a hundredth of the rows of the others
augment    what --augment does to photographs and to digits
checkpoint which score of validation chooses the checkpoint; measured along with the others, epoch by epoch

Each cell (one training run) is a file in --work, so an interrupted benchmark goes on where it was. Parts of a table are
drawn by class, with a seed. The test rows are those of the table, and are scored as if every class were equally frequent,
and as if they were as frequent as in the part that was trained on. Writes defaults.json and .md.

    python -m benchmarks.accuracy.defaults --data tri-digits=DIR mvsa=DIR
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.defaults_report import write_report
from benchmarks.shared import write_whole
from mla_serve.console import console, main
from mla_serve.fusion.formula import Array, Fusion
from mla_serve.fusion.rules import fuse
from mla_serve.table import Row, Table, read_table
from mla_serve.tasks.base import expected_calibration_error
from mla_serve.tasks.classes import macro_f1

RARE = 3  # every third class is a rare one
VECTORS = "vectors"  # generated
SIGN = {"accuracy": 1, "nll": -1, "macro_f1": 1}  # scores of validation; epochs that are best so far by one are tested


@dataclasses.dataclass(frozen=True)
class DefaultsConfig:
    """Measure the defaults that depend on the table; resumable."""

    data: tuple[str, ...] = ()
    """Data sets: NAME=FOLDER."""
    only: tuple[str, ...] = ()
    """Only these parts: rows, skew, augment."""
    seeds: int = 3
    """Training runs of each setting."""
    work: Path = Path("runs/bench-defaults")
    """Folder of the finished cells."""
    out: Path = Path("benchmarks/accuracy")
    """Folder that defaults.json and .md are written to."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run: part, one of rows, skew and augment; rows, of training, 0 for all; skew, of the rare classes."""

    part: str
    dataset: str
    modalities: tuple[str, ...]
    rows: int
    skew: int
    settings: tuple[tuple[str, Any], ...]
    seed: int

    @property
    def setting(self) -> str:
        """Name the setting."""
        return " ".join(f"{key}={value}" for key, value in self.settings)

    def path(self, work: Path) -> Path:
        """Name the file of its results."""
        table = f"{self.dataset}-{len(self.modalities)}-{self.rows}-{self.skew}"
        return work / self.part / table / f"{self.setting.replace(' ', ',')}-{self.seed}.json"


EPOCHS_AND_BATCHES = {
    100: ((30, 64), (100, 64), (30, 16), (100, 16), (300, 16)),
    1000: ((30, 64), (60, 64), (30, 16), (100, 64)),
    100_000: ((3, 64), (10, 64), (30, 64), (10, 256)),
}


def cells_of(config: DefaultsConfig) -> list[Cell]:
    """List the cells, seed by seed, so that all settings of a table are there early."""
    kinds = {
        name: read_table(Path(folder)).modalities for name, _, folder in (one.partition("=") for one in config.data)
    }
    cells = [cell for seed in range(config.seeds) for cell in _cells(kinds, seed)]
    return [cell for cell in cells if not config.only or cell.part in config.only]


def _cells(tables: Mapping[str, Mapping[str, str]], seed: int) -> Iterator[Cell]:
    """Yield the cells of one seed. Args: tables, the kinds of the modalities of each. Only `augment` trains on files."""
    for name, kinds in tables.items():
        quick = tuple(modality for modality, kind in kinds.items() if kind in ("text", "vector"))
        for skew in (100, 10):
            for method in ("none", "weights", "sampler"):  # prior: as none, with shifted answers
                yield Cell("skew", name, quick, 0, skew, (("balance", method),), seed)
        for rows in (100, 1000):
            for epochs, size in EPOCHS_AND_BATCHES[rows]:
                settings = (("epochs", epochs), ("batch_size", size), ("balance", "none"))
                yield Cell("rows", name, quick, rows, 1, settings, seed)
        for how in ("none", "light", "photo") if "image" in kinds else ():
            yield Cell("augment", name, ("image",), 0, 1, (("augment", how), ("balance", "none")), seed)
    if seed == 0:
        for epochs, size in EPOCHS_AND_BATCHES[100_000]:
            settings = (("epochs", epochs), ("batch_size", size), ("balance", "none"))
            yield Cell("rows", VECTORS, ("numbers",), 100_000, 1, settings, seed)


def draw(rows: Sequence[Row], count: int, skew: int, seed: int) -> list[Row]:
    """Draw `count` rows (0: all) by class, and leave each RARE-th class one in `skew` of its rows, one row at least."""
    generator = np.random.default_rng(seed)
    by_class: defaultdict[str, list[Row]] = defaultdict(list)
    for at in generator.permutation(len(rows)):
        by_class[rows[at].label].append(rows[at])
    share = min(1.0, count / len(rows)) if count else 1.0
    return [
        row
        for number, label in enumerate(sorted(by_class))
        for row in by_class[label][: _kept(len(by_class[label]), share, skew if number % RARE == 0 else 1)]
    ]


def _kept(count: int, share: float, skew: int) -> int:
    return max(1, round(count * share / skew))


def write_part(table: Table, target: Path, cell: Cell) -> Path:
    """Write a part of a table, its files linked; validation rows are as skewed as the training rows."""
    if (target / "train.jsonl").exists():
        return target
    (target / "files").mkdir(parents=True, exist_ok=True)
    kinds = {name: table.modalities[name] for name in cell.modalities}
    write_whole(target / "dataset.json", json.dumps({"modalities": kinds}))
    for split in ("val", "test", "train"):
        rows: Sequence[Row] = table.splits[split]
        if split != "test":
            share = cell.rows / len(table.splits["train"]) if cell.rows else 1.0
            rows = draw(rows, round(min(1.0, share) * len(rows)), cell.skew, cell.seed)
        kept = [(row, _values(row, target, cell.modalities)) for row in rows]
        lines = [json.dumps({"label": row.label, **values}) for row, values in kept if values]
        write_whole(target / f"{split}.jsonl", "\n".join(lines) + "\n")
    return target


def _values(row: Row, target: Path, names: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in [(name, row.values[name]) for name in names if name in row.values]:
        values[name] = value
        if isinstance(value, Path):
            link = target / "files" / f"{name}-{value.name}"
            if not link.exists():
                os.link(value, link)
            values[name] = f"files/{link.name}"
    return values


def write_vectors(target: Path) -> Path:
    """Write 100,000 generated vectors for training, in ten classes with two clusters each."""
    from sklearn.datasets import make_classification

    x, y = make_classification(
        106_000,
        40,
        n_informative=12,
        n_redundant=8,
        n_classes=10,
        n_clusters_per_class=2,
        class_sep=1.0,
        random_state=0,
    )
    target.mkdir(parents=True, exist_ok=True)
    (target / "dataset.json").write_text('{"modalities": {"numbers": "vector"}}')
    for split, rows in (("val", slice(0, 3000)), ("test", slice(3000, 6000)), ("train", slice(6000, None))):
        pairs = zip(x[rows].round(3).tolist(), y[rows].tolist(), strict=True)
        write_whole(
            target / f"{split}.jsonl", "".join(json.dumps({"label": f"c{c}", "numbers": v}) + "\n" for v, c in pairs)
        )
    return target


def train_cell(cell: Cell, config: DefaultsConfig) -> dict[str, Any]:
    """Train; returns the scores of validation and test by epoch, and of the finished model on test."""
    import torch

    from mla_serve.train.config import TrainConfig
    from mla_serve.train.fit.after_training import fit_shift
    from mla_serve.train.loop import Trainer, modality_opinions
    from mla_serve.train.plan import make_plan
    from mla_serve.train.run_folder import RunFolder

    torch.set_num_threads(1)
    given: dict[str, Any] = {"epochs": 30, "batch_size": 64, "image_size": 32, **dict(cell.settings)}
    plan = make_plan(
        TrainConfig(data=_data(cell, config), modalities=cell.modalities, seed=cell.seed, runs=config.work, **given)
    )
    strategy = plan.build(cell.seed)
    samples = {split: plan.samples(split) for split in plan.rows}
    folder = RunFolder(cell.path(config.work).with_suffix(""))
    folder.path.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(strategy, samples, folder, choices=plan.choices, device=torch.device("cpu"))
    balance = plan.choices.balance
    records: list[dict[str, Any]] = []
    shares = np.exp(balance.log_prior)

    def scored(fusion: Fusion) -> dict[str, float]:
        logits, present = modality_opinions(strategy, samples["test"], trainer.device)
        there = present.any(axis=0)
        log_p = fuse(logits[:, there], present[:, there], fusion).answers
        return scores(log_p, samples["test"].targets.numpy()[there], shares)

    def report(record: dict[str, Any]) -> None:
        paper = dataclasses.replace(Fusion.paper(tuple(plan.recipe.inputs)), prior_shift=balance.head_shift)
        kept: dict[str, Any] = {key: record[key] for key in ("epoch", "accuracy", "nll", "macro_f1")}
        if any(SIGN[key] * kept[key] > max((SIGN[key] * r[key] for r in records), default=-np.inf) for key in SIGN):
            kept["test"] = scored(paper)
        records.append(kept)

    trainer.measure()
    trainer.run(report)
    strategy.shift_heads(balance.head_shift)
    fusion, evidence = _fit(strategy, samples, plan.rows["val"], plan.recipe)
    shift = dataclasses.replace(balance, method="prior").prior_shift
    final = {"plain": scored(fusion), "shifted": scored(fit_shift(evidence, fusion, shift))}
    for leftover in folder.path.iterdir():
        leftover.unlink()
    folder.path.rmdir()
    counts = {"train": len(samples["train"]), "rarest": min(balance.counts), "most": max(balance.counts)}
    return dataclasses.asdict(cell) | {"setting": cell.setting, "counts": counts, "epochs": records, "final": final}


def _data(cell: Cell, config: DefaultsConfig) -> Path:
    folder = config.work / "data" / f"{cell.dataset}-{len(cell.modalities)}-{cell.rows}-{cell.skew}-{cell.seed}"
    if cell.dataset == VECTORS:
        folder = config.work / "data" / VECTORS
        return folder if (folder / "train.jsonl").exists() else write_vectors(folder)
    folders = dict(item.partition("=")[::2] for item in config.data)
    return write_part(read_table(Path(folders[cell.dataset])), folder, cell)


def _fit(strategy: Any, samples: Mapping[str, Any], rows: Sequence[Row], recipe: Any) -> tuple[Fusion, Any]:
    """Fit the fusion to validation rows, without references and discounts."""
    from mla_serve.train.data.folds import make_folds
    from mla_serve.train.fit.cross_validate import choose_setting
    from mla_serve.train.fit.evidence import Evidence
    from mla_serve.train.loop import modality_opinions

    logits, present = modality_opinions(strategy, samples["val"], next(strategy.parameters()).device)
    evidence = Evidence.of(logits, present, samples["val"].targets.numpy())
    names = tuple(recipe.inputs)
    prior = recipe.task.prior_of(samples["train"].targets.numpy())
    setting, _ = choose_setting(evidence, names, make_folds(rows, 0, recipe.task).number, prior)
    return setting.formula(evidence, names), evidence


def scores(log_p: Array, labels: Array, shares: Array) -> dict[str, float]:
    """Score answers (N, C), with classes weighed equally, and (key_train) by their shares of the training rows.

    rare_recall is the mean recall of the classes with less than half of an equal share.
    """
    answers, p = log_p.argmax(axis=1), np.exp(log_p)
    right = answers == labels
    classes = np.unique(labels)
    recall = {c: float(right[labels == c].mean()) for c in classes}
    rare = [recall[c] for c in classes if shares[c] < 0.5 / len(shares)]
    nll = -log_p[np.arange(len(labels)), labels]
    found = {"macro_f1": macro_f1(answers, labels), "ece": expected_calibration_error(p.max(axis=1), right)}
    found["rare_recall"] = float(np.mean(rare)) if rare else float("nan")
    for ending, wanted in (("", np.ones(len(shares))), ("_train", shares)):
        weights = (wanted / np.bincount(labels, minlength=len(shares)).clip(1))[labels]
        found[f"accuracy{ending}"] = float(np.average(right, weights=weights))
        found[f"nll{ending}"] = float(np.average(nll, weights=weights))
    return found


def run(config: DefaultsConfig) -> None:
    """Train what is missing, and write the tables."""
    results = []
    for number, cell in enumerate(cells := cells_of(config)):
        path = cell.path(config.work)
        if not path.exists():
            console.print(f"{number + 1} of {len(cells)}: {path.relative_to(config.work)}")
            write_whole(path, json.dumps(train_cell(cell, config)))
        results.append(json.loads(path.read_text()))
    write_report(config.out, results)
    console.print(f"{config.out}/defaults.md and .json are written")


if __name__ == "__main__":
    main(run, DefaultsConfig, needs="train")
