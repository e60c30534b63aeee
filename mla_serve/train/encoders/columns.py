"""Columns in training: choosing the input from the training rows, and an encoder from cells to features."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mla_serve.inputs import Cell, Column, ColumnsInput
from mla_serve.inputs.columns import DAY, EPOCH, ColumnType, is_missing_cell
from mla_serve.train.config import TrainConfig
from mla_serve.train.encoders.base import Encoder

MAX_CATEGORIES, FEWEST_ROWS = 10_000, 2  # of a column; training rows that a category needs, rarer ones are unknown


class SmallColumns(Encoder):
    """Standardise each number, mark missing cells, then two hidden layers."""

    mean: Tensor
    std: Tensor

    @classmethod
    def choose_input(cls, values: Sequence[Mapping[str, Cell]], config: TrainConfig) -> ColumnsInput:  # noqa: ARG003
        """Take the columns in the order in which they first occur, and from the type of their cells what they are."""
        cells: dict[str, list[Any]] = {}
        for row in values:
            for name, cell in row.items():
                if not is_missing_cell(cell):
                    cells.setdefault(name, []).append(cell)
        return ColumnsInput(tuple(describe_column(name, given) for name, given in cells.items()))

    def __init__(self, spec: ColumnsInput, width: int, hidden: int = 128) -> None:
        """Build for the columns of an input."""
        super().__init__(spec, width)
        size = spec.shape[0]
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.body = nn.Sequential(
            nn.Linear(2 * size, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, width)
        )

    def measure(self, windows: Tensor) -> None:
        """Take mean and standard deviation of each number of (N, P) over the rows that have it."""
        values = np.ma.masked_invalid(windows.double().numpy())
        self.mean.copy_(torch.from_numpy(values.mean(0).filled(0.0)))
        std = torch.from_numpy(values.std(0).filled(1.0))
        self.std.copy_(torch.where(std > 0, std, 1.0))

    def forward(self, windows: Tensor) -> Tensor:
        """Encode (B, P) with NaN where a cell is missing."""
        missing = windows.isnan()
        scaled = ((windows - self.mean) / self.std).masked_fill(missing, 0.0).clamp(-10, 10)
        features: Tensor = self.body(torch.cat([scaled, missing.to(scaled.dtype)], dim=1))
        return features


def describe_column(name: str, cells: Sequence[Any]) -> Column:
    """Describe a column by its cells in training, none of them missing."""
    kind = _type_of(cells)
    if kind == "category":
        counts = Counter(str(cell).strip() for cell in cells)
        frequent = [value for value, count in counts.most_common(MAX_CATEGORIES) if count >= FEWEST_ROWS]
        return Column(name, kind, tuple(frequent))
    if kind == "yes_no":
        return Column(name, kind)
    numbers = np.array([(cell - EPOCH) / DAY for cell in cells] if kind == "date" else cells, dtype=np.float64)
    middle = float(np.median(numbers)) if kind == "number" else 0.0
    return Column(
        name, kind, (), float(numbers.min()), float(numbers.max()), middle, spread=float(numbers.std()) or 1.0
    )


def _type_of(cells: Sequence[Any]) -> ColumnType:
    """Return what the cells of a column are: whatever is not all numbers, all dates or all yes and no is a category."""
    if all(isinstance(cell, bool) for cell in cells):
        return "yes_no"
    if all(isinstance(cell, datetime.datetime) for cell in cells):
        return "date"
    numbers = all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells)
    return "number" if numbers else "category"
