"""The rows of a batch that belong to this process, and random numbers that do not depend on the number of processes.

Random numbers for rows are drawn for the whole batch, by every process alike; each process keeps those of its rows. So one
process and several draw the same numbers for the same rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class LocalRows:
    """Of `total` rows of a batch, this process has those at `positions`, (rows,) int64, ascending.

    fewest: no process has fewer rows of the batch than this.
    """

    positions: Tensor
    total: int
    fewest: int = 0

    @property
    def encoded(self) -> Tensor:
        """Positions of the rows that the encoder runs on.

        These are the rows of this process. Where it has none it encodes the first row of the batch, whose result is not
        used: every process must run the encoder, because synchronised batch normalisation waits for all.
        """
        return self.positions if len(self.positions) else torch.zeros(1, dtype=torch.int64)

    @property
    def weight(self) -> float:
        """Weight of a mean over this process's rows in the mean over all rows."""
        return len(self.positions) / self.total

    def first(self, count: int) -> LocalRows:
        """Return those among the first `count` rows of the batch."""
        fewest = max(0, self.fewest - (self.total - count))  # at least, and the same number in every process
        return LocalRows(self.positions[self.positions < count], count, fewest)

    def split(self, count: int) -> list[LocalRows]:
        """Split the rows of this process into `count` parts."""
        return [LocalRows(positions, self.total) for positions in self.positions.tensor_split(count)]

    def draw(self, draw: Callable[[int], Tensor]) -> Tensor:
        """Draw random numbers for these rows: `draw(n)` makes them for n rows."""
        return draw(self.total)[self.positions]

    @contextlib.contextmanager
    def encoding(self) -> Iterator[None]:
        """Make `draw_per_row` draw for these rows inside the block."""
        token = _ENCODED.set(self)
        try:
            yield
        finally:
            _ENCODED.reset(token)


_ENCODED: ContextVar[LocalRows | None] = ContextVar("encoded", default=None)


def draw_per_row(draw: Callable[[int], Tensor], rows: int) -> Tensor:
    """Draw for the rows that are being encoded, as one process with the whole batch would."""
    local = _ENCODED.get()
    if local is None or len(local.encoded) != rows:
        return draw(rows)
    drawn = draw(local.total)
    return drawn[local.encoded.to(drawn.device)]


class RowDropout(nn.Dropout):
    """Dropout whose mask is drawn for the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of (rows, ...)."""
        if not self.training or self.p in (0.0, 1.0):
            return super().forward(x)
        keep = 1 - self.p
        return x * draw_per_row(lambda n: x.new_empty(n, *x.shape[1:]).bernoulli_(keep).div_(keep), len(x))


def use_row_dropout(module: nn.Module) -> None:
    """Replace every nn.Dropout by RowDropout."""
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, RowDropout(child.p).train(child.training))
