"""Rows in memory: decoded once, handed out in batches, augmented when asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from mla_serve.inputs import Input
from mla_serve.table import Row, payload
from mla_serve.train import distributed
from mla_serve.train.augment import AUGMENT, AUGMENT_PAYLOAD


@dataclasses.dataclass(frozen=True)
class Column:
    """One modality of N rows: windows (sum of W, *shape), each row's first window and their number, 0 where missing."""

    spec: Input
    windows: Tensor
    start: Tensor
    count: Tensor
    payloads: Sequence[str | None]

    @property
    def present(self) -> Tensor:
        """(N,) bool."""
        return self.count > 0


@dataclasses.dataclass(frozen=True)
class Samples:
    """N decoded rows: labels (N,) int64, and a column for each modality."""

    labels: Tensor
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)


def decode_rows(rows: Sequence[Row], inputs: Mapping[str, Input], classes: Sequence[str]) -> Samples:
    """Decode every row once, with all cores."""
    index = {label: c for c, label in enumerate(classes)}
    labels = torch.tensor([index[row.label] for row in rows])
    return Samples(labels, {name: _decode_column(rows, name, spec) for name, spec in inputs.items()})


def _decode_column(rows: Sequence[Row], name: str, spec: Input) -> Column:
    def decode(row: Row) -> np.ndarray:
        if name not in row.values:
            return np.empty((0, *spec.shape), spec.dtype)
        return spec.decode(payload(row.values[name]), name)

    with ThreadPoolExecutor() as pool:
        arrays = list(pool.map(decode, rows))
    count = torch.tensor([len(array) for array in arrays])
    keep = spec.kind in AUGMENT_PAYLOAD
    payloads = [str(row.values[name]) if keep and name in row.values else None for row in rows]
    return Column(spec, torch.from_numpy(np.concatenate(arrays)), count.cumsum(0) - count, count, payloads)


class TrainingBatch:
    """B rows of a training split, this process's part of a batch; one random window of each recording."""

    def __init__(
        self, samples: Samples, rows: Tensor, generator: torch.Generator, device: torch.device, augment: bool
    ) -> None:
        """Take the numbers of all rows of the batch."""
        self._samples, self._rows, self._generator = samples, rows, generator
        self._device, self._augment = device, augment
        self.rows = distributed.own(rows)
        self.labels = samples.labels[self.rows].to(device)
        self.whole = {name: column.present[rows] for name, column in samples.columns.items()}
        self.present = {name: distributed.own(there).to(device) for name, there in self.whole.items()}

    def inputs(self, name: str) -> Tensor:
        """Return the windows of the rows that have `name`, augmented: (rows, *shape); of another's where there are none."""
        column, everyones = self._samples.columns[name], self._rows[self.whole[name]]
        own = distributed.share(self.whole[name]).lent
        rows = everyones[own]
        kind = column.spec.kind
        if self._augment and kind in AUGMENT_PAYLOAD:
            return self._mistyped(column, rows, name).to(self._device)
        offset = (torch.rand(len(everyones), generator=self._generator)[own] * column.count[rows]).long()
        windows = column.windows[column.start[rows] + offset]
        if self._augment:
            windows = AUGMENT[kind](windows, self._generator)
        return windows.to(self._device)

    def _mistyped(self, column: Column, rows: Tensor, name: str) -> Tensor:
        edit = AUGMENT_PAYLOAD[column.spec.kind]
        seed = int(torch.randint(2**62, (1,), generator=self._generator))
        generator = np.random.default_rng(seed)
        texts = [edit(column.payloads[row] or "", generator) for row in rows.tolist()]
        return torch.from_numpy(np.concatenate([column.spec.decode(text, name) for text in texts]))


def training_batches(
    samples: Samples, batch_size: int, generator: torch.Generator, device: torch.device, augment: bool
) -> Iterator[TrainingBatch]:
    """Hand out all rows once in random order; a last batch of one row is left out.

    Batches do not depend on the number of processes; how samples are varied does.
    """
    order = torch.randperm(len(samples), generator=generator)
    if augment and distributed.rank():
        generator.manual_seed(generator.initial_seed() + distributed.rank())
    for rows in order.split(batch_size):
        if len(rows) > 1:
            yield TrainingBatch(samples, rows, generator, device, augment)


def batches_per_epoch(rows: int, batch_size: int) -> int:
    """Count what `training_batches` hands out."""
    return rows // batch_size + (rows % batch_size > 1)
