"""`mla-serve export RUN --out models/NAME`: turn a finished run into a bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.table import Table as RichTable

from mla_serve.console import command_line, console, errors
from mla_serve.evaluation.draw import measured

RULES = ("calibrated", "paper")


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Turn a finished run into a bundle of ONNX graphs, checked against torch."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, such as runs/digits."""
    out: Path | None = None
    """Folder that the bundle is written to. Default: models/NAME."""
    precision: Literal["fp32", "fp16", "int8", "auto"] = "fp32"
    """Of the encoders. int8: static scales, calibrated on training rows; convolutions only where that is faster on this
    processor. auto: the fastest of fp32 and int8, encoder by encoder. fp16 is for CUDA; on a CPU it gains no time."""
    precision_loss: float = 0.01
    """Accuracy that a smaller precision may cost on validation, and on test where there is one; more is refused."""
    data: Path | None = None
    """Folder of the run's data set, if it is no longer where training found it."""
    base: Path | None = None
    """Folder of the bundle that the run extends, if it is no longer where training found it."""
    json: bool = False
    """Print the manifest of the bundle as JSON."""


def run(config: ExportConfig) -> None:
    """Export, and say where to."""
    from mla_serve.export.bundle import check_out, export_run
    from mla_serve.export.data import read_own
    from mla_serve.export.precision import Wish
    from mla_serve.train.run_folder import RunFolder

    facts = RunFolder(config.run).read_json()
    out = config.out or Path("models") / facts["name"]
    if config.data:
        read_own(facts, config.data)
    note = check_out(config.run, facts, out, config.data or Path(facts["data"]), config.base)
    if note:
        errors.print(note, style="dim", soft_wrap=True)
    manifest = export_run(config.run, out, Wish(config.precision, config.precision_loss), config.data, config.base)
    if config.json:
        print(manifest.model_dump_json(indent=1))
        return
    table = RichTable("graph", "bytes", "largest difference to torch", title=str(out), title_justify="left")
    for name, difference in manifest.parity["largest_difference"].items():
        table.add_row(name, f"{(out / f'{name}.onnx').stat().st_size:,}", f"{difference:.1g}")
    console.print(table)
    if manifest.precision:
        console.print(_chosen(manifest.precision))
    if manifest.metrics:
        console.print(measured(manifest.metrics, RULES))
    else:
        again = command_line("export", str(config.run))
        console.print(f"not measured; with the data set: {again} --data DIR", soft_wrap=True)


def _chosen(precision: dict[str, Any]) -> RichTable:
    """Draw what was tried for each encoder: the chosen one is marked."""
    title = f"precision {precision['asked']}, timed on {precision['processor']}; accuracy and ECE on validation"
    table = RichTable("encoder", "precision", "times faster, 1", "8", "bytes", "alone", "full", "ECE", title=title)
    for name, encoder in precision["encoders"].items():
        for label, found in encoder["tried"].items():
            speeds = [f"{times:.2f}" for times in found["times_faster"].values()]
            alone = f"{found['alone']['accuracy']:.4f}" if found["alone"] else ""
            full = (f"{found['full']['accuracy']:.4f}", f"{found['full']['ece']:.4f}")
            style = "bold" if label == encoder["chosen"] else "dim"
            table.add_row(name, label, *speeds, f"{found['bytes']:,}", alone, *full, style=style)
    return table
