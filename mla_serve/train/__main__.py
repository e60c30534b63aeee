"""`python -m mla_serve train`: from a table to a bundle that can be served."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import rich.progress
from rich.console import Console

from mla_serve.cli import console, errors, main
from mla_serve.show import measured
from mla_serve.train.config import TrainConfig

RULES = ("calibrated",)


@dataclasses.dataclass(frozen=True)
class TrainFlags(TrainConfig):
    """Train encoders for every modality of a table and one shared head, and export them as a bundle that can be served."""

    json: bool = False
    """Print the manifest of the bundle as JSON; what happens meanwhile goes to standard error."""


def run(flags: TrainFlags) -> None:
    """Train, export, and say how well it went and how to serve it."""
    import torch

    from export.bundle import export_run
    from mla_serve.train import extend, pipeline
    from mla_serve.train.memory import keep_freed_memory

    config = TrainConfig(**{field.name: getattr(flags, field.name) for field in dataclasses.fields(TrainConfig)})
    screen = errors if flags.json else console
    keep_freed_memory()
    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    planned = extend.plan(config) if config.extend else pipeline.plan(config)
    out = config.out or Path("models") / planned.name
    for note in planned.notes:
        screen.print(f"[dim]{note}[/]")
    screen.print(
        f"{planned.name}: {', '.join(planned.recipe.inputs)} -> {len(planned.recipe.classes)} classes, {planned.recipe.strategy}"
    )
    with _progress(screen) as progress:
        task = progress.add_task("training", total=pipeline.total_steps(config, planned))
        folder = pipeline.train(
            config, planned, lambda record: progress.console.print(_line(record)), lambda: progress.advance(task)
        )
    screen.print("exporting and measuring ...")
    manifest = export_run(folder.path, out)
    if flags.json:
        print(manifest.model_dump_json(indent=1))
        return
    screen.print(measured(manifest.metrics, RULES))
    screen.print(f"\n{out} is ready. Serve it:\n\n    make serve MODEL={out}\n\n(or: MLA_MODEL={out} bentoml serve)")


def _progress(screen: Console) -> rich.progress.Progress:
    columns = (rich.progress.BarColumn(), rich.progress.TaskProgressColumn(), rich.progress.TimeRemainingColumn())
    return rich.progress.Progress(*columns, console=screen, transient=True)


def _line(record: dict[str, Any]) -> str:
    """Write one epoch in one line: loss and validation accuracy of each modality alone, and of all together."""
    parts = []
    for key, loss in record.items():
        if key.startswith("loss/"):
            name = key.removeprefix("loss/")
            parts.append(f"{name} {loss:.2f} {record['val'].get(name, float('nan')):.3f}")
    return f"epoch {record['epoch']:3d}  {'  '.join(parts)}  all {record['val']['full']:.3f}{'  *' if record['best'] else ''}"


if __name__ == "__main__":
    main(run, TrainFlags, needs="train")
