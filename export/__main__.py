"""`python -m export RUN --out models/NAME`: turn a finished run into a bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table as RichTable

from mla_serve.cli import console, main
from mla_serve.show import measured

RULES = ("calibrated", "paper")


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Turn a finished run into a bundle of ONNX graphs, checked against torch."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, such as runs/digits."""
    out: Path | None = None
    """Folder that the bundle is written to. Default: models/NAME."""
    json: bool = False
    """Print the manifest of the bundle as JSON."""


def export(config: ExportConfig) -> None:
    """Export, and say where to."""
    from export.bundle import export_run
    from mla_serve.train.run import RunFolder

    out = config.out or Path("models") / RunFolder(config.run).read_json()["name"]
    manifest = export_run(config.run, out)
    if config.json:
        print(manifest.model_dump_json(indent=1))
        return
    table = RichTable("graph", "bytes", "largest difference to torch", title=str(out), title_justify="left")
    for name, difference in manifest.parity["largest_difference"].items():
        table.add_row(name, f"{(out / f'{name}.onnx').stat().st_size:,}", f"{difference:.1g}")
    console.print(table)
    console.print(measured(manifest.metrics, RULES))


if __name__ == "__main__":
    main(export, ExportConfig, needs="train")
