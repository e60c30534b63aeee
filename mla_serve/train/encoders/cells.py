"""Cells of a row as layers, so that imputing, scaling and embedding are a part of the encoder's graph.

A missing cell is NaN. Every column has an input for that, so that a model learns what a missing cell says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mla_serve.train.distributed.local_rows import draw_per_row

BINS = 16
NARROWEST = 1e-6  # width of a bin relative to its edges: about what float32 tells apart
FARTHEST = 3.0  # standard deviations from the mean that the linear input of a number goes to


class Numbers(nn.Module):
    """Numbers (B, F) with NaN -> (B, F * (BINS + 2)): their piecewise-linear encoding, linearly, and whether missing.

    The encoding says of every bin between two quantiles of training how much of it lies below the number: -1 for nothing,
    1 for all. So the scale of a number does not matter, nor whether it is skewed. A missing number has zeros. Source:
    Gorishniy, Rubachev and Babenko, NeurIPS 2022, arXiv 2203.05556, section 3.1; they count from 0 to 1 and leave the first
    and the last bin open.
    """

    start: Tensor
    per_unit: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, count: int) -> None:
        """Make it for `count` numbers; `measure` sets the bins."""
        super().__init__()
        self.register_buffer("start", torch.zeros(count, BINS))
        self.register_buffer("per_unit", torch.zeros(count, BINS))
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("std", torch.ones(count))
        self.size = count * (BINS + 2)

    def measure(self, values: Tensor) -> None:
        """Set the bins, means and deviations by training values (N, F); a number that none of them has stays as it is."""
        for at, column in enumerate(values.double().cpu().numpy().T):
            if len(found := column[~np.isnan(column)]):
                starts, widths = _bins(found)
                self.start[at, : len(starts)] = torch.from_numpy(starts)
                self.per_unit[at, : len(starts)] = torch.from_numpy(1 / widths)
                self.mean[at], self.std[at] = float(found.mean()), float(found.std()) or 1.0

    def forward(self, values: Tensor) -> Tensor:
        """Encode numbers."""
        missing = values.isnan()
        filled = torch.where(missing, self.mean, values)
        below = ((filled[:, :, None] - self.start) * self.per_unit).clamp(0, 1)
        bins = torch.where(missing[:, :, None], 0.0, 2 * below - 1)
        linear = ((filled - self.mean) / self.std).clamp(-FARTHEST, FARTHEST)
        return torch.cat([bins.flatten(1), linear, missing.to(linear.dtype)], dim=1)


def _bins(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the bins start and how wide they are, at most BINS; none where all values are equal."""
    quantiles = np.quantile(values, np.linspace(0, 1, BINS + 1), method="nearest")
    edges = [quantiles[0]]
    for edge in quantiles[1:]:
        if edge - edges[-1] > max(NARROWEST * max(abs(edge), abs(edges[-1])), 1e-30):
            edges.append(edge)
    return np.array(edges[:-1]), np.diff(edges)


class Categories(nn.Module):
    """Indices of categories (B, F) with NaN -> (B, F * width): one learned embedding for each category of a column.

    Two more of each column are for an unknown category, whose index is the number of the known ones, and for a missing cell.
    """

    unknown: Tensor
    offset: Tensor

    def __init__(self, known: Sequence[int], width: int) -> None:
        """Make it for columns with so many known categories each."""
        super().__init__()
        rows = [count + 2 for count in known]
        self.register_buffer("unknown", torch.tensor(known, dtype=torch.float32))
        self.register_buffer("offset", torch.tensor([0, *np.cumsum(rows)[:-1].tolist()]))
        self.embed = nn.Embedding(sum(rows), width)
        self.size = len(known) * width

    def forward(self, values: Tensor) -> Tensor:
        """Look up the embeddings."""
        index = torch.where(values.isnan(), self.unknown + 1, torch.minimum(values.clamp_min(0), self.unknown))
        embedded: Tensor = self.embed(index.long() + self.offset)
        return embedded.flatten(1)


class CellDropout(nn.Module):
    """While training, empty random cells, and make random categories unknown, so that a model learns to do without.

    Each row loses a share of its cells that is drawn between 0 and twice the mean share.
    """

    cell_of: Tensor
    unknown: Tensor

    def __init__(self, cells: Sequence[slice], unknown: np.ndarray, missing: float = 0.1, unseen: float = 0.1) -> None:
        """Take where the numbers of each cell stand, what an unknown category is decoded into, and the mean shares."""
        super().__init__()
        self.missing, self.unseen = missing, unseen
        numbers = [at for at, cell in enumerate(cells) for _ in range(cell.stop - cell.start)]
        self.register_buffer("cell_of", torch.tensor(numbers), persistent=False)
        self.register_buffer("unknown", torch.from_numpy(unknown).float(), persistent=False)

    def forward(self, cells: Tensor) -> Tensor:
        """Return (B, P), unchanged when not training."""
        if not self.training:
            return cells
        drawn = draw_per_row(lambda n: torch.rand(n, 2 * len(self.cell_of) + 1), len(cells)).to(cells.device)
        share, empty, unseen = drawn.split([1, len(self.cell_of), len(self.cell_of)], dim=1)
        cells = torch.where((unseen < self.unseen) & ~self.unknown.isnan() & ~cells.isnan(), self.unknown, cells)
        return cells.masked_fill((empty < 2 * self.missing * share)[:, self.cell_of], torch.nan)
