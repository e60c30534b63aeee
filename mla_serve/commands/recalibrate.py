"""`mla-serve recalibrate`: fit a finished bundle to labelled rows; its graphs stay as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from mla_serve.bundle.about import parse_about
from mla_serve.bundle.manifest import Bundle, Manifest, read_task
from mla_serve.console import console, errors
from mla_serve.errors import ConfigError
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.table import TableOptions
from mla_serve.table.faults import MOST_SHOWN
from mla_serve.tasks import Task


@dataclasses.dataclass(frozen=True)
class RecalibrateConfig:
    """Fit a finished bundle to labelled rows, and write it as a new one: the weights of its modalities, its probabilities,
    prediction sets or intervals, thresholds of labels, and what it takes for unfamiliar. Its graphs stay as they are. It needs
    no checkpoint, and 50 rows at least, such as the model was not trained on."""

    model: Path
    """Folder of the bundle. It stays as it is."""
    data: Path
    """Table, or folder of a data set, with labels. The split `train`, if there is one, should hold the rows that the model was
    trained on: unfamiliar input is told by comparison with them. Without it, the comparison stays as it is. The split `test`
    is measured, but for copies of rows that are fitted; without it, the rows that were fitted are, which flatters."""
    out: Path
    """Folder that the new bundle is written to. An older bundle of the same name there is kept as NAME.old."""
    split: str | None = None
    """Which rows are fitted: train, val or test. Default: val; of a table without splits, all rows."""
    label: str | None = None
    """Column of the labels. Default: that of training, or `label`."""
    about: Path | None = None
    """Markdown file about the model, in place of what the bundle says: its headings may be Purpose, Do not use it for, Data and
    Licence."""
    samples: bool = False
    """The report may show rows of the data set. Default: none of them."""
    skip_bad: bool = False
    """Leave out the rows that have faults. How many, and where they are, is printed, and all faults are listed in
    NAME.faults.csv. Default: any fault is an error."""
    skip_bad_values: bool = False
    """Leave out the values that have faults, such as a broken picture. The other modalities of the row are used."""
    show: int = MOST_SHOWN
    """Number of faults in an error message."""
    json: bool = False
    """Print the manifest of the new bundle as JSON."""


def run(config: RecalibrateConfig) -> None:
    """Fit, and print what became of the scores."""
    from mla_serve.export.new_rows import read_new_rows
    from mla_serve.export.recalibrate import check_out, recalibrate

    base = Bundle.load(config.model)
    about = parse_about(_read(config.about)) if config.about else None
    note = check_out(base, config.out, config.data)
    if note:
        errors.print(note, style="dim", soft_wrap=True)
    options = TableOptions(
        label=config.label,
        skip_bad=config.skip_bad,
        skip_bad_values=config.skip_bad_values,
        show=config.show,
        faults_file=Path(f"{config.data.resolve().stem}.faults.csv"),
    )
    new = read_new_rows(base, config.data, config.split, options)
    manifest = recalibrate(base, config.out, new, about, samples=config.samples)
    for line in new.faults.describe_left_out([row.place for row in (*new.fitted, *new.train, *new.measured)]):
        errors.print(line, style="yellow", highlight=False, soft_wrap=True)
    if config.json:
        print(manifest.model_dump_json(indent=1))
        return
    for line in manifest.training["recalibrated"]["notes"]:
        console.print(line, style="dim", soft_wrap=True)
    console.print(compared(manifest, read_task(manifest)))
    if manifest.metrics.get("fitted"):
        console.print("There are no other rows to measure on, so expect less of new data.")


def _read(path: Path) -> str:
    """Read a text. Raises: ConfigError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--about {path}: cannot be read ({error}); give a text file") from None


def compared(manifest: Manifest, task: Task) -> Table:
    """Draw the scores of the bundle before and after, a line for each condition."""
    before: Mapping[str, Mapping[str, float]] = manifest.training["recalibrated"]["before"]
    metrics: Mapping[str, Any] = manifest.metrics
    shown = list(dict.fromkeys((task.main_scores[0], *(key for key in ("nll", "ece") if key in before["full"]))))
    of = "that were fitted" if metrics.get("fitted") else f"of {metrics['split']}"
    title = f"{metrics['rows']:,} rows {of}, before -> after"
    table = Table("available", title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for score in shown:
        table.add_column(task.title(score), justify="right", no_wrap=True)
    for name, old in before.items():
        now = metrics["conditions"][name][DEFAULT_RULE]
        table.add_row(name, *(f"{task.cell(score, old)} -> {task.cell(score, now)}" for score in shown))
    return table
