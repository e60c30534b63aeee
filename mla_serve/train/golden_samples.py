"""Choose the golden samples of a bundle. A service replays them when it starts, and shows them to whoever can call it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from mla_serve.inputs import Input, Payload
from mla_serve.inputs.columns import to_json_cells
from mla_serve.table import Row, read_payload
from mla_serve.tasks import Task

SAMPLES, COMPLETE = 10, 3  # samples in all; samples with every modality, at least


Truth = str | list[str] | float
"""The label of a row, as JSON."""


def pick_golden_samples(
    rows: Sequence[Row], inputs: Mapping[str, Input], task: Task
) -> tuple[list[dict[str, Payload]], list[Truth]]:
    """Return the payloads and the labels of one training row of each of the first ten strata, the row with the most modalities."""
    fullest: dict[str, Row] = {}
    for row, (stratum, *_) in zip(rows, task.strata([row.label for row in rows]), strict=True):
        if stratum not in fullest or len(row.values) > len(fullest[stratum].values):
            fullest[stratum] = row
    chosen = [fullest[stratum] for stratum in sorted(fullest)[:SAMPLES]]
    payloads = [
        {name: as_stored(read_payload(row.values[name])) for name in inputs if name in row.values} for row in chosen
    ]
    return payloads, [truth_of(row.label) for row in chosen]


def truth_of(label: Any) -> Truth:
    """Write a label as JSON: of labels, the names of those that the row has."""
    if isinstance(label, Mapping):
        return sorted(name for name, there in label.items() if there)
    return sorted(label) if isinstance(label, frozenset) else label


def as_stored(payload: Payload) -> Payload:
    """Write the dates of cells as text; a run stores the samples as JSON."""
    return to_json_cells(payload) if isinstance(payload, Mapping) else payload


def generate_golden_samples(
    inputs: Mapping[str, Input], generator: np.random.Generator, alone: Collection[str]
) -> list[dict[str, Payload]]:
    """Generate payloads that contain no training data: some with all modalities, then each of `alone` by itself.

    Every second one is larger than what the model reads, so that resizing, resampling and cutting are replayed too.

    Args: alone, the modalities that were trained; those of an extended bundle have samples of their own there.
    """
    complete = max(COMPLETE, SAMPLES - len(alone))
    samples = [{name: _make(spec, n, generator) for name, spec in inputs.items()} for n in range(complete)]
    return samples + [{name: _make(inputs[name], n, generator)} for n, name in enumerate(alone)]


def _make(spec: Input, number: int, generator: np.random.Generator) -> Payload:
    return spec.generate_large(generator) if number % 2 else spec.generate(generator)
