"""`make bench-speakers`: the recipe of models/digits with each speaker held out in turn; one test speaker is one draw.

Pictures and words stay in their splits, and so do their writers and languages; the recordings move: the held-out
speaker's to test, the next one's to val, the rest to train. Within a class, recordings are put to the rows at random.
Each speaker is a cell of benchmarks.accuracy.strategies: resumable, the test split asked once. Takes about a quarter of an
hour on two cores; writes speakers.json and .md.

    python -m benchmarks.accuracy.speakers --data DIR
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from benchmarks.accuracy.strategies import Cell, read, run_cell
from benchmarks.shared import machine, write_whole
from mla_serve.console import console, main
from mla_serve.errors import ConfigError
from mla_serve.table import Row, read_table
from mla_serve.train.config import TrainConfig

MODALITY = "audio"
SHOWN = ("audio", "image", "text", "full", "missing20", "missing50", "missing80")
Speakers = Mapping[str, Mapping[str, Sequence[Path]]]  # speaker -> label -> recordings


@dataclasses.dataclass(frozen=True)
class SpeakersConfig:
    """Train once for each speaker held out."""

    data: Path
    """Folder of a table whose audio has speakers as groups, such as tri-digits."""
    epochs: int = 30
    """Passes over the training rows; 30 is the default of mla_serve.train."""
    jobs: int = os.cpu_count() or 1
    """Speakers trained at a time."""
    work: Path = Path("runs/bench")
    """Folder of the finished cells."""
    out: Path = Path("benchmarks/accuracy")
    """Folder that speakers.json and .md are written to."""


def recordings(rows: Sequence[Row]) -> Speakers:
    """Collect each speaker's recordings by label.

    Raises: ConfigError when the table does not say who speaks.
    """
    found: defaultdict[str, defaultdict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        value = row.values.get(MODALITY)
        if isinstance(value, Path) and MODALITY in row.groups:
            found[row.groups[MODALITY]][row.label].append(value)
    if len(found) < 3:
        raise ConfigError(
            f'--data: expected three speakers or more as {{"group": {{"{MODALITY}": ...}}}}, got {len(found)}'
        )
    return found


def hold_out(speaker: str, data: Path, folder: Path) -> None:
    """Write the tables of one round into an empty folder, with links to the files."""
    table = read_table(data)
    everyone = recordings([row for rows in table.splits.values() for row in rows])
    names = sorted(everyone)
    validation = names[(names.index(speaker) + 1) % len(names)]
    parts = {"test": [speaker], "val": [validation]}
    parts["train"] = [name for name in names if name not in (speaker, validation)]
    folder.mkdir(parents=True, exist_ok=True)
    for entry in table.folder.resolve().iterdir():
        if entry.is_dir() and not (folder / entry.name).exists():
            (folder / entry.name).symlink_to(entry)
    generator = np.random.default_rng(0)
    for split, speakers in parts.items():
        lines = _rows(table.folder / f"{split}.jsonl", everyone, speakers, table.folder, generator)
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rows(
    source: Path, everyone: Speakers, speakers: Sequence[str], folder: Path, generator: np.random.Generator
) -> list[str]:
    """Return a split's lines with the recordings of these speakers instead, each used once; rows beyond them go."""
    drawn: dict[str, list[Path]] = {}
    for label in next(iter(everyone.values())):
        pool = [file for name in speakers for file in everyone[name][label]]
        drawn[label] = [pool[i] for i in generator.permutation(len(pool))]
    lines = []
    for line in source.read_text(encoding="utf-8").splitlines():
        cells = json.loads(line)
        if drawn[cells["label"]]:
            file = drawn[cells["label"]].pop()
            cells[MODALITY] = file.relative_to(folder).as_posix()
            lines.append(json.dumps(cells, ensure_ascii=False))
    return lines


def cells(config: SpeakersConfig) -> dict[str, Cell]:
    """Write the tables of every round; returns the training run of each: {speaker: cell}."""
    everyone = recordings([row for rows in read_table(config.data).splits.values() for row in rows])
    runs = {}
    for speaker in sorted(everyone):
        folder = config.work / "speakers" / speaker
        hold_out(speaker, config.data, folder)
        lr = TrainConfig.lr
        runs[speaker] = Cell(f"speaker-{speaker}", str(folder), "mla", TrainConfig.optimizer, lr, 0, config.epochs)
    return runs


def markdown(results: Mapping[str, Mapping[str, Any]], epochs: int) -> str:
    """Write the table: accuracy in per cent by held-out speaker, calibrated."""
    table = {
        speaker: [100 * one["conditions"]["test"][name]["calibrated"]["accuracy"] for name in SHOWN]
        for speaker, one in results.items()
    }
    values = np.array(list(table.values()))
    table |= {"mean": values.mean(0).tolist(), "standard deviation": values.std(0, ddof=1).tolist()}
    lines = [f"| {speaker} | " + " | ".join(f"{value:.1f}" for value in row) + " |" for speaker, row in table.items()]
    return "\n".join(
        [
            "# Each speaker held out in turn\n",
            f"Test accuracy in per cent, calibrated fusion, seed 0, {epochs} epochs; the held-out speaker is heard in neither",
            f"training nor validation. {machine()}. `make bench-speakers ARGS=\"--data DIR\"`\n",
            "| speaker | " + " | ".join(SHOWN) + " |",
            "|---" * (len(SHOWN) + 1) + "|",
            *lines,
            "",
        ]
    )  # fmt: skip


def run(config: SpeakersConfig) -> None:
    """Train what is missing and write the table."""
    runs = cells(config)
    with ThreadPoolExecutor(config.jobs) as pool:
        done = pool.map(lambda cell: run_cell(cell, config.work), runs.values())
        list(track(done, "speakers", total=len(runs), console=console))
    results = {speaker: read(cell, config.work) for speaker, cell in runs.items()}
    rows = [
        {"speaker": speaker, "condition": name} | rules["calibrated"]
        for speaker, one in results.items()
        for name, rules in one["conditions"]["test"].items()
    ]
    write_whole(config.out / "speakers.json", "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    write_whole(config.out / "speakers.md", markdown(results, config.epochs))
    console.print(f"{config.out}/speakers.md and .json are written")


if __name__ == "__main__":
    main(run, SpeakersConfig, needs="train")
