"""`python -m export RUN --out models/NAME`: turn a finished run into a bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from mla_serve.cli import console, main


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Turn a finished run into a bundle of ONNX graphs, checked against torch."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, such as runs/digits."""
    out: Path | None = None
    """Folder that the bundle is written to. Default: models/NAME."""


def export(config: ExportConfig) -> None:
    """Export, and say where to."""
    from export.bundle import export_run
    from mla_serve.train.run import RunFolder

    out = config.out or Path("models") / RunFolder(config.run).read_json()["name"]
    manifest = export_run(config.run, out)
    worst = max(manifest.parity["largest_difference"].values())
    console.print(f"{out}: {len(manifest.files)} files, graphs equal torch to {worst:.1g}")


if __name__ == "__main__":
    main(export, ExportConfig, needs="train")
