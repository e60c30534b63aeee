"""Features and opinions of decoded rows, clean and corrupted: what everything after training is fitted on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from mla_serve.fusion.formula import Array
from mla_serve.inputs import Input
from mla_serve.inputs.corruptions import SEVERITIES
from mla_serve.progress import Progress
from mla_serve.table import Row, read_payload
from mla_serve.train.data.samples import Column, batch_size_of, batches_of, mean_by_row
from mla_serve.train.strategies import Strategy

CHUNK = 64  # rows that are decoded at a time
Choice = Callable[[np.random.Generator], str | None]
"""Draws the name of a corruption; None leaves the payload as it is."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """One modality: present (N,) bool, which rows have it; features (rows, D) and opinions (rows, O) of those."""

    present: Array
    features: Array
    opinions: Array


def encode_column(strategy: Strategy, name: str, column: Column, device: torch.device) -> Encoded:
    """Encode a modality. The features of a row's windows are averaged, as the predictor does."""
    return _encode(strategy, name, batches_of(column.windows), column.count, device)


def encode_some(strategy: Strategy, name: str, column: Column, device: torch.device, most: int) -> Encoded:
    """Encode a modality of `most` rows that have it, drawn at random; `present` says which."""
    having = column.present.nonzero().squeeze(1)
    chosen = having[torch.randperm(len(having), generator=torch.Generator().manual_seed(0))[:most]].sort().values
    count = torch.zeros_like(column.count)
    count[chosen] = column.count[chosen]
    own = column.count[chosen]
    within = torch.arange(int(own.sum())) - torch.repeat_interleave(own.cumsum(0) - own, own)
    index = torch.repeat_interleave(column.start[chosen], own) + within
    batches = (column.windows[part] for part in index.split(batch_size_of(column.windows)))
    return _encode(strategy, name, batches, count, device)


@torch.no_grad()
def _encode(strategy: Strategy, name: str, batches: Iterable[Tensor], count: Tensor, device: torch.device) -> Encoded:
    """Encode windows in batches. Args: count (N,), the number of windows of each row, complete after the last batch."""
    strategy.eval()
    windows = torch.cat([strategy.encoders[name](part.to(device)).cpu() for part in batches])
    features = mean_by_row(windows, count)[count > 0]
    head = strategy.heads[strategy.head_of[name]]
    opinions: Tensor = head(features.to(device)).cpu()
    return Encoded((count > 0).numpy(), features.numpy(), opinions.numpy())


def stack(encoded: Mapping[str, Encoded]) -> tuple[Array, Array]:
    """Stack all modalities: opinions (M, N, O), 0 where absent; present (M, N)."""
    present = np.stack([one.present for one in encoded.values()])
    first = next(iter(encoded.values())).opinions
    opinions = np.zeros((*present.shape, first.shape[1]), first.dtype)
    for m, one in enumerate(encoded.values()):
        opinions[m, one.present] = one.opinions
    return opinions, present


def encode_corrupted(
    strategy: Strategy,
    rows: Sequence[Row],
    name: str,
    spec: Input,
    choose: Choice,
    seed: int,
    device: torch.device,
) -> Encoded:
    """Encode a modality of every row with a corruption, which `choose` draws for each, at a random severity.

    Only some rows are decoded at a time.
    """
    encoder, count = strategy.encoders[name], torch.zeros(len(rows), dtype=torch.int64)

    def corrupt(number: int) -> Array:
        return corrupt_row(rows[number], name, spec, choose, [seed, number])

    def batches() -> Iterator[Tensor]:
        having = [number for number, row in enumerate(rows) if name in row.values]
        if not having:
            yield encoder.precompute(torch.from_numpy(np.empty((0, *spec.shape), spec.dtype)))
        with Progress(f"corrupted {name}", len(having)) as progress, ThreadPoolExecutor() as pool:
            for at in range(0, len(having), CHUNK):
                chunk = having[at : at + CHUNK]
                arrays = list(pool.map(corrupt, chunk))
                count[chunk] = torch.tensor([len(array) for array in arrays])
                yield from map(encoder.precompute, batches_of(torch.from_numpy(np.concatenate(arrays))))
                progress.advance(len(chunk))

    return _encode(strategy, name, batches(), count, device)


def corrupt_row(row: Row, name: str, spec: Input, choose: Choice, seed: Sequence[int]) -> Array:
    """Decode the value of a row that has the modality, corrupted at a random severity: (W, *shape)."""
    generator = np.random.default_rng(seed)
    severity = int(generator.choice(SEVERITIES))
    return spec.corrupt(read_payload(row.values[name]), name, choose(generator), severity, generator)


def decode_corrupted(rows: Sequence[Row], name: str, spec: Input, seed: int) -> Array:
    """Return what `encode_corrupted` encodes with the same seed, of inputs with one window: (rows, L)."""
    choose = any_corruption(spec)
    having = [number for number, row in enumerate(rows) if name in row.values]
    return np.concatenate([corrupt_row(rows[number], name, spec, choose, [seed, number]) for number in having])


def decode_rows(rows: Sequence[Row], name: str, spec: Input) -> Array:
    """Decode the rows that have a modality, of inputs with one window: (rows, L)."""
    return np.concatenate([spec.decode(read_payload(row.values[name]), name) for row in rows if name in row.values])


def any_corruption(spec: Input) -> Choice:
    """Choose any corruption of a kind of input; None for a kind without corruptions."""
    names = list(spec.corruptions)
    return lambda generator: str(generator.choice(names)) if names else None
