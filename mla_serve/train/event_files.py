"""Write the record of each epoch as scalars for TensorBoard, beside metrics.jsonl in the folder of the run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mla_serve.train.loop import Report

FOLDER = "tensorboard"


@contextlib.contextmanager
def event_files(report: Report, run: Path, log: str | None) -> Iterator[Report]:
    """Yield a report that also writes the numbers of each epoch to RUN/tensorboard; without a log, the report itself.

    Args: log, tensorboard or None.
    """
    if log is None:
        yield report
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(run / FOLDER) as writer:

        def both(record: dict[str, Any]) -> None:
            for name, value in _scalars(record):
                writer.add_scalar(name, value, record["epoch"])
            report(record)

        yield both


def _scalars(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a record with their names, such as loss/image and val/full."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and name != "epoch":
            yield f"{prefix}{name}", float(value)
