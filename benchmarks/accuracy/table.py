"""`make bench-table`: a table of files, texts and columns, beside scikit-learn and Ludwig, with and without missing modalities.

All three get the same rows, the same frozen features of pictures and texts, and the same cells. mla_serve is trained and
exported by seed, and asked through its bundle. The recipes of scikit-learn (stacked.py for classes, joined.py for labels and
numbers) are fitted on training and validation rows together, because they choose nothing on validation. Ludwig, for classes, (peers/ludwig_table.py) runs in an environment of
its own, which --ludwig names. Missing modalities are drawn at random, the same draws for all. The test split is asked
once.

    python -m benchmarks.accuracy.table --data DIR --label category --encoders image=hf:FOLDER name=hf:FOLDER
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from benchmarks.accuracy.joined import PEERS
from benchmarks.accuracy.stacked import Part, Stacked
from benchmarks.shared import machine, write_results
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.console import console, main
from mla_serve.evaluation.scores import conditions, mean_scores
from mla_serve.evaluation.splits import run_rows
from mla_serve.fusion.formula import Array
from mla_serve.fusion.rules import fuse
from mla_serve.table import Row, Table, TableOptions, read_payload, read_table
from mla_serve.tasks import Task
from mla_serve.train.config import TrainConfig

OURS, IMPUTED, DROPPED, LUDWIG = "mla_serve", "stacked", "stacked, rows dropped", "ludwig"
CAVEATS = {
    "labels": "The peers give a missing modality the mean of training and an indicator, or have a model of its own for each set of\n"
    "modalities. No system's settings were searched.",
    "number": "The peers take missing values as they are. Their deviation is the same for every row. No system's settings were searched.",
}
CAVEAT = (
    "Of the systems, mla_serve and `stacked, rows dropped` are made for missing modalities. `stacked` and Ludwig fill them in, as is\n"
    "usual, and have not seen such rows in training. No system's settings were searched; Ludwig stops early on validation."
)
RESAMPLES = 300
MOST_PATTERNS = 3  # modalities of which every combination is measured; of more, each alone
FEATURES, ROWS, MASKS = "features.npz", "rows.json", "masks.npz"


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """Compare on one table."""

    data: Path
    """Folder with the splits train, val and test."""
    label: str
    """Column of the labels."""
    encoders: tuple[str, ...] = ()
    """Encoders by modality, as of `mla-serve train`. Pictures, recordings and texts need hf:FOLDER here."""
    seeds: int = 3
    """Models of each kind, one for each seed."""
    draws: int = 20
    """Random draws of missing modalities to average over."""
    ludwig: Path | None = None
    """Python of an environment with Ludwig; without it, Ludwig is left out."""
    work: Path = Path("runs/bench-table")
    """Folder of runs, bundles and finished seeds."""
    out: Path = Path("benchmarks/accuracy")
    """Folder that the results are written to."""
    page: str = "table"
    """Name of the page: PAGE.md and PAGE.json."""


def read_splits(config: TableConfig, planned: Any) -> Table:
    """Read the three splits by the columns of the training table."""
    return read_table(config.data, TableOptions(schema=planned.table.schema))


def train_and_export(config: TableConfig, seed: int) -> tuple[Path, Any]:
    """Train and export one model, unless its bundle is there; returns the bundle and the plan."""
    from mla_serve.export.export_run import export_run
    from mla_serve.train.plan import make_plan
    from mla_serve.train.run import train_as_planned

    bundle = config.work / "models" / f"seed{seed}"
    training = TrainConfig(
        data=_without_test(config), label=config.label, name=f"seed{seed}", runs=config.work / "runs",
        encoders=config.encoders, seed=seed, out=bundle, resume=True,
    )  # fmt: skip
    planned = make_plan(training)
    if not bundle.exists():
        folder = train_as_planned(training, planned, lambda _: None)
        export_run(folder.path, bundle, data=config.work / "no report")
    return bundle, planned


def _without_test(config: TableConfig) -> Path:
    """Make a folder of links to everything but the test rows, so that training and export cannot see them."""
    folder = config.work / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for path in config.data.resolve().iterdir():
        if (path.is_dir() or path.stem in ("train", "val")) and not (folder / path.name).exists():
            (folder / path.name).symlink_to(path)
    return folder


def frozen_features(planned: Any, rows: Sequence[Row], work: Path) -> dict[str, Array]:
    """Return the features (N, D) of the modalities with a frozen encoder, averaged over windows; 0 where missing."""
    import torch

    strategy = planned.build(0)
    planned.load_backbones(strategy, work / "features", torch.device("cpu"))
    found = {}
    for name, loaded in planned.pretrained.items():
        spec, encoder = planned.inputs[name], strategy.encoders[name]
        features = np.zeros((len(rows), loaded.settings.size))
        for at, row in enumerate(rows):
            if name in row.values:
                windows = torch.from_numpy(spec.decode(read_payload(row.values[name]), name))
                features[at] = encoder.precompute(windows).mean(dim=0).numpy()
        found[name] = features
    return found


def make_parts(planned: Any, rows: Sequence[Row], features: Mapping[str, Array]) -> dict[str, Part]:
    """Collect what the recipes of scikit-learn take."""
    parts = {}
    for name, spec in planned.inputs.items():
        present = np.array([name in row.values for row in rows])
        texts = [str(row.values.get(name, "")) for row in rows] if spec.sent_as == "text" else None
        cells = _frame(spec, [row.values.get(name, {}) for row in rows]) if spec.sent_as == "cells" else None
        parts[name] = Part(present, features.get(name), texts, cells)
    return parts


def _frame(spec: Any, rows: Sequence[Any]) -> Any:
    """Write the cells as a DataFrame: categories as objects, all others as numbers."""
    import pandas as pd

    columns = {}
    for column in spec.columns:
        cells = [row.get(column.name) for row in rows]
        if column.type == "category":
            columns[column.name] = pd.Series([None if cell is None else str(cell) for cell in cells], dtype=object)
        else:
            columns[column.name] = pd.Series([_number(cell) for cell in cells], dtype=float)
    return pd.DataFrame(columns)


def _number(cell: Any) -> float:
    return float("nan") if cell is None else cell.timestamp() if hasattr(cell, "timestamp") else float(cell)


@dataclasses.dataclass(frozen=True)
class Asked:
    """The test rows and the masks of every condition: targets (B, ...), {condition: masks (K, M, B)}."""

    rows: Sequence[Row]
    names: tuple[str, ...]
    targets: Array
    masks: Mapping[str, Array]

    @classmethod
    def of(cls, table: Table, names: Sequence[str], draws: int) -> Asked:
        """Draw the masks: everything, missing at random, and every modality alone."""
        rows = table.splits["test"]
        present = np.array([[name in row.values for row in rows] for name in names])
        drawn = {
            condition: np.array(masks)
            for condition, masks in conditions(present, names, {}, draws)
            if "+" not in condition or len(names) <= MOST_PATTERNS
        }
        return cls(rows, tuple(names), table.task.encode([row.label for row in rows]), drawn)


Answers = Mapping[str, Sequence[Array]]
"""{condition: answers (rows that have something, A), of each draw}."""


def ask_ours(bundle: Path, asked: Asked, table: Table) -> Answers:
    """Ask a bundle under every condition."""
    predictor = Predictor(Bundle.load(bundle))
    outputs = run_rows(predictor, asked.rows, "test", table.fingerprint, table.faults).outputs
    fusion = predictor.bundle.fusion
    order = [asked.names.index(name) for name in predictor.names]
    found: dict[str, list[Array]] = {}
    for condition, masks in asked.masks.items():
        found[condition] = []
        for mask in masks:
            there = mask.any(axis=0)
            given = mask[order][:, there]
            excess = outputs.excess[:, there]
            found[condition].append(fuse(outputs.opinions[:, there], given, fusion, excess=excess).answers)
    return found


def ask_joined(
    task: Task, parts: Mapping[str, Part], targets: Array, test: Mapping[str, Part], asked: Asked, seed: int
) -> dict[str, Answers]:
    """Fit the recipes for labels and numbers, and ask them."""
    found: dict[str, Answers] = {}
    for name, fit in PEERS[task.name].items():
        answer = fit(parts, targets, seed)
        found[name] = {
            condition: [answer(test, dict(zip(asked.names, mask, strict=True)))[mask.any(axis=0)] for mask in masks]
            for condition, masks in asked.masks.items()
        }
    return found


def ask_stacked(
    parts: Mapping[str, Part], labels: Array, test: Mapping[str, Part], asked: Asked, seed: int
) -> dict[str, Answers]:
    """Fit both recipes and ask them."""
    found: dict[str, Answers] = {}
    for name, dropped in ((IMPUTED, False), (DROPPED, True)):
        recipe = Stacked(seed, dropped).fit(parts, labels)
        answers = recipe.answers(test)
        found[name] = {
            condition: [_masked(recipe, answers, asked, mask) for mask in masks]
            for condition, masks in asked.masks.items()
        }
    return found


def _masked(recipe: Stacked, answers: Any, asked: Asked, mask: Array) -> Array:
    given = recipe.predict(answers, dict(zip(asked.names, mask, strict=True)))
    there: Array = given[mask.any(axis=0)]
    return there


def ask_ludwig(
    config: TableConfig, planned: Any, table: Table, features: Mapping[str, Array], asked: Asked, seed: int
) -> Answers:
    """Train Ludwig in its own environment, unless it has answered before, and read its answers."""
    folder = config.work / f"ludwig{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "answers.npz").exists():
        rows = [row for split in ("train", "val", "test") for row in table.splits[split]]
        cells = [name for name, spec in planned.inputs.items() if spec.sent_as == "cells"]
        listed = [
            {"split": split, "label": row.label, "cells": {c: _plain(v) for name in cells for c, v in row.values.get(name, {}).items()}}  # type: ignore[union-attr]
            for split in ("train", "val", "test")
            for row in table.splits[split]
        ]  # fmt: skip
        columns = {name: [(column.name, column.type) for column in planned.inputs[name].columns] for name in cells}
        (folder / ROWS).write_text(
            json.dumps(
                {"rows": listed, "columns": columns, "names": asked.names, "seed": seed, "classes": table.classes}
            )
        )
        present = {f"{name} present": np.array([name in row.values for row in rows]) for name in features}
        _save(folder / FEATURES, {**features, **present})
        _save(folder / MASKS, asked.masks)
        script = (Path(__file__).parent / "peers" / "ludwig_table.py").resolve()
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        environment.pop("PYTHONPATH", None)
        subprocess.run([str(config.ludwig), str(script), "."], cwd=folder, env=environment, check=True)
    answers = np.load(folder / "answers.npz")
    return {
        condition: [answers[f"{condition} {k}"] for k in range(len(masks))] for condition, masks in asked.masks.items()
    }


def _save(path: Path, arrays: Mapping[str, Array]) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type] # numpy's types take the names for its own options


def _plain(cell: Any) -> Any:
    return cell if isinstance(cell, str) else _number(cell)


def measure_seed(config: TableConfig, seed: int) -> tuple[Table, Asked, dict[str, Answers]]:
    """Train everything with one seed and ask it."""
    bundle, planned = train_and_export(config, seed)
    table = read_splits(config, planned)
    asked = Asked.of(table, list(planned.inputs), config.draws)
    splits = ("train", "val", "test")
    features = {split: frozen_features(planned, table.splits[split], config.work) for split in splits}
    fitted = [row for split in ("train", "val") for row in table.splits[split]]
    together = {name: np.concatenate([features["train"][name], features["val"][name]]) for name in features["train"]}
    task = planned.recipe.task
    targets = task.encode([row.label for row in fitted])
    parts, test = make_parts(planned, fitted, together), make_parts(planned, asked.rows, features["test"])
    found = {OURS: ask_ours(bundle, asked, table)}
    if task.name in PEERS:
        found |= ask_joined(task, parts, targets, test, asked, seed)
    else:
        found |= ask_stacked(parts, targets, test, asked, seed)
    if config.ludwig:
        everything = {name: np.concatenate([features[split][name] for split in splits]) for name in features["train"]}
        found[LUDWIG] = ask_ludwig(config, planned, table, everything, asked, seed)
    return table, asked, found


def summarise(task: Task, asked: Asked, seeds: Sequence[Mapping[str, Answers]]) -> dict[str, Any]:
    """Score every system under every condition, and compare its main score with that of mla_serve over seeds and rows."""
    generator = np.random.default_rng(0)
    counts = generator.multinomial(len(asked.targets), np.full(len(asked.targets), 1 / len(asked.targets)), RESAMPLES)
    drawn_seeds = generator.integers(len(seeds), size=(RESAMPLES, len(seeds)))
    found: dict[str, Any] = {}
    for condition in asked.masks:
        found[condition] = {}
        ours = resampled(task, asked, condition, [one[OURS] for one in seeds], counts)
        for system in seeds[0]:
            answers = [one[system] for one in seeds]
            scores = [mean_scores(scored(task, asked, condition, one)) for one in answers]
            difference = ours - resampled(task, asked, condition, answers, counts)
            means = np.take_along_axis(difference, drawn_seeds.T, axis=0).mean(axis=0)
            low, high = np.nanquantile(means, [0.025, 0.975])
            by_seed = {key: [one[key] for one in scores] for key in scores[0]}
            main = task.main_scores[0]
            own = np.mean([mean_scores(scored(task, asked, condition, one[OURS]))[main] for one in seeds])
            found[condition][system] = by_seed | {"ours_minus": [float(own - np.mean(by_seed[main])), low, high]}
    return found


def scored(task: Task, asked: Asked, condition: str, answers: Answers) -> list[dict[str, float]]:
    """Score the answers of each draw."""
    masks = asked.masks[condition]
    return [
        task.score(given, asked.targets[mask.any(axis=0)])
        for mask, given in zip(masks, answers[condition], strict=True)
    ]


def resampled(task: Task, asked: Asked, condition: str, answers: Sequence[Answers], counts: Array) -> Array:
    """Return the main score of resamples of the rows, averaged over draws: (seeds, RESAMPLES). Args: counts (RESAMPLES, B)."""
    main = task.main_scores[0]
    with np.errstate(invalid="ignore"):  # a resample may lack every row that has something
        return _resampled(task, asked, condition, answers, counts, main)


def _resampled(task: Task, asked: Asked, condition: str, answers: Sequence[Answers], counts: Array, main: str) -> Array:
    return np.array(
        [
            np.mean(
                [
                    task.resampled(given, asked.targets[mask.any(axis=0)], counts[:, mask.any(axis=0)])[main]
                    for mask, given in zip(asked.masks[condition], one[condition], strict=True)
                ],
                axis=0,
            )
            for one in answers
        ]
    )


def markdown(config: TableConfig, table: Table, found: Mapping[str, Any]) -> str:
    """Write the table of accuracies and the differences."""
    systems = list(next(iter(found.values())))
    counts = ", ".join(f"{len(table.splits[split])} {split}" for split in ("train", "val", "test"))
    task = table.task
    first, second = task.main_scores
    lines = [
        f"# {config.data.name}: beside recipes of scikit-learn{' and Ludwig' if LUDWIG in systems else ''}\n",
        f"{counts} rows, {task.describe()}. On test: {task.title(first)} ({task.title(second)}, {task.title('nll')}), mean and standard",
        f"deviation of {config.seeds} seeds; {config.draws} draws of missing modalities. The peers use the same frozen features and",
        f'cells. {machine()}. `make bench-table ARGS="--data DIR --label {config.label} --encoders image=hf:FOLDER ..."`\n',
        f"{CAVEATS.get(task.name, CAVEAT)}\n",
        f"| sent | {' | '.join(systems)} |",
        "|---" * (len(systems) + 1) + "|",
    ]
    for condition, by_system in found.items():
        cells = [
            f"{np.mean(one[first]):.3f} ± {np.std(one[first], ddof=1 if config.seeds > 1 else 0):.3f} "
            f"({task.shown(second, float(np.mean(one[second])))}, {np.mean(one['nll']):.3f})"
            for one in by_system.values()
        ]
        lines.append(f"| {condition} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{task.title(first)} of mla_serve minus that of the peer, with 95 % intervals (bootstrap over seeds and rows):\n",
    ]
    lines += [f"| sent | {' | '.join(systems[1:])} |", "|---" * len(systems) + "|"]
    for condition, by_system in found.items():
        cells = ["{:+.3f} [{:+.3f}, {:+.3f}]".format(*by_system[system]["ours_minus"]) for system in systems[1:]]
        lines.append(f"| {condition} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def run(config: TableConfig) -> None:
    """Train what is missing, ask the test split, and write the tables."""
    measured = [measure_seed(config, seed) for seed in track(range(config.seeds), "seeds", console=console)]
    table, asked, _ = measured[0]
    found = summarise(table.task, asked, [answers for _, _, answers in measured])
    write_results(config.out, config.page, found, markdown(config, table, found))
    console.print(f"{config.out}/{config.page}.md and .json are written")


if __name__ == "__main__":
    main(run, TableConfig, needs="train")
