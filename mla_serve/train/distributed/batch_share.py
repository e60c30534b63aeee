"""Which rows of a batch are this process's, and random numbers that do not depend on how many processes share it.

What is drawn for each row is drawn for the whole batch, by every process alike, and each keeps the part of its rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Share:
    """Of `total` rows of a batch, this process has those at the positions `at`, (rows,) int64, ascending."""

    at: Tensor
    total: int

    @property
    def lent(self) -> Tensor:
        """Which rows to run an encoder on: this process's, or the first, which does not count, where it has none."""
        return self.at if len(self.at) else torch.zeros(1, dtype=torch.int64)

    @property
    def weight(self) -> float:
        """What a mean over this process's rows weighs in the mean over all."""
        return len(self.at) / self.total

    def first(self, count: int) -> Share:
        """Return the share of the batch's first rows alone."""
        return Share(self.at[self.at < count], count)

    def draw(self, draw: Callable[[int], Tensor]) -> Tensor:
        """Draw a random number or more for each row: `draw(n)` makes them for n rows."""
        return draw(self.total)[self.at]

    @contextlib.contextmanager
    def encoding(self) -> Iterator[None]:
        """Make `per_row` draw for these rows in the block."""
        token = _SHARE.set(self)
        try:
            yield
        finally:
            _SHARE.reset(token)


_SHARE: ContextVar[Share | None] = ContextVar("share", default=None)


def per_row(draw: Callable[[int], Tensor], rows: int) -> Tensor:
    """Draw for the rows that are being encoded, as one process would that has the whole batch."""
    share = _SHARE.get()
    if share is None or len(share.lent) != rows:
        return draw(rows)
    drawn = draw(share.total)
    return drawn[share.lent.to(drawn.device)]


class RowDropout(nn.Dropout):
    """Dropout with the mask of the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop out of (rows, ...)."""
        if not self.training or self.p in (0.0, 1.0):
            return super().forward(x)
        keep = 1 - self.p
        return x * per_row(lambda n: x.new_empty(n, *x.shape[1:]).bernoulli_(keep).div_(keep), len(x))


def row_dropout(module: nn.Module) -> None:
    """Put RowDropout into the place of every nn.Dropout."""
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, RowDropout(child.p).train(child.training))
