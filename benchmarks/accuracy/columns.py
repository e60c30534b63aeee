"""`make bench-columns`: the encoder of columns beside scikit-learn's HistGradientBoostingClassifier on the same cells.

Tables: three of scikit-learn, split anew for each seed (60/20/20, stratified), and those of --data with their own splits.
Both get the same decoded cells: numbers as they are, categories as categories (the trees take 254, rarer ones are one).
Both pick on validation when to stop: the encoder its epoch, the trees their number out of 200. So validation flatters both;
the test split is asked once, at the end. Takes about 15 minutes on two cores; writes columns.json and .md.

    python -m benchmarks.accuracy.columns --data NAME=DIR
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from benchmarks.shared import machine, write_results, write_whole
from mla_serve.console import console, main
from mla_serve.errors import ConfigError
from mla_serve.fusion.formula import Array
from mla_serve.inputs import ColumnsInput
from mla_serve.table import Row, read_payload, read_table

BUILT_IN = ("wine", "breast_cancer", "digits")
SPLITS = ("train", "val", "test")
MOST_CATEGORIES, MOST_TREES = 254, 200
Found = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ColumnsConfig:
    """Train both for every table and seed, and compare."""

    data: tuple[str, ...] = ()
    """More tables: NAME=DIR, with the splits train, val and test; only their numbers, categories and dates are used."""
    built_in: tuple[str, ...] = BUILT_IN
    """Tables of scikit-learn."""
    seeds: int = 3
    """Models of each table."""
    threads: int = 1
    """CPU threads of torch; OMP_NUM_THREADS sets those of the trees."""
    work: Path = Path("runs/bench-columns")
    """Folder of tables, runs and finished seeds."""
    out: Path = Path("benchmarks/accuracy")
    """Folder that columns.json and .md are written to."""


def write_built_in(name: str, seed: int, folder: Path) -> Path:
    """Write one of scikit-learn's tables in a random split; returns its folder."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    loaded = getattr(datasets, f"load_{name}")()
    every, labels = np.arange(len(loaded.target)), loaded.target
    train, rest = train_test_split(every, test_size=0.4, stratify=labels, random_state=seed)
    val, test = train_test_split(rest, test_size=0.5, stratify=labels[rest], random_state=seed)
    for split, chosen in zip(SPLITS, (train, val, test), strict=True):
        lines = [_line(loaded, number) for number in chosen]
        write_whole(folder / f"{split}.jsonl", "".join(lines))
    return folder


def _line(loaded: Any, number: int) -> str:
    cells = {str(column): float(value) for column, value in zip(loaded.feature_names, loaded.data[number], strict=True)}
    return json.dumps({"label": str(loaded.target[number]), **cells}) + "\n"


def measure(config: ColumnsConfig, name: str, folder: Path, seed: int) -> Found:
    """Train both on one table with one seed, or read what was found before."""
    path = config.work / "found" / f"{name}-{seed}.json"
    if not path.exists():
        ours, spec, modality, classes = train_encoder(config, name, folder, seed)
        splits = read_table(folder).splits
        cells = {split: _cells(splits[split], spec, modality, classes) for split in SPLITS}
        found = {"columns": len(spec.columns), "classes": len(classes), "rows": {s: len(cells[s][1]) for s in SPLITS}}
        write_whole(path, json.dumps(found | {"encoder": ours, "trees": train_trees(cells, spec, seed)}) + "\n")
    content: Found = json.loads(path.read_text())
    return content


def train_encoder(
    config: ColumnsConfig, name: str, folder: Path, seed: int
) -> tuple[Found, ColumnsInput, str, Sequence[str]]:
    """Train as `mla-serve train` does; returns the scores, and how the cells are decoded."""
    import torch

    from mla_serve.train.config import TrainConfig
    from mla_serve.train.plan import make_plan
    from mla_serve.train.run import train_as_planned

    torch.set_num_threads(config.threads)
    modality = next(name for name, kind in read_table(folder).modalities.items() if kind == "columns")
    begun = time.perf_counter()
    run = f"{name.replace('-', '_')}_{seed}"
    training = TrainConfig(data=folder, name=run, runs=config.work / "runs", modalities=(modality,), seed=seed)
    planned = make_plan(training)
    done = train_as_planned(training, planned, lambda _: None)
    seconds = time.perf_counter() - begun
    strategy, spec, scores = done.restore(planned.build(seed)), planned.inputs[modality], {}
    if not isinstance(spec, ColumnsInput):
        raise AssertionError("a modality of kind columns has an input of that kind")
    for split in ("val", "test"):
        cells, labels = _cells(planned.rows[split], spec, modality, planned.recipe.classes, most=None)
        with torch.no_grad():
            answers = strategy.opinions(modality, torch.from_numpy(cells)).argmax(dim=1).numpy()
        scores[split] = float(np.mean(answers == labels))
    return scores | {"seconds": seconds}, spec, modality, planned.recipe.classes


