"""`make bench-pretrained`: frozen pretrained texts beside pictures learned from scratch: does fusing them beat the better one?

A model is trained for each seed, exported, and asked about the test split once, through the bundle, when all are there:
fused against the best single modality, on all rows and without those that repeat a training row. The recipe was chosen
on validation; training and export see no test row. Takes about 20 minutes on two cores; writes pretrained.json and .md.

    python -m benchmarks.accuracy.pretrained --data DIR --text hf:FOLDER
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from benchmarks.accuracy.strategies_report import interval
from benchmarks.shared import machine, write_results
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.console import console, main
from mla_serve.errors import ConfigError
from mla_serve.evaluation.scores import evaluate
from mla_serve.evaluation.splits import SplitRun, run_split
from mla_serve.fusion.formula import Array
from mla_serve.fusion.rules import fuse
from mla_serve.table import Row, read_payload, read_table
from mla_serve.train.config import TrainConfig
from mla_serve.train.pretrained import PREFIX

IMAGE, TEXT = "image", "text"
SHOWN = ("full", IMAGE, TEXT)
RULES = ("calibrated", "paper")
LINKS, RETWEET = re.compile(r"htt\S*"), re.compile(r"\brt\s+@\w+")
Scores = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclasses.dataclass(frozen=True)
class PretrainedConfig:
    """Train with a pretrained text encoder and measure the fusion."""

    data: Path
    """Folder of a table with image and text and the splits train, val and test, such as MVSA-Single."""
    text: str
    """The text encoder: hf:NAME_OR_FOLDER."""
    image: str = "small"
    """The image encoder, trained from scratch unless it is hf:NAME_OR_FOLDER, too."""
    image_size: int = 32
    """Side of the images in pixels."""
    epochs: int = 12
    """Passes over the training rows."""
    seeds: int = 3
    """Models, one for each seed."""
    threads: int = os.cpu_count() or 1
    """CPU threads."""
    work: Path = Path("runs/bench-pretrained")
    """Folder of runs, bundles and finished seeds."""
    out: Path = Path("benchmarks/accuracy")
    """Folder that pretrained.json and .md are written to."""


def normalised(text: str) -> str:
    """Bring a text to what a near-duplicate shares: lower case, no links, no "RT @name", letters and digits alone."""
    return "".join(re.findall(r"[^\W_]+", RETWEET.sub(" ", LINKS.sub(" ", text.lower()))))


def repeats(rows: Sequence[Row], train: Sequence[Row]) -> dict[str, list[bool]]:
    """Say of each row whether a training row has the same normalised text, and whether one has the same image file."""
    keys: dict[str, Callable[[Any], object]] = {
        TEXT: lambda value: normalised(str(value)),
        IMAGE: lambda value: hashlib.sha256(read_payload(value)).digest(),  # type: ignore[arg-type]
    }
    found = {}
    for name, key in keys.items():
        known = {key(row.values[name]) for row in train if name in row.values}
        found[name] = [name in row.values and key(row.values[name]) in known for row in rows]
    return found


def without_test(data: Path, folder: Path) -> Path:
    """Make a copy of the tables for training and validation, with links to the files."""
    table = read_table(data)
    if missing := {"train", "val", "test"} - set(table.splits):
        raise ConfigError(
            f"--data {data}: expected the splits train, val and test, {', '.join(sorted(missing))} is missing"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path in table.folder.resolve().iterdir():
        target = folder / path.name
        if path.stem != "test" and not target.exists():
            target.symlink_to(path)
    return folder


def train_seed(config: PretrainedConfig, seed: int) -> Path:
    """Train, or go on with training, and export; returns the folder of the bundle."""
    import torch

    from mla_serve.export.export_run import export_run
    from mla_serve.train.plan import make_plan
    from mla_serve.train.run import train_as_planned

    bundle = config.work / "models" / f"seed{seed}"
    if bundle.exists():
        return bundle
    torch.set_num_threads(config.threads)
    training = TrainConfig(
        data=without_test(config.data, config.work / "data"), name=f"seed{seed}", runs=config.work / "runs", resume=True,
        modalities=(IMAGE, TEXT), encoders=(f"{IMAGE}={config.image}", f"{TEXT}={config.text}"), image_size=config.image_size,
        epochs=config.epochs, seed=seed,
    )  # fmt: skip
    folder = train_as_planned(training, make_plan(training), lambda _: None)
    export_run(folder.path, bundle, data=config.work / "no report")
    return bundle


def score(predictor: Predictor, split_run: SplitRun, kept: Sequence[bool]) -> Scores:
    """Score the kept rows: {condition: {rule: {score: value}}}."""
    outputs, rows = split_run.outputs, np.asarray(kept)
    scored = evaluate(
        outputs.opinions[:, rows], outputs.present[:, rows], split_run.targets[rows], predictor.bundle.fusion, RULES,
        excess=outputs.excess[:, rows],
    )  # fmt: skip
    return {condition: scored[condition] for condition in SHOWN}


def answered_right(predictor: Predictor, split_run: SplitRun) -> dict[str, str]:
    """Mark the rows that are classified correctly: {condition: "01..."}; a row without the modality is not."""
    outputs, fusion, found = split_run.outputs, predictor.bundle.fusion, {}
    for condition in SHOWN:
        mask = outputs.present & np.array([[condition in ("full", name)] for name in predictor.names])
        there = mask.any(axis=0)
        fused = fuse(outputs.opinions[:, there], mask[:, there], fusion, excess=outputs.excess[:, there])
        right = np.zeros(len(there), dtype=int)
        right[there] = fused.answers.argmax(axis=1) == split_run.targets[there]
        found[condition] = "".join(map(str, right))
    return found


def measure(config: PretrainedConfig, bundle: Path) -> dict[str, Any]:
    """Ask a bundle about validation and test rows, all of them and without repeats."""
    predictor = Predictor(Bundle.load(bundle), threads=config.threads)
    train = read_table(config.data).splits["train"]
    found: dict[str, Any] = {"sha256": predictor.bundle.manifest.sha256}
    for split in ("val", "test"):
        split_run = run_split(predictor, config.data, split)
        repeated = repeats(split_run.rows, train)
        new = [not any(marks) for marks in zip(*repeated.values(), strict=True)]
        found[split] = {
            "rows": len(new),
            "new_rows": sum(new),
            "repeats": {name: sum(marks) for name, marks in repeated.items()},
            "is_new": "".join(str(int(one)) for one in new),
            "right": answered_right(predictor, split_run),
            "all": score(predictor, split_run, [True] * len(new)),
            "new": score(predictor, split_run, new),
        }
    return found


def gain(scores: Scores, rule: str = RULES[0], key: str = "accuracy") -> float:
    """Return how much better fused is than the best single modality, of the same bundle and rows."""
    sign = 1 if key == "accuracy" else -1
    return min(sign * (scores["full"][rule][key] - scores[name][rule][key]) for name in (IMAGE, TEXT))


def gained(results: Sequence[Mapping[str, Any]], split: str, kind: str) -> str:
    """Say by how many points fused beats the best single modality over all seeds, with a paired 95 % interval."""
    kept = np.array(list(results[0][split]["is_new"])) == "1" if kind == "new" else slice(None)

    def right(condition: str) -> Array:
        return np.array([list(map(float, one[split]["right"][condition])) for one in results])[:, kept]

    best = max((IMAGE, TEXT), key=lambda name: right(name).mean())
    mean, low, high = interval(right("full"), right(best), np.arange(right("full").shape[1]))
    return f"Fused minus {best}: {mean:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f} (paired bootstrap over rows and seeds)."


def markdown(config: PretrainedConfig, results: Sequence[Mapping[str, Any]]) -> str:
    """Write the tables: one row for each seed, rows of the split and of those without repeats."""
    first = results[0]["test"]
    image = f"{config.image} at {config.image_size} px"
    lines = [
        "# Frozen pretrained texts beside pictures learned from scratch\n",
        f"`{config.data.name}`, text {_source(config.text)} (frozen), image {_source(image)}, mla, {config.epochs} epochs, through the",
        f'exported bundles. {machine()}. `make bench-pretrained ARGS="--data DIR --text hf:FOLDER"`\n',
        f"Of {first['rows']} test rows, {first['repeats'][TEXT]} have a text that a training row has (lower case, without links and",
        f'"RT @name", letters and digits alone), and {first["repeats"][IMAGE]} an image file; without both, {first["new_rows"]} rows are left.\n',
    ]
    for split, kind, title in (
        ("test", "all", "Test, all rows"),
        ("test", "new", "Test, without repeats"),
        ("val", "all", "Validation, which checkpoint, recipe and fusion were fitted to"),
    ):
        lines += [f"## {title}\n", *_table([one[split][kind] for one in results]), "", gained(results, split, kind), ""]
    return "\n".join(lines)


def _source(encoder: str) -> str:
    return Path(encoder.removeprefix(PREFIX)).name if encoder.startswith(PREFIX) else encoder


def _table(seeds: Sequence[Scores]) -> list[str]:
    """Tabulate accuracy in per cent and NLL of fused and single, and the gain over the best single."""
    lines = ["| seed | fused | image | text | gain | fused by paper | NLL fused | image | text |", "|---" * 9 + "|"]
    rows = []
    for scores in seeds:
        accuracy = [100 * scores[name]["calibrated"]["accuracy"] for name in SHOWN]
        nll = [scores[name]["calibrated"]["nll"] for name in SHOWN]
        rows.append([*accuracy, 100 * gain(scores), 100 * scores["full"]["paper"]["accuracy"], *nll])
    for name, row in [*enumerate(rows), ("mean", np.mean(rows, axis=0))]:
        numbers = [f"{row[i]:+.1f}" if i == 3 else f"{row[i]:.1f}" if i < 5 else f"{row[i]:.3f}" for i in range(8)]
        lines.append(f"| {name} | {' | '.join(numbers)} |")
    return lines


def run(config: PretrainedConfig) -> None:
    """Train what is missing, ask the test split, and write the tables."""
    bundles = [train_seed(config, seed) for seed in track(range(config.seeds), "seeds", console=console)]
    results = [{"seed": seed, **measure(config, bundle)} for seed, bundle in enumerate(bundles)]
    write_results(config.out, "pretrained", results, markdown(config, results))
    console.print(f"{config.out}/pretrained.md and .json are written")


if __name__ == "__main__":
    main(run, PretrainedConfig, needs="train")
