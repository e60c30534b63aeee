"""`mla-serve export RUN --out models/NAME`: turn a finished run into a bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.table import Table as RichTable

from mla_serve.bundle.manifest import read_task
from mla_serve.console import command_line, console, errors
from mla_serve.evaluation.draw import measured
from mla_serve.tasks import Task

SHOWN_RULES = ("calibrated", "paper")


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Turn a finished run into a bundle of ONNX graphs, checked against torch."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, such as runs/digits."""
    out: Path | None = None
    """Folder that the bundle is written to. Default: models/NAME."""
    precision: Literal["fp32", "fp16", "int8", "auto"] = "fp32"
    """Precision of the encoders. int8: with static scales, measured on training rows; convolutions only where that is
    faster on this processor. auto: the fastest of fp32 and int8, for each encoder. fp16 is for CUDA; it is no faster on
    a CPU."""
    precision_loss: float = 0.01
    """What a smaller precision may cost, on validation rows and on test rows: of accuracy (classes) or mAP (labels), or the
    share by which the mean absolute error may grow (number). If it costs more, nothing is exported."""
    data: Path | None = None
    """Table or folder of the run's data set, if it has moved since training."""
    base: Path | None = None
    """Folder of the bundle that the run extends, if it has moved since training."""
    json: bool = False
    """Print the manifest of the bundle as JSON."""


def run(config: ExportConfig) -> None:
    """Export, and print what was written and how well it does."""
    from mla_serve.export.choose_precision import PrecisionTarget
    from mla_serve.export.export_run import check_out, export_run
    from mla_serve.export.run_data import read_table_again
    from mla_serve.train.run_folder import RunFolder

    facts = RunFolder(config.run).read_json()
    out = config.out or Path("models") / facts["name"]
    if config.data:
        read_table_again(facts, config.data)
    note = check_out(config.run, facts, out, config.data or Path(facts["data"]), config.base)
    if note:
        errors.print(note, style="dim", soft_wrap=True)
    manifest = export_run(
        config.run, out, PrecisionTarget(config.precision, config.precision_loss), config.data, config.base
    )
    if config.json:
        print(manifest.model_dump_json(indent=1))
        return
    table = RichTable("graph", "bytes", "largest difference to torch", title=str(out), title_justify="left")
    for name, difference in manifest.parity["largest_difference"].items():
        table.add_row(name, f"{(out / f'{name}.onnx').stat().st_size:,}", f"{difference:.1g}")
    console.print(table)
    if manifest.precision:
        console.print(_precision_table(manifest.precision, read_task(manifest)))
    if manifest.metrics:
        console.print(measured(manifest.metrics, SHOWN_RULES, read_task(manifest)))
    else:
        again = command_line("export", str(config.run))
        console.print(f"not measured; with the data set: {again} --data DIR", soft_wrap=True)


def _precision_table(precision: dict[str, Any], task: Task) -> RichTable:
    """List the precisions that were tried for each encoder, with the chosen one in bold."""
    from mla_serve.export.choose_precision import cost_scores, cost_text

    score, other = cost_scores(task)
    titles = f"{task.title(score)} and {task.title(other)}"
    title = f"precision {precision['asked']}, timed on {precision['processor']}; {titles} on validation"
    table = RichTable(
        "encoder", "precision", "times faster, 1", "8", "bytes", "alone", "full", task.title(other), title=title
    )
    for name, encoder in precision["encoders"].items():
        for label, found in encoder["tried"].items():
            speeds = [f"{times:.2f}" for times in found["times_faster"].values()]
            alone = cost_text(task, score, found["alone"][score]) if found["alone"] else ""
            full = (cost_text(task, key, found["full"][key]) for key in (score, other))
            style = "bold" if label == encoder["chosen"] else "dim"
            table.add_row(name, label, *speeds, f"{found['bytes']:,}", alone, *full, style=style)
    return table
