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
from mla_serve.inputs.corruptions import LARGEST
from mla_serve.train.config import TrainConfig
from mla_serve.train.encoders.base import Encoder
from mla_serve.train.encoders.cells import Categories, CellDropout, Numbers

FASTER, EMBEDDINGS_FASTER = 3.0, 10.0  # times the learning rate; chosen on validation rows of small tables
FAR = 1000  # times their range: numbers so far from 0 are decoded as distances from their median
MAX_CATEGORIES, FEWEST_ROWS = 10_000, 2  # of a column; training rows that a category needs, rarer ones are unknown


class SmallColumns(Encoder):
    """Encode every number and category by itself (cells.py), then two hidden layers."""

    at_numbers: Tensor
    at_categories: Tensor

    @classmethod
    def choose_input(cls, values: Sequence[Mapping[str, Cell]], config: TrainConfig) -> ColumnsInput:  # noqa: ARG003
        """Take the columns in the order of the fullest row, and from the type of their cells what they are."""
        cells: dict[str, list[Any]] = {}
        for row in sorted(values, key=len, reverse=True):
            for name, cell in row.items():
                if not is_missing_cell(cell):
                    cells.setdefault(name, []).append(cell)
        return ColumnsInput(tuple(describe_column(name, given) for name, given in cells.items()))

    def __init__(self, spec: ColumnsInput, width: int, hidden: int = 256, embedding: int = 8) -> None:
        """Build for the columns of an input."""
        super().__init__(spec, width)
        known = {spec.slices[one.name].start: len(one.values) for one in spec.columns if one.type == "category"}
        numbers = [at for at in range(spec.shape[0]) if at not in known]
        self.register_buffer("at_numbers", torch.tensor(numbers, dtype=torch.int64), persistent=False)
        self.register_buffer("at_categories", torch.tensor([*known], dtype=torch.int64), persistent=False)
        self.drop_cells = CellDropout([*spec.slices.values()], spec.layout.unknown)
        self.numbers = Numbers(len(numbers)) if numbers else None
        self.categories = Categories([*known.values()], embedding) if known else None
        size = sum(part.size for part in (self.numbers, self.categories) if part)
        self.body = nn.Sequential(
            nn.Linear(size, hidden),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(hidden, width),
        )

    def measure(self, windows: Tensor) -> None:
        """Set the bins of the numbers by training rows (N, P)."""
        if self.numbers:
            self.numbers.measure(windows.index_select(1, self.at_numbers))

    def relative_learning_rates(self) -> Mapping[int, float]:
        """Let this encoder learn faster than those of pictures and sounds, and embeddings, which few rows move, faster still."""
        rates = {id(parameter): FASTER for parameter in self.parameters()}
        return rates | ({id(self.categories.embed.weight): FASTER * EMBEDDINGS_FASTER} if self.categories else {})

    def forward(self, windows: Tensor) -> Tensor:
        """Encode (B, P) with NaN where a cell is missing."""
        cells = self.drop_cells(windows)
        parts = [self.numbers(cells.index_select(1, self.at_numbers))] if self.numbers else []
        parts += [self.categories(cells.index_select(1, self.at_categories))] if self.categories else []
        features: Tensor = self.body(torch.cat(parts, dim=1))
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
    numbers = numbers.clip(-LARGEST, LARGEST)  # as they are decoded; the spread of larger ones is infinite
    low, high, spread = float(numbers.min()), float(numbers.max()), float(numbers.std()) or 1.0
    is_far = kind == "number" and max(abs(low), abs(high)) > FAR * (high - low)
    middle = float(np.median(numbers)) if kind == "number" else 0.0
    return Column(name, kind, (), low, high, middle, spread, origin=middle if is_far else 0.0)


def _type_of(cells: Sequence[Any]) -> ColumnType:
    """Return what the cells of a column are: whatever is not all numbers, all dates or all yes and no is a category."""
    if all(isinstance(cell, bool) for cell in cells):
        return "yes_no"
    if all(isinstance(cell, datetime.datetime) for cell in cells):
        return "date"
    numbers = all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells)
    return "number" if numbers else "category"
