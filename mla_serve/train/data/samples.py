"""Rows in memory: decoded once, handed out in batches, augmented when asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from mla_serve.console import errors
from mla_serve.inputs import Input
from mla_serve.inputs.text import TextInput
from mla_serve.table import Row, read_payload
from mla_serve.train.distributed import collectives
from mla_serve.train.encoders import Encoder, default_encoder

CHUNK = 256  # rows that are in memory as they were decoded, where an encoder precomputes


@dataclasses.dataclass(frozen=True)
class Column:
    """One modality of N rows: windows (sum of W, *shape), each row's first window and their number, 0 where missing.

    fixed: the windows are what a frozen encoder said of them, and cannot be augmented.
    """

    spec: Input
    windows: Tensor
    start: Tensor
    count: Tensor
    payloads: Sequence[str | None]
    fixed: bool = False

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


def decode_rows(
    rows: Sequence[Row],
    inputs: Mapping[str, Input],
    classes: Sequence[str],
    encoders: Mapping[str, Encoder] | None = None,
) -> Samples:
    """Decode every row once, with all cores.

    Args: encoders, by modality; those that precompute turn windows into features at once, so memory holds those alone.
    """
    index = {label: c for c, label in enumerate(classes)}
    labels = torch.tensor([index[row.label] for row in rows])
    encoders = encoders or {}
    return Samples(labels, {n: _decode_column(rows, n, spec, encoders.get(n)) for n, spec in inputs.items()})


def _decode_column(rows: Sequence[Row], name: str, spec: Input, encoder: Encoder | None) -> Column:
    keep = default_encoder(spec.kind).augments_text
    payloads = [_looked_at(spec, row.values[name]) if keep and name in row.values else None for row in rows]
    return make_column(
        spec, rows, name, lambda number: spec.decode(read_payload(rows[number].values[name]), name), encoder, payloads
    )


def _looked_at(spec: Input, value: object) -> str:
    """Return what decoding looks at of a value: editing the megabytes behind it would cost minutes an epoch."""
    return spec.cut(str(value)) if isinstance(spec, TextInput) else str(value)


def make_column(
    spec: Input,
    rows: Sequence[Row],
    name: str,
    decode: Callable[[int], np.ndarray],
    encoder: Encoder | None,
    payloads: Sequence[str | None],
) -> Column:
    """Make a column of what `decode` gives for the numbers of the rows that have it, some rows at a time."""

    def windows(number: int) -> np.ndarray:
        return decode(number) if name in rows[number].values else np.empty((0, *spec.shape), spec.dtype)

    counts, parts, fixed = [], [], encoder is not None and encoder.precomputes
    title, hidden = f"features of {name}", not (fixed and errors.is_terminal)
    starts = track(range(0, len(rows), CHUNK), title, console=errors, transient=True, disable=hidden)
    with ThreadPoolExecutor() as pool:
        for start in starts:
            arrays = list(pool.map(windows, range(start, min(start + CHUNK, len(rows)))))
            counts += [len(array) for array in arrays]
            part = torch.from_numpy(np.concatenate(arrays))
            parts.append(encoder.precompute(part) if encoder else part)
    count = torch.tensor(counts)
    return Column(spec, torch.cat(parts), count.cumsum(0) - count, count, payloads, fixed)


class TrainingBatch:
    """B rows of a training split, this process's part of a batch; one random window of each recording."""

    def __init__(
        self, samples: Samples, rows: Tensor, generator: torch.Generator, device: torch.device, augment: bool
    ) -> None:
        """Take the numbers of all rows of the batch."""
        self._samples, self._rows, self._generator = samples, rows, generator
        self._device, self._augment = device, augment
        self.rows = collectives.own(rows)
        self.labels = samples.labels[self.rows].to(device)
        self.whole: Mapping[str, Tensor] = {name: column.present[rows] for name, column in samples.columns.items()}
        self.present: Mapping[str, Tensor] = {
            name: collectives.own(there).to(device) for name, there in self.whole.items()
        }

    def inputs(self, name: str) -> Tensor:
        """Return the windows of the rows that have `name`, augmented: (rows, *shape); of another's where there are none."""
        column, everyones = self._samples.columns[name], self._rows[self.whole[name]]
        own = collectives.share(self.whole[name]).lent
        rows = everyones[own]
        encoder = default_encoder(column.spec.kind)
        augment = self._augment and not column.fixed
        if augment and encoder.augments_text:
            return self._decode_augmented(column, rows, name, encoder).to(self._device)
        offset = (torch.rand(len(everyones), generator=self._generator)[own] * column.count[rows]).long()
        windows = column.windows[column.start[rows] + offset]
        if augment:
            windows = encoder.augment_windows(windows, self._generator)
        return windows.to(self._device)

    def _decode_augmented(self, column: Column, rows: Tensor, name: str, encoder: type[Encoder]) -> Tensor:
        seed = int(torch.randint(2**62, (1,), generator=self._generator))
        generator = np.random.default_rng(seed)
        texts = [encoder.augment_text(column.payloads[row] or "", generator) for row in rows.tolist()]
        return torch.from_numpy(np.concatenate([column.spec.decode(text, name) for text in texts]))


def training_batches(
    samples: Samples, batch_size: int, generator: torch.Generator, device: torch.device, augment: bool
) -> Iterator[TrainingBatch]:
    """Hand out all rows once in random order; a last batch of one row is left out.

    Batches do not depend on the number of processes; how samples are varied does.
    """
    order = torch.randperm(len(samples), generator=generator)
    if augment and collectives.rank():
        generator.manual_seed(generator.initial_seed() + collectives.rank())
    for rows in order.split(batch_size):
        if len(rows) > 1:
            yield TrainingBatch(samples, rows, generator, device, augment)


def batches_per_epoch(rows: int, batch_size: int) -> int:
    """Count what `training_batches` hands out."""
    return rows // batch_size + (rows % batch_size > 1)
