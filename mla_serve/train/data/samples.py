"""The rows of a split: their targets, and the decoded windows of each modality, which stay on disk until they are needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mla_serve.inputs import Array, Input
from mla_serve.inputs.text import TextInput
from mla_serve.progress import Progress
from mla_serve.table import Row
from mla_serve.tasks import Task
from mla_serve.train.cache.store import ArrayStore
from mla_serve.train.data.decode import DecodedTable
from mla_serve.train.data.packing import Packing, packing_of
from mla_serve.train.encoders import Encoder, default_encoder

BATCH = 256  # windows that are encoded at a time
BATCH_NUMBERS = 2**22  # in them at most, so that long recordings do not take gigabytes


class Windows(Protocol):
    """Decoded windows (N, *shape): a tensor, or windows on disk."""

    @property
    def shape(self) -> Sequence[int]:
        """(N, *shape)."""

    def __len__(self) -> int:
        """Return N."""

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Return some windows in memory."""


class StoredWindows:
    """Windows in a memory-mapped store, unpacked when they are read. The pages are shared by all processes."""

    def __init__(self, store: ArrayStore, packing: Packing, at: Array) -> None:
        """Take the numbers of their records (N,)."""
        self._store, self._packing, self._at = store, packing, at  # the store keeps its folder from being removed
        self._records = np.asarray(store.records())

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *shape)."""
        return len(self._at), *self._packing.spec.shape

    def __len__(self) -> int:
        """Return N."""
        return len(self._at)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Read some windows."""
        at = self._at[index if isinstance(index, slice) else index.numpy()]
        return torch.from_numpy(self._packing.unpack(self._records[at]))


@dataclasses.dataclass(frozen=True)
class Column:
    """One modality of N rows.

    windows (sum of W, *shape); start and count (N,): the first window of each row and their number, 0 where missing.
    precomputed: `windows` holds the features of a frozen encoder, which cannot be augmented.
    """

    spec: Input
    windows: Windows
    start: Tensor
    count: Tensor
    payloads: Sequence[str | None]
    precomputed: bool = False

    @property
    def present(self) -> Tensor:
        """(N,) bool."""
        return self.count > 0


def mean_by_row(values: Tensor, count: Tensor) -> Tensor:
    """Average the values of each row's windows: (sum of W, D) and (N,) -> (N, D), 0 for a row without windows."""
    sums = torch.zeros(len(count), values.shape[1])
    sums.index_add_(0, torch.repeat_interleave(count), values)
    return sums / count.clamp_min(1)[:, None]


@dataclasses.dataclass(frozen=True)
class Samples:
    """N decoded rows: targets (N, ...), see Task.encode, and a column for each modality."""

    targets: Tensor
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        """Return N."""
        return len(self.targets)


def batches_of(windows: Windows) -> Iterator[Tensor]:
    """Yield windows in their order, as many at a time as may be encoded together; of no windows one empty batch."""
    size = batch_size_of(windows)
    return (windows[at : at + size] for at in range(0, max(len(windows), 1), size))


def batch_size_of(windows: Windows) -> int:
    """Return how many windows may be encoded together."""
    return int(np.clip(BATCH_NUMBERS // max(1, int(np.prod(windows.shape[1:]))), 1, BATCH))


def make_samples(
    rows: Sequence[Row],
    decoded: DecodedTable,
    inputs: Mapping[str, Input],
    task: Task,
    encoders: Mapping[str, Encoder] | None = None,
) -> Samples:
    """Make the samples of rows whose values are decoded.

    Args: inputs, the modalities to use; encoders, by modality. Frozen ones compute features at once.
    """
    encoders = encoders or {}
    return Samples(
        torch.from_numpy(task.encode([row.label for row in rows])),
        {name: _make_column(rows, name, spec, decoded, encoders.get(name)) for name, spec in inputs.items()},
    )


def _make_column(rows: Sequence[Row], name: str, spec: Input, decoded: DecodedTable, encoder: Encoder | None) -> Column:
    store, keys = decoded.store(name), decoded.keys[name]
    there = np.array([name in row.values for row in rows])
    entries = store.entries[store.find_all([keys[row.place] for row in rows if name in row.values])]
    count = np.zeros(len(rows), np.int64)
    count[there] = entries["count"]
    start = count.cumsum() - count
    at = np.repeat(entries["start"] - start[there], entries["count"]) + np.arange(count.sum())
    windows: Windows = StoredWindows(store, packing_of(spec), at)
    keep = default_encoder(spec.kind).augments_text
    payloads = [_read_part(spec, row.values[name]) if keep and name in row.values else None for row in rows]
    precomputed = encoder is not None and encoder.precomputes
    if encoder and precomputed:
        windows = precompute(encoder, windows, f"features of {name}")
    return Column(spec, windows, torch.from_numpy(start), torch.from_numpy(count), payloads, precomputed)


def precompute(encoder: Encoder, windows: Windows, title: str) -> Tensor:
    """Compute the features of a frozen encoder, with a progress bar: (N, size)."""
    parts = []
    with Progress(title, len(windows)) as progress:
        for part in batches_of(windows):
            parts.append(encoder.precompute(part))
            progress.advance(len(part))
    return torch.cat(parts)


def _read_part(spec: Input, value: object) -> str:
    """Return the part of a text that decoding reads. Augmenting megabytes behind it would cost minutes an epoch."""
    return spec.cut(str(value)) if isinstance(spec, TextInput) else str(value)
