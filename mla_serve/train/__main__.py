"""`python -m mla_serve.train`: from a table to a bundle that can be served."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich.progress
from rich.table import Table as RichTable

from mla_serve.cli import console, main
from mla_serve.train.config import TrainConfig

if TYPE_CHECKING:
    from mla_serve.bundle import Manifest


def run(config: TrainConfig) -> None:
    """Train, export, and say how well it went and how to serve it."""
    import torch

    from export.bundle import export_run
    from mla_serve.train import pipeline

    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    planned = pipeline.plan(config)
    out = config.out or Path("models") / planned.name
    for note in planned.notes:
        console.print(f"[dim]{note}[/]")
    console.print(
        f"{planned.name}: {', '.join(planned.recipe.inputs)} -> {len(planned.recipe.classes)} classes, {config.strategy}"
    )
    with _progress() as progress:
        task = progress.add_task("training", total=pipeline.total_steps(config, planned))
        folder = pipeline.train(
            config, planned, lambda record: progress.console.print(_line(record)), lambda: progress.advance(task)
        )
    console.print("exporting and measuring ...")
    manifest = export_run(folder.path, out)
    _print_results(manifest)
    console.print(f"\n{out} is ready. Serve it:\n\n    make serve MODEL={out}\n\n(or: MLA_MODEL={out} bentoml serve)")


def _progress() -> rich.progress.Progress:
    columns = (rich.progress.BarColumn(), rich.progress.TaskProgressColumn(), rich.progress.TimeRemainingColumn())
    return rich.progress.Progress(*columns, console=console, transient=True)


def _line(record: dict[str, Any]) -> str:
    """Write one epoch in one line: loss and validation accuracy of each modality alone, and of all together."""
    parts = []
    for key, loss in record.items():
        if key.startswith("loss/"):
            name = key.removeprefix("loss/")
            parts.append(f"{name} {loss:.2f} {record['val'].get(name, float('nan')):.3f}")
    return f"epoch {record['epoch']:3d}  {'  '.join(parts)}  all {record['val']['full']:.3f}{'  *' if record['best'] else ''}"


def _print_results(manifest: Manifest) -> None:
    metrics = manifest.metrics
    table = RichTable(title=f"{metrics['rows']} rows of {metrics['split']}, through the exported graphs")
    for column in ("available", "accuracy", "NLL", "ECE"):
        table.add_column(column, justify="left" if column == "available" else "right")
    for name, rules in metrics["conditions"].items():
        s = rules["calibrated"]
        table.add_row(name, f"{s['accuracy']:.3f}", f"{s['nll']:.3f}", f"{s['ece']:.3f}")
    console.print(table)


if __name__ == "__main__":
    main(run, TrainConfig, needs="train")
