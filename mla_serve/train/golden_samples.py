"""The golden samples of a bundle: replayed when a model starts, and shown to whoever can call the service."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from mla_serve.inputs import Input, Payload
from mla_serve.table import Row, payload

SAMPLES, COMPLETE = 10, 3  # samples in all; samples with every modality, at least
LARGER = 1.7  # times the size or length that the model reads


def pick_rows(rows: Sequence[Row], inputs: Mapping[str, Input]) -> list[dict[str, Payload]]:
    """Pick one row of each of the first ten classes, the one with the most modalities."""
    fullest: dict[str, Row] = {}
    for row in rows:
        if row.label not in fullest or len(row.values) > len(fullest[row.label].values):
            fullest[row.label] = row
    chosen = [fullest[label] for label in sorted(fullest)[:SAMPLES]]
    return [{name: payload(row.values[name]) for name in inputs if name in row.values} for row in chosen]


def make_samples(
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
    make_larger = MAKE_LARGER.get(spec.kind)
    return make_larger(spec, generator) if make_larger and number % 2 else spec.generate(generator)


def _larger_image(spec: Any, generator: np.random.Generator) -> Payload:
    size = {"width": round(LARGER * spec.width), "height": 2 * spec.height}
    larger = dataclasses.replace(spec, **size, short_side=0, stretch_width=0, stretch_height=0)
    made: Payload = larger.generate(generator)
    return made


def _longer_audio(spec: Any, generator: np.random.Generator) -> Payload:
    """Generate a longer recording at twice the sampling rate."""
    longer = dataclasses.replace(spec, rate=2 * spec.rate, window=round(2 * LARGER * spec.window))
    made: Payload = longer.generate(generator)
    return made


def _longer_text(spec: Any, generator: np.random.Generator) -> Payload:
    return " ".join(str(spec.generate(generator)).title() for _ in range(5))


MAKE_LARGER: Mapping[str, Callable[[Any, np.random.Generator], Payload]] = {
    "image": _larger_image,
    "audio": _longer_audio,
    "text": _longer_text,
}
"""By kind of input. A kind that is not listed has no size of its own."""