def train_trees(cells: Mapping[str, tuple[Array, Array]], spec: ColumnsInput, seed: int) -> Found:
    """Train the trees and pick their number on validation."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    categories = [spec.slices[column.name].start for column in spec.columns if column.type == "category"]
    begun = time.perf_counter()
    model = HistGradientBoostingClassifier(
        categorical_features=categories or None, max_iter=MOST_TREES, early_stopping=False, random_state=seed
    )
    model.fit(*cells["train"])
    seconds = time.perf_counter() - begun
    probabilities = {split: list(model.staged_predict_proba(cells[split][0])) for split in ("val", "test")}
    best = max(range(MOST_TREES), key=lambda n: _quality(probabilities["val"][n], cells["val"][1]))
    chosen = {split: _quality(staged[best], cells[split][1])[0] for split, staged in probabilities.items()}
    return chosen | {"trees": best + 1, "seconds": seconds}


def _quality(probabilities: Array, labels: Array) -> tuple[float, float]:
    """Return accuracy and mean log-probability, by which training picks its epoch, too."""
    true = probabilities[np.arange(len(labels)), labels]
    return float(np.mean(probabilities.argmax(axis=1) == labels)), float(np.log(np.maximum(true, 1e-12)).mean())


def _cells(
    rows: Sequence[Row], spec: ColumnsInput, modality: str, classes: Sequence[str], most: int | None = MOST_CATEGORIES
) -> tuple[Array, Array]:
    """Decode the rows that have a cell: (N, P) and labels (N,); categories after the first `most` become one."""
    kept = [row for row in rows if modality in row.values]
    cells = np.concatenate([spec.decode(read_payload(row.values[modality]), modality) for row in kept])
    for column in spec.columns:
        if column.type == "category" and most:
            own = cells[:, spec.slices[column.name]]
            np.minimum(own, most, out=own)  # categories are sorted by frequency; NaN stays
    return cells, np.array([classes.index(row.label) for row in kept])


def markdown(results: Mapping[str, Sequence[Found]]) -> str:
    """Write the page: a row for each table, mean and standard deviation over the seeds."""
    lines = [
        "# Columns: the encoder beside gradient-boosted trees\n",
        "`mla-serve train` with its defaults, columns alone, beside HistGradientBoostingClassifier on the same cells. Accuracy in per cent,",
        f"mean and standard deviation over {min(map(len, results.values()))} seeds. Tables of scikit-learn are split anew for each seed, so their deviation holds that of the",
        "split. Both picked epoch or number of trees on validation, which flatters both; nothing was picked on test. Seconds are of one thread,",
        f"on a machine that had other work. {machine()}. `make bench-columns`\n",
        "| table | rows | columns | classes | validation: encoder | trees | difference | test: encoder | trees | difference | seconds: encoder | trees |",
        "|---" * 12 + "|",
    ]
    lines += [_table_row(name, found) for name, found in results.items()]
    return "\n".join(lines) + "\n"


def _table_row(name: str, found: Sequence[Found]) -> str:
    cells = [name, str(sum(found[0]["rows"].values())), str(found[0]["columns"]), str(found[0]["classes"])]
    for split in ("val", "test"):
        both = [100 * np.array([one[model][split] for one in found]) for model in ("encoder", "trees")]
        cells += [f"{each.mean():.1f} ± {each.std():.1f}" for each in both]
        cells.append(f"{(both[0] - both[1]).mean():+.1f}")
    cells += [f"{np.mean([one[model]['seconds'] for one in found]):.1f}" for model in ("encoder", "trees")]
    return f"| {' | '.join(cells)} |"


def run(config: ColumnsConfig) -> None:
    """Train what is missing, and write the page."""
    given = dict(item.partition("=")[::2] for item in config.data)
    if "" in given.values():
        raise ConfigError(f"--data {' '.join(config.data)}: expected NAME=DIR, such as products=data/products")
    results: dict[str, list[Found]] = {}
    for name in (*config.built_in, *given):
        results[name] = []
        for seed in track(range(config.seeds), name, console=console):
            own = config.work / "data" / f"{name}-{seed}"
            folder = Path(given[name]) if name in given else write_built_in(name, seed, own)
            results[name].append(measure(config, name, folder, seed))
    write_results(config.out, "columns", results, markdown(results))
    console.print(f"{config.out}/columns.md and .json are written")


if __name__ == "__main__":
    main(run, ColumnsConfig, needs="train")
