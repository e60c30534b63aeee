"""Defaults of training that depend on the number of training rows. benchmarks/accuracy/defaults.py measures them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mla_serve.train.config import TrainConfig

STEPS = 200  # of all epochs together, at least
EPOCHS = (30, 100)  # at least and at most, for a table
GENERATED = 12  # epochs of the generated data
BATCH_SIZE = 64
"""Smaller batches were no better: with 100 rows, batches of 16 cost accuracy on both tables (one seed each)."""


def with_defaults(config: TrainConfig, rows: int, begun: Mapping[str, Any]) -> tuple[TrainConfig, list[str]]:
    """Fill in the settings that depend on the number of training rows.

    Args: begun, the settings of the run that is resumed, which are kept; empty for a new one.
    Returns: the settings, and a note on what was chosen.
    """
    kept = {key: begun.get(key) for key in ("epochs", "batch_size")}
    batch_size = config.batch_size or kept["batch_size"] or BATCH_SIZE
    epochs = config.epochs or kept["epochs"] or (_epochs(rows, batch_size) if config.data else GENERATED)
    chosen = dataclasses.replace(config, batch_size=batch_size, epochs=epochs)
    told = [
        f"--{key.replace('_', '-')} {getattr(chosen, key)}"
        for key in ("epochs", "batch_size")
        if getattr(config, key) is None
    ]
    return chosen, [f"defaults for {rows} training rows: {', '.join(told)}"] if told else []


def _epochs(rows: int, batch_size: int) -> int:
    """Return enough epochs for the steps."""
    low, high = EPOCHS
    return min(high, max(low, -(-STEPS * batch_size // rows)))
