"""Decoded rows in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from mla_serve.console import errors
from mla_serve.inputs import Input
from mla_serve.inputs.text import TextInput
from mla_serve.table import Row, read_payload
from mla_serve.train.encoders import Encoder, default_encoder

CHUNK = 256  # rows that are decoded at a time, where an encoder precomputes features


@dataclasses.dataclass(frozen=True)
class Column:
    """One modality of N rows.

    windows (sum of W, *shape); start and count (N,): the first window of each row and their number, 0 where missing.
    precomputed: `windows` holds the features of a frozen encoder, which cannot be augmented.
    """

    spec: Input
    windows: Tensor
    start: Tensor
    count: Tensor
    payloads: Sequence[str | None]
    precomputed: bool = False

    @property
    def present(self) -> Tensor:
        """(N,) bool."""
        return self.count > 0

    def mean_by_row(self, values: Tensor) -> Tensor:
        """Average the values of each row's windows: (sum of W, D) -> (N, D), 0 where missing."""
        sums = torch.zeros(len(self.count), values.shape[1])
        sums.index_add_(0, torch.repeat_interleave(self.count), values)
        return sums / self.count.clamp_min(1)[:, None]


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
    """Decode every row once, on all cores.

    Args: encoders, by modality. Frozen ones compute features at once, so that memory holds the features only.
    """
    index = {label: c for c, label in enumerate(classes)}
    labels = torch.tensor([index[row.label] for row in rows])
    encoders = encoders or {}
    return Samples(labels, {n: _decode_column(rows, n, spec, encoders.get(n)) for n, spec in inputs.items()})


def _decode_column(rows: Sequence[Row], name: str, spec: Input, encoder: Encoder | None) -> Column:
    keep = default_encoder(spec.kind).augments_text
    payloads = [_read_part(spec, row.values[name]) if keep and name in row.values else None for row in rows]
    return make_column(
        spec, rows, name, lambda number: spec.decode(read_payload(rows[number].values[name]), name), encoder, payloads
    )


def _read_part(spec: Input, value: object) -> str:
    """Return the part of a text that decoding reads. Augmenting megabytes behind it would cost minutes an epoch."""
    return spec.cut(str(value)) if isinstance(spec, TextInput) else str(value)


def make_column(
    spec: Input,
    rows: Sequence[Row],
    name: str,
    decode: Callable[[int], np.ndarray],
    encoder: Encoder | None,
    payloads: Sequence[str | None],
) -> Column:
    """Make a column from `decode`, which gives the windows of the row at a position, some rows at a time."""

    def windows(number: int) -> np.ndarray:
        return decode(number) if name in rows[number].values else np.empty((0, *spec.shape), spec.dtype)

    counts, parts, precomputed = [], [], encoder is not None and encoder.precomputes
    title, hidden = f"features of {name}", not (precomputed and errors.is_terminal)
    starts = track(range(0, len(rows), CHUNK), title, console=errors, transient=True, disable=hidden)
    with ThreadPoolExecutor() as pool:
        for start in starts:
            arrays = list(pool.map(windows, range(start, min(start + CHUNK, len(rows)))))
            counts += [len(array) for array in arrays]
            part = torch.from_numpy(np.concatenate(arrays))
            parts.append(encoder.precompute(part) if encoder else part)
    count = torch.tensor(counts)
    return Column(spec, torch.cat(parts), count.cumsum(0) - count, count, payloads, precomputed)
