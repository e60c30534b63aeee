"""Features and logits of decoded rows, clean and corrupted: what everything after training is fitted on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mla_serve.fusion.formula import Array
from mla_serve.inputs import Input
from mla_serve.inputs.corruptions import SEVERITIES
from mla_serve.table import Row, read_payload
from mla_serve.train.data.samples import Column, make_column
from mla_serve.train.encoders import Encoder
from mla_serve.train.strategies import Strategy

BATCH = 256
Choice = Callable[[np.random.Generator], str | None]
"""Draws the name of a corruption; None leaves the payload as it is."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """One modality: present (N,) bool, which rows have it; features (rows, D) and logits (rows, C) of those."""

    present: Array
    features: Array
    logits: Array


@torch.no_grad()
def encode_column(strategy: Strategy, name: str, column: Column, device: torch.device) -> Encoded:
    """Encode a modality. The features of a row's windows are averaged, as the predictor does."""
    strategy.eval()
    windows = torch.cat([strategy.encoders[name](part.to(device)).cpu() for part in column.windows.split(BATCH)])
    features = column.mean_by_row(windows)[column.present]
    head = strategy.heads[strategy.head_of[name]]
    logits: Tensor = head(features.to(device)).cpu()
    return Encoded(column.present.numpy(), features.numpy(), logits.numpy())


def stack(encoded: Mapping[str, Encoded]) -> tuple[Array, Array]:
    """Stack all modalities: logits (M, N, C), 0 where absent; present (M, N)."""
    present = np.stack([one.present for one in encoded.values()])
    logits = np.zeros((*present.shape, next(iter(encoded.values())).logits.shape[1]))
    for m, one in enumerate(encoded.values()):
        logits[m, one.present] = one.logits
    return logits, present


def corrupt_column(
    rows: Sequence[Row],
    name: str,
    spec: Input,
    choose: Choice,
    seed: int,
    encoder: Encoder | None = None,
) -> Column:
    """Decode a modality of every row with a corruption, which `choose` draws for each, at a random severity."""

    def decode(number: int) -> Array:
        generator = np.random.default_rng([seed, number])
        severity = int(generator.choice(SEVERITIES))
        return spec.corrupt(read_payload(rows[number].values[name]), name, choose(generator), severity, generator)

    return make_column(spec, rows, name, decode, encoder, [None] * len(rows))


def first_corruption(spec: Input) -> Choice:
    """Choose the corruption that fusion is fitted on; None for a kind without corruptions."""
    first = next(iter(spec.corruptions), None)
    return lambda generator: first  # noqa: ARG005


def any_corruption(spec: Input) -> Choice:
    """Choose any corruption of a kind of input; None for a kind without corruptions."""
    names = list(spec.corruptions)
    return lambda generator: str(generator.choice(names)) if names else None
